//! The end of a run: everything rests, is written down, and is stopped in order.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::faults::STOP;
use super::node::{LEASE, PING_INTERVAL};
use super::part::Part;
use super::record::{About, Lines};
use super::subscriber::{Subscribers, entries};
use super::world::World;

const PATIENCE: Duration = Duration::from_secs(90);
/// Of a hundred devices that stay so many are there at any time; some lose pongs, or were just ended by an operator.
const STAYERS: u64 = 97;
const LOOK: Duration = Duration::from_millis(500);

const STARTED: &str = "lastpong.session.connected.v1";
const ENDED: &str = "lastpong.session.disconnected.v1";

/// From the last fault's end to the log's last event on file.
///
/// # Errors
/// Where the installation can not be asked.
pub async fn finish(
    world: &World,
    about: &About,
    subscribers: Subscribers,
    out: &Path,
) -> anyhow::Result<()> {
    ensure!(
        world.become_whole(PATIENCE).await,
        "not every node became whole again after all faults were healed"
    );
    about.reached("quiet_at")?;
    eprintln!("chaos: all is healed; waiting for the devices to return");
    rest(world).await?;
    live(world, out).await?;
    about.reached("left_at")?;
    for swarm in &world.swarms {
        world.troubles.note(swarm.lock().await.leave().await);
    }
    eprintln!("chaos: the devices have left");
    let mut log = Log::create(out)?;
    settle(world, &mut log).await?;
    catch_up(world, &mut log, &subscribers).await?;
    drop(subscribers);
    log.pull(world).await?;
    if world.redis.is_some() {
        stream(out).await?;
    }
    about.reached("ended_at")?;
    stop(world).await;
    world.heed_alarms().await;
    tokio::task::block_in_place(|| panics(world, out))
}

/// Waits until the devices that stay have come back, has those that come and go leave, and lets the others be for a while.
async fn rest(world: &World) -> anyhow::Result<()> {
    if let Err(present) = stayers_are_there(world, PATIENCE).await {
        world.troubles.add(format!("{present} returned in {PATIENCE:?}"));
    }
    world.troubles.note(world.swarm(Part::Swarm('b'))?.lock().await.leave().await);
    sleep(PING_INTERVAL * 3).await;
    Ok(())
}

/// Waits until nearly all devices that are to stay are live; says how many are.
///
/// # Errors
/// The same, where that takes too long.
pub async fn stayers_are_there(world: &World, patience: Duration) -> Result<String, String> {
    let deadline = Instant::now() + patience;
    loop {
        let (mut present, mut due) = (0, 0);
        for part in [Part::Swarm('a'), Part::Swarm('c')] {
            due += world.swarm(part).map_err(|e| e.to_string())?.lock().await.devices;
            present += live_of(world, part).await;
        }
        let told = format!("{present} of {due} devices that stay");
        match present {
            _ if present * 100 >= u64::from(due) * STAYERS => return Ok(told),
            _ if Instant::now() > deadline => return Err(told),
            _ => sleep(LOOK).await,
        }
    }
}

/// How many devices of this swarm have a live session.
async fn live_of(world: &World, swarm: Part) -> u64 {
    let prefix = format!("{swarm}-");
    let mut devices = BTreeSet::new();
    for node in world.node_parts() {
        let take = |item: &Value| {
            let device = item["device_id"].as_str().filter(|device| device.starts_with(&prefix));
            devices.extend(device.map(str::to_owned));
            Ok(())
        };
        // A node that does not answer now is asked again.
        let _ = each_live(world, node, take).await;
    }
    devices.len() as u64
}

/// How many sessions are live.
pub async fn total(world: &World) -> u64 {
    let mut sum = 0;
    for node in world.node_parts() {
        let path = format!("/debug/connections?node={node}&limit=1");
        sum += world.api.json(node, &path).await.ok().and_then(|list| list["total"].as_u64()).unwrap_or(0);
    }
    sum
}

/// Every live session, as each node tells of its own.
async fn live(world: &World, out: &Path) -> anyhow::Result<()> {
    let lines = Lines::create(&out.join("live.jsonl"))?;
    for node in world.node_parts() {
        let take = |item: &Value| {
            let [session, device, state] = ["session_id", "device_id", "state"].map(|field| &item[field]);
            let line = json!({"node": node, "session_id": session, "device_id": device, "state": state});
            Ok(lines.write(line)?)
        };
        each_live(world, node, take).await?;
    }
    Ok(())
}

/// Gives each live session of a node to `take`.
async fn each_live(
    world: &World,
    node: Part,
    mut take: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let path = format!("/debug/connections?node={node}&limit=1000{cursor}");
        let list = world.api.json(node, &path).await?;
        list["items"].as_array().into_iter().flatten().try_for_each(&mut take)?;
        match list["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
}

/// The log, read on and on into its file.
struct Log {
    lines: Lines,
    last: i64,
    open: BTreeSet<String>,
}

impl Log {
    fn create(out: &Path) -> anyhow::Result<Self> {
        Ok(Self { lines: Lines::create(&out.join("log.jsonl"))?, last: 0, open: BTreeSet::new() })
    }

    /// Reads what is new. Says how many there were.
    async fn pull(&mut self, world: &World) -> anyhow::Result<usize> {
        let mut read = 0;
        loop {
            let path = format!("/v1/events?after={}&limit=1000", self.last);
            let page = world.api.json(Part::Node(1), &path).await?;
            let events =
                page["events"].as_array().with_context(|| format!("a page without events: {page}"))?;
            if events.is_empty() {
                return Ok(read);
            }
            read += events.len();
            for event in events {
                self.lines.write_bare(event)?;
                self.last = event["data"]["seq"]
                    .as_i64()
                    .with_context(|| format!("an event without a seq: {event}"))?;
                let session = event["data"]["session_id"].as_str().unwrap_or_default();
                match event["type"].as_str() {
                    Some(STARTED) => _ = self.open.insert(session.to_owned()),
                    Some(ENDED) => _ = self.open.remove(session),
                    _ => {}
                }
            }
        }
    }
}

/// Waits until no session is live and each that started has its end; or for long enough: then the checker judges.
async fn settle(world: &World, log: &mut Log) -> anyhow::Result<()> {
    let deadline = Instant::now() + LEASE + PATIENCE;
    loop {
        log.pull(world).await?;
        let live = total(world).await;
        if log.open.is_empty() && live == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            eprintln!(
                "chaos: {live} sessions are live and {} have no end, long after all left",
                log.open.len()
            );
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Waits until every subscriber has seen the log's end; or for long enough.
async fn catch_up(world: &World, log: &mut Log, subscribers: &Subscribers) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let new = log.pull(world).await?;
        let behind = subscribers.behind(log.last);
        if behind.is_empty() && new == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            eprintln!("chaos: not at the log's end, {}: {}", log.last, behind.join(", "));
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

async fn stream(out: &Path) -> anyhow::Result<()> {
    let lines = Lines::create(&out.join("stream.jsonl"))?;
    for (entry, fields) in entries().await? {
        let mut line: Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        if let Some(Value::String(text)) = line.remove("event") {
            let event = serde_json::from_str(&text).with_context(|| format!("entry {entry}: {text}"))?;
            line.insert("event".to_owned(), event);
        }
        line.insert("entry".to_owned(), Value::String(entry));
        lines.write_bare(&Value::Object(line))?;
    }
    Ok(())
}

async fn stop(world: &World) {
    for node in &world.nodes {
        world.troubles.note(node.lock().await.stop(STOP).await);
    }
    if let Some(redis) = &world.redis {
        redis.lock().await.stop().await;
    }
    if let Some(postgres) = &world.postgres {
        postgres.lock().await.stop().await;
    }
}

/// A panic is a fault of the program, whether or not a promise was broken by it.
fn panics(world: &World, out: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(out.join("nodes"))? {
        let path = entry?.path();
        let said = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
            world.troubles.add(format!("{}: {line}", path.display()));
        }
    }
    Ok(())
}
