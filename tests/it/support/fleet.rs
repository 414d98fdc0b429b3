//! Thousands of devices in one process, each on a bare socket, each answering its pings.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::raw::{Ask, CLOSE, Frame, PING, PONG, Raw};
use super::{Server, eventually, token};

/// How many handshakes are under way at once, so that the listener's backlog is not what is tested.
const CONNECTING: usize = 200;

/// What one device was told when it was let in.
#[derive(Debug, Clone)]
pub struct Welcomed {
    pub device_id: String,
    pub session_id: String,
    pub device_seq: i64,
}

#[derive(Default)]
struct Log {
    welcomed: Mutex<Vec<Welcomed>>,
    pongs: AtomicU64,
    heartbeats: AtomicU64,
    /// Close codes that the welcomed saw, 0 for an end without one.
    ended: Mutex<Vec<u16>>,
    /// The same of those that were let in and ended before their welcome.
    unwelcomed: Mutex<Vec<u16>>,
}

/// The devices; all are dropped with it.
pub struct Fleet {
    log: Arc<Log>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Sets `count` devices on their way; `PREFIX-0` and so on are their names.
    pub fn launch(server: &Server, prefix: &str, count: usize) -> Self {
        Self::send_off(server, prefix, count, None)
    }

    /// The same; each also sends an application heartbeat so often.
    pub fn launch_talking(server: &Server, prefix: &str, count: usize, every: Duration) -> Self {
        Self::send_off(server, prefix, count, Some(every))
    }

    fn send_off(server: &Server, prefix: &str, count: usize, talk: Option<Duration>) -> Self {
        let log = Arc::new(Log::default());
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            tasks.spawn(live(server.addr, format!("{prefix}-{n}"), talk, gate.clone(), log.clone()));
        }
        Self { log, tasks }
    }

    /// The same, and waits until all are welcome.
    pub async fn hold(server: &Server, prefix: &str, count: usize) -> Self {
        let fleet = Self::launch(server, prefix, count);
        fleet.wait_welcomed(count).await;
        fleet
    }

    pub async fn wait_welcomed(&self, count: usize) {
        eventually(&format!("{count} welcomes"), async || (self.welcomed_count() >= count).then_some(()))
            .await;
    }

    pub fn welcomed_count(&self) -> usize {
        self.log.welcomed.lock().expect("no device panicked").len()
    }

    pub fn welcomed(&self) -> Vec<Welcomed> {
        self.log.welcomed.lock().expect("no device panicked").clone()
    }

    /// Pongs sent by all of them together.
    pub fn pongs(&self) -> u64 {
        self.log.pongs.load(Ordering::Relaxed)
    }

    /// Application heartbeats sent by all of them together.
    pub fn heartbeats(&self) -> u64 {
        self.log.heartbeats.load(Ordering::Relaxed)
    }

    /// The close codes of those that were let in and ended before their welcome, 0 where there was none.
    pub fn unwelcomed(&self) -> Vec<u16> {
        self.log.unwelcomed.lock().expect("no device panicked").clone()
    }

    /// The close codes of the welcomed that ended, 0 where there was none.
    pub fn ended(&self) -> Vec<u16> {
        self.log.ended.lock().expect("no device panicked").clone()
    }

    /// Waits until every device has ended or given up.
    pub async fn all_ended(&mut self) {
        super::within("all devices to end", async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

async fn live(
    addr: SocketAddr,
    device_id: String,
    talk: Option<Duration>,
    gate: Arc<Semaphore>,
    log: Arc<Log>,
) {
    let turn = gate.acquire().await.expect("the gate stays open");
    // A server that is killed meanwhile refuses, resets or falls silent: such a device was never welcome.
    let Ok(Ok(mut raw)) = Ask::with_token(&token(&device_id)).send(addr).await else { return };
    let first = match raw.next().await {
        Ok(Some(first)) if first.opcode != CLOSE => first,
        other => {
            let code = other.ok().flatten().and_then(|close| close.close_code()).unwrap_or(0);
            return log.unwelcomed.lock().expect("no device panicked").push(code);
        }
    };
    let welcome: Value = serde_json::from_slice(&first.payload).expect("a welcome is JSON");
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    log.welcomed.lock().expect("no device panicked").push(Welcomed {
        device_id,
        session_id: welcome["session_id"].as_str().expect("a session id").to_owned(),
        device_seq: welcome["device_seq"].as_i64().expect("a device_seq"),
    });
    drop(turn);
    let code = stay(&mut raw, talk, &log).await;
    log.ended.lock().expect("no device panicked").push(code);
}

/// Answers, and talks, to the end; gives its code, 0 where there is none.
async fn stay(raw: &mut Raw, talk: Option<Duration>, log: &Log) -> u16 {
    let mut beat = tokio::time::interval(talk.unwrap_or(Duration::MAX));
    // A device that was late does not make up for it: that would be haste.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = raw.next() => next,
            _ = beat.tick(), if talk.is_some() => {
                if raw.text(r#"{"type":"heartbeat","id":"1"}"#).await.is_err() {
                    return 0;
                }
                log.heartbeats.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        match next {
            Ok(Some(Frame { opcode: PING, payload, .. })) => {
                if raw.send(PONG, &payload).await.is_err() {
                    return 0;
                }
                log.pongs.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(close)) if close.opcode == CLOSE => {
                let _ = raw.send(CLOSE, &close.payload).await;
                return close.close_code().unwrap_or(0);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return 0,
        }
    }
}
