//! What every store must do, whatever is beneath it.
//!
//! A store is put through it with [`contract_tests!`], given the type of its [`Bench`]. The tests use real files or
//! servers; what goes wrong in them goes wrong in the database.

pub(super) mod actions;
pub(super) mod content;
pub(super) mod faults;
pub(super) mod order;
pub(super) mod random;
pub(super) mod revocations;
pub(super) mod users;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::event::{Connected, Disconnected, RttMs};
use crate::ids::EventId;
use crate::reason::DetectedBy;

/// A database of a test's own.
pub(super) trait Bench {
    fn new() -> Self;

    /// Opens it; what was written before is there.
    fn open(&self) -> Store;

    /// Makes the database itself refuse the event after the next `events` ones, until [`Bench::repair`].
    fn refuse_after(&self, events: i64);

    fn repair(&self);
}

/// Makes a test of each promise, for one kind of [`Bench`].
macro_rules! contract_tests {
    ($bench:ty) => {
        $crate::store::contract::contract_tests!(@ $bench:
            order: order_and_numbers, a_start_is_written_once, one_end_stands, filters_and_pages, bounded_reading,
                retention_keeps_numbers;
            content: what_is_written_is_read, history_pages, who_is_here_is_told, recovery_ends_the_lost, pages_of_the_last_heard_keep_to_their_run;
            faults: a_failed_batch_leaves_nothing, readers_see_whole_batches, close_finishes_the_work;
            random: random_histories;
            actions: bans_come_and_go, a_ban_ends_by_itself, changes_of_bans_are_numbered, bans_at_once_are_all_told, the_audit_is_paged_and_forgotten;
            revocations: revocations_are_kept_until_they_are_over, changes_of_revocations_are_numbered,
                revocations_at_once_are_all_told;
            users: users_come_and_go, a_login_lasts_as_long_as_its_password, logins_end_and_are_bounded;
        );
    };
    (@ $bench:ty: $($file:ident: $($name:ident),*;)*) => {
        $($(
            #[test]
            fn $name() {
                $crate::store::contract::$file::$name::<$bench>();
            }
        )*)*
    };
}
pub(super) use contract_tests;

/// Runs a test as a worker thread of the server would: one thread, no more.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A moment of the tests' own time.
fn at(second: i64) -> Timestamp {
    Timestamp(1_800_000_000_000_000 + second * 1_000_000)
}

fn node() -> NodeId {
    "node-1".parse().expect("a node id")
}

fn run(incarnation: Incarnation) -> Run {
    Run { node_id: node(), incarnation }
}

/// Whoever writes: a node that never began, so that none of its runs is another's.
fn writer() -> Run {
    Run { node_id: "writer".parse().expect("a node id"), incarnation: Incarnation::new() }
}

fn device(name: &str) -> DeviceId {
    name.parse().expect("a device id")
}

/// A session as a test thinks of it: what its start and end say is worked out from this.
#[derive(Debug, Clone)]
struct Sample {
    session_id: SessionId,
    device_id: DeviceId,
    incarnation: Incarnation,
    connected: i64,
}

impl Sample {
    fn new(device_name: &str, incarnation: Incarnation, connected: i64) -> Self {
        Self { session_id: SessionId::new(), device_id: device(device_name), incarnation, connected }
    }

    fn connected(&self) -> Connected {
        Connected {
            device_id: self.device_id.clone(),
            device_type: "meter".parse().expect("a device type"),
            session_id: self.session_id,
            node_id: node(),
            incarnation: self.incarnation,
            connected_at: at(self.connected),
            remote_addr: "[2001:db8::7]:4711".parse().expect("an address"),
            meta: BTreeMap::from([("site".to_owned(), "Köln \"Süd\"".to_owned())]),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        }
    }

    fn disconnected(&self, reason: Reason, ended: i64) -> Disconnected {
        let start = self.connected();
        Disconnected {
            device_id: start.device_id,
            device_type: start.device_type,
            session_id: start.session_id,
            node_id: start.node_id,
            incarnation: start.incarnation,
            reason,
            initiator: reason.initiator(),
            detected_by: DetectedBy::Socket,
            close_code: reason.close_code(),
            connected_at: start.connected_at,
            last_pong_at: Some(at(ended - 2)),
            last_active_at: at(ended - 1),
            disconnected_at: at(ended),
            detection_ms: 1000.0,
            duration_ms: (ended - self.connected) as f64 * 1000.0,
            rtt_ms: RttMs { last: Some(1.5), min: Some(1.0), avg: Some(1.25), max: Some(1.5) },
            pings_sent: Some(3),
            pongs_received: Some(2),
            reconnect_count: 0,
            remote_addr: start.remote_addr,
            meta: start.meta,
            trace_id: start.trace_id,
        }
    }

    fn start(&self) -> Write {
        Write::Start(Start {
            event_id: EventId::new(),
            data: Arc::new(self.connected()),
            after_seq: 0,
            told: Told::Now,
        })
    }

    fn end(&self, reason: Reason, ended: i64) -> Write {
        Write::End(End { event_id: EventId::new(), data: Arc::new(self.disconnected(reason, ended)) })
    }
}

async fn commit(store: &Store, batch: Vec<Write>) -> Committed {
    store.commit(&writer(), Arc::new(batch)).await.expect("a commit")
}

/// The whole log, by as many pages as it takes.
async fn whole_log(store: &Store) -> Vec<Arc<Event>> {
    read_all(store, 0, &EventFilter::default(), 1_000).await
}

async fn read_all(store: &Store, mut after: i64, filter: &EventFilter, limit: usize) -> Vec<Arc<Event>> {
    let mut all = Vec::new();
    loop {
        let page = store.events(after, filter, limit).await.expect("a page");
        assert!(page.events.len() <= limit, "a page over its limit");
        assert!(page.events.iter().all(|e| e.seq > after && e.seq <= page.scanned_to));
        all.extend(page.events);
        if page.scanned_to == after {
            return all;
        }
        after = page.scanned_to;
    }
}

/// What an event says of itself, as its readers get it.
fn data(event: &Event) -> serde_json::Value {
    let whole: serde_json::Value = serde_json::from_str(&event.json).expect("an event in JSON");
    whole["data"].clone()
}

fn device_seq(event: &Event) -> i64 {
    data(event)["device_seq"].as_i64().expect("a device_seq")
}

fn recorded(device_seq: i64) -> Outcome {
    Outcome::Recorded { device_seq }
}

fn sessions_of(events: &[Arc<Event>]) -> Vec<SessionId> {
    events.iter().filter_map(|e| e.session_id).collect()
}
