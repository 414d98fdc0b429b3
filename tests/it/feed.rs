//! What subscribers see: every event, in order, nothing before it is durable, nothing lost over a cut.

use std::collections::HashSet;

use futures_util::future::join_all;
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::events::{CONNECTED, DISCONNECTED};
use crate::support::expect::check_envelope;
use crate::support::raw::CLOSE;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Ask, Device, Events, PATIENCE, Server, Sse, eventually, heavy, token, within};

const SUBSCRIBERS: usize = 50;
const EVENTS: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_subscribers_cut_at_random_miss_nothing_of_twenty_thousand() {
    let _turn = heavy().await;
    let server = Server::start(&[]).await;
    let subscribers = join_all((0..SUBSCRIBERS).map(|_| subscriber(&server)));
    let (_, heard) = futures_util::future::join(sessions(&server, EVENTS / 2), subscribers).await;

    let mut events = Events::new();
    events.pull(&server).await;
    let log: Vec<(i64, &str)> = events
        .all
        .iter()
        .map(|e| (e["data"]["seq"].as_i64().expect("a seq"), e["id"].as_str().expect("an id")))
        .collect();
    assert_eq!(log.len(), EVENTS);
    for heard in heard {
        let heard: Vec<(i64, &str)> = heard.iter().map(|(seq, id)| (*seq, id.as_str())).collect();
        assert!(heard == log, "a subscriber's events are not those of the log");
    }
}

/// Reads until it has heard everything once, and hangs up at random on the way; gives what it heard, repeats dropped.
async fn subscriber(server: &Server) -> Vec<(i64, String)> {
    let (mut heard, mut ids) = (Vec::with_capacity(EVENTS), HashSet::with_capacity(EVENTS));
    let mut last = 0;
    let everything = async {
        while heard.len() < EVENTS {
            let mut stream = Sse::open(server, "", Some(last)).await;
            let mut left = rand::rng().random_range(1..EVENTS / 4);
            while left > 0 && heard.len() < EVENTS {
                let Some(sent) = stream.next().await else { break };
                assert!(sent.id > last, "seq {} came after {last}", sent.id);
                last = sent.id;
                let id = id_of(&sent.data).to_owned();
                if ids.insert(id.clone()) {
                    heard.push((sent.id, id));
                }
                left -= 1;
            }
        }
    };
    // A million events in a debug build, on cores that others share, are more than a moment's work.
    tokio::time::timeout(PATIENCE * 5, everything).await.expect("a subscriber hears everything");
    heard
}

/// The `id` of a CloudEvent, found without reading all of it: this is done a million times.
fn id_of(json: &str) -> &str {
    let rest = json.split_once(r#""id":""#).expect("an id").1;
    rest.split_once('"').expect("an id").0
}

/// Lets `count` sessions begin and end, a hundred at a time.
async fn sessions(server: &Server, count: usize) {
    sessions_at(server, "/ws", count).await;
}

async fn sessions_at(server: &Server, target: &str, count: usize) {
    const AT_ONCE: usize = 100;
    let mut log = Events::new();
    log.pull(server).await;
    let before = log.of_kind(DISCONNECTED).count();
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let addr = server.addr;
        let ask = Ask::with_token(&token(&format!("busy-{lane}"))).target(target);
        tasks.spawn(async move {
            for _ in 0..count / AT_ONCE {
                let mut raw = ask.admitted(addr).await;
                raw.welcome().await;
                raw.send(CLOSE, &1000u16.to_be_bytes()).await.expect("connected");
                raw.closed(true).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no device panicked");
    }
    eventually("all ends to be on the record", async || {
        log.pull(server).await;
        (log.of_kind(DISCONNECTED).count() >= before + count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_sees_only_what_survives_a_kill() {
    let mut server = Server::start(&[]).await;
    for round in 0..5 {
        let mut stream = Sse::open(&server, "types=lastpong.session.disconnected.v1", None).await;
        let mut device = Device::connect(&server, &format!("seen-{round}")).await;
        device.close(Some(1000)).await;
        let sent = stream.expect().await;
        server.kill().await;
        server = server.restart().await;
        let mut events = Events::new();
        events.pull(&server).await;
        let kept = events.all.iter().find(|e| e["data"]["seq"] == sent.id);
        assert_eq!(kept, Some(&sent.json()), "what was told is not what is kept");
    }
}

#[tokio::test]
async fn a_stream_without_a_start_begins_now_and_carries_whole_events() {
    let server = Server::start(&[]).await;
    let mut before = Device::connect(&server, "before").await;
    before.close(Some(1000)).await;
    let log = &mut Events::new();
    log.only_end(&server, &before.session_id()).await;
    let mut stream = Sse::open(&server, "", None).await;
    let device = Device::at(&server, "/ws?meta.site=north&device_type=meter", &token("after")).await;
    let sent = stream.expect().await;
    let event = sent.json();
    check_envelope(&event);
    assert_eq!((sent.event.as_str(), &event["type"]), (CONNECTED, &CONNECTED.into()));
    assert_eq!(event["data"]["seq"], sent.id);
    assert_eq!(event["data"]["session_id"], device.session_id());
    assert_eq!(event["data"]["device_type"], "meter");
    assert_eq!(event["data"]["meta"], serde_json::json!({"site": "north"}));
}

#[tokio::test]
async fn filters_choose() {
    let server = Server::start(&[]).await;
    for (device, kind) in [("door-1", "lock"), ("door-2", "lock"), ("lamp-1", "light")] {
        let mut device = Device::at(&server, &format!("/ws?device_type={kind}"), &token(device)).await;
        device.close(Some(1000)).await;
    }
    drop(Device::connect(&server, "door-9").await.into_tcp());
    let mut log = Events::new();
    log.wait_for(&server, "the last end", |e| e["subject"] == "door-9" && e["type"] == DISCONNECTED).await;
    eventually("all eight events", async || {
        log.pull(&server).await;
        (log.all.len() == 8).then_some(())
    })
    .await;

    for (query, expected) in [
        ("device_id=door-1", vec!["door-1", "door-1"]),
        ("device_id=door-*&types=lastpong.session.disconnected.v1", vec!["door-1", "door-2", "door-9"]),
        ("device_id=door-1,lamp-1&types=lastpong.session.connected.v1", vec!["door-1", "lamp-1"]),
        ("device_type=light", vec!["lamp-1", "lamp-1"]),
        ("reason=read_error", vec!["door-9"]),
        ("reason=client_closed,read_error&device_id=door-*", vec!["door-1", "door-2", "door-9"]),
        ("types=lastpong.session.c*", vec!["door-1", "door-2", "lamp-1", "door-9"]),
        ("device_id=nobody", vec![]),
    ] {
        let page = server.json(&format!("/v1/events?after=0&{query}")).await;
        let mut subjects: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|e| e["subject"].as_str().unwrap()).collect();
        // The devices' events may interleave; what is chosen is what is asked here.
        subjects.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(subjects, expected, "{query}");
        if let Some(first) = page["events"].get(0) {
            let mut stream = Sse::open(&server, &format!("after=0&{query}"), None).await;
            assert_eq!(&stream.expect().await.json(), first, "{query}");
        }
    }
}

#[tokio::test]
async fn pages_follow_one_another() {
    let server = Server::start(&[]).await;
    sessions(&server, 100).await;
    let mut log = Events::new();
    log.pull(&server).await;
    assert_eq!(log.all.len(), 200);
    let (mut after, mut paged) = (None, Vec::new());
    loop {
        let start = after.map_or(String::new(), |seq| format!("&after={seq}"));
        let page = server.json(&format!("/v1/events?limit=7{start}")).await;
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 7);
        if events.is_empty() {
            break;
        }
        paged.extend(events.iter().cloned());
        after = page["next_after"].as_i64();
    }
    assert_eq!(paged, log.all);
}

#[tokio::test]
async fn a_bad_query_is_refused_by_name() {
    let server = Server::start(&[]).await;
    for (query, named) in [
        ("after=soon", "after"),
        ("after=-1", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("types=nonsense", "types"),
        ("reason=boredom", "reason"),
        ("device_id=a%20b", "device_id"),
        ("colour=red", "colour"),
    ] {
        let (status, body) = server.status(&format!("/v1/events?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains(named), "{query}: the answer does not name it: {body}");
    }
    let stream = server.bare(reqwest::Method::GET, "/v1/events").bearer_auth(ADMIN_TOKEN);
    let stream = stream.header("Accept", "text/event-stream").header("Last-Event-ID", "x");
    let answer = stream.send().await.unwrap();
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn without_a_token_nobody_reads() {
    let server = Server::start(&[]).await;
    for accept in ["application/json", "text/event-stream"] {
        let answer =
            server.bare(reqwest::Method::GET, "/v1/events").header("Accept", accept).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{accept}");
    }
}

#[tokio::test]
async fn events_past_their_retention_are_dropped_and_the_rest_is_whole() {
    let server = Server::start(&[("EVENT_RETENTION", "2s")]).await;
    let mut old = Device::connect(&server, "old").await;
    old.close(Some(1000)).await;
    let live = Device::connect(&server, "still-here").await;
    let mut log = Events::new();
    log.wait_for(&server, "the old end", |e| e["subject"] == "old" && e["type"] == DISCONNECTED).await;
    eventually("old events to be dropped", async || {
        let page = server.json("/v1/events").await;
        let gone = |e: &serde_json::Value| e["subject"] != "old";
        page["events"].as_array().unwrap().iter().all(gone).then_some(())
    })
    .await;
    // The numbers go on, and a session whose start is dropped still ends once.
    let mut again = Device::connect(&server, "old").await;
    assert_eq!(again.welcome["device_seq"], 3);
    again.close(Some(1000)).await;
    drop(live.into_tcp());
    let end =
        log.wait_for(&server, "the end", |e| e["subject"] == "still-here" && e["type"] == DISCONNECTED).await;
    assert_eq!(end["data"]["device_seq"], 2);
}

#[tokio::test]
async fn subscribers_that_stop_reading_cost_neither_memory_nor_anybody_else() {
    const LAZY: usize = 20;
    const SESSIONS: usize = 2_000;
    /// Events of 5 KiB: each of the lazy ones leaves 20 MiB lying, many times what the kernel takes for it. Kept in
    /// the server that would be 400 MiB; one batch each, with what it is written from, is less than 3 MiB.
    const MOST_GROWTH: u64 = 96 << 20;
    let server = Server::start(&[]).await;
    // The first round fills what is kept of the newest events for all, and has the allocator grow.
    wordy_sessions(&server, SESSIONS).await;
    let mut log = Events::new();
    log.pull(&server).await;
    let mut lazy = Vec::new();
    for _ in 0..LAZY {
        lazy.push(lazy_subscriber(&server).await);
    }
    let mut keen = Sse::open(&server, "", None).await;
    let before = server.resident_bytes();
    futures_util::future::join(wordy_sessions(&server, SESSIONS), async {
        let mut last = log.all.last().expect("an event")["data"]["seq"].as_i64().expect("a seq");
        for _ in 0..2 * SESSIONS {
            let sent = keen.expect().await;
            assert_eq!(sent.id, last + 1, "the keen one misses nothing");
            last = sent.id;
        }
    })
    .await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{LAZY} subscribers that do not read hold {grown} bytes");
    // They were let in, and are behind because nobody reads, not because they were cut off.
    for mut stream in lazy {
        let mut some = [0; 12];
        within("the start of a stream", stream.read_exact(&mut some)).await.expect("still connected");
        assert_eq!(&some, b"HTTP/1.1 200");
    }
}

/// One that asks for every event and reads none, with as small a window as the kernel gives.
async fn lazy_subscriber(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(server.addr).await.expect("the server listens");
    let ask = Ask::bare()
        .without("Upgrade")
        .without("Connection")
        .without("Sec-WebSocket-Key")
        .target("/v1/events?after=0")
        .header("Accept", "text/event-stream")
        .header("Authorization", &format!("Bearer {ADMIN_TOKEN}"));
    stream.write_all(&ask.bytes()).await.expect("the request is sent");
    stream
}

/// Sessions that say of themselves as much as they may.
async fn wordy_sessions(server: &Server, count: usize) {
    let meta: Vec<String> = (0..16).map(|n| format!("meta.{n:064}={}", "x".repeat(256))).collect();
    let target = format!("/ws?{}", meta.join("&"));
    sessions_at(server, &target, count).await;
}
