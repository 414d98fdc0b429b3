//! Floods of one node: more handshakes, half-open connections or bad tokens than devices would ever bring.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use crate::run::node::PORT;
use crate::run::part::Part;
use crate::run::plan::FloodOf;
use crate::run::world::World;

const HALF_OPEN: usize = 1_000;
const BAD_TOKENS_A_SECOND: u64 = 300;
const ANSWER: Duration = Duration::from_secs(5);

const BEGUN: &[u8] = b"GET /ws HTTP/1.1\r\nHost: lastpong\r\nUpgrade: websocket\r\nConnection: Upgr";
const BAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: lastpong\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.bm90LWEtc2lnbmF0dXJl\r\n\r\n";

/// Floods it for so long.
///
/// # Errors
/// Where the swarm that does so can not be run.
pub async fn flood(
    world: &World,
    node: Part,
    what: FloodOf,
    number: u32,
    lasts: Duration,
) -> anyhow::Result<()> {
    match what {
        FloodOf::Handshakes => handshakes(world, node, number, lasts).await,
        FloodOf::HalfOpen => {
            half_open(node, lasts).await;
            Ok(())
        }
        FloodOf::BadTokens => {
            bad_tokens(node, lasts).await;
            Ok(())
        }
    }
}

/// Good tokens of devices that are seen at no other time. They record what they saw, as all devices do.
async fn handshakes(world: &World, node: Part, number: u32, lasts: Duration) -> anyhow::Result<()> {
    let mut swarm = world.devices(&[node]).flood(number);
    swarm.start_as(&format!("flood-{number}"))?;
    sleep(lasts).await;
    swarm.leave().await
}

/// Requests that are begun and never ended.
async fn half_open(node: Part, lasts: Duration) {
    let mut connecting = JoinSet::new();
    for _ in 0..HALF_OPEN {
        connecting.spawn(async move {
            let mut stream = timeout(ANSWER, TcpStream::connect((node.ip(), PORT))).await.ok()?.ok()?;
            stream.write_all(BEGUN).await.ok()?;
            Some(stream)
        });
    }
    let until = Instant::now() + lasts;
    let held = connecting.join_all().await;
    sleep_until(until).await;
    drop(held);
}

async fn bad_tokens(node: Part, lasts: Duration) {
    let until = Instant::now() + lasts;
    let mut every = interval(Duration::from_secs(1) / BAD_TOKENS_A_SECOND as u32);
    let mut asking = JoinSet::new();
    while Instant::now() < until {
        every.tick().await;
        asking.spawn(timeout(ANSWER, async move {
            let mut stream = TcpStream::connect((node.ip(), PORT)).await?;
            stream.write_all(BAD).await?;
            stream.read_u8().await
        }));
        // What it answers is no matter: a node under a fault may not answer at all.
        while asking.try_join_next().is_some() {}
    }
    while asking.join_next().await.is_some() {}
}
