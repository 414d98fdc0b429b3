//! The row `snapshot`: what looking at a million sessions of one worker costs, and for how long it holds the loop.
//!
//! The longest step is what a tick may have to wait for. It is seen by a task on the same loop that does nothing but
//! come back to itself: the longest time it was not let run, with ticks alone and while a snapshot is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use lastpong::supervisor::snapshot::SessionView;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::lap::{Lap, Stopwatch, ms};
use super::node::Node;
use super::{Report, Size};
use crate::measure::memory;

/// How long the ticks are looked at alone.
const ALONE: Duration = Duration::from_secs(2);
/// Until the snapshot of the round before is not fresh any more.
const STALE: Duration = Duration::from_millis(300);

pub async fn run(size: Size, report: &mut Report<'_>) -> anyhow::Result<()> {
    report.progress(&format!("snapshot: {} sessions on one worker", size.sessions));
    let before = memory(std::process::id())?.pss;
    let node = Node::start(1, size.sessions).await?;
    let held = memory(std::process::id())?.pss.saturating_sub(before) as f64 / size.sessions as f64;
    for round in 1..=size.rounds {
        let ticks = Probe::start(&node);
        tokio::time::sleep(ALONE).await;
        let ticks = ticks.stop().await?;
        let mut figures = looked(&node, size.sessions).await?;
        figures.insert("core_bytes_per_session".into(), json!(held.round()));
        figures.insert("longest_step_of_ticks_ms".into(), json!(ms(ticks.cpu)));
        report.line("snapshot", round, size.sessions, figures)?;
        tokio::time::sleep(STALE).await;
    }
    Ok(())
}

/// Takes a snapshot, and another in its place: what it takes to let go of the first is part of the second.
async fn looked(node: &Node, sessions: usize) -> anyhow::Result<Map<String, Value>> {
    let watch = Stopwatch::start();
    let probe = Probe::start(node);
    let seen: usize = look(node).await?;
    let took = watch.lap().wall;
    anyhow::ensure!(seen == sessions, "the snapshot holds {seen} sessions of {sessions}");
    tokio::time::sleep(STALE).await;
    look(node).await?;
    let longest = probe.stop().await?;
    Ok(super::members(json!({
        "snapshot_ms": ms(took),
        "longest_step_ms": ms(longest.cpu),
        "longest_step_wall_ms": ms(longest.wall),
        "snapshot_bytes_per_session": size_of::<SessionView>(),
    })))
}

/// Waits for a whole snapshot: a worker that takes longer than the inspector's patience shows its last until then.
async fn look(node: &Node) -> anyhow::Result<usize> {
    let asked = lastpong::time::Mono::now();
    for _ in 0..60 {
        let snapshots = node.inspector.look().await;
        if let Some(fresh) = snapshots.iter().find(|snapshot| snapshot.taken >= asked) {
            return Ok(fresh.sessions.len());
        }
    }
    anyhow::bail!("no snapshot came in 60 s")
}

/// A task that tells the longest time for which its thread did something else.
struct Probe {
    stop: Arc<AtomicBool>,
    longest: oneshot::Receiver<Lap>,
}

impl Probe {
    fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, longest) = oneshot::channel();
        let stopped = stop.clone();
        node.workers[0].arbiter.spawn(async move {
            let mut longest = Lap::default();
            while !stopped.load(Relaxed) {
                let watch = Stopwatch::start();
                tokio::task::yield_now().await;
                longest = longest.max(watch.lap());
            }
            let _ = tell.send(longest);
        });
        Self { stop, longest }
    }

    async fn stop(self) -> anyhow::Result<Lap> {
        self.stop.store(true, Relaxed);
        self.longest.await.context("the worker's thread died")
    }
}
