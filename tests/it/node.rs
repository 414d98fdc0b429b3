//! One node, as its operator turns it: drained and taken back, and made to say more or less.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::acts::act;
use crate::support::raw::Seen;
use crate::support::{Ask, Device, End, Events, Fleet, Server, eventually, token};

async fn drain(server: &Server) -> Value {
    server.json("/v1/node/drain").await
}

#[tokio::test]
async fn a_node_is_drained_and_taken_back() {
    let mut server = Server::start(&[]).await;
    let mut fleet = Fleet::hold(&server, "moved", 20).await;
    let still = json!({"node": "node-1", "state": "serving", "live": 20, "ended": 0, "of": 0, "until": null});
    assert_eq!(drain(&server).await, still);

    let here = "/v1/node/drain?node=node-1";
    let (status, begun) = act(&server, Method::POST, here, Some(&json!({"spread": "1s"}))).await;
    assert_eq!(status, 202, "{begun}");
    assert_eq!(
        (&begun["node"], &begun["state"], &begun["of"]),
        (&json!("node-1"), &json!("draining"), &json!(20))
    );
    assert!(begun["until"].as_str().is_some_and(|until| until.parse::<jiff::Timestamp>().is_ok()), "{begun}");
    let (ready, verdicts) = server.readiness().await;
    assert!(!ready && !verdicts["admission"], "a draining node is ready");
    assert!(server.status("/readyz").await.1.contains("draining"));
    let refusal = Ask::with_token(&token("late")).refused(server.addr).await;
    assert_eq!(refusal.status, 503, "{refusal:?}");

    fleet.all_ended().await;
    assert_eq!(fleet.ended(), vec![1001; 20]);
    let done = eventually("the end of the drain", async || {
        let view = drain(&server).await;
        assert_eq!(view["ended"].as_u64().zip(view["live"].as_u64()).map(|(a, b)| a + b), Some(20), "{view}");
        (view["live"] == 0).then_some(view)
    })
    .await;
    assert_eq!((&done["ended"], &done["of"], &done["state"]), (&json!(20), &json!(20), &json!("draining")));
    let mut log = Events::new();
    log.until_ended(&server, fleet.welcomed().into_iter().map(|told| told.session_id)).await;
    for end in log.of_kind(crate::support::events::DISCONNECTED) {
        End::by("draining").check(end);
    }

    assert!(server.is_running());
    let (status, undone) = act(&server, Method::DELETE, "/v1/node/drain", None).await;
    assert_eq!((status, &undone["state"], &undone["of"]), (200, &json!("serving"), &json!(0)), "{undone}");
    assert!(server.readiness().await.0);
    let mut back = Device::connect(&server, "moved-0").await;
    // It is nobody's but its own to end now.
    back.text(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(back.json().await["type"], "ack");
    assert_eq!(act(&server, Method::DELETE, "/v1/node/drain", None).await.0, 200, "once more does no harm");

    // A stop goes over it.
    assert_eq!(act(&server, Method::POST, "/v1/node/drain", None).await.0, 202);
    assert_eq!(back.closed().await, Seen::Close(Some(1001)));
    server.signal(Signal::TERM);
    assert_eq!(server.exited().await.code(), Some(0));
}

/// Whether the log has a line on the end of a session that is made for it.
async fn session_lines(server: &Server, device: &str) -> bool {
    let mut session = Device::connect(server, device).await;
    session.close(Some(1000)).await;
    let id = session.session_id();
    Events::new().only_end(server, &id).await;
    // Whatever was said before this line, which is said in any case, is there when it is.
    assert_eq!(act(server, Method::PUT, &format!("/v1/devices/{device}/ban"), None).await.0, 200);
    let marks = |line: &str| line.contains("an operator acts") && line.contains(device);
    eventually("a line after it", async || server.said().lines().any(marks).then_some(())).await;
    server.said().lines().any(|line| line.contains("session ended") && line.contains(&id))
}

#[tokio::test]
async fn what_is_logged_is_changed_while_it_runs() {
    let server = Server::start(&[("RUST_LOG", "info")]).await;
    let path = "/v1/node/log";
    let usual = json!({"node": "node-1", "filter": "info", "usual": "info", "until": null});
    assert_eq!(server.json(path).await, usual);
    assert!(!session_lines(&server, "unheard").await);

    let filter = "info,lastpong::session=debug";
    let (status, set) = act(&server, Method::PUT, path, Some(&json!({"filter": filter}))).await;
    assert_eq!((status, &set["filter"], &set["until"]), (200, &json!(filter), &Value::Null), "{set}");
    assert!(session_lines(&server, "heard").await);

    // Nothing is logged, so that nobody asks the filter: it falls back all the same.
    let (_, set) = act(&server, Method::PUT, path, Some(&json!({"filter": "off", "for": "1s"}))).await;
    assert_eq!(set["filter"], "off", "{set}");
    assert!(set["until"].is_string(), "{set}");
    eventually("the usual log", async || (server.json(path).await == usual).then_some(())).await;
    eventually("a word of it", async || server.said().contains("the log is as usual again").then_some(()))
        .await;
    assert!(!session_lines(&server, "unheard-again").await);
}

#[tokio::test]
async fn a_bad_filter_or_drain_is_told_what_is_wrong() {
    let server = Server::start(&[]).await;
    let (put, post, log, drain) = (Method::PUT, Method::POST, "/v1/node/log", "/v1/node/drain");
    let long = "x".repeat(1_025);
    for (method, path, body, input) in [
        (&put, log, json!({"filter": "lastpong=loud"}), "filter"),
        (&put, log, json!({"filter": ""}), "filter"),
        // A slip would silence all else; a line break would write a line of the log.
        (&put, log, json!({"filter": "inof"}), "filter"),
        (&put, log, json!({"filter": "info,a\nb=debug"}), "filter"),
        (&put, log, json!({"filter": "info,a\0b=debug"}), "filter"),
        (&put, log, json!({"filter": "info/text"}), "filter"),
        (&put, "/v1/node/log?node=no%20name", json!({"filter": "info"}), "node"),
        (&put, log, json!({"filter": long}), "filter"),
        (&put, log, json!({"filter": "info", "for": "a while"}), "for"),
        (&put, log, json!({"filter": "info", "for": "31d"}), "for"),
        (&post, drain, json!({"spread": "2h"}), "spread"),
        (&post, drain, json!({"spread": "slowly"}), "spread"),
    ] {
        let (status, problem) = act(&server, method.clone(), path, Some(&body)).await;
        assert_eq!((status, &problem["input"]), (400, &json!(input)), "{path} {body}: {problem}");
    }
    for (method, path, body) in
        [(&put, log, json!({})), (&post, drain, json!({"speed": "1s"})), (&post, drain, json!("30s"))]
    {
        let (status, problem) = act(&server, method.clone(), path, Some(&body)).await;
        assert_eq!(status, 400, "{path} {body}: {problem}");
    }
    for (method, path) in [(&put, "/v1/node/log?node=node-2"), (&post, "/v1/node/drain?node=node-2")] {
        let (status, problem) = act(&server, method.clone(), path, Some(&json!({"filter": "off"}))).await;
        assert_eq!((status, &problem["allowed"]), (409, &json!("node-1")), "{path}: {problem}");
    }
    assert_eq!(server.json(log).await["filter"], server.json(log).await["usual"]);
    assert_eq!(server.json(drain).await["state"], "serving", "a bad question drained it");
    assert_eq!(act(&server, Method::POST, log, None).await.0, 405);
}
