//! The registry on a real store and a real journal, which are refused or locked from outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{end_of, start_of};
use crate::event::Disconnected;
use crate::feed::Feed;
use crate::ids::{EventId, Incarnation, Run, SessionId};
use crate::metrics::Metrics;
use crate::registry::actor::{Parts, Registry};
use crate::registry::batch::Grouping;
use crate::registry::messages::{Reborn, Record, Recorded, Report, Settle, WhenDrained};
use crate::store::journal::Journal;
use crate::store::{EventFilter, Start, Store, Told, Write};

/// Longer than any test needs: who waits this long waits for nothing.
const LONG: Duration = Duration::from_secs(60);

const REFUSE: &str = "CREATE TRIGGER refuse BEFORE INSERT ON events \
                      BEGIN SELECT RAISE(ABORT, 'refused by the test'); END";
const TAKE: &str = "DROP TRIGGER refuse";

/// The two files of a node.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("lastpong.db")
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal.db")
    }
}

/// A connection of somebody else's.
fn outside(path: &std::path::Path) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    conn.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
    conn
}

fn sql(path: &std::path::Path, statements: &str) {
    outside(path).batch_execute(statements).unwrap();
}

/// Hears what the root would.
struct Root(mpsc::UnboundedSender<Recorded>);

impl Actor for Root {
    type Context = Context<Self>;
}

impl Handler<Recorded> for Root {
    type Result = ();

    fn handle(&mut self, recorded: Recorded, _: &mut Self::Context) {
        let _ = self.0.send(recorded);
    }
}

/// One process's registry.
struct Node {
    registry: Addr<Registry>,
    recorded: mpsc::UnboundedReceiver<Recorded>,
    store: Store,
    journal: Option<Journal>,
    feed: Feed,
    metrics: Arc<Metrics>,
    away: Arc<AtomicBool>,
    run: Run,
}

fn run() -> Run {
    Run { node_id: "n1".parse().unwrap(), incarnation: Incarnation::new() }
}

impl Node {
    async fn start(files: &Files, has_journal: bool) -> Self {
        let store = Store::open_sqlite(&files.store()).unwrap();
        let journal =
            has_journal.then(|| Journal::open(&files.journal(), &"node-1".parse().unwrap()).unwrap());
        let (metrics, away, run) = (Arc::new(Metrics::new()), Arc::<AtomicBool>::default(), run());
        let newest = store.bounds().await.unwrap().newest;
        let feed = Feed::new(store.clone(), newest, metrics.clone());
        let parts = Parts {
            store: store.clone(),
            journal: journal.clone(),
            feed: feed.clone(),
            metrics: metrics.clone(),
            run: run.clone(),
            grouping: Grouping { delay: Duration::ZERO, size: 100 },
            retention: Duration::from_secs(3_600),
            audit_retention: Duration::from_secs(3600),
            sweep_batch: 50,
            direct: Arc::default(),
            store_away: away.clone(),
        };
        let registry = Registry::new(parts).start();
        let (told, recorded) = mpsc::unbounded_channel();
        registry.send(Report(Root(told).start().recipient())).await.unwrap();
        Self { registry, recorded, store, journal, feed, metrics, away, run }
    }

    async fn record(&self, writes: &[Write]) {
        self.registry.send(Record(writes.to_vec())).await.unwrap();
    }

    /// The starts that may be welcomed, and the count of writes that this took.
    async fn told(&mut self, writes: usize) -> Vec<(SessionId, Option<i64>)> {
        let (mut starts, mut count) = (Vec::new(), 0);
        while count < writes {
            let recorded = tokio::time::timeout(LONG, self.recorded.recv()).await.unwrap().unwrap();
            count += recorded.writes;
            starts.extend(recorded.starts.into_iter().map(|(_, id, device_seq)| (id, device_seq)));
        }
        assert_eq!(count, writes, "more was told than was asked");
        starts
    }

    async fn until_drained(&self) {
        let drained = async { while self.registry.send(WhenDrained).await.unwrap().is_err() {} };
        tokio::time::timeout(LONG, drained).await.unwrap();
    }

    /// Session and reason, where there is one, of every event on the record, in `seq` order.
    async fn log(&self) -> Vec<(SessionId, Option<&'static str>)> {
        let page = self.store.events(0, &EventFilter::default(), 1_000).await.unwrap();
        assert!(page.events.iter().zip(1..).all(|(event, seq)| event.seq == seq), "a gap in the log");
        page.events.iter().map(|e| (e.session_id.unwrap(), e.reason.map(|r| r.as_str()))).collect()
    }

    async fn stop(self) {
        self.store.close().await;
        if let Some(journal) = &self.journal {
            journal.close().await;
        }
    }
}

fn start(device: &str, run: &Run) -> (Write, SessionId, Arc<Disconnected>) {
    let (data, end) = start_of(device, run);
    let id = data.session_id;
    (Write::Start(Start { event_id: EventId::new(), data, after_seq: 0, told: Told::Now }), id, end)
}

fn block_on(work: impl Future<Output = ()>) {
    actix::System::new().block_on(work);
}

#[test]
fn devices_are_welcomed_by_the_journal_while_the_store_refuses() {
    let files = Files::new();
    block_on(async {
        let mut node = Node::start(&files, true).await;
        node.until_drained().await;
        let (first, a, end_of_a) = start("d", &node.run);
        node.record(&[first]).await;
        assert_eq!(node.told(1).await, [(a, Some(1))]);

        sql(&files.store(), REFUSE);
        let (second, b, _) = start("d", &node.run);
        let (third, c, end_of_c) = start("e", &node.run);
        node.record(&[Write::End(end_of(end_of_a)), second]).await;
        assert_eq!(node.told(2).await, [(b, None)]);
        node.record(&[third, Write::End(end_of(end_of_c))]).await;
        assert_eq!(node.told(2).await, [(c, None)]);
        assert!(!node.away.load(Relaxed), "nobody is let in although the journal takes everything");
        let error = node.registry.send(WhenDrained).await.unwrap().unwrap_err();
        assert!(error.contains("refused by the test"), "{error:?}");
        assert!(node.metrics.breaker_state.with_label_values(&["sql"]).get() > 0);
        assert_eq!(node.metrics.journal_entries.get(), 4);
        node.registry.send(Settle).await.unwrap();
        assert_eq!(node.log().await, [(a, None)]);

        sql(&files.store(), TAKE);
        node.until_drained().await;
        let expected =
            [(a, None), (a, Some("client_closed")), (b, None), (c, None), (c, Some("client_closed"))];
        assert_eq!(node.log().await, expected);
        assert_eq!(node.feed.newest(), 5, "the feed was not told");
        assert_eq!(node.metrics.journal_entries.get(), 0);
        assert_eq!(node.metrics.breaker_state.with_label_values(&["sql"]).get(), 0);

        let (fourth, d, _) = start("f", &node.run);
        node.record(&[fourth]).await;
        assert_eq!(node.told(1).await, [(d, Some(1))], "the store is there, and is not asked");
        node.stop().await;
    });
}

#[test]
fn a_store_that_hangs_holds_up_nobody() {
    let files = Files::new();
    block_on(async {
        let mut node = Node::start(&files, true).await;
        node.until_drained().await;
        let mut lock = outside(&files.store());
        lock.batch_execute("BEGIN IMMEDIATE").unwrap();
        let mut expected = Vec::new();
        for n in 0..20 {
            // From the second on a drain hangs while they are appended.
            let (write, id, _) = start(&format!("d{n}"), &node.run);
            node.record(&[write]).await;
            assert_eq!(node.told(1).await, [(id, None)]);
            expected.push((id, None));
        }
        assert!(node.log().await.is_empty());
        lock.batch_execute("ROLLBACK").unwrap();
        node.until_drained().await;
        assert_eq!(node.log().await, expected);
        node.stop().await;
    });
}

#[test]
fn what_a_killed_process_left_is_told_before_anything_new() {
    let files = Files::new();
    let (mut live, mut ended, mut early) = (None, None, None);
    block_on(async {
        let mut node = Node::start(&files, true).await;
        node.until_drained().await;
        let (write, id, _) = start("d0", &node.run);
        node.record(&[write]).await;
        node.told(1).await;
        early = Some(id);
        sql(&files.store(), REFUSE);
        let (first, a, end_of_a) = start("d1", &node.run);
        let (second, b, _) = start("d2", &node.run);
        node.record(&[first, second, Write::End(end_of(end_of_a))]).await;
        assert_eq!(node.told(3).await, [(a, None), (b, None)]);
        (ended, live) = (Some(a), Some(b));
        node.stop().await;
    });
    let [early, ended, live] = [early, ended, live].map(Option::unwrap);
    block_on(async {
        // The store is still away at the next start, and a device is back already.
        let mut node = Node::start(&files, true).await;
        let (write, back, _) = start("d2", &node.run);
        node.record(&[write]).await;
        assert_eq!(node.told(1).await, [(back, None)]);
        sql(&files.store(), TAKE);
        node.until_drained().await;
        let log = node.log().await;
        let (before, lost) = log.split_at(4);
        assert_eq!(before, [(early, None), (ended, None), (live, None), (ended, Some("client_closed"))]);
        assert_eq!(lost[..2], [(early, Some("node_lost")), (live, Some("node_lost"))]);
        assert_eq!(lost[2..], [(back, None)]);
        assert_eq!(node.feed.newest(), 7);
        node.stop().await;
    });
}

#[test]
fn a_run_that_follows_drops_who_was_never_welcomed() {
    let files = Files::new();
    block_on(async {
        let mut node = Node::start(&files, true).await;
        node.until_drained().await;
        let (write, welcomed, end) = start("d0", &node.run);
        node.record(&[write]).await;
        node.told(1).await;

        let mut lock = outside(&files.store());
        lock.batch_execute("BEGIN IMMEDIATE").unwrap();
        let (under_way, waiting) = (start("d1", &node.run), start("d2", &node.run));
        node.record(&[under_way.0]).await;
        node.record(&[waiting.0]).await;
        let new = run();
        node.registry.send(Reborn(new.clone())).await.unwrap();
        assert_eq!(node.told(2).await, [], "somebody of the lost run was welcomed");
        node.record(&[Write::End(end_of(end))]).await;
        node.told(1).await;
        let (write, id, _) = start("d3", &new);
        node.record(&[write]).await;
        assert_eq!(node.told(1).await, [(id, None)]);
        lock.batch_execute("ROLLBACK").unwrap();
        node.until_drained().await;
        assert_eq!(node.log().await, [(welcomed, None), (welcomed, Some("node_lost")), (id, None)]);
        node.stop().await;
    });
}

#[test]
fn nobody_is_let_in_while_both_refuse_and_either_is_enough() {
    let files = Files::new();
    block_on(async {
        let mut node = Node::start(&files, true).await;
        node.until_drained().await;
        sql(&files.store(), REFUSE);
        sql(
            &files.journal(),
            "CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no room'); END",
        );
        let (write, id, end) = start("d", &node.run);
        node.record(&[write]).await;
        let refused = async {
            while !node.away.load(Relaxed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, refused).await.unwrap();
        sql(&files.store(), TAKE);
        assert_eq!(node.told(1).await, [(id, Some(1))]);
        assert!(!node.away.load(Relaxed));

        sql(&files.store(), REFUSE);
        node.record(&[Write::End(end_of(end))]).await;
        sql(&files.journal(), "DROP TRIGGER full");
        node.told(1).await;
        sql(&files.store(), TAKE);
        node.until_drained().await;
        assert_eq!(node.log().await, [(id, None), (id, Some("client_closed"))]);
        node.stop().await;
    });
}

#[test]
fn without_a_journal_the_store_is_asked_until_it_takes() {
    let files = Files::new();
    block_on(async {
        let mut node = Node::start(&files, false).await;
        node.until_drained().await;
        sql(&files.store(), REFUSE);
        let (write, id, end) = start("d", &node.run);
        node.record(&[write]).await;
        let refused = async {
            while !node.away.load(Relaxed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, refused).await.unwrap();
        node.record(&[Write::End(end_of(end))]).await;
        sql(&files.store(), TAKE);
        assert_eq!(node.told(2).await, [(id, Some(1))]);
        assert!(!node.away.load(Relaxed));
        assert_eq!(node.log().await, [(id, None), (id, Some("client_closed"))]);
        node.stop().await;
    });
}
