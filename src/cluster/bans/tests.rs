//! A record that changes while it is read, a worker that does not answer, a journal that takes nothing for a while.

use actix::{Actor, Context, Handler};
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tokio::sync::watch;

use super::*;
use crate::feed::tests::Log;
use crate::ids::{BanId, NodeId};
use crate::store::audit::{Action, Entry, Signature};
use crate::store::bans::{WhichBan, network};
use crate::supervisor::closeup::CloseUp;
use crate::supervisor::inspector::Window;
use crate::supervisor::messages::{LookAt, TakeSnapshot};
use crate::supervisor::snapshot::WorkerSnapshot;

/// A worker without sessions: it publishes what it holds when it is told to.
struct Worker;

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<TakeSnapshot> for Worker {
    type Result = ();
    fn handle(&mut self, _: TakeSnapshot, _: &mut Context<Self>) {}
}

impl Handler<LookAt> for Worker {
    type Result = Option<CloseUp>;
    fn handle(&mut self, _: LookAt, _: &mut Context<Self>) -> Option<CloseUp> {
        None
    }
}

impl Handler<EndDevices> for Worker {
    type Result = usize;
    fn handle(&mut self, _: EndDevices, _: &mut Context<Self>) -> usize {
        0
    }
}

impl Handler<EndSessions> for Worker {
    type Result = usize;
    fn handle(&mut self, _: EndSessions, _: &mut Context<Self>) -> usize {
        0
    }
}

/// What follows the bans of this record.
fn watch_of(log: &Log, journal: Option<Journal>, inspector: Inspector) -> BanWatch {
    let worker = Worker.start();
    BanWatch::new(Parts {
        store: log.store.clone(),
        journal,
        bans: Arc::default(),
        devices: worker.clone().recipient(),
        sessions: worker.recipient(),
        inspector,
        metrics: Arc::default(),
    })
}

fn entry(action: Action, target: &Target) -> Entry {
    let node: NodeId = "n1".parse().unwrap();
    Signature { actor: "ada".into(), remote_addr: None, node }.entry(action, target, None)
}

fn device(name: &str) -> Target {
    Target::Device(name.parse().unwrap())
}

async fn ban(log: &Log, target: Target) -> Ban {
    let ban = Ban { id: BanId::new(), target, reason: None, by: "ada".into(), at: Timestamp(0), until: None };
    log.store.ban(ban.clone(), entry(Action::Ban, &ban.target)).await.unwrap();
    ban
}

async fn lift(log: &Log, ban: &Ban) {
    let lifted = log.store.lift_ban(WhichBan::Id(ban.id), Timestamp(1), entry(Action::Lift, &ban.target));
    assert!(lifted.await.unwrap().is_some());
}

#[actix::test]
async fn what_changes_while_the_record_is_read_is_as_it_was_told_last() {
    const FULL: usize = 2;
    for whole in [true, false] {
        let log = Log::new().await;
        let mut given = Vec::new();
        for name in ["first", "again", "stays", "last"] {
            given.push(ban(&log, device(name)).await);
        }
        let mut reading = if whole { Reading::whole() } else { Reading::after(0) };
        let page = log.store.ban_changes(reading.rev(), FULL).await.unwrap();
        assert_eq!(reading.take(page, FULL), Step::More);
        lift(&log, &given[0]).await;
        let anew = ban(&log, device("again")).await;
        loop {
            let page = log.store.ban_changes(reading.rev(), FULL).await.unwrap();
            if reading.take(page, FULL) == Step::Done {
                break;
            }
        }
        assert_eq!((reading.is_whole(), reading.rev()), (whole, 6));
        match whole {
            true => assert_eq!(reading.standing(), [given[2].clone(), given[3].clone(), anew]),
            false => {
                let told = reading.changes().into_iter().map(|c| (c.ban.id, c.lifted)).collect::<Vec<_>>();
                let ids = [given[2].id, given[3].id, given[0].id, anew.id];
                assert_eq!(told, ids.map(|id| (id, id == given[0].id)));
            }
        }
    }
}

#[test]
fn a_record_that_goes_less_far_is_told_apart() {
    let page = |newest| crate::store::bans::BanChanges { changes: Vec::new(), newest };
    assert_eq!(Reading::after(7).take(page(6), 2), Step::Shorter);
    assert_eq!(Reading::after(7).take(page(7), 2), Step::Done);
}

#[test]
fn a_list_grows_old_while_the_machine_sleeps() {
    let read = ReadTo { rev: 1, asked: Now { mono: Mono(5), wall: Timestamp(1_000) } };
    let after = |mono: Duration, wall: Duration| Now {
        mono: Mono(5) + mono,
        wall: Timestamp(1_000).saturating_add(wall),
    };
    let (short, long) = (STALE - Duration::from_secs(1), STALE);
    assert!(!read.is_stale(after(short, short)));
    assert!(read.is_stale(after(short, long)), "asleep");
    assert!(read.is_stale(after(long, short)), "the wall clock was set back");
    assert!(!read.is_stale(Now { mono: Mono(6), wall: Timestamp(0) }));
}

#[actix::test]
async fn a_ban_is_done_when_every_worker_was_looked_through() {
    let log = Log::new().await;
    let (publish, published) = watch::channel(Arc::new(WorkerSnapshot::none(0)));
    let worker = Worker.start();
    let inspector = Inspector::default();
    inspector.add(Window { worker: worker.clone().recipient(), look: worker.recipient(), published });
    let mut watch = watch_of(&log, None, inspector);
    ban(&log, Target::Network(network("192.0.2.0/24").unwrap())).await;
    watch.catch_up().await.unwrap();
    let bans = watch.parts.bans.clone();
    assert!(!bans.until_done(1, Duration::ZERO).await, "a session of it may be here still");
    assert!(watch.parts.metrics.record.bans_read.get() > 0);

    // Taken later than the next look is asked for.
    let later = Mono::now() + Duration::from_secs(60);
    publish.send_replace(Arc::new(WorkerSnapshot { taken: later, ..WorkerSnapshot::none(0) }));
    watch.catch_up().await.unwrap();
    watch.look_through().await;
    watch.settle();
    assert!(bans.until_done(1, Duration::ZERO).await);
}

#[actix::test]
async fn what_could_not_be_kept_is_kept_later() {
    let log = Log::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path, &"n1".parse().unwrap()).unwrap();
    let past = |statement: &str| {
        let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        conn.batch_execute(statement).unwrap();
    };
    let mut watch = watch_of(&log, Some(journal.clone()), Inspector::default());
    let lifted = ban(&log, device("lifted")).await;
    watch.catch_up().await.unwrap();
    assert_eq!(journal.known_bans().await.unwrap().len(), 1);

    for event in ["INSERT", "DELETE"] {
        past(&format!(
            "CREATE TRIGGER full_{event} BEFORE {event} ON known_bans BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        ));
    }
    lift(&log, &lifted).await;
    let missed = ban(&log, device("missed")).await;
    watch.catch_up().await.unwrap();
    assert_eq!(journal.known_bans().await.unwrap(), std::slice::from_ref(&lifted), "it could be kept");
    past("DROP TRIGGER full_INSERT; DROP TRIGGER full_DELETE");
    let later = ban(&log, device("later")).await;
    watch.catch_up().await.unwrap();
    let mut kept = journal.known_bans().await.unwrap();
    kept.sort_by_key(|ban| ban.target.clone());
    assert_eq!(kept, [later, missed]);
    assert!(watch.mend_at.is_none());
    journal.close().await;
}
