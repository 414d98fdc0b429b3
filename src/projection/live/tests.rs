//! The projector over a real Redis, a real log and a worker whose sessions the test sets.

use std::collections::BTreeSet;
use std::sync::Mutex;

use actix::{Actor, Context, Handler};

use super::*;
use crate::config::RedisUrl;
use crate::event::{Connected, RttMs};
use crate::feed::Limits;
use crate::feed::tests::{Log, NODE};

use crate::store::live::tests::server::Redis;
use crate::supervisor::closeup::CloseUp;
use crate::supervisor::inspector::Window;
use crate::supervisor::messages::{LookAt, TakeSnapshot};
use crate::supervisor::snapshot::Source;

const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3_600);

/// A worker's supervisor, as far as it is looked at.
struct Worker {
    sessions: Arc<Mutex<Vec<SessionView>>>,
    publish: watch::Sender<Arc<WorkerSnapshot>>,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<TakeSnapshot> for Worker {
    type Result = ();

    fn handle(&mut self, _: TakeSnapshot, _: &mut Self::Context) {
        let sessions = self.sessions.lock().unwrap().clone();
        let snapshot = WorkerSnapshot { taken: Mono::now(), sessions, ..WorkerSnapshot::none(0) };
        self.publish.send_replace(Arc::new(snapshot));
    }
}

impl Handler<LookAt> for Worker {
    type Result = Option<CloseUp>;

    fn handle(&mut self, _: LookAt, _: &mut Self::Context) -> Option<CloseUp> {
        None
    }
}

pub(in crate::projection) type Sessions = Arc<Mutex<Vec<SessionView>>>;

/// A worker without sessions, and how it is looked at.
pub(in crate::projection) fn worker() -> (Sessions, Inspector) {
    let sessions = Sessions::default();
    let (publish, published) = watch::channel(Arc::new(WorkerSnapshot::none(0)));
    let inspector = Inspector::default();
    let worker = Worker { sessions: sessions.clone(), publish }.start();
    let look = worker.clone().recipient();
    inspector.add(Window { worker: worker.recipient(), look, published });
    (sessions, inspector)
}

struct Node {
    log: Log,
    redis: Redis,
    live: Live,
    feed: Feed,
    sessions: Sessions,
    inspector: Inspector,
    metrics: Arc<Metrics>,
}

impl Node {
    async fn new(redis: Redis) -> Self {
        let log = Log::new().await;
        let feed = log.feed(Limits::default()).await;
        let metrics = Arc::new(Metrics::new());
        let url = RedisUrl::parse(&redis.url()).unwrap();
        let live = Live::open(Some(&url), LONG, metrics.clone()).unwrap();
        let (sessions, inspector) = worker();
        Self { log, redis, live, feed, sessions, inspector, metrics }
    }

    fn project(&self) -> Projector {
        Projector::start(Parts {
            live: self.live.clone(),
            feed: self.feed.clone(),
            inspector: self.inspector.clone(),
            run: watch::Sender::new(self.log.run()).subscribe(),
            metrics: self.metrics.clone(),
            update_interval: Duration::from_millis(200),
            session_timeout: LONG,
            max_inactive: LONG,
        })
    }

    /// Sessions begin: on the record, in the feed and at the worker.
    async fn begin(&self, devices: std::ops::Range<usize>) -> Vec<Arc<Connected>> {
        let began: Vec<_> = devices.map(|n| self.log.connected(&format!("d{n}"))).collect();
        self.sessions.lock().unwrap().extend(began.iter().map(|of| view(of)));
        self.feed.publish(&self.log.commit(began.iter().map(|of| self.log.start(of)).collect()).await);
        began
    }

    async fn end(&self, sessions: &[Arc<Connected>]) {
        let gone: HashSet<_> = sessions.iter().map(|s| s.session_id).collect();
        self.sessions.lock().unwrap().retain(|view| !gone.contains(&view.session_id));
        let ends = sessions.iter().map(|of| self.log.end(of, Reason::ReadError)).collect();
        self.feed.publish(&self.log.commit(ends).await);
    }

    /// Every session is heard now.
    fn hear(&self, pongs: u32) {
        for view in self.sessions.lock().unwrap().iter_mut() {
            (view.last_pong_at, view.last_active_at) = (Some(Timestamp::now()), Timestamp::now());
            (view.idle_ms, view.pongs_received) = (0.0, pongs);
        }
    }

    /// Waits until live state holds this node's sessions, as they are, and nothing else of it.
    async fn agrees(&self, pongs: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let held: BTreeSet<_> = self.sessions.lock().unwrap().iter().map(|v| v.session_id).collect();
            let found = self.found(pongs).await;
            if found.as_ref() == Ok(&held) {
                return;
            }
            assert!(Instant::now() < deadline, "held {}, found {found:?}", held.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn found(&self, pongs: u32) -> Result<BTreeSet<SessionId>, String> {
        let (mut found, mut cursor) = (BTreeSet::new(), 0);
        loop {
            let page = self.live.page(cursor).await.map_err(|e| e.to_string())?;
            for (id, session) in page.sessions {
                let session = session.ok_or("a session without its state")?;
                let named = self.live.session_of(&session.device_id).await.map_err(|e| e.to_string())?;
                if session.vitals.pongs_received != pongs || named != Some(id) {
                    return Err(format!("{session:?}, and its device's session is {named:?}"));
                }
                found.insert(id);
            }
            cursor = page.next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    fn drift(&self, kind: &str) -> i64 {
        self.metrics.live.reconcile_drift.with_label_values(&[kind]).get()
    }
}

pub(in crate::projection) fn view(of: &Connected) -> SessionView {
    SessionView {
        session_id: of.session_id,
        start: Arc::new(of.clone()),
        device_seq: Some(1),
        source: Source::Here,
        key: 0,
        state: State::Live,
        last_pong_at: None,
        last_active_at: of.connected_at,
        idle_ms: 0.0,
        rtt_ms: RttMs::default(),
        missed: 0,
        pings_sent: 0,
        pongs_received: 0,
        reconnect_count: 0,
    }
}

#[actix::test]
async fn sessions_are_in_live_state_from_start_to_end() {
    let node = Node::new(Redis::start_with(&[])).await;
    node.begin(0..10).await;
    let projector = node.project();
    node.agrees(0).await;
    let some = node.begin(10..700).await;
    node.agrees(0).await;
    node.hear(3);
    node.agrees(3).await;
    node.end(&some[..600]).await;
    node.agrees(3).await;
    node.end(&some[600..]).await;
    node.feed.close();
    projector.finish(PATIENCE).await;
    assert_eq!(node.found(3).await.unwrap().len(), 10, "the last ends are written before it stops");
    assert_eq!(node.drift("redis_orphan") + node.drift("redis_missing"), 0);
}

#[actix::test]
async fn what_redis_lost_is_written_anew() {
    let mut node = Node::new(Redis::start_with(&[])).await;
    let _projector = node.project();
    node.begin(0..1_200).await;
    node.hear(1);
    node.agrees(1).await;
    // They are silent from now on, so that no heartbeat brings them back.
    node.sessions.lock().unwrap().iter_mut().for_each(|view| view.idle_ms = 60_000.0);
    node.redis.command(&["FLUSHALL"]);
    node.agrees(1).await;
    node.redis.restart_empty();
    node.agrees(1).await;
    assert_eq!(node.drift("redis_missing"), 2_400);
    let id = node.sessions.lock().unwrap()[7].session_id;
    for lost in [format!("lastpong:session:{id}"), "lastpong:device:d9".into(), "lastpong:active".into()] {
        node.redis.command(&["DEL", &lost]);
        node.agrees(1).await;
    }
}

#[actix::test]
async fn ends_that_redis_did_not_hear_of_are_told_it_later() {
    let mut node = Node::new(Redis::start_with(&[])).await;
    let _projector = node.project();
    let sessions = node.begin(0..1_000).await;
    node.agrees(0).await;
    // It comes back as it was before the ends.
    node.redis.command(&["SAVE"]);
    node.end(&sessions[..300]).await;
    node.agrees(0).await;
    node.redis.kill();
    node.end(&sessions[300..600]).await;
    node.begin(1_000..1_100).await;
    node.redis.restart();
    node.agrees(0).await;
    node.redis.stop();
    node.end(&sessions[600..900]).await;
    node.redis.cont();
    node.agrees(0).await;
}

#[actix::test]
async fn leftovers_are_swept_and_other_nodes_are_let_be() {
    let node = Node::new(Redis::start_with(&[])).await;
    let left = |name: &str, node_id: &str| {
        let mut session = session(&view(&node.log.connected(name)), &node.log.run());
        session.node_id = node_id.parse().unwrap();
        session.incarnation = Incarnation::new();
        session.connected_at = session.connected_at.saturating_sub(Duration::from_secs(60));
        session
    };
    let (own, other, gone) = (left("own", NODE), left("other", "n2"), left("gone", NODE));
    node.live.put(&[own.clone(), other.clone(), gone.clone()]).await.unwrap();
    node.redis.command(&["DEL", &format!("lastpong:session:{}", gone.session_id)]);
    let projector = node.project();
    let deadline = Instant::now() + PATIENCE;
    while node.drift("redis_orphan") < 2 {
        assert!(Instant::now() < deadline, "the leftovers stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.feed.close();
    projector.finish(PATIENCE).await;
    assert_eq!(node.live.sessions(&[own.session_id, other.session_id]).await.unwrap(), [None, Some(other)]);
    assert_eq!(node.live.page(0).await.unwrap().sessions.len(), 1);
}
