//! Every metric that is promised is there, moves when it should, and stays small whatever devices call themselves.
//!
//! Told elsewhere: each reason of an end in `reasons.rs`, `banned` in `bans.rs`, each outcome of a handshake in `handshake.rs`, `shutdown.rs` and
//! `outage.rs`, `internal_error` in `panic.rs`, `node_lost` after a restart in `crash.rs`. Queues between actors are full only
//! for moments that cannot be brought about from outside: beside the actors (`src/supervisor/root_tests.rs`, `worker_tests.rs`), as is the lag
//! of a subscriber (`src/feed/tests.rs`). The reasons `token_revoked` and `resume_expired` are there at 0: nothing brings them
//! about yet.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::device::reset;
use crate::support::proxy::Weather;
use crate::support::raw::{Ask, PING, PONG, Raw, TEXT};
use crate::support::server::ADMIN_TOKEN;
use crate::support::size::identities;
use crate::support::{
    Cluster, Device, Events, Scraper, Server, Sse, Stores, eventually, heavy, token, within,
};

/// Name, type and labels, as the contract lists them.
const CONTRACT: &[(&str, &str, &[&str])] = &[
    ("websocket_connections_total", "gauge", &["device_type", "status"]),
    ("websocket_messages_total", "counter", &["message_type", "status"]),
    ("lastpong_sessions", "gauge", &["state"]),
    ("lastpong_disconnects_total", "counter", &["reason"]),
    ("lastpong_handshakes_total", "counter", &["outcome"]),
    ("lastpong_ping_rtt_seconds", "histogram", &[]),
    ("lastpong_detection_seconds", "histogram", &[]),
    ("lastpong_event_publish_seconds", "histogram", &["sink"]),
    ("lastpong_outbox_lag_events", "gauge", &["sink"]),
    ("lastpong_heartbeat_updates_total", "counter", &["outcome"]),
    ("lastpong_heartbeat_update_seconds", "histogram", &[]),
    ("lastpong_activity_checks_total", "counter", &["verdict"]),
    ("lastpong_store_seconds", "histogram", &["store", "op"]),
    ("lastpong_breaker_state", "gauge", &["store"]),
    ("lastpong_reconcile_drift", "gauge", &["kind"]),
    ("lastpong_queue_depth", "gauge", &["queue"]),
    ("lastpong_queue_refused_total", "counter", &["queue"]),
    ("lastpong_loop_stall_seconds", "histogram", &[]),
    ("lastpong_build_info", "gauge", &["version"]),
];

/// Reads and writes often, and gives nobody up.
const BRISK: [(&str, &str); 4] = [
    ("PING_INTERVAL", "500ms"),
    ("PONG_TIMEOUT", "500ms"),
    ("MAX_MISSED_PONGS", "100"),
    ("UPDATE_INTERVAL", "200ms"),
];

#[tokio::test]
async fn each_is_there_from_the_start_by_its_name_type_and_labels() {
    let server = Server::start(&[]).await;
    let scrape = Scraper::of(&server).await.read().await;
    for (name, kind, labels) in CONTRACT {
        let parts: &[&str] = if *kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for part in parts {
            let sample = scrape.0.iter().find(|sample| sample.name == format!("{name}{part}"));
            let sample = sample.unwrap_or_else(|| panic!("{name}{part} is missing"));
            assert_eq!(sample.kind, *kind, "{name}");
            assert!(!sample.help.is_empty(), "{name} says nothing of itself");
            let mut wanted: BTreeSet<&str> = labels.iter().copied().collect();
            wanted.extend((*part == "_bucket").then_some("le"));
            assert_eq!(sample.labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted, "{name}");
        }
    }
    // In seconds, and said so.
    let timed =
        scrape.0.iter().filter(|sample| sample.kind == "histogram" && sample.name.ends_with("_count"));
    let unitless =
        timed.filter(|s| !s.name.ends_with("_seconds_count") && s.name != "lastpong_batch_writes_count");
    assert_eq!(unitless.map(|s| &s.name).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(scrape.value("lastpong_build_info"), Some(1.0));
    assert!(scrape.total("process_resident_memory_bytes") > 1e6, "the process is not shown");
}

#[tokio::test]
async fn what_a_device_does_moves_them() {
    let stores = Stores::start().await;
    let own = [("MAX_SUBSCRIBERS", "2"), ("MAX_FRAME_BYTES", "1KiB")];
    let server = Server::start_on(&stores, &[&BRISK[..], &own[..]].concat()).await;
    server.whole().await;
    let mut scraper = Scraper::of(&server).await;
    let before = scraper.read().await;
    let mut sse = Sse::open(&server, "", None).await;
    let mut device = Device::at(&server, "/ws?device_type=meter", &token("measured")).await;
    sse.expect().await;
    device.text(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(device.json().await["type"], "ack");
    device.text(r#"{"type":"nonsense"}"#).await;
    assert_eq!(device.json().await["type"], "error");
    device.answer_pings(3).await;
    let mut steady = Device::connect(&server, "steady").await;
    let steady = tokio::spawn(async move { steady.closed().await });
    let (mut raw, _) = Raw::connect(server.addr, &token("mute")).await;
    raw.send(PING, b"are you there").await.expect("connected");
    raw.send(PONG, b"nobody asked").await.expect("connected");
    scraper.until(r#"lastpong_sessions{state="suspect"}"#, |n| n >= 1.0).await;
    scraper.until(r#"lastpong_sessions{state="live"}"#, |n| n >= 1.0).await;
    let meters = r#"websocket_connections_total{device_type="meter",status="active"}"#;
    assert_eq!(scraper.read().await.value(meters), Some(1.0));
    // Every seat but one is taken, then all; who comes next is refused.
    let follower = follow(&server).await;
    scraper.until(r#"lastpong_queue_depth{queue="subscribers"}"#, |n| n == 2.0).await;
    let third = server.bare(reqwest::Method::GET, "/v1/events").bearer_auth(ADMIN_TOKEN);
    assert_eq!(third.header("Accept", "text/event-stream").send().await.expect("an answer").status(), 503);
    raw.send(TEXT, &[b'x'; 1025]).await.expect("connected");
    raw.closed(true).await;
    let session = device.session_id();
    device.text(r#"{"type":"bye","reason":"done"}"#).await;
    device.closed().await;
    Events::new().only_end(&server, &session).await;
    // A look at who lives may be a tenth of a second old.
    let place = format!("/debug/connections/{session}");
    eventually("its record", async || (server.json(&place).await["state"] == "closed").then_some(())).await;
    server.json("/debug/connections?state=closed").await;
    server.json("/v1/devices/measured").await;
    let moved = [
        r#"websocket_messages_total{message_type="ping",status="sent"}"#,
        r#"websocket_messages_total{message_type="ping",status="received"}"#,
        r#"websocket_messages_total{message_type="pong",status="matched"}"#,
        r#"websocket_messages_total{message_type="pong",status="unmatched"}"#,
        r#"websocket_messages_total{message_type="heartbeat",status="received"}"#,
        r#"websocket_messages_total{message_type="ack",status="sent"}"#,
        r#"websocket_messages_total{message_type="bye",status="received"}"#,
        r#"websocket_messages_total{message_type="welcome",status="sent"}"#,
        r#"websocket_messages_total{message_type="error",status="sent"}"#,
        r#"websocket_messages_total{message_type="frame",status="refused"}"#,
        r#"lastpong_disconnects_total{reason="client_closed"}"#,
        r#"lastpong_disconnects_total{reason="message_too_big"}"#,
        r#"lastpong_handshakes_total{outcome="admitted"}"#,
        "lastpong_ping_rtt_seconds_count",
        "lastpong_detection_seconds_count",
        r#"lastpong_event_publish_seconds_count{sink="feed"}"#,
        r#"lastpong_event_publish_seconds_count{sink="sse"}"#,
        r#"lastpong_event_publish_seconds_count{sink="websocket"}"#,
        r#"lastpong_event_publish_seconds_count{sink="redis_stream"}"#,
        r#"lastpong_heartbeat_updates_total{outcome="written"}"#,
        "lastpong_heartbeat_update_seconds_count",
        r#"lastpong_activity_checks_total{verdict="active"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="commit"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="touch"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="renew"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="follow"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="reconcile"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="session"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="events"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="history"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="presence"}"#,
        r#"lastpong_store_seconds_count{store="redis"}"#,
        "lastpong_batch_writes_count",
        r#"lastpong_queue_refused_total{queue="subscribers"}"#,
    ];
    scraper.rises(&before, &moved).await;
    scraper.until(meters, |n| n == 0.0).await;
    drop(follower);
    scraper.until(r#"lastpong_queue_depth{queue="subscribers"}"#, |n| n == 1.0).await;
    steady.abort();
    // Swept at the start.
    scraper.until(r#"lastpong_store_seconds_count{store="sql",op="sweep"}"#, |n| n > 0.0).await;
}

#[tokio::test]
async fn who_is_gone_before_the_answer_is_counted_as_abandoned() {
    let server = Server::start(&[]).await;
    let mut scraper = Scraper::of(&server).await;
    let before = scraper.read().await;
    let mut stream = TcpStream::connect(server.addr).await.expect("it listens");
    // Once it is known to be taken on,
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: lastpong\r\n\r\n").await.expect("sent");
    let mut answer = [0; 1024];
    let read = within("an answer", stream.read(&mut answer)).await.expect("readable");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
    // it asks while nobody reads, and is gone when somebody does.
    server.freeze().await;
    stream.write_all(&Ask::with_token(&token("gone")).bytes()).await.expect("sent");
    reset(&stream);
    drop(stream);
    server.signal(Signal::CONT);
    scraper.rises(&before, &[r#"lastpong_handshakes_total{outcome="abandoned"}"#]).await;
}

/// A subscriber by WebSocket.
async fn follow(server: &Server) -> WebSocketStream<TcpStream> {
    let mut request =
        format!("ws://{}/v1/events/ws", server.addr).into_client_request().expect("a good address");
    let bearer = format!("Bearer {ADMIN_TOKEN}").parse().expect("a good header");
    request.headers_mut().insert("Authorization", bearer);
    let stream = TcpStream::connect(server.addr).await.expect("it listens");
    within("the handshake", tokio_tungstenite::client_async(request, stream)).await.expect("followed").0
}

/// It is counted at the first sweep of a run, which comes at once.
#[tokio::test]
async fn the_length_of_the_log_is_told() {
    let mut server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "logged").await;
    device.close(Some(1000)).await;
    Events::new().only_end(&server, &device.session_id()).await;
    server.kill().await;
    let server = server.restart().await;
    Scraper::of(&server).await.until("lastpong_event_log_events", |n| n == 4.0).await;
}

#[tokio::test]
async fn a_stall_of_the_program_is_told() {
    let server = Server::start(&[]).await;
    let mut scraper = Scraper::of(&server).await;
    let before = scraper.read().await;
    server.freeze().await;
    // The stop itself is what is told of: there is no condition to wait for but its length.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal(Signal::CONT);
    scraper.rises(&before, &["lastpong_loop_stall_seconds_count", "lastpong_loop_stall_seconds_sum"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_told() {
    let mut stores = Stores::start().await;
    let server = Server::start_on(&stores, &BRISK).await;
    server.whole().await;
    let mut scraper = Scraper::of(&server).await;
    let before = scraper.read().await;
    let mut staying = Device::connect(&server, "staying").await;
    let staying = tokio::spawn(async move { staying.closed().await });
    stores.suffer(|stores| stores.postgres.stall());
    // Let in, and not welcome until its start is durable somewhere.
    let mut waiting = Ask::with_token(&token("waiting")).admitted(server.addr).await;
    eventually("a session that begins, on its way to the record", async || {
        let now = scraper.read().await;
        let starting = now.total(r#"lastpong_sessions{state="starting"}"#);
        (starting == 1.0 && now.total(r#"lastpong_queue_depth{queue="record"}"#) > 0.0).then_some(())
    })
    .await;
    waiting.welcome().await;
    scraper.until(r#"lastpong_queue_depth{queue="heard"}"#, |n| n > 0.0).await;
    scraper.until(r#"lastpong_breaker_state{store="sql"}"#, |n| n > 0.0).await;
    scraper.until("lastpong_journal_entries", |n| n > 0.0).await;
    stores.suffer(|stores| stores.postgres.resume());
    server.whole().await;
    scraper.until(r#"lastpong_breaker_state{store="sql"}"#, |n| n == 0.0).await;
    let moved = [
        r#"lastpong_store_seconds_count{store="journal",op="append"}"#,
        r#"lastpong_store_seconds_count{store="sql",op="drain"}"#,
    ];
    scraper.rises(&before, &moved).await;

    stores.suffer(|stores| stores.redis.stop());
    let mut device = Device::connect(&server, "untold").await;
    device.close(Some(1000)).await;
    scraper.until(r#"lastpong_breaker_state{store="redis"}"#, |n| n > 0.0).await;
    scraper.until(r#"lastpong_outbox_lag_events{sink="redis_stream"}"#, |n| n > 0.0).await;
    stores.suffer(|stores| stores.redis.cont());
    scraper.until(r#"lastpong_breaker_state{store="redis"}"#, |n| n == 0.0).await;
    scraper.until(r#"lastpong_outbox_lag_events{sink="redis_stream"}"#, |n| n == 0.0).await;

    // It answers, and takes nothing: heartbeats of a device that is heard are refused.
    stores.redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    scraper.rises(&before, &[r#"lastpong_heartbeat_updates_total{outcome="failed"}"#]).await;
    stores.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    staying.abort();
}

#[tokio::test]
async fn each_kind_of_drift_is_counted() {
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &[("UPDATE_INTERVAL", "200ms")]).await;
    server.whole().await;
    let mut scraper = Scraper::of(&server).await;
    let before = scraper.read().await;
    let quiet = Device::connect(&server, "quiet").await;
    let key = format!("lastpong:session:{}", quiet.session_id());
    let redis = &stores.redis;
    eventually("its live state", async || (redis.command(&["EXISTS", &key]).int() == 1).then_some(())).await;
    // It pings seldom: nothing but the look at what is held mends what is done to it.
    let stale = r#"lastpong_reconcile_drift{kind="redis_stale"}"#;
    eventually(stale, async || {
        let mut session: Value = serde_json::from_str(redis.command(&["GET", &key]).text()).expect("JSON");
        session["last_active_at"] = json!("2020-01-01T00:00:00.000000Z");
        redis.command(&["SET", &key, &session.to_string(), "KEEPTTL"]);
        (scraper.read().await.total(stale) > before.total(stale)).then_some(())
    })
    .await;
    let missing = r#"lastpong_reconcile_drift{kind="redis_missing"}"#;
    eventually(missing, async || {
        redis.command(&["DEL", &key]);
        (scraper.read().await.total(missing) > before.total(missing)).then_some(())
    })
    .await;
    redis.command(&["ZADD", "lastpong:active", "0", "0197f000-0000-7000-8000-000000000000"]);
    let of_redis = [
        r#"lastpong_reconcile_drift{kind="redis_orphan"}"#,
        r#"lastpong_activity_checks_total{verdict="inactive"}"#,
        r#"lastpong_activity_checks_total{verdict="unknown"}"#,
    ];
    scraper.rises(&before, &of_redis).await;

    // A heartbeat of whom live state does not know any more.
    let mut heard = Device::connect(&server, "heard").await;
    let key = format!("lastpong:session:{}", heard.session_id());
    let unknown = r#"lastpong_heartbeat_updates_total{outcome="unknown"}"#;
    eventually(unknown, async || {
        redis.command(&["DEL", &key]);
        heard.text(r#"{"type":"heartbeat","id":"1"}"#).await;
        heard.json().await;
        (scraper.read().await.total(unknown) > before.total(unknown)).then_some(())
    })
    .await;

    // A row without a session, and a session without a row.
    let mut left = Device::connect(&server, "left").await;
    left.close(Some(1000)).await;
    Events::new().only_end(&server, &left.session_id()).await;
    stores.postgres.sql(&format!(
        "INSERT INTO session_records (session_id, device_id, device_type, node_id, incarnation, status, start_time,
             start_device_seq, start_seq, last_active_at, reconnect_count, remote_addr, meta)
         SELECT gen_random_uuid(), device_id, device_type, node_id, incarnation, 'active', start_time - 60000000,
             start_device_seq, start_seq, last_active_at, 0, remote_addr, meta
         FROM session_records WHERE session_id = '{}'",
        left.session_id()
    ));
    let of_sql = [
        r#"lastpong_reconcile_drift{kind="sql_orphan"}"#,
        // What is ended for its device is counted as any end.
        r#"lastpong_disconnects_total{reason="internal_error"}"#,
    ];
    scraper.rises(&before, &of_sql).await;
    stores.postgres.sql(&format!(
        "UPDATE session_records SET incarnation = gen_random_uuid() WHERE session_id = '{}'",
        quiet.session_id()
    ));
    scraper.rises(&before, &[r#"lastpong_reconcile_drift{kind="sql_missing"}"#]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_is_told_by_both_sides() {
    let cluster = Cluster::start_cuttable(2, &BRISK).await;
    let mut lost = Scraper::of(&cluster.nodes[0]).await;
    let mut survivor = Scraper::of(&cluster.nodes[1]).await;
    let (before, of_survivor) = (lost.read().await, survivor.read().await);
    survivor.until(r#"lastpong_peers{state="live"}"#, |n| n == 1.0).await;
    let device = Device::connect(&cluster.nodes[0], "held").await;
    cluster.to_postgres(0, Weather::Silent);
    cluster.to_redis(0, Weather::Silent);
    Events::new().until_ended(&cluster.nodes[1], [device.session_id()]).await;
    let ended = r#"lastpong_disconnects_total{reason="node_lost"}"#;
    survivor.rises(&of_survivor, &[ended, r#"lastpong_store_seconds_count{store="sql",op="reap"}"#]).await;
    cluster.to_redis(0, Weather::Fair);
    cluster.to_postgres(0, Weather::Fair);
    lost.rises(&before, &["lastpong_runs_lost_total"]).await;
    // The survivor wrote that end, and it alone has counted it.
    let counted = lost.read().await.total(ended) + survivor.read().await.total(ended);
    assert_eq!(counted, 1.0, "one end, counted once");
}

/// `TEST_IDENTITIES` says how many; 100,000 of them pass in the process beside (`src/metrics_tests.rs`).
#[tokio::test]
async fn identities_add_no_series_without_end() {
    let _turn = heavy().await;
    let server = Server::start(&BRISK).await;
    let mut scraper = Scraper::of(&server).await;
    let of_devices = |scrape: &crate::support::scrape::Scrape| {
        scrape.0.iter().filter(|s| !s.name.starts_with("websocket_connections_total")).count()
    };
    let mut first = None;
    let mut staying = Device::connect(&server, "identity-staying").await;
    for n in 0..identities() {
        let target = format!("/ws?device_type=type-{n}&meta.serial=meta-{n}");
        let mut device = Device::at(&server, &target, &token(&format!("identity-{n}"))).await;
        device.close(Some(1000)).await;
        if n == 99 {
            // What comes of one device that stays, and with time, is there by now.
            staying.answer_pings(2).await;
            scraper.until(r#"lastpong_store_seconds_count{op="touch"}"#, |n| n > 0.0).await;
            scraper.until(r#"lastpong_store_seconds_count{op="sweep"}"#, |n| n > 0.0).await;
            first = Some(of_devices(&scraper.read().await));
        }
    }
    let scrape = scraper.read().await;
    assert_eq!(Some(of_devices(&scrape)), first, "a series came with a device");
    let of_types = scrape.0.iter().filter(|s| s.name == "websocket_connections_total");
    let series: Vec<_> = of_types.collect();
    assert!(series.len() <= 65, "{} series of device types", series.len());
    assert!(series.iter().any(|s| s.labels["device_type"] == "other"), "{series:?}");
    for sample in &scrape.0 {
        let named = sample.labels.values().any(|v| v.starts_with("identity-") || v.starts_with("meta-"));
        assert!(!named, "a device is named: {sample:?}");
    }
}
