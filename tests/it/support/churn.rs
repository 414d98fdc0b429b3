//! Devices that come and go all the while, whatever happens to the node and its stores.
//!
//! Each comes, stays for a moment in which it answers, leaves in good order, and comes again. What each was told of its
//! beginning and of its end is kept, to be held against the record.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fleet::Welcomed;
use super::raw::{CLOSE, Raw, Seen, TEXT};
use super::{Ask, eventually, token};

/// All of them together come about so often in a second.
const PER_SECOND: usize = 150;

/// A node that was killed or stopped may leave a handshake without an answer.
const TRIES: Duration = Duration::from_secs(15);

/// One session, told by its device.
#[derive(Debug, Clone)]
pub struct Visit {
    pub welcomed: Welcomed,
    pub seen: Seen,
}

impl Visit {
    /// Whether its close frame was answered.
    pub fn left_in_order(&self) -> bool {
        self.seen == Seen::Close(Some(1000))
    }
}

#[derive(Default)]
struct Log {
    visits: Mutex<Vec<Visit>>,
    numbered: AtomicUsize,
    unnumbered: AtomicUsize,
    /// What was answered instead of a welcome.
    turned_away: Mutex<Vec<String>>,
}

/// The devices; they are dropped with it.
pub struct Churn {
    log: Arc<Log>,
    addrs: Arc<Mutex<Vec<SocketAddr>>>,
    over: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Churn {
    /// Sets `count` of them on their way, each time to any of `addrs`, and waits until they come and go.
    pub async fn start(addrs: &[SocketAddr], prefix: &str, count: usize) -> Self {
        let log = Arc::new(Log::default());
        let addrs = Arc::new(Mutex::new(addrs.to_vec()));
        let (over, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let longest = Duration::from_secs(2 * count as u64) / PER_SECOND as u32;
        for n in 0..count {
            let (addrs, log, over) = (addrs.clone(), log.clone(), told.clone());
            tasks.spawn(lane(format!("{prefix}-{n}"), addrs, longest, over, log));
        }
        let churn = Self { log, addrs, over, tasks };
        churn.more_numbered(count).await;
        churn
    }

    /// From now on they come here: a node that was started again listens elsewhere.
    pub fn go_to(&self, addrs: &[SocketAddr]) {
        *self.addrs.lock().expect("no device panicked") = addrs.to_vec();
    }

    /// Waits for so many welcomes more of those that carry a `device_seq`.
    pub async fn more_numbered(&self, count: usize) {
        more("welcomes with a device_seq", &self.log.numbered, count).await;
    }

    /// Waits for so many welcomes more of those without one, as a journaled start has.
    pub async fn more_unnumbered(&self, count: usize) {
        more("welcomes without a device_seq", &self.log.unnumbered, count).await;
    }

    pub fn unnumbered(&self) -> usize {
        self.log.unnumbered.load(Ordering::Relaxed)
    }

    /// What was answered instead of a welcome, so far.
    pub fn turned_away(&self) -> Vec<String> {
        self.log.turned_away.lock().expect("no device panicked").clone()
    }

    /// Has all of them leave and not come again; gives every visit there was.
    pub async fn stop(mut self) -> Vec<Visit> {
        self.over.send_replace(true);
        super::within("those that come and go to leave", async {
            while let Some(done) = self.tasks.join_next().await {
                done.expect("no device panicked");
            }
        })
        .await;
        self.log.visits.lock().expect("no device panicked").clone()
    }
}

async fn more(what: &str, of: &AtomicUsize, count: usize) {
    let enough = of.load(Ordering::Relaxed) + count;
    eventually(&format!("{count} {what}"), async || (of.load(Ordering::Relaxed) >= enough).then_some(()))
        .await;
}

async fn lane(
    device_id: String,
    addrs: Arc<Mutex<Vec<SocketAddr>>>,
    longest: Duration,
    mut over: watch::Receiver<bool>,
    log: Arc<Log>,
) {
    let ask = Ask::with_token(&token(&device_id));
    while !*over.borrow() {
        let addr = {
            let addrs = addrs.lock().expect("no device panicked");
            *addrs.choose(&mut rand::rng()).expect("an address")
        };
        let Some((mut raw, welcomed)) = enter(&ask, addr, &device_id, &log).await else {
            // As a device that was turned away does.
            let pause = rand::rng().random_range(20..100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        };
        let stay = longest.mul_f64(rand::rng().random());
        let early = tokio::select! {
            seen = raw.closed(true) => Some(seen),
            () = tokio::time::sleep(stay) => None,
            _ = over.wait_for(|over| *over) => None,
        };
        let seen = match early {
            Some(seen) => seen,
            None => leave(&mut raw).await,
        };
        log.visits.lock().expect("no device panicked").push(Visit { welcomed, seen });
    }
}

async fn leave(raw: &mut Raw) -> Seen {
    match raw.send(CLOSE, &1000u16.to_be_bytes()).await {
        Ok(()) => raw.closed(true).await,
        Err(_) => Seen::Nothing,
    }
}

async fn enter(ask: &Ask, addr: SocketAddr, device_id: &str, log: &Log) -> Option<(Raw, Welcomed)> {
    let away = |what: String| log.turned_away.lock().expect("no device panicked").push(what);
    let welcome = async {
        let mut raw = match ask.send(addr).await {
            Ok(Ok(raw)) => raw,
            Ok(Err(refusal)) => return Err(format!("{refusal:?}")),
            Err(error) => return Err(error.to_string()),
        };
        match raw.answering().await {
            Ok(Some(first)) if first.opcode == TEXT => Ok((raw, first.payload)),
            other => Err(format!("{other:?}")),
        }
    };
    match tokio::time::timeout(TRIES, welcome).await {
        Ok(Ok((raw, payload))) => {
            let welcome: Value = serde_json::from_slice(&payload).expect("a welcome is JSON");
            let welcomed = Welcomed::read(device_id.to_owned(), &welcome);
            let count = if welcomed.device_seq.is_some() { &log.numbered } else { &log.unnumbered };
            count.fetch_add(1, Ordering::Relaxed);
            Some((raw, welcomed))
        }
        Ok(Err(what)) => {
            away(what);
            None
        }
        Err(_) => {
            away(format!("nothing for {TRIES:?}"));
            None
        }
    }
}
