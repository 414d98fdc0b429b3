//! The operator's first look: live sessions, one session, recent events, health, metrics.

use serde_json::Value;

use crate::support::raw::{PING, Raw};
use crate::support::{Device, Events, Fleet, Server, eventually, token, within};

/// The items of a list once `ready` holds of them; a list is a copy made a moment ago.
async fn items(server: &Server, query: &str, ready: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(&format!("connections with {query:?}"), async || {
        let list = server.json(&format!("/debug/connections?{query}")).await;
        let items = list["items"].as_array().expect("items").clone();
        ready(&items).then_some(items)
    })
    .await
}

fn column<'a>(items: &'a [Value], name: &str) -> Vec<&'a str> {
    items.iter().map(|item| item[name].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn live_sessions_are_listed_sorted_filtered_and_paged() {
    let server = Server::start(&[]).await;
    let mut held = Vec::new();
    for (device, kind) in [("pump-3", "pump"), ("pump-1", "pump"), ("valve-1", "valve"), ("pump-2", "pump")] {
        held.push(Device::at(&server, &format!("/ws?device_type={kind}"), &token(device)).await);
    }
    let all = items(&server, "sort=device_id", |items| items.len() == 4).await;
    assert_eq!(column(&all, "device_id"), ["pump-1", "pump-2", "pump-3", "valve-1"]);
    for (query, expected) in [
        ("sort=-device_id", vec!["valve-1", "pump-3", "pump-2", "pump-1"]),
        ("sort=connected_at", vec!["pump-3", "pump-1", "valve-1", "pump-2"]),
        ("sort=-connected_at", vec!["pump-2", "valve-1", "pump-1", "pump-3"]),
        ("sort=device_id&device_type=pump", vec!["pump-1", "pump-2", "pump-3"]),
        ("sort=device_id&device_id=pump-2", vec!["pump-2"]),
        ("sort=device_id&device_id=pump-*", vec!["pump-1", "pump-2", "pump-3"]),
        ("sort=device_id&remote_addr=127.0.0.0/8&limit=2", vec!["pump-1", "pump-2"]),
        ("remote_addr=10.0.0.0/8", vec![]),
        ("sort=device_id&node=node-1&state=live&limit=1", vec!["pump-1"]),
        ("node=another", vec![]),
        ("state=suspect", vec![]),
        ("idle_gt=1h", vec![]),
    ] {
        let list = server.json(&format!("/debug/connections?{query}")).await;
        assert_eq!(column(list["items"].as_array().unwrap(), "device_id"), expected, "{query}");
    }
    let list = server.json("/debug/connections").await;
    assert_eq!(list["total"], 4);
    assert!(list["now"].is_string() || list["now"].is_number(), "{list}");
    assert_eq!(list["next_cursor"], Value::Null, "all are on one page");
}

#[tokio::test]
async fn pages_of_connections_hold_each_once() {
    let server = Server::start(&[]).await;
    let _fleet = Fleet::hold(&server, "paged", 250).await;
    items(&server, "limit=1000", |items| items.len() == 250).await;
    for sort in ["device_id", "-device_id", "connected_at", "-connected_at"] {
        let (mut cursor, mut seen, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let list = server.json(&format!("/debug/connections?sort={sort}&limit=40{cursor}")).await;
            assert_eq!(list["total"], 250);
            seen.extend(
                column(list["items"].as_array().unwrap(), "session_id").into_iter().map(str::to_owned),
            );
            pages += 1;
            match list["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((pages, seen.len()), (7, 250), "{sort}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 250, "{sort}: a session came twice");
    }
}

#[tokio::test]
async fn one_session_is_shown_in_full() {
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "5s")];
    let server = Server::start(&settings).await;
    let mut device = Device::at(&server, "/ws?meta.site=north", &token("looked-at")).await;
    let path = format!("/debug/connections/{}", device.session_id());
    let view = eventually("round trips in the view", async || {
        device.answer_pings(1).await;
        let view = server.json(&path).await;
        let session = view.get("session").unwrap_or(&view).clone();
        session["rtt_ms"]["last"].is_number().then_some(session)
    })
    .await;
    assert_eq!(view["session_id"], device.session_id());
    assert_eq!(view["device_id"], "looked-at");
    assert_eq!(view["state"], "live");
    assert_eq!(view["meta"]["site"], "north");
    assert_eq!(view["missed"], 0);
    assert!(view["pings_sent"].as_u64() >= Some(1) && view["pongs_received"].as_u64() >= Some(1), "{view}");
    let whole = server.json(&path).await.to_string();
    assert!(whole.contains("lastpong.session.connected.v1"), "its events are missing: {whole}");

    // Gone from the living, it is in the history.
    device.close(Some(1000)).await;
    let mut log = Events::new();
    log.only_end(&server, &device.session_id()).await;
    let closed = server.json("/debug/connections?state=closed&device_id=looked-at").await;
    let closed = closed["items"].as_array().unwrap();
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert_eq!(closed[0]["reason"], "client_closed");
    let (status, body) = server.status(&path).await;
    assert_eq!(status, 200, "a closed session can still be looked at: {body}");
    assert!(body.contains("client_closed"), "{body}");

    for (unknown, expected) in [("0197f000-0000-7000-8000-000000000000", 404), ("not-an-id", 400)] {
        let (status, body) = server.status(&format!("/debug/connections/{unknown}")).await;
        assert_eq!(status, expected, "{unknown}: {body}");
    }
}

#[tokio::test]
async fn a_missed_pong_shows_as_suspect_and_a_late_one_as_live_again() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "500ms"), ("MAX_MISSED_PONGS", "100")];
    let server = Server::start(&settings).await;
    let (mut raw, _) = Raw::connect(server.addr, &token("wavering")).await;
    let ping = within("a ping", raw.next()).await.unwrap().unwrap();
    assert_eq!(ping.opcode, PING);
    items(&server, "state=suspect", |items| column(items, "device_id") == ["wavering"]).await;
    let missed = items(&server, "sort=-missed", |items| items.len() == 1).await;
    assert!(missed[0]["missed"].as_u64() >= Some(1), "{missed:?}");
    let answering = tokio::spawn(async move { raw.closed(true).await });
    items(&server, "state=live", |items| column(items, "device_id") == ["wavering"]).await;
    let mut log = Events::new();
    log.pull(&server).await;
    assert_eq!(log.all.len(), 1, "suspicion is no event by default: {:#?}", log.all);
    answering.abort();
}

#[tokio::test]
async fn a_bad_query_is_refused_by_name() {
    let server = Server::start(&[]).await;
    for (query, named) in [
        ("sort=beauty", "sort"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("cursor=%00", "cursor"),
        ("state=asleep", "state"),
        ("reason=boredom", "reason"),
        ("device_id=a%20b", "device_id"),
        ("remote_addr=everywhere", "remote_addr"),
        ("min_rtt_ms=fast", "min_rtt_ms"),
        ("idle_gt=long", "idle_gt"),
        ("colour=red", "colour"),
    ] {
        let answer = server.get(&format!("/debug/connections?{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{query}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains(named)), "{query}: {problem}");
    }
}

#[tokio::test]
async fn only_health_is_for_everyone() {
    let server = Server::start(&[]).await;
    for path in ["/debug/connections", "/debug/events", "/v1/events", "/metrics"] {
        let bare = server.bare(reqwest::Method::GET, path);
        assert_eq!(bare.try_clone().unwrap().send().await.unwrap().status(), 401, "{path}");
        let wrong = bare.bearer_auth("an-admin-token-of-someone-else").send().await.unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
        // A device's token is no operator's.
        let device = server.bare(reqwest::Method::GET, path).bearer_auth(token("nosy")).send().await.unwrap();
        assert!([401, 403].contains(&device.status().as_u16()), "{path}");
        assert_eq!(server.status(path).await.0, 200, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.bare(reqwest::Method::GET, path).send().await.unwrap().status(), 200, "{path}");
    }
    let ready = server.json("/readyz").await;
    assert!(ready.is_object(), "it lists what it depends on: {ready}");

    let server = Server::start(&[("METRICS_PUBLIC", "true")]).await;
    assert_eq!(server.bare(reqwest::Method::GET, "/metrics").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn recent_events_are_shown() {
    let server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "recent").await;
    device.close(Some(1000)).await;
    Events::new().only_end(&server, &device.session_id()).await;
    let shown = server.json("/debug/events").await.to_string();
    for part in ["recent", "lastpong.session.connected.v1", "lastpong.session.disconnected.v1"] {
        assert!(shown.contains(part), "{part} is not shown: {shown}");
    }
}

#[tokio::test]
async fn metrics_move() {
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "5s")];
    let server = Server::start(&settings).await;
    let admitted = r#"lastpong_handshakes_total{outcome="admitted"}"#;
    let closed = r#"lastpong_disconnects_total{reason="client_closed"}"#;
    let live = r#"lastpong_sessions{state="live"}"#;
    let connected = r#"websocket_connections_total{device_type="meter",status="active"}"#;
    let before = (server.metric(admitted).await.unwrap_or(0.0), server.metric(closed).await.unwrap_or(0.0));
    let mut device = Device::at(&server, "/ws?device_type=meter", &token("measured")).await;
    device.answer_pings(3).await;
    eventually("the session in the metrics", async || {
        let seen = (server.metric(live).await, server.metric(connected).await);
        (seen.0 == Some(1.0) && seen.1.is_some_and(|n| n >= 1.0)).then_some(())
    })
    .await;
    let rtts = server.metric("lastpong_ping_rtt_seconds_count").await;
    assert!(rtts >= Some(2.0), "round trips are not measured: {rtts:?}");
    device.close(Some(1000)).await;
    eventually("the end in the metrics", async || {
        (server.metric(closed).await == Some(before.1 + 1.0) && server.metric(live).await == Some(0.0))
            .then_some(())
    })
    .await;
    assert_eq!(server.metric(admitted).await, Some(before.0 + 1.0));
    let (_, text) = server.status("/metrics").await;
    for name in [
        "websocket_messages_total",
        "lastpong_detection_seconds",
        "lastpong_store_seconds",
        "lastpong_build_info",
        "lastpong_queue_depth",
        "lastpong_loop_stall_seconds",
        "lastpong_event_publish_seconds",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing: {text}");
    }
}
