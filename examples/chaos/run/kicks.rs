//! An operator who now and then ends a live session, whatever else goes on.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::world::World;

const PATIENCE: Duration = Duration::from_secs(10);

/// Kicks for ever.
pub async fn kicks(world: &World, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6b69_636b);
    let nodes = world.node_parts();
    loop {
        sleep(Duration::from_millis(rng.random_range(4_000..12_000))).await;
        // Of one node, asked of another or the same.
        let (Some(holder), Some(asked)) = (nodes.choose(&mut rng), nodes.choose(&mut rng)) else { return };
        let path = format!("/debug/connections?node={holder}&limit=100");
        let Ok(list) = world.api.json(*holder, &path).await else { continue };
        let Some(item) = list["items"].as_array().and_then(|items| items.choose(&mut rng)) else { continue };
        let Some(session) = item["session_id"].as_str() else { continue };
        let tell = |status: Value| {
            let line =
                json!({"is": "kick", "session": session, "node": holder, "asked": asked, "status": status});
            world.troubles.note(world.operator.write(line).map_err(Into::into));
        };
        tell(Value::Null);
        let request = world.api.request(Method::DELETE, *asked, &format!("/v1/sessions/{session}"));
        match request.timeout(PATIENCE).send().await {
            Ok(answer) => tell(json!(answer.status().as_u16())),
            // It may have been done all the same.
            Err(_) => tell(Value::Null),
        }
    }
}
