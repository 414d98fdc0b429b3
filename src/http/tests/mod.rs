//! The routes on actix-web's test server, with a real SQLite store behind them.

mod debug_routes;
mod device_routes;
mod event_routes;
mod node_routes;
mod subscriber;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler as Handles};
use actix_web::body::to_bytes;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, web};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::health::Probe;
use super::*;
use crate::event::{Connected, Meta, RttMs};
use crate::feed::Limits;
use crate::feed::tests::{Log, NODE};
use crate::ids::{Incarnation, SessionId};
use crate::log_filter::LogFilter;
use crate::login::Logins;
use crate::problem;
use crate::secret::Secret;
use crate::store::audit::Book;
use crate::supervisor::admission::{self, Admission};
use crate::supervisor::closeup::{CloseUp, Heartbeats};
use crate::supervisor::inspector::Window;
use crate::supervisor::messages::{
    Drain, DrainFacts, DrainView, EndSessions, LookAt, Stopping, TakeSnapshot, ToEnd,
};
use crate::supervisor::snapshot::{SessionView, Source, State, WorkerSnapshot};
use crate::time::{Mono, Timestamp};
use crate::token::DeviceTokens;

const TOKEN: &str = "Bearer the-admin-token";

/// A worker that holds these sessions and does nothing but show them.
struct Shown {
    sessions: Vec<SessionView>,
    published: watch::Sender<Arc<WorkerSnapshot>>,
    /// Snapshots that were asked for.
    taken: Arc<AtomicUsize>,
}

impl Actor for Shown {
    type Context = Context<Self>;
}

impl Handles<TakeSnapshot> for Shown {
    type Result = ();

    fn handle(&mut self, _: TakeSnapshot, _: &mut Context<Self>) {
        self.taken.fetch_add(1, Relaxed);
        self.published.send_replace(Arc::new(snapshot(self.sessions.clone())));
    }
}

impl Handles<LookAt> for Shown {
    type Result = Option<CloseUp>;

    fn handle(&mut self, LookAt { session_id, .. }: LookAt, _: &mut Context<Self>) -> Option<CloseUp> {
        let view = self.sessions.iter().find(|view| view.session_id == session_id)?.clone();
        Some(CloseUp { view, heartbeats: Heartbeats::default(), socket: None })
    }
}

fn snapshot(sessions: Vec<SessionView>) -> WorkerSnapshot {
    // As of a worker with many sessions, whose last snapshot is good for a while.
    let took = std::time::Duration::from_secs(1);
    WorkerSnapshot { taken: Mono::now(), took, sessions, ..WorkerSnapshot::none(0) }
}

fn inspector(sessions: Vec<SessionView>) -> (Inspector, Arc<AtomicUsize>) {
    let (published, window) = watch::channel(Arc::new(snapshot(Vec::new())));
    published.send_replace(Arc::new(snapshot(sessions.clone())));
    let taken = Arc::default();
    let worker = Shown { sessions, published, taken: Arc::clone(&taken) }.start();
    let inspector = Inspector::default();
    let look = worker.clone().recipient();
    inspector.add(Window { worker: worker.recipient(), look, published: window });
    (inspector, taken)
}

fn view(n: usize) -> SessionView {
    let start = Connected {
        session_id: SessionId::new(),
        device_id: format!("d{n:02}").parse().unwrap(),
        device_type: "meter".parse().unwrap(),
        node_id: NODE.parse().unwrap(),
        incarnation: Incarnation::new(),
        connected_at: Timestamp(n as i64),
        remote_addr: SocketAddr::from(([10, 0, 0, n as u8], 1)),
        meta: Meta::default(),
        trace_id: None,
    };
    SessionView {
        session_id: start.session_id,
        start: Arc::new(start),
        device_seq: Some(1),
        source: Source::Here,
        key: 0,
        state: if n == 3 { State::Suspect } else { State::Live },
        last_pong_at: None,
        last_active_at: Timestamp(n as i64),
        idle_ms: n as f64 * 1000.0,
        rtt_ms: RttMs { last: Some(n as f64), ..RttMs::default() },
        missed: 0,
        pings_sent: 0,
        pongs_received: 0,
        reconnect_count: 0,
    }
}

/// Hears which sessions are to end.
struct Ends(Arc<Mutex<Vec<ToEnd>>>);

impl Actor for Ends {
    type Context = Context<Self>;
}

impl Handles<EndSessions> for Ends {
    type Result = usize;

    fn handle(&mut self, EndSessions(sessions): EndSessions, _: &mut Self::Context) -> usize {
        let held = sessions.len();
        self.0.lock().unwrap().extend(sessions);
        held
    }
}

/// A node that drains because it stops, and holds three sessions of five.
struct Drains;

impl Actor for Drains {
    type Context = Context<Self>;
}

impl Handles<Drain> for Drains {
    type Result = Result<DrainView, Stopping>;

    fn handle(&mut self, what: Drain, _: &mut Self::Context) -> Self::Result {
        match what {
            Drain::Undo | Drain::Begin { .. } => Err(Stopping),
            Drain::Look => {
                let drain = DrainFacts { of: 5, until: Timestamp(0), for_good: true };
                Ok(DrainView { live: 3, drain: Some(drain) })
            }
        }
    }
}

struct House {
    log: Log,
    doors: web::Data<Doors>,
    admission: Arc<Admission>,
    ended: Arc<Mutex<Vec<ToEnd>>>,
    /// Snapshots that were asked for.
    taken: Arc<AtomicUsize>,
}

async fn house(sessions: Vec<SessionView>, limits: Limits) -> House {
    let log = Log::new().await;
    let metrics: Arc<Metrics> = Arc::default();
    let feed = log.measured_feed(limits, metrics.clone()).await;
    let limits = admission::Limits::default();
    let admission = Admission::new(limits, Arc::default());
    let ended: Arc<Mutex<Vec<ToEnd>>> = Arc::default();
    let store = log.store.clone();
    let probe = move || -> health::Answer {
        let store = store.clone();
        Box::pin(async move { store.ping().await.map_err(|e| e.to_string()) })
    };
    let pulse = Pulse::new(dashboard::Parts {
        node_id: NODE.parse().unwrap(),
        metrics: Arc::default(),
        feed: feed.clone(),
        peers: Peers::none(),
        redis: false,
        drain: Drains.start().recipient(),
    });
    let (inspector, taken) = inspector(sessions);
    let doors = web::Data::new(Doors {
        node_id: NODE.parse().unwrap(),
        feed,
        store: log.store.clone(),
        inspector,
        peers: Peers::none(),
        pulse,
        auth: auth::Auth::new(
            Secret::from("the-admin-token".to_owned()),
            Logins::new(log.store.clone(), Arc::default()),
            crate::peer::Proxies::default(),
            admission.clone(),
        ),
        run: watch::channel(log.run()).1,
        ends: Ends(ended.clone()).start().recipient(),
        readiness: Readiness::new(admission.clone(), vec![Probe::new("sql", true, probe)]),
        metrics,
        metrics_public: false,
        acts: acts::Acts {
            book: Book::new(log.store.clone(), None),
            bans: admission.bans().clone(),
            revoked: admission.revoked().clone(),
            tokens: DeviceTokens::new(&Secret::new("a-secret-of-the-tests-0123456789abcdef")),
            drain: Drains.start().recipient(),
            drain_spread: std::time::Duration::from_secs(30),
            log_filter: Arc::new(LogFilter::new("info").unwrap()),
        },
    });
    House { log, doors, admission, ended, taken }
}

struct Answer {
    status: StatusCode,
    headers: actix_web::http::header::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl House {
    async fn send(&self, request: TestRequest) -> Answer {
        let app = init_service(App::new().app_data(self.doors.clone()).configure(routes)).await;
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("no body"));
        Answer { status, headers, body }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(json_get(uri)).await
    }

    /// 200, as JSON.
    async fn found(&self, uri: &str) -> Value {
        let answer = self.get(uri).await;
        assert_eq!(answer.status, 200, "{uri}: {:?}", answer.body);
        answer.json()
    }

    /// A refusal, as the problem it must be.
    async fn refused(&self, uri: &str, status: u16) -> Value {
        let answer = self.get(uri).await;
        assert_eq!(answer.status.as_u16(), status, "{uri}: {:?}", answer.body);
        assert_eq!(answer.header("content-type"), problem::CONTENT_TYPE, "{uri}");
        answer.json()
    }

    /// How often the store was read for events.
    fn event_reads(&self) -> u64 {
        let metrics = &self.doors.metrics.store_seconds;
        metrics.with_label_values(&["sql", "events"]).get_sample_count()
    }

    async fn page(&self, uri: &str) -> String {
        let get = TestRequest::get().uri(uri).insert_header(("Authorization", TOKEN));
        let answer = self.send(get.insert_header(("Accept", "text/html"))).await;
        assert_eq!(answer.status, 200, "{uri}: {:?}", answer.body);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    async fn record(&self, devices: std::ops::Range<usize>) {
        self.doors.feed.publish(&self.log.sessions(devices).await);
    }
}

fn json_get(uri: &str) -> TestRequest {
    let get = TestRequest::get().uri(uri);
    get.insert_header(("Authorization", TOKEN)).insert_header(("Accept", "application/json"))
}

fn seqs(events: &Value) -> Vec<i64> {
    events.as_array().unwrap().iter().map(|e| e["data"]["seq"].as_i64().unwrap()).collect()
}

#[actix_web::test]
async fn only_health_and_the_front_page_are_open() {
    let house = house(vec![], Limits::default()).await;
    for open in ["/", "/healthz", "/readyz"] {
        assert_eq!(house.send(TestRequest::get().uri(open)).await.status, 200, "{open}");
    }
    let id = SessionId::new();
    let one = format!("/debug/connections/{id}");
    for shut in ["/metrics", "/v1/events", "/debug/connections", &one, "/debug/events", "/debug/performance"]
    {
        for token in ["", "Bearer the-admin-toke", "Basic x"] {
            let request = TestRequest::get().uri(shut).insert_header(("Authorization", token));
            let answer = house.send(request).await;
            assert_eq!(answer.status, 401, "{shut} with {token:?}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
            assert_eq!(answer.json()["status"], 401);
        }
    }
    assert_eq!(house.get("/metrics").await.status, 200);
    assert!(house.found("/debug/performance").await["metrics"]["lastpong_loop_stall_seconds"].is_array());
}

#[actix_web::test]
async fn who_asks_for_the_head_alone_is_not_kept() {
    let house = house(vec![], Limits::default()).await;
    for path in ["/healthz", "/readyz", "/metrics", "/v1/events", "/debug/connections"] {
        let head = TestRequest::with_uri(path).method(Method::HEAD).insert_header(("Authorization", TOKEN));
        assert_eq!(house.send(head).await.status, 200, "{path}");
    }
    assert_eq!(house.doors.feed.standing().subscribers, 0);
}

#[actix_web::test]
async fn what_is_not_there_and_wrong_methods_are_problems() {
    let house = house(vec![], Limits::default()).await;
    house.refused("/nowhere", 404).await;
    house.refused("/debug/connections/a/b", 404).await;
    assert_eq!(house.refused("/ws", 400).await["input"], "Upgrade");
    assert_eq!(house.refused("/v1/events/ws", 400).await["input"], "Upgrade");
    let answer = house.send(TestRequest::post().uri("/v1/events")).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD"));
    assert_eq!(answer.header("content-type"), problem::CONTENT_TYPE);
}

#[actix_web::test]
async fn a_bad_query_is_told_what_is_wrong() {
    let house = house(vec![], Limits::default()).await;
    house.record(0..1).await;
    for (uri, input, allowed) in [
        ("/v1/events?limit=1001", "limit", "1 to 1000"),
        ("/v1/events?after=x", "after", "0 to 9223372036854775807"),
        ("/v1/events?after=3", "after", "0 to 2, the newest"),
        ("/v1/events?since=3", "since", "after, limit, types, device_id, device_type, reason"),
        ("/debug/connections?sort=age", "sort", ""),
        ("/debug/connections?state=dead", "state", "starting, live, suspect, closed"),
        ("/debug/connections?reason=kicked", "reason", ""),
        ("/debug/connections?state=closed&sort=rtt", "sort", ""),
        ("/debug/connections?remote_addr=10.0.0.0/33", "remote_addr", ""),
        ("/debug/connections?idle_gt=30", "idle_gt", "a duration like 500ms, 30s, 5m, 1h"),
        ("/debug/connections?idle_gt=-30s", "idle_gt", ""),
        ("/debug/connections?min_rtt_ms=NaN", "min_rtt_ms", ""),
        ("/debug/connections?cursor=00", "cursor", ""),
        ("/debug/connections?state=closed&cursor=zz", "cursor", ""),
        ("/debug/connections/17", "session_id", "a UUID"),
        ("/debug/events?cursor=17", "cursor", "a next_cursor of /debug/events"),
        ("/debug/performance?x=1", "x", "none"),
    ] {
        let problem = house.refused(uri, 400).await;
        assert_eq!(problem["input"], input, "{uri}");
        assert!(problem["allowed"].as_str().unwrap().starts_with(allowed), "{uri}: {problem}");
    }
}

#[actix_web::test]
async fn readiness_names_each_dependency() {
    let house = house(vec![], Limits::default()).await;
    let ready = house.found("/readyz").await;
    assert_eq!(ready["status"], "ready");
    assert_eq!(
        ready["dependencies"][0],
        json!({"name": "sql", "ok": true, "needed": true, "detail": "answers"})
    );
    house.admission.drain(true);
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let admission = &answer.json()["dependencies"][1];
    assert_eq!(*admission, json!({"name": "admission", "ok": false, "needed": true, "detail": "draining"}));
    assert_eq!(house.found("/healthz").await, json!({"status": "ok"}));
}

#[actix_web::test]
async fn a_store_that_is_gone_makes_the_node_unready() {
    let house = house(vec![], Limits::default()).await;
    house.log.store.close().await;
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["dependencies"][0]["ok"], false);
}
