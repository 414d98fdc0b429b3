//! Many nodes on the same stores: one dies or stands still, and the others end what was its, once, and nothing else.

use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::events::{DISCONNECTED, is_end_of};
use crate::support::raw::Seen;
use crate::support::server::{ADMIN_TOKEN, lastpong, run_to_end};
use crate::support::size::{lease, promised, sessions};
use crate::support::{Cluster, Device, End, Events, Fleet, Server, eventually, heavy, ledger};

const BRISK: [(&str, &str); 3] =
    [("PING_INTERVAL", "2s"), ("PONG_TIMEOUT", "10s"), ("UPDATE_INTERVAL", "1s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_s_sessions_end_once_and_no_others() {
    let _turn = heavy().await;
    let mut cluster = Cluster::start(3, &BRISK).await;
    let addrs = cluster.addrs();
    // Of the node that will die, some devices never return, and some do at once, to the others.
    let mut gone = Fleet::hold(&cluster.nodes[0], "gone", sessions() / 2).await;
    let mut back = Fleet::roaming(&addrs, "back", sessions().div_ceil(2)).await;
    let mut others = [
        Fleet::hold(&cluster.nodes[1], "second", sessions()).await,
        Fleet::hold(&cluster.nodes[2], "third", sessions()).await,
    ];
    let dying: Vec<_> = gone.welcomed().into_iter().chain(back.latest().into_values()).collect();
    assert!(dying.iter().all(|told| told.node_id == "node-1"), "they are not where they should be");

    cluster.nodes[0].kill().await;
    let died = Instant::now();
    let mut log = Events::new();
    log.until_ended(&cluster.nodes[1], dying.iter().map(|told| told.session_id.clone())).await;
    promised("the ends of a killed node's sessions", died.elapsed(), lease() + Duration::from_secs(5));
    gone.all_ended().await;
    back.wait_welcomed(2 * sessions().div_ceil(2)).await;
    // Whoever else would end them, or tell of the node again, has had a whole lease for it.
    tokio::time::sleep(lease()).await;

    log.pull(&cluster.nodes[2]).await;
    let books = ledger::audit(&log.all);
    books.in_turn();
    books.tell_of(&back.welcomed());
    for told in &gone.welcomed() {
        let end = log.all.iter().find(|event| is_end_of(event, &told.session_id)).expect("it ended");
        End::by("node_lost").by_a_peer().check(end);
    }
    for told in &dying {
        let story = books.of(&told.session_id);
        let returned = story.device_id.starts_with("back") && story.reasons == ["replaced"];
        assert!(returned || story.reasons == ["node_lost"], "{story:?}");
    }
    assert_eq!(log.of_kind(DISCONNECTED).count(), dying.len(), "a session of another node ended");
    assert!(others.iter().all(|fleet| fleet.ended().is_empty()), "a device of another node was closed");
    one_loss_of(&books, "node-1", &books.of(&dying[0].session_id).incarnation);
    assert_eq!(books.lost[0]["data"]["declared_by"].as_str().map(|by| by == "node-1"), Some(false));

    for fleet in others.iter_mut().chain([&mut back]) {
        fleet.leave().await;
    }
    ledger::all_rest(&cluster.nodes[1], &mut log).await;
    ledger::check(&log.all, &back.welcomed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_finds_its_sessions_ended_and_takes_its_devices_back() {
    let _turn = heavy().await;
    let cluster = Cluster::start(3, &BRISK).await;
    let mut held = Fleet::roaming(&cluster.addrs(), "held", sessions()).await;
    let mut other = Fleet::hold(&cluster.nodes[1], "other", sessions()).await;
    let first = held.welcomed();

    cluster.nodes[0].freeze().await;
    // The stop itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(3 * lease()).await;
    let mut log = Events::new();
    log.until_ended(&cluster.nodes[1], first.iter().map(|told| told.session_id.clone())).await;
    cluster.nodes[0].signal(Signal::CONT);
    let woke = Instant::now();
    held.wait_welcomed(2 * sessions()).await;
    promised("the return of its devices", woke.elapsed(), Duration::from_secs(10));
    // They were told to return, or lost their socket.
    let codes = held.ended();
    assert!(codes.iter().all(|code| *code == 0 || (4000..4500).contains(code)), "{codes:?}");
    cluster.whole().await;
    assert!(other.ended().is_empty(), "a device of another node was closed");

    // It is one of them again, under another incarnation.
    let mut newcomer = Device::connect(&cluster.nodes[0], "newcomer").await;
    let end = newcomer.close(Some(1000)).await;
    assert_eq!(end, Seen::Close(Some(1000)));
    held.leave().await;
    other.leave().await;
    ledger::all_rest(&cluster.nodes[1], &mut log).await;
    let books = ledger::audit(&log.all);
    let old = &books.of(&first[0].session_id).incarnation;
    assert_ne!(*old, books.of(&newcomer.session_id()).incarnation);
    for told in &first {
        let story = books.of(&told.session_id);
        let expected = (&["node_lost".to_owned()][..], &["peer_node".to_owned()][..]);
        assert_eq!((&story.reasons[..], &story.detected_by[..]), expected, "{story:?}");
    }
    one_loss_of(&books, "node-1", old);
    let lost_at = books.lost[0]["data"]["seq"].as_i64().expect("a seq");
    for event in log.all.iter().filter(|e| e["data"]["incarnation"] == **old) {
        let late = event["data"]["seq"].as_i64() > Some(lost_at);
        let by_peer = event["data"]["detected_by"] == "peer_node";
        assert!(!late || by_peer, "the old incarnation wrote after it was lost: {event:#}");
    }
    ledger::check(&log.all, &[held.welcomed(), other.welcomed()].concat());
}

#[tokio::test]
async fn every_node_tells_the_same_events() {
    let cluster = Cluster::start(2, &BRISK).await;
    let mut told = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        let mut device = Device::connect(node, &format!("told-{n}")).await;
        device.close(Some(1000)).await;
        told.push(device.session_id());
    }
    let mut logs = [Events::new(), Events::new()];
    for (log, node) in logs.iter_mut().zip(&cluster.nodes) {
        log.until_ended(node, told.clone()).await;
    }
    assert_eq!(logs[0].all, logs[1].all);
    ledger::check(&logs[0].all, &[]);
}

#[tokio::test]
async fn a_session_is_kicked_through_any_node() {
    let cluster = Cluster::start(2, &BRISK).await;
    for (n, asked) in cluster.nodes.iter().enumerate() {
        let mut device = Device::connect(&cluster.nodes[0], &format!("unwanted-{n}")).await;
        let path = format!("/v1/sessions/{}", device.session_id());
        assert_eq!(delete(asked, &path).await, 204);
        assert_eq!(device.closed().await, Seen::Close(Some(4011)));
        let end = Events::new().only_end(&cluster.nodes[1], &device.session_id()).await;
        End::by("kicked").check(&end);
        assert_eq!(end["data"]["node_id"], "node-1");
        assert_eq!(delete(asked, &path).await, 404, "it is gone");
    }
    let asked = &cluster.nodes[0];
    assert_eq!(delete(asked, "/v1/sessions/0197f000-0000-7000-8000-000000000000").await, 404);
    assert_eq!(delete(asked, "/v1/sessions/not-an-id").await, 400);
    let bare = asked.bare(Method::DELETE, "/v1/sessions/0197f000-0000-7000-8000-000000000000");
    assert_eq!(bare.send().await.expect("an answer").status(), 401);
}

async fn delete(server: &Server, path: &str) -> u16 {
    let request = server.bare(Method::DELETE, path).bearer_auth(ADMIN_TOKEN);
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn presence_is_told_by_any_node() {
    let cluster = Cluster::start(2, &BRISK).await;
    let mut device = Device::connect(&cluster.nodes[0], "present").await;
    for node in &cluster.nodes {
        let presence = eventually("the device to be present", async || {
            let presence = node.json("/v1/devices/present").await;
            (presence["online"] == true).then_some(presence)
        })
        .await;
        assert_eq!(presence["device_id"], "present");
        assert_eq!(presence["session"]["session_id"], device.session_id(), "{presence}");
        assert_eq!(presence["session"]["node_id"], "node-1", "{presence}");
        let items = query(node, &json!({"device_ids": ["absent", "present"]})).await;
        assert_eq!(online(&items), [("absent", false), ("present", true)], "{items:?}");
        let absent = node.json("/v1/devices/absent").await;
        assert_eq!(absent["device_id"], "absent");
        assert_eq!((&absent["online"], &absent["session"]), (&json!(false), &Value::Null), "{absent}");
    }
    device.close(Some(1000)).await;
    for node in &cluster.nodes {
        eventually("the device to be absent", async || {
            (node.json("/v1/devices/present").await["online"] == false).then_some(())
        })
        .await;
    }
}

/// The items that answer `body`.
async fn query(server: &Server, body: &Value) -> Vec<Value> {
    let request = server.bare(Method::POST, "/v1/devices/query").bearer_auth(ADMIN_TOKEN);
    let answer = request.json(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    answer["items"].as_array().expect("items").clone()
}

fn online(items: &[Value]) -> Vec<(&str, bool)> {
    let one = |item: &'_ Value| item["online"].as_bool().expect("online or not");
    items.iter().map(|item| (item["device_id"].as_str().expect("a device id"), one(item))).collect()
}

#[tokio::test]
async fn a_bad_question_about_presence_is_refused() {
    let cluster = Cluster::start(1, &BRISK).await;
    let node = &cluster.nodes[0];
    let many: Vec<String> = (0..1_001).map(|n| format!("device-{n}")).collect();
    let bodies = [json!({"device_ids": many}), json!({"device_ids": ["no name"]}), json!({}), json!([])];
    for body in bodies {
        let request = node.bare(Method::POST, "/v1/devices/query").bearer_auth(ADMIN_TOKEN).json(&body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(node.status("/v1/devices/no%20name").await.0, 400);
}

/// The node says that it is gone, once, and under which incarnation.
fn one_loss_of(books: &ledger::Books, node: &str, incarnation: &str) {
    let lost: Vec<_> =
        books.lost.iter().map(|e| (&e["data"]["node_id"], &e["data"]["incarnation"])).collect();
    assert_eq!(lost, [(&json!(node), &json!(incarnation))]);
}

/// Two processes by one name would each take the other's sessions for its own of an earlier run.
#[tokio::test]
async fn a_second_process_by_a_node_s_name_is_refused() {
    let cluster = Cluster::start(1, &BRISK).await;
    let mut device = Device::connect(&cluster.nodes[0], "held").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut second = lastpong();
    second.current_dir(dir.path()).arg("serve").env("LASTPONG_DATA_DIR", dir.path().join("data"));
    second.env("LASTPONG_BIND", "127.0.0.1:0").env("LASTPONG_NODE_ID", "node-1").env("RUST_LOG", "error");
    second.env("DATABASE_URL", cluster.stores.postgres.url());
    let run = tokio::task::spawn_blocking(|| run_to_end(second)).await.expect("it ran");
    assert_eq!(run.code, Some(1), "stdout: {}\nstderr: {}", run.stdout, run.stderr);
    assert!(run.stderr.contains("node-1") && run.stderr.contains("LASTPONG_NODE_ID"), "{}", run.stderr);
    device.close(Some(1000)).await;
    let end = Events::new().only_end(&cluster.nodes[0], &device.session_id()).await;
    End::by("client_closed").code(1000).check(&end);
}
