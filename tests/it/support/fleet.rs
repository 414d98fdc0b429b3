//! Thousands of devices in one process, each on a bare socket, each answering its pings.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::raw::{Ask, CLOSE, PING, PONG};
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
    /// Close codes seen, 0 for an end without one.
    ended: Mutex<Vec<u16>>,
}

/// The devices; all are dropped with it.
pub struct Fleet {
    log: Arc<Log>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Sets `count` devices on their way; `PREFIX-0` and so on are their names.
    pub fn launch(server: &Server, prefix: &str, count: usize) -> Self {
        let log = Arc::new(Log::default());
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            tasks.spawn(live(server.addr, format!("{prefix}-{n}"), gate.clone(), log.clone()));
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

    /// The close codes of those that ended, 0 where there was none.
    pub fn ended(&self) -> Vec<u16> {
        self.log.ended.lock().expect("no device panicked").clone()
    }

    /// Waits until every device has ended or given up.
    pub async fn all_ended(&mut self) {
        super::within("all devices to end", async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

async fn live(addr: SocketAddr, device_id: String, gate: Arc<Semaphore>, log: Arc<Log>) {
    let turn = gate.acquire().await.expect("the gate stays open");
    // A server that is killed meanwhile refuses, resets or falls silent: such a device was never welcome.
    let Ok(Ok(mut raw)) = Ask::with_token(&token(&device_id)).send(addr).await else { return };
    let Ok(Some(first)) = raw.next().await else { return };
    let welcome: Value = serde_json::from_slice(&first.payload).expect("a welcome is JSON");
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    log.welcomed.lock().expect("no device panicked").push(Welcomed {
        device_id,
        session_id: welcome["session_id"].as_str().expect("a session id").to_owned(),
        device_seq: welcome["device_seq"].as_i64().expect("a device_seq"),
    });
    drop(turn);
    let code = loop {
        match raw.next().await {
            Ok(Some(ping)) if ping.opcode == PING => {
                if raw.send(PONG, &ping.payload).await.is_err() {
                    break 0;
                }
                log.pongs.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(close)) if close.opcode == CLOSE => {
                let _ = raw.send(CLOSE, &close.payload).await;
                break close.close_code().unwrap_or(0);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break 0,
        }
    };
    log.ended.lock().expect("no device panicked").push(code);
}
