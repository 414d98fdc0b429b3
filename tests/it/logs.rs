//! What the program writes to its log: one JSON object a line where that is set, with what happened in key-values, and no
//! more of a storm than it may.

use serde_json::Value;

use crate::support::raw::{PING, Raw};
use crate::support::{Device, Server, eventually, token, within};

/// Logged lines, among what else the program says at its start.
fn lines(server: &Server) -> Vec<Value> {
    let said = server.said();
    // The last line may be half there.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let logged = whole.lines().filter(|line| line.contains("lastpong::"));
    logged.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Waits for a line with this message and these key-values.
async fn line(server: &Server, message: &str, pairs: &[(&str, &str)]) -> Value {
    let is =
        |line: &Value| line["message"] == message && pairs.iter().all(|(key, value)| line[*key] == **value);
    eventually(message, async || lines(server).into_iter().find(is)).await
}

#[tokio::test]
async fn a_session_s_story_can_be_read_from_json_lines() {
    let settings = [
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,lastpong::session=debug"),
        ("PING_INTERVAL", "500ms"),
        ("PONG_TIMEOUT", "500ms"),
        ("MAX_MISSED_PONGS", "100"),
    ];
    let server = Server::start(&settings).await;
    let serving = line(&server, "serving", &[("level", "info")]).await;
    assert_eq!(serving["node_id"], "node-1", "{serving}");
    let (mut raw, welcome) = Raw::connect(server.addr, &token("wavering")).await;
    let session = welcome["session_id"].as_str().expect("a session id");
    let of_it = [("session_id", session)];
    assert_eq!(within("a ping", raw.next()).await.unwrap().unwrap().opcode, PING);
    line(&server, "suspect: a pong was missed", &of_it).await;
    let answering = tokio::spawn(async move { raw.closed(true).await });
    line(&server, "recovered", &of_it).await;
    answering.abort();
    let told = [("session_id", session), ("device_id", "wavering"), ("reason", "read_error")];
    let ended = line(&server, "session ended", &told).await;
    assert_eq!(ended["level"], "debug", "{ended}");
    assert!(ended["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{ended}");

    let refused = crate::support::Ask::bare().refused(server.addr).await;
    assert_eq!(refused.status, 401);
    let told =
        eventually("a refusal", async || lines(&server).into_iter().find(|line| line["status"] == 401)).await;
    assert!(told["peer"].is_string() && told["level"] == "info", "{told}");
}

#[tokio::test]
async fn of_a_storm_some_lines_are_kept_and_the_others_counted() {
    const STORM: usize = 200;
    let settings = [
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,lastpong::session::life=debug"),
        ("LOG_LINES_PER_SEC", "5"),
    ];
    let server = Server::start(&settings).await;
    let mut devices = Vec::new();
    for n in 0..STORM {
        devices.push(Raw::connect(server.addr, &token(&format!("storm-{n}"))).await.0);
    }
    devices.into_iter().for_each(Raw::reset);
    // Whatever is logged later brings the count with it: these come and go until it is there.
    let mut ended = STORM;
    eventually("every end to be told or counted", async || {
        let mut later = Device::connect(&server, "later").await;
        later.close(Some(1000)).await;
        ended += 1;
        let lines = lines(&server);
        let told = lines.iter().filter(|line| line["message"] == "session ended").count();
        let left_out: u64 = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum();
        assert!(told + left_out as usize <= ended, "{told} told and {left_out} left out of {ended}");
        (left_out > 0 && told + left_out as usize >= STORM).then_some(())
    })
    .await;
    let told = lines(&server).iter().filter(|line| line["message"] == "session ended").count();
    assert!(told < ended, "all of the storm is in the log");
}

/// Needs the feature `chaos`, as every story of a fault of ours.
#[cfg(feature = "chaos")]
#[tokio::test]
async fn a_panic_is_one_line_as_well() {
    let server = Server::start(&[("LOG_FORMAT", "json")]).await;
    let mut device = Device::connect(&server, "victim").await;
    device.text(r#"{"type":"chaos","do":"panic"}"#).await;
    device.closed().await;
    line(&server, "this session panicked and ends alone", &[("device_id", "victim")]).await;
    let said = server.said();
    let told: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let panics: Vec<_> = told.iter().filter(|line| line["place"].is_string()).collect();
    assert_eq!(panics.len(), 1, "{said}");
    assert!(panics[0]["message"].as_str().is_some_and(|m| m.starts_with("panicked: ")), "{said}");
    assert!(!said.contains("note: run with"), "a panic is told in lines of its own: {said}");
}
