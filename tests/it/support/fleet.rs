//! Thousands of devices in one process, each on a bare socket, each answering its pings.
//!
//! They stay where they are and end with their session; those that roam come back as a device should: after a close
//! code that lets them, or none, after a short while, to the next address they know.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::raw::{Ask, CLOSE, Frame, PING, PONG, Raw};
use super::{Server, eventually, token};

/// How many handshakes are under way at once, so that the listener's backlog is not what is tested.
const CONNECTING: usize = 200;

/// How long a roaming device waits for its welcome before it tries elsewhere: longer than a store may hang.
const TRIES: Duration = Duration::from_secs(10);

/// What one device was told when it was let in.
#[derive(Debug, Clone)]
pub struct Welcomed {
    pub device_id: String,
    pub session_id: String,
    /// Not known yet where the start is in the node's journal.
    pub device_seq: Option<i64>,
    pub node_id: String,
}

impl Welcomed {
    pub fn read(device_id: String, welcome: &Value) -> Self {
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let text = |name: &str| welcome[name].as_str().unwrap_or_else(|| panic!("no {name}: {welcome}"));
        let device_seq = &welcome["device_seq"];
        assert!(device_seq.is_null() || device_seq.as_i64() > Some(0), "{welcome}");
        Self {
            device_id,
            session_id: text("session_id").to_owned(),
            device_seq: device_seq.as_i64(),
            node_id: text("node_id").to_owned(),
        }
    }
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
    leaving: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What a device goes by.
#[derive(Clone)]
struct Orders {
    /// More than one, or a visit after another, only where it roams.
    addrs: Vec<SocketAddr>,
    roams: bool,
    talk: Option<Duration>,
    leaving: watch::Receiver<bool>,
}

impl Fleet {
    /// Sets `count` devices on their way; `PREFIX-0` and so on are their names.
    pub fn launch(server: &Server, prefix: &str, count: usize) -> Self {
        Self::send_off(&[server.addr], prefix, count, false, None)
    }

    /// The same with devices that come back, first to the first of `addrs`. All are welcome before it returns.
    pub async fn roaming(addrs: &[SocketAddr], prefix: &str, count: usize) -> Self {
        let fleet = Self::send_off(addrs, prefix, count, true, None);
        fleet.wait_welcomed(count).await;
        fleet
    }

    /// The same; each also sends an application heartbeat so often.
    pub fn launch_talking(server: &Server, prefix: &str, count: usize, every: Duration) -> Self {
        Self::send_off(&[server.addr], prefix, count, false, Some(every))
    }

    fn send_off(
        addrs: &[SocketAddr],
        prefix: &str,
        count: usize,
        roams: bool,
        talk: Option<Duration>,
    ) -> Self {
        let log = Arc::new(Log::default());
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let (leaving, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let orders = Orders { addrs: addrs.to_vec(), roams, talk, leaving: told.clone() };
            tasks.spawn(live(format!("{prefix}-{n}"), orders, gate.clone(), log.clone()));
        }
        Self { log, leaving, tasks }
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

    /// The session that each device was welcomed to last, of all its sessions the one that may be live.
    pub fn latest(&self) -> HashMap<String, Welcomed> {
        self.welcomed().into_iter().map(|told| (told.device_id.clone(), told)).collect()
    }

    /// Has every device leave in good order, and waits until all have.
    pub async fn leave(&mut self) {
        self.leaving.send_replace(true);
        self.all_ended().await;
    }

    /// Waits until every device has ended or given up.
    pub async fn all_ended(&mut self) {
        super::within("all devices to end", async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

async fn live(device_id: String, mut orders: Orders, gate: Arc<Semaphore>, log: Arc<Log>) {
    let mut addrs = orders.addrs.clone().into_iter().cycle();
    let mut code = 0;
    // A code from 4500 on tells it not to return.
    while code < 4500 && !*orders.leaving.borrow() {
        let addr = addrs.next().expect("an address");
        let visit = visit(addr, &device_id, &mut orders, &gate, &log);
        code = visit.await.unwrap_or(0);
        if !orders.roams {
            return;
        }
        let pause = rand::rng().random_range(20..200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// From the handshake to the end; gives its code where it was welcome.
async fn visit(
    addr: SocketAddr,
    device_id: &str,
    orders: &mut Orders,
    gate: &Semaphore,
    log: &Log,
) -> Option<u16> {
    let turn = gate.acquire().await.expect("the gate stays open");
    let welcome = enter(addr, device_id, log);
    let (mut raw, told) = match orders.roams {
        // A server that is stopped lets it hang.
        true => tokio::time::timeout(TRIES, welcome).await.ok()??,
        false => welcome.await?,
    };
    log.welcomed.lock().expect("no device panicked").push(told);
    drop(turn);
    let code = stay(&mut raw, orders, log).await;
    log.ended.lock().expect("no device panicked").push(code);
    Some(code)
}

async fn enter(addr: SocketAddr, device_id: &str, log: &Log) -> Option<(Raw, Welcomed)> {
    // A server that is killed meanwhile refuses, resets or falls silent: such a device was never welcome.
    let Ok(Ok(mut raw)) = Ask::with_token(&token(device_id)).send(addr).await else { return None };
    match raw.next().await {
        Ok(Some(first)) if first.opcode != CLOSE => {
            let welcome: Value = serde_json::from_slice(&first.payload).expect("a welcome is JSON");
            Some((raw, Welcomed::read(device_id.to_owned(), &welcome)))
        }
        other => {
            let code = other.ok().flatten().and_then(|close| close.close_code()).unwrap_or(0);
            log.unwelcomed.lock().expect("no device panicked").push(code);
            None
        }
    }
}

/// Answers, and talks, to the end; gives its code, 0 where there is none.
async fn stay(raw: &mut Raw, orders: &mut Orders, log: &Log) -> u16 {
    let mut beat = tokio::time::interval(orders.talk.unwrap_or(Duration::MAX));
    // A device that was late does not make up for it: that would be haste.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = false;
    loop {
        let next = tokio::select! {
            next = raw.next() => next,
            _ = beat.tick(), if orders.talk.is_some() => {
                if raw.text(r#"{"type":"heartbeat","id":"1"}"#).await.is_err() {
                    return 0;
                }
                log.heartbeats.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            () = told(&mut orders.leaving), if !left => {
                left = true;
                if raw.send(CLOSE, &1000u16.to_be_bytes()).await.is_err() {
                    return 0;
                }
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
                if !left {
                    let _ = raw.send(CLOSE, &close.payload).await;
                }
                return close.close_code().unwrap_or(0);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return 0,
        }
    }
}

/// Waits until `told` says so; for ever, where nobody is left to say it.
async fn told(told: &mut watch::Receiver<bool>) {
    if told.wait_for(|told| *told).await.is_err() {
        std::future::pending().await
    }
}
