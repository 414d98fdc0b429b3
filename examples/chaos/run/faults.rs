//! Brings about what the schedule says, heals it, and writes down both.
//!
//! The line of a begin is written before anything is done, `healed` as soon as the cause is gone, and that of an end once
//! whom it hit is well again: whatever a fault may explain happened between the first and the last. A node that does
//! not get well is a failure of the run.

mod flood;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::part::Part;
use super::plan::{Detail, Fault, Kind, Planned};
use super::world::World;

/// How long whom it hit may take to be well again while nothing else is wrong.
const RECOVERY: Duration = Duration::from_secs(30);

/// How long a node may take to end when it is told to.
pub const STOP: Duration = Duration::from_secs(60);

/// Brings about all of it. Ends when all is healed.
pub async fn all(world: &Arc<World>, plan: Vec<Planned>) {
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for planned in plan {
        sleep_until(begin + planned.at).await;
        let world = world.clone();
        running.spawn(async move { one(&world, &planned, begin).await });
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            world.troubles.add(format!("a fault could not be followed to its end: {error}"));
        }
    }
}

async fn one(world: &World, planned: &Planned, begin: Instant) {
    let (number, fault) = (planned.number, &planned.fault);
    let say = |what: &str| eprintln!("{:>7.1} s  {what} {number}: {fault}", begin.elapsed().as_secs_f64());
    let Some(_claims) = world.claim(&fault.claims()).await else {
        return say("left out");
    };
    // One drain after another, each counted from when it is its turn.
    let _turn = if fault.kind == Kind::Drain { Some(world.draining.lock().await) } else { None };
    let mut line = json!(fault);
    (line["is"], line["fault"]) = (json!("begin"), json!(number));
    let note = |line| world.troubles.note(world.faults.write(line).map_err(Into::into));
    say("begin");
    if note(line).is_none() {
        return;
    }
    world.ails.begin(number, fault);
    world.troubles.note(bring(world, planned).await);
    note(json!({"is": "healed", "fault": number}));
    world.ails.healed(number);
    say("heal ");
    if let Err(node) = world.recovers(&concerned(world, fault), RECOVERY).await {
        let trouble = format!("{node} is not whole {RECOVERY:?} after fault {number} ({fault}) was healed");
        world.troubles.add(trouble);
    }
    note(json!({"is": "end", "fault": number}));
    world.ails.end(number);
    say("end  ");
}

/// The nodes that have to be well again for a fault to be over.
fn concerned(world: &World, fault: &Fault) -> Vec<Part> {
    let nodes: Vec<_> = fault.whom.iter().copied().filter(|part| part.is_node()).collect();
    match fault.whom.iter().any(|part| part.is_store()) && nodes.is_empty() {
        true => world.node_parts(),
        false => nodes,
    }
}

async fn bring(world: &World, planned: &Planned) -> anyhow::Result<()> {
    let (fault, lasts) = (&planned.fault, planned.lasts);
    match fault.kind {
        Kind::Cut | Kind::Slow | Kind::Lossy => return packets(world, planned).await,
        Kind::Load => return load(world, lasts).await,
        _ => {}
    }
    for part in &fault.whom {
        match part {
            Part::Node(_) => node(world, *part, planned).await?,
            Part::Postgres => postgres(world, fault, lasts).await?,
            Part::Redis => redis(world, fault.kind, lasts).await?,
            Part::Swarm(_) => swarm(world, *part, fault.kind, lasts).await?,
            Part::Devices | Part::Runner => {
                bail!("{} of {part} is nothing that can be done", fault.kind.name())
            }
        }
    }
    Ok(())
}

async fn node(world: &World, part: Part, planned: &Planned) -> anyhow::Result<()> {
    let (node, lasts) = (world.node(part)?, planned.lasts);
    match (planned.fault.kind, planned.fault.detail) {
        (Kind::Kill, _) => {
            node.lock().await.kill();
            sleep(lasts).await;
            node.lock().await.start()
        }
        (Kind::Stop, _) => {
            node.lock().await.signal(Signal::STOP);
            sleep(lasts).await;
            node.lock().await.signal(Signal::CONT);
            Ok(())
        }
        (Kind::Drain, _) => {
            let mut node = node.lock().await;
            let stopped = node.stop(STOP).await;
            sleep(lasts).await;
            node.start()?;
            stopped
        }
        (Kind::Full, _) => {
            let full = node.lock().await.disk.fill();
            sleep(lasts).await;
            node.lock().await.disk.free()?;
            full
        }
        (Kind::Clock, Detail::Jump { by_s }) => {
            let jump = async |by_s| node.lock().await.clock.as_ref().map_or(Ok(()), |clock| clock.set(by_s));
            jump(by_s).await?;
            sleep(lasts).await;
            jump(0).await
        }
        (Kind::Flood, Detail::Flood { what }) => flood::flood(world, part, what, planned.number, lasts).await,
        (kind, _) => bail!("{} of {part} is nothing that can be done", kind.name()),
    }
}

async fn postgres(world: &World, fault: &Fault, lasts: Duration) -> anyhow::Result<()> {
    let postgres = world.postgres()?;
    match (fault.kind, fault.detail) {
        (Kind::Kill, _) => {
            postgres.lock().await.kill().await;
            sleep(lasts).await;
            postgres.lock().await.run().await
        }
        (Kind::Stop, _) => {
            postgres.lock().await.stall().await;
            sleep(lasts).await;
            postgres.lock().await.resume();
            Ok(())
        }
        (Kind::ReadOnly, _) => {
            let begun = postgres.lock().await.read_only(true).await;
            sleep(lasts).await;
            postgres.lock().await.read_only(false).await?;
            begun
        }
        (Kind::Full, _) => {
            let full = postgres.lock().await.disk.fill();
            sleep(lasts).await;
            let mut postgres = postgres.lock().await;
            postgres.disk.free()?;
            // Without room for its log it may have given up.
            postgres.run().await?;
            full
        }
        (Kind::Clock, Detail::Jump { by_s }) => {
            let jump =
                async |by_s| postgres.lock().await.clock.as_ref().map_or(Ok(()), |clock| clock.set(by_s));
            jump(by_s).await?;
            sleep(lasts).await;
            jump(0).await
        }
        (kind, _) => bail!("{} of postgres is nothing that can be done", kind.name()),
    }
}

async fn redis(world: &World, kind: Kind, lasts: Duration) -> anyhow::Result<()> {
    let redis = world.redis()?;
    match kind {
        Kind::Kill => {
            redis.lock().await.kill();
            sleep(lasts).await;
            redis.lock().await.run().await
        }
        Kind::Stop => {
            redis.lock().await.signal(Signal::STOP);
            sleep(lasts).await;
            redis.lock().await.signal(Signal::CONT);
            Ok(())
        }
        Kind::ReadOnly => {
            redis.lock().await.read_only(true).await?;
            sleep(lasts).await;
            redis.lock().await.read_only(false).await
        }
        Kind::Full => {
            redis.lock().await.full(true).await?;
            sleep(lasts).await;
            redis.lock().await.full(false).await
        }
        Kind::Emptied => {
            redis.lock().await.empty().await?;
            sleep(lasts).await;
            Ok(())
        }
        _ => bail!("{} of redis is nothing that can be done", kind.name()),
    }
}

async fn swarm(world: &World, part: Part, kind: Kind, lasts: Duration) -> anyhow::Result<()> {
    let swarm = world.swarm(part)?;
    match kind {
        Kind::Stop => {
            swarm.lock().await.signal(Signal::STOP);
            sleep(lasts).await;
            swarm.lock().await.signal(Signal::CONT);
            Ok(())
        }
        Kind::Drop => {
            swarm.lock().await.kill();
            sleep(lasts).await;
            swarm.lock().await.start()
        }
        _ => bail!("{} of {part} is nothing that can be done", kind.name()),
    }
}

async fn packets(world: &World, planned: &Planned) -> anyhow::Result<()> {
    let (ways, number) = (&planned.fault.ways, planned.number);
    // Healed even where only a part of it could be brought about.
    let step = |begin: bool| -> anyhow::Result<()> {
        ways.iter().try_for_each(|way| match planned.fault.detail {
            Detail::Rate { kbit } => {
                // Each way is a class of its own.
                let class = (number % 1_000) * 64 + ways.iter().position(|w| w == way).unwrap_or(0) as u32;
                world.net.narrow(*way, class, begin.then_some(kbit))
            }
            Detail::Share { share } => world.net.lose(*way, share, begin),
            _ => world.net.lose(*way, 1.0, begin),
        })
    };
    let begun = tokio::task::block_in_place(|| step(true));
    sleep(planned.lasts).await;
    tokio::task::block_in_place(|| step(false))?;
    begun
}

/// Keeps every core busy.
async fn load(world: &World, lasts: Duration) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut busy = Vec::new();
    for _ in 0..cores {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        busy.push(world.net.spawn(Part::Devices, command)?);
    }
    sleep(lasts).await;
    for mut child in busy {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
