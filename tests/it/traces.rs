//! Traces: a session from its handshake to its end, what an operator did to it, and what becomes of them when their
//! receiver is away.

use reqwest::Method;
use serde_json::Value;

use crate::support::acts::act;
use crate::support::events::is_end_of;
use crate::support::otlp::{Received, Receiver, text};
use crate::support::raw::Raw;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Ask, Device, Events, Server, Stores, eventually, token};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn traced(receiver: &Receiver) -> Server {
    Server::start_embedded(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())]).await
}

/// A device whose handshake is of this trace, recorded or not.
async fn connect(server: &Server, device_id: &str, traceparent: Option<&str>) -> (Raw, String) {
    let mut ask = Ask::with_token(&token(device_id));
    if let Some(traceparent) = traceparent {
        ask = ask.header("traceparent", traceparent);
    }
    let mut raw = ask.admitted(server.addr).await;
    let welcome = raw.welcome().await;
    (raw, welcome["session_id"].as_str().expect("a session id").to_owned())
}

async fn end_of(server: &Server, session_id: &str) -> Value {
    Events::new().wait_for(server, "the session's end", |event| is_end_of(event, session_id)).await
}

fn of_session<'a>(id: &'a str, name: &'a str) -> impl Fn(&Received) -> bool + 'a {
    move |span| span.span.name == name && span.text("lastpong.session_id") == id
}

#[tokio::test]
async fn a_session_is_one_trace_from_its_handshake_to_its_end() {
    let receiver = Receiver::start().await;
    let server = traced(&receiver).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let (device, id) = connect(&server, "d1", Some(&parent)).await;
    device.reset();
    let end = end_of(&server, &id).await;
    assert_eq!(end["data"]["trace_id"], TRACE);

    let handshake = receiver.span("the handshake", of_session(&id, "handshake")).await;
    assert_eq!((handshake.trace_id().as_str(), handshake.parent_id().as_str()), (TRACE, CALLER));
    assert_eq!((handshake.text("lastpong.device_id").as_str(), handshake.error()), ("d1", None));
    assert_eq!(text(&handshake.resource, "service.name"), "lastpong");
    assert_eq!(text(&handshake.resource, "host.name"), "node-1");
    let session = receiver.span("the session", of_session(&id, "session")).await;
    assert_eq!(session.parent_id(), handshake.span_id());
    assert_eq!(session.text("lastpong.reason"), "read_error");
    for (name, parent) in [
        ("authenticate", &handshake),
        ("welcome", &handshake),
        ("publish lastpong.session.connected.v1", &session),
        ("publish lastpong.session.disconnected.v1", &session),
    ] {
        let part = receiver.named(name).await;
        assert_eq!((part.trace_id().as_str(), part.parent_id()), (TRACE, parent.span_id()), "{name}");
        assert!(part.span.start_time_unix_nano >= handshake.span.start_time_unix_nano, "{name}");
        assert!(part.span.end_time_unix_nano >= part.span.start_time_unix_nano, "{name}");
    }
    let welcome = receiver.named("welcome").await;
    assert!(welcome.span.end_time_unix_nano <= handshake.span.end_time_unix_nano);
    assert_eq!(receiver.all().len(), 6, "{:#?}", receiver.all());
    assert_eq!(server.metric("lastpong_spans_total{outcome=\"exported\"}").await, Some(6.0));
}

#[tokio::test]
async fn a_kick_and_the_session_that_it_ends_are_linked() {
    let receiver = Receiver::start().await;
    let server = traced(&receiver).await;
    let (_device, id) = connect(&server, "d1", None).await;
    let kick = server.bare(Method::DELETE, &format!("/v1/sessions/{id}")).bearer_auth(ADMIN_TOKEN);
    let kicked =
        kick.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).send().await.expect("an answer");
    assert_eq!(kicked.status(), 204);
    let request = receiver.named("DELETE /v1/sessions/{session_id}").await;
    let session = receiver.span("the session", of_session(&id, "session")).await;
    assert_eq!((request.trace_id().as_str(), request.parent_id().as_str()), (TRACE, CALLER));
    assert_eq!(request.text("http.response.status_code"), "204");
    assert_eq!(request.links(), [session.span_id()]);
    assert_eq!(session.links(), [request.span_id()]);
    assert_ne!(session.trace_id(), TRACE, "its own trace, that began here");
    assert_eq!(end_of(&server, &id).await["data"]["trace_id"], session.trace_id());
}

#[tokio::test]
async fn a_missed_pong_is_noted_and_pings_are_not() {
    let receiver = Receiver::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.url()),
        ("PING_INTERVAL", "100ms"),
        ("PONG_TIMEOUT", "200ms"),
        ("MAX_MISSED_PONGS", "2"),
    ];
    let server = Server::start_embedded(&settings).await;
    let (_silent, id) = connect(&server, "d1", None).await;
    let session = receiver.span("the session", of_session(&id, "session")).await;
    assert_eq!(session.text("lastpong.reason"), "pong_timeout");
    let noted: Vec<_> = session.span.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(noted, ["suspect"]);
}

#[tokio::test]
async fn who_records_nothing_is_believed_and_who_is_refused_is_told_of() {
    let receiver = Receiver::start().await;
    let server = traced(&receiver).await;
    let (quiet, id) = connect(&server, "quiet", Some(&format!("00-{TRACE}-{CALLER}-00"))).await;
    quiet.reset();
    assert_eq!(end_of(&server, &id).await["data"]["trace_id"], TRACE);
    Ask::with_token("no token").refused(server.addr).await;
    let refused = receiver.named("handshake").await;
    assert_eq!(refused.error().as_deref(), Some("unauthorized"));
    assert_eq!(receiver.named("authenticate").await.parent_id(), refused.span_id());
    assert!(receiver.all().iter().all(|span| span.trace_id() != TRACE), "{:#?}", receiver.all());
}

#[tokio::test]
async fn without_a_receiver_named_a_trace_is_carried_and_nothing_is_sent() {
    let server = Server::start_embedded(&[]).await;
    let (device, id) = connect(&server, "d1", Some(&format!("00-{TRACE}-{CALLER}-01"))).await;
    device.reset();
    assert_eq!(end_of(&server, &id).await["data"]["trace_id"], TRACE);
    let (device, id) = connect(&server, "d2", None).await;
    device.reset();
    assert_eq!(end_of(&server, &id).await["data"]["trace_id"], Value::Null);
    for outcome in ["exported", "dropped", "failed"] {
        let count = server.metric(&format!("lastpong_spans_total{{outcome=\"{outcome}\"}}")).await;
        assert_eq!(count, Some(0.0), "{outcome}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_spans_and_nothing_else() {
    let nowhere =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let mut server =
        Server::start_embedded(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{nowhere}"))]).await;
    let device = Device::connect(&server, "d1").await;
    let id = device.session_id();
    drop(device);
    end_of(&server, &id).await;
    eventually("spans that nobody took", async || {
        let failed = server.metric("lastpong_spans_total{outcome=\"failed\"}").await;
        (failed > Some(0.0)).then_some(())
    })
    .await;
    // It stops in good order all the same.
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exited().await.code(), Some(0), "{}", server.said());
}

/// Whose session it would be told of is on the record; whether it is banned is not for that to say.
#[tokio::test]
async fn a_ban_is_given_although_nothing_can_be_traced_of_it() {
    let receiver = Receiver::start().await;
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())]).await;
    server.whole().await;
    stores.postgres.sql("ALTER TABLE session_records RENAME TO away");
    let banned = act(&server, Method::PUT, "/v1/devices/d/ban", None).await;
    stores.postgres.sql("ALTER TABLE away RENAME TO session_records");
    assert_eq!(banned.0, 200, "{}", banned.1);
}
