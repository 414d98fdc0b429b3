//! Whatever an operator does is on the record under his name.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::acts::{act, act_as, paged};
use crate::support::login::{add, bearer, user};
use crate::support::{Cluster, Device, Server, eventually};

/// Who did what to whom, the newest first.
fn told(entries: &[Value]) -> Vec<[&str; 3]> {
    entries.iter().map(|e| ["actor", "action", "target"].map(|key| e[key].as_str().expect("text"))).collect()
}

#[tokio::test]
async fn each_action_is_noted_with_who_and_from_where() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let ada = bearer(&server, "ada").await;
    let device = Device::connect(&server, "kicked").await;
    let session = device.session_id();
    let kick = format!("/v1/sessions/{session}");
    assert_eq!(act_as(&server, &ada, Method::DELETE, &kick, None).await.0, 204);
    let terms = json!({"ttl": "1h", "reason": "it floods"});
    assert_eq!(act_as(&server, &ada, Method::PUT, "/v1/devices/d/ban", Some(&terms)).await.0, 200);
    let (_, ban) =
        act(&server, Method::POST, "/v1/bans", Some(&json!({"remote_addr": "192.0.2.0/24"}))).await;
    assert_eq!(act_as(&server, &ada, Method::DELETE, "/v1/devices/d/ban", None).await.0, 204);
    let lift = format!("/v1/bans/{}", ban["id"].as_str().expect("an id"));
    assert_eq!(act(&server, Method::DELETE, &lift, None).await.0, 204);
    let filter = json!({"filter": "debug", "for": "10m"});
    assert_eq!(act_as(&server, &ada, Method::PUT, "/v1/node/log", Some(&filter)).await.0, 200);
    assert_eq!(act(&server, Method::POST, "/v1/node/drain", Some(&json!({"spread": "5s"}))).await.0, 202);
    assert_eq!(act(&server, Method::DELETE, "/v1/node/drain", None).await.0, 200);
    assert_eq!(user(&server, &["remove", "ada"], "").await.code, Some(0));

    let entries = paged(&server, "/v1/audit", 3).await;
    let expected = [
        ["command line", "user_remove", "ada"],
        ["admin token", "undrain", "node-1"],
        ["admin token", "drain", "node-1"],
        ["ada", "log_filter", "node-1"],
        ["admin token", "lift", "192.0.2.0/24"],
        ["ada", "lift", "d"],
        ["admin token", "ban", "192.0.2.0/24"],
        ["ada", "ban", "d"],
        ["ada", "kick", &session],
        ["command line", "user_add", "ada"],
    ];
    assert_eq!(told(&entries), expected);
    for entry in &entries {
        let by_command = entry["actor"] == "command line";
        let from = if by_command { Value::Null } else { json!("127.0.0.1") };
        assert_eq!(entry["remote_addr"], from, "{entry}");
        assert!(entry["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{entry}");
        assert!(by_command || entry["node"] == "node-1", "{entry}");
    }
    let detail = |n: usize| entries[n]["detail"].as_str().unwrap_or_default();
    assert_eq!((detail(2), detail(3), detail(8)), ("over 5s", "debug for 10m", "of device kicked"));
    assert!(detail(7).ends_with(": it floods") && detail(6) == "for good", "{entries:#?}");
    assert!(server.said().contains("an operator acts"), "the log knows nothing of it");
}

#[tokio::test]
async fn what_came_to_nothing_is_not_noted() {
    let server = Server::start(&[]).await;
    add(&server, "zoe", "reader").await;
    let zoe = bearer(&server, "zoe").await;
    let nobody = "/v1/sessions/0197f000-0000-7000-8000-000000000000";
    assert_eq!(act(&server, Method::DELETE, nobody, None).await.0, 404);
    assert_eq!(act(&server, Method::DELETE, "/v1/devices/d/ban", None).await.0, 404);
    assert_eq!(act(&server, Method::PUT, "/v1/node/log", Some(&json!({"filter": "=="}))).await.0, 400);
    assert_eq!(act(&server, Method::DELETE, "/v1/node/drain", None).await.0, 200);
    assert_eq!(act_as(&server, &zoe, Method::PUT, "/v1/devices/d/ban", None).await.0, 403);
    assert_eq!(told(&paged(&server, "/v1/audit", 10).await), [["command line", "user_add", "zoe"]]);
}

#[tokio::test]
async fn the_audit_is_one_for_all_nodes() {
    let cluster = Cluster::start(2, &[]).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let device = Device::connect(one, "kicked").await;
    let kick = format!("/v1/sessions/{}", device.session_id());
    assert_eq!(act(two, Method::DELETE, &kick, None).await.0, 204);
    assert_eq!(act(one, Method::PUT, "/v1/devices/d/ban", None).await.0, 200);
    for node in [one, two] {
        let entries = paged(node, "/v1/audit", 1).await;
        let by_node: Vec<_> = entries.iter().map(|e| (e["action"].as_str(), e["node"].as_str())).collect();
        assert_eq!(by_node, [(Some("ban"), Some("node-1")), (Some("kick"), Some("node-2"))]);
    }
}

#[tokio::test]
async fn the_audit_is_swept() {
    let server = Server::start(&[("AUDIT_RETENTION", "1s")]).await;
    assert_eq!(act(&server, Method::PUT, "/v1/devices/d/ban", None).await.0, 200);
    let entries = paged(&server, "/v1/audit", 10).await;
    let at: jiff::Timestamp = entries[0]["at"].as_str().expect("a time").parse().expect("RFC 3339");
    assert_eq!(entries.len(), 1);
    // A start sweeps at once, and then every minute.
    let age = || jiff::Timestamp::now().duration_since(at).as_millis();
    eventually("the entry to be past its time", async || (age() > 1_000).then_some(())).await;
    server.signal(rustix::process::Signal::TERM);
    let server = server.restart().await;
    eventually("an audit that is swept", async || {
        paged(&server, "/v1/audit", 10).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(paged(&server, "/v1/bans", 10).await.len(), 1, "the ban holds on");
}
