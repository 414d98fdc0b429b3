//! Bans: who is banned is not let in, and who is here and banned is told to go and not to return, on every node.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::acts::{act, act_as, knock, paged};
use crate::support::login::{Browser, add, bearer};
use crate::support::raw::{Raw, Seen};
use crate::support::{Ask, Cluster, Device, End, Events, Server, eventually, token, within};

/// Holds that a device is told that it, or its address, is banned.
async fn is_refused(server: &Server, device: &str, who: &str) {
    let refusal = knock(server, device).await.err().unwrap_or_else(|| panic!("{device} was let in"));
    assert_eq!(refusal.status, 403, "{refusal:?}");
    let problem = refusal.problem();
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains(who) && detail.contains("banned"), "{detail}");
    assert!(!detail.contains("secret"), "the operator's reason is told to the device: {detail}");
}

async fn is_let_in(server: &Server, device: &str) {
    eventually("the device to be let in again", async || knock(server, device).await.ok()).await;
}

async fn metric(server: &Server, sample: &str) -> f64 {
    server.metric(sample).await.expect("a sample")
}

#[tokio::test]
async fn a_banned_device_is_told_to_go_and_is_not_let_in() {
    let server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "unwanted").await;
    let other = Device::connect(&server, "wanted").await;
    let path = "/v1/devices/unwanted/ban";
    let (status, ban) =
        act(&server, Method::PUT, path, Some(&json!({"ttl": "1h", "reason": "secret: it floods"}))).await;
    assert_eq!(status, 200, "{ban}");
    assert_eq!((&ban["device_id"], &ban["remote_addr"]), (&json!("unwanted"), &Value::Null), "{ban}");
    assert_eq!((&ban["reason"], &ban["by"]), (&json!("secret: it floods"), &json!("admin token")), "{ban}");
    let time = |name: &str| ban[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    assert_eq!(time("until").duration_since(time("at")).as_secs(), 3_600, "{ban}");

    assert_eq!(device.closed().await, Seen::Close(Some(4503)));
    let end = Events::new().only_end(&server, &device.session_id()).await;
    End::by("banned").check(&end);
    assert_eq!(metric(&server, r#"lastpong_disconnects_total{reason="banned"}"#).await, 1.0);
    is_refused(&server, "unwanted", "this device").await;
    assert_eq!(metric(&server, r#"lastpong_handshakes_total{outcome="banned"}"#).await, 1.0);
    assert_eq!(server.live().await, 1, "another device was ended, or this one was not");

    // A ban given anew takes the place of the one before.
    let (status, anew) = act(&server, Method::PUT, path, None).await;
    assert_eq!((status, &anew["until"], &anew["reason"]), (200, &Value::Null, &Value::Null), "{anew}");
    assert_ne!(anew["id"], ban["id"]);
    assert_eq!(paged(&server, "/v1/bans", 10).await, [anew]);
    is_refused(&server, "unwanted", "this device").await;

    assert_eq!(act(&server, Method::DELETE, path, None).await, (204, Value::Null));
    drop(Device::connect(&server, "unwanted").await);
    let (status, problem) = act(&server, Method::DELETE, path, None).await;
    assert_eq!((status, &problem["input"]), (404, &json!("device_id")), "{problem}");
    assert_eq!(paged(&server, "/v1/bans", 10).await, Vec::<Value>::new());
    drop(other);
}

/// A device that comes from this address of the machine.
async fn from(local: &str, server: &Server, device: &str) -> Result<Raw, u16> {
    let local: SocketAddr = local.parse().expect("an address");
    let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.bind(local).expect("an address of this machine");
    let stream = socket.connect(server.addr).await.expect("the server listens");
    let ask = Ask::with_token(&token(device));
    match within("an answer to the handshake", ask.send_on(stream)).await.expect("an answer") {
        Ok(mut raw) => {
            raw.welcome().await;
            Ok(raw)
        }
        Err(refusal) => Err(refusal.status),
    }
}

#[tokio::test]
async fn a_banned_network_is_told_to_go_and_is_not_let_in() {
    let server = Server::start(&[]).await;
    let mut near = from("127.0.0.9:0", &server, "near").await.expect("let in");
    let mut stays = Device::connect(&server, "stays").await;
    let body = json!({"remote_addr": "127.0.0.10/30"});
    let (status, ban) = act(&server, Method::POST, "/v1/bans", Some(&body)).await;
    assert_eq!((status, &ban["remote_addr"]), (201, &json!("127.0.0.8/30")), "{ban}");
    assert_eq!(near.closed(true).await, Seen::Close(Some(4503)));
    for (address, admitted) in
        [("127.0.0.8:0", false), ("127.0.0.11:0", false), ("127.0.0.7:0", true), ("127.0.0.12:0", true)]
    {
        let answer = from(address, &server, "asks").await;
        assert_eq!(answer.err(), (!admitted).then_some(403), "{address}");
    }
    // Nobody else's session was touched.
    assert_eq!(stays.close(Some(1000)).await, Seen::Close(Some(1000)));

    let lift = format!("/v1/bans/{}", ban["id"].as_str().expect("an id"));
    assert_eq!(act(&server, Method::DELETE, &lift, None).await.0, 204);
    assert_eq!(act(&server, Method::DELETE, &lift, None).await.0, 404);
    assert!(from("127.0.0.9:0", &server, "near").await.is_ok());
}

#[tokio::test]
async fn a_network_of_ipv6_is_banned_as_well() {
    let server = Server::start(&[("BIND", "[::1]:0")]).await;
    let mut device = from("[::1]:0", &server, "six").await.expect("let in");
    let (status, ban) = act(&server, Method::POST, "/v1/bans", Some(&json!({"remote_addr": "::1"}))).await;
    assert_eq!((status, &ban["remote_addr"]), (201, &json!("::1/128")), "{ban}");
    assert_eq!(device.closed(true).await, Seen::Close(Some(4503)));
    assert_eq!(from("[::1]:0", &server, "six").await.err(), Some(403));
}

#[tokio::test]
async fn a_ban_ends_by_itself_and_outlives_a_restart() {
    let mut server = Server::start(&[]).await;
    let (short, long) = ("/v1/devices/short/ban", "/v1/devices/long/ban");
    assert_eq!(act(&server, Method::PUT, long, Some(&json!({}))).await.0, 200);
    server.kill().await;
    let server = server.restart().await;
    is_refused(&server, "long", "this device").await;
    let (status, ban) = act(&server, Method::PUT, short, Some(&json!({"ttl": "5s"}))).await;
    assert_eq!(status, 200, "{ban}");
    is_refused(&server, "short", "this device").await;
    is_let_in(&server, "short").await;
    let until: jiff::Timestamp = ban["until"].as_str().expect("a time").parse().expect("RFC 3339");
    assert!(jiff::Timestamp::now() >= until, "it came in before {until}");
    assert_eq!(paged(&server, "/v1/bans", 10).await.len(), 1);
    assert_eq!(act(&server, Method::DELETE, short, None).await.0, 404, "it is over");
    is_refused(&server, "long", "this device").await;
}

/// Waits until a look at the bans that this node began after now is over, and one more has begun.
async fn looked_again(node: &Server) {
    let asked = r#"lastpong_store_seconds_count{op="bans",store="sql"}"#;
    let before = metric(node, asked).await;
    // One may be under way, and one is counted before what it said is taken up.
    eventually("three more looks", async || (metric(node, asked).await >= before + 3.0).then_some(())).await;
}

#[tokio::test]
async fn a_ban_that_is_answered_holds_elsewhere_at_the_next_look() {
    let cluster = Cluster::start(2, &[]).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    for n in 0..3 {
        let (device, path) = (format!("d{n}"), format!("/v1/devices/d{n}/ban"));
        assert_eq!(act(one, Method::PUT, &path, None).await.0, 200);
        looked_again(two).await;
        is_refused(two, &device, "this device").await;
        assert_eq!(act(one, Method::DELETE, &path, None).await.0, 204);
        looked_again(two).await;
        drop(knock(two, &device).await.expect("it may come again"));
    }
}

#[tokio::test]
async fn a_ban_holds_on_every_node() {
    let cluster = Cluster::start(2, &[]).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let mut device = Device::connect(two, "unwanted").await;
    let mut near = from("127.0.0.9:0", two, "near").await.expect("let in");
    assert_eq!(act(one, Method::PUT, "/v1/devices/unwanted/ban", None).await.0, 200);
    is_refused(one, "unwanted", "this device").await;
    assert_eq!(device.closed().await, Seen::Close(Some(4503)));
    let body = json!({"remote_addr": "127.0.0.9"});
    let (_, ban) = act(one, Method::POST, "/v1/bans", Some(&body)).await;
    assert_eq!(near.closed(true).await, Seen::Close(Some(4503)));
    for node in [one, two] {
        is_refused(node, "unwanted", "this device").await;
        assert_eq!(from("127.0.0.9:0", node, "near").await.err(), Some(403));
        assert_eq!(paged(node, "/v1/bans", 1).await.len(), 2);
    }
    // The node that held it says how it ended, with all that it knew.
    let end = Events::new().only_end(one, &device.session_id()).await;
    End::by("banned").check(&end);
    assert_eq!(end["data"]["node_id"], "node-2");
    assert!(end["data"]["pings_sent"].is_number(), "{end:#}");

    assert_eq!(act(two, Method::DELETE, "/v1/devices/unwanted/ban", None).await.0, 204);
    let lift = format!("/v1/bans/{}", ban["id"].as_str().expect("an id"));
    assert_eq!(act(two, Method::DELETE, &lift, None).await.0, 204);
    is_let_in(one, "unwanted").await;
    eventually("the network to be let in", async || from("127.0.0.9:0", one, "near").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_banned_last_holds_without_the_stores() {
    let mut cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    assert_eq!(act(node, Method::PUT, "/v1/devices/unwanted/ban", None).await.0, 200);
    assert_eq!(act(node, Method::PUT, "/v1/devices/forgiven/ban", None).await.0, 200);
    assert_eq!(act(node, Method::DELETE, "/v1/devices/forgiven/ban", None).await.0, 204);
    let mut held = Device::connect(node, "held").await;
    cluster.stores.suffer(|stores| {
        stores.postgres.kill();
        stores.redis.kill();
    });
    is_refused(&cluster.nodes[0], "unwanted", "this device").await;
    let (status, problem) = act(&cluster.nodes[0], Method::PUT, "/v1/devices/held/ban", None).await;
    assert_eq!(status, 503, "{problem}");
    let session = held.session_id();
    let kick = format!("/v1/sessions/{session}");
    assert_eq!(act(&cluster.nodes[0], Method::DELETE, &kick, None).await.0, 204, "a kick needs no store");
    assert_eq!(held.closed().await, Seen::Close(Some(4011)));

    let mut node = cluster.nodes.remove(0);
    node.kill().await;
    let node = node.restart().await;
    is_refused(&node, "unwanted", "this device").await;
    is_let_in(&node, "forgiven").await;

    cluster.stores.suffer(|stores| {
        stores.postgres.restart();
        stores.redis.restart();
    });
    node.whole().await;
    is_refused(&node, "unwanted", "this device").await;
    assert_eq!(act(&node, Method::DELETE, "/v1/devices/unwanted/ban", None).await.0, 204);
    is_let_in(&node, "unwanted").await;
    // What was done meanwhile is in the audit all the same.
    eventually("the kick in the audit", async || {
        let entries = paged(&node, "/v1/audit", 10).await;
        entries.iter().any(|entry| entry["action"] == "kick" && entry["target"] == session).then_some(())
    })
    .await;
}

/// As many as a list that others keep may have, which some script has put on the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_bans_hold_and_are_kept() {
    const DEVICES: u32 = 100_000;
    const NETWORKS: u32 = 3_000;
    let mut cluster = Cluster::start(1, &[]).await;
    let columns = "INSERT INTO bans (id, device_id, remote_addr, banned_by, banned_at, rev)";
    let id = "md5(random()::text || n)::uuid";
    let all = DEVICES + NETWORKS;
    let script = [
        format!(
            "{columns} SELECT {id}, 'many-' || n, NULL, 'a script', 0, n FROM generate_series(1, {DEVICES}) n"
        ),
        format!(
            "{columns} SELECT {id}, NULL, '10.' || n / 256 || '.' || n % 256 || '.0/24', 'a script', 0, {DEVICES} + n \
             FROM generate_series(1, {NETWORKS}) n"
        ),
        format!("UPDATE ban_head SET newest = {all}"),
    ];
    cluster.stores.suffer(|stores| stores.postgres.sql(&script.join("; ")));
    let node = &cluster.nodes[0];
    let last = format!("many-{DEVICES}");
    eventually("the last of them", async || knock(node, &last).await.err()).await;
    is_refused(node, "many-1", "this device").await;
    is_let_in(node, "many-0").await;
    assert_eq!(node.json("/v1/bans?limit=1").await["total"], all);
    // It may be on the record before it holds (202): the node is keeping the others meanwhile.
    let (status, _) = act(node, Method::PUT, "/v1/devices/one-more/ban", None).await;
    assert!(matches!(status, 200 | 202), "{status}");
    eventually("one more", async || knock(node, "one-more").await.err()).await;
    // The record is asked again when what it said before is kept.
    let asked = r#"lastpong_store_seconds_count{op="bans",store="sql"}"#;
    let before = metric(node, asked).await;
    eventually("the next question", async || (metric(node, asked).await > before).then_some(())).await;

    cluster.stores.suffer(|stores| stores.postgres.kill());
    let mut node = cluster.nodes.remove(0);
    node.kill().await;
    let node = node.restart().await;
    for device in ["many-1", &last, "one-more"] {
        is_refused(&node, device, "this device").await;
    }
    is_let_in(&node, "many-0").await;
}

#[tokio::test]
async fn bans_are_listed_by_pages_newest_first() {
    let server = Server::start(&[]).await;
    let mut given = Vec::new();
    for n in 0..5 {
        let (_, ban) = act(&server, Method::PUT, &format!("/v1/devices/d{n}/ban"), None).await;
        given.insert(0, ban);
    }
    assert_eq!(paged(&server, "/v1/bans", 2).await, given);
    assert_eq!(paged(&server, "/v1/bans", 5).await, given);
}

/// Some names are taken for a path's own: `..` and `.`, by browsers and by curl.
#[tokio::test]
async fn a_device_that_no_path_can_name_is_banned_as_well() {
    let server = Server::start(&[]).await;
    let (status, ban) =
        act(&server, Method::POST, "/v1/bans", Some(&json!({"device_id": "..", "ttl": "1h"}))).await;
    assert_eq!((status, &ban["device_id"], &ban["remote_addr"]), (201, &json!(".."), &Value::Null), "{ban}");
    is_refused(&server, "..", "this device").await;
    let lift = format!("/v1/bans/{}", ban["id"].as_str().expect("an id"));
    assert_eq!(act(&server, Method::DELETE, &lift, None).await.0, 204);
    is_let_in(&server, "..").await;
}

/// Sessions that come through it have its address.
#[tokio::test]
async fn a_trusted_proxy_is_not_banned() {
    let server = Server::start(&[("TRUSTED_PROXIES", "127.0.0.1, 10.1.0.0/16")]).await;
    let mut device = Device::connect(&server, "behind").await;
    for network in ["127.0.0.1", "127.0.0.0/30", "10.1.2.3", "10.0.0.0/8"] {
        let body = json!({"remote_addr": network});
        let (status, problem) = act(&server, Method::POST, "/v1/bans", Some(&body)).await;
        assert_eq!((status, &problem["input"]), (409, &json!("remote_addr")), "{network}: {problem}");
    }
    assert_eq!(
        act(&server, Method::POST, "/v1/bans", Some(&json!({"remote_addr": "10.2.0.0/16"}))).await.0,
        201
    );
    assert_eq!(device.close(Some(1000)).await, Seen::Close(Some(1000)), "it was sent away");
    assert_eq!(paged(&server, "/v1/bans", 10).await.len(), 1);
}

#[tokio::test]
async fn a_bad_ban_is_told_what_is_wrong() {
    let server = Server::start(&[]).await;
    let (put, post, device) = (Method::PUT, Method::POST, "/v1/devices/d/ban");
    let long = "x".repeat(257);
    for (method, path, body, input) in [
        (&put, "/v1/devices/no%20name/ban", json!({}), "device_id"),
        (&put, device, json!({"ttl": "soon"}), "ttl"),
        (&put, device, json!({"ttl": "0s"}), "ttl"),
        (&put, device, json!({"ttl": "3651d"}), "ttl"),
        (&put, device, json!({"reason": long}), "reason"),
        (&put, device, json!({"reason": "two\nlines"}), "reason"),
        (&post, "/v1/bans", json!({"remote_addr": "everywhere"}), "remote_addr"),
        (&post, "/v1/bans", json!({"remote_addr": "10.0.0.0/33"}), "remote_addr"),
        // A slip of the finger is not to end all there are.
        (&post, "/v1/bans", json!({"remote_addr": "0.0.0.0/0"}), "remote_addr"),
        (&post, "/v1/bans", json!({"remote_addr": "::/0"}), "remote_addr"),
        (&post, "/v1/bans", json!({"device_id": "no name"}), "device_id"),
        (&post, "/v1/bans?x=1", json!({"remote_addr": "192.0.2.1"}), "x"),
        (&Method::DELETE, "/v1/bans/17", json!({}), "id"),
    ] {
        let (status, problem) = act(&server, method.clone(), path, Some(&body)).await;
        assert_eq!((status, &problem["input"]), (400, &json!(input)), "{path} {body}: {problem}");
        assert!(problem["allowed"].as_str().is_some_and(|allowed| !allowed.is_empty()), "{problem}");
    }
    for (method, path, body) in [
        (&put, device, json!({"tll": "1h"})),
        (&put, device, json!([])),
        (&put, device, json!({"ttl": 60})),
        (&post, "/v1/bans", json!({})),
        (&post, "/v1/bans", json!({"remote_addr": null})),
        (&post, "/v1/bans", json!({"remote_addr": "192.0.2.1", "device_id": "d"})),
    ] {
        let (status, problem) = act(&server, method.clone(), path, Some(&body)).await;
        assert_eq!(status, 400, "{path} {body}: {problem}");
    }
    assert_eq!(act(&server, put, "/v1/bans", None).await.0, 405);
    assert_eq!(server.status("/v1/bans?cursor=zz").await.0, 400);
    assert_eq!(paged(&server, "/v1/bans", 10).await, Vec::<Value>::new());
}

#[tokio::test]
async fn only_admins_ban_and_only_from_pages_of_this_host() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    add(&server, "zoe", "reader").await;
    let path = "/v1/devices/d/ban";
    let reader = bearer(&server, "zoe").await;
    for (method, path) in [
        (Method::PUT, path),
        (Method::DELETE, path),
        (Method::POST, "/v1/bans"),
        (Method::DELETE, "/v1/bans/0197f000-0000-7000-8000-000000000000"),
        (Method::POST, "/v1/node/drain"),
        (Method::DELETE, "/v1/node/drain"),
        (Method::PUT, "/v1/node/log"),
        (Method::POST, "/v1/tokens"),
        (Method::POST, "/v1/tokens/revoke"),
    ] {
        let (status, problem) = act_as(&server, &reader, method.clone(), path, None).await;
        assert_eq!(status, 403, "{method} {path}: {problem}");
        let nobody = server.bare(method.clone(), path).send().await.expect("an answer");
        assert_eq!(nobody.status(), 401, "{method} {path}");
    }
    for path in ["/v1/bans", "/v1/audit", "/v1/node/drain", "/v1/node/log"] {
        assert_eq!(act_as(&server, &reader, Method::GET, path, None).await.0, 200, "{path}");
        assert_eq!(server.bare(Method::GET, path).send().await.expect("an answer").status(), 401, "{path}");
    }
    let mut browser = Browser::logged_in(&server, "ada").await;
    let own = browser.ask(Method::PUT, path);
    browser.elsewhere();
    let foreign = browser.ask(Method::PUT, path);
    assert_eq!(browser.send(foreign).await.status(), 403);
    let mint = browser.ask(Method::POST, "/v1/tokens").json(&json!({"device_id": "d"}));
    assert_eq!(browser.send(mint).await.status(), 403);
    assert_eq!(paged(&server, "/v1/bans", 10).await, Vec::<Value>::new());
    assert_eq!(browser.send(own).await.status(), 200);
    assert_eq!(paged(&server, "/v1/bans", 10).await[0]["by"], "ada");
}
