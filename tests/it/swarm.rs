//! Simulated devices do what they say they do, and tell what they saw: held against the record of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::events::is_end_of;
use crate::support::server::{lastpong, run_to_end};
use crate::support::token::SECRET;
use crate::support::{Device, Events, Server, eventually};

/// Calm enough that one that answers is never late, on any machine; quick enough to find those that do not.
const QUICK: &[(&str, &str)] =
    &[("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "1500ms"), ("MAX_MISSED_PONGS", "2")];

/// A swarm that runs until it is told to leave.
struct Swarm {
    child: Child,
    dir: TempDir,
}

fn command(dir: &Path, server: Option<&Server>, args: &[&str]) -> Command {
    let mut command = lastpong();
    command.current_dir(dir).env("LASTPONG_TOKEN_SECRET", SECRET).arg("swarm").args(args);
    if let Some(server) = server {
        command.arg(server.addr.to_string());
    }
    command
}

impl Swarm {
    fn start(server: &Server, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the record");
        let mut command = command(dir.path(), Some(server), args);
        command.args(["--json", "--quiet", "--record", "seen.jsonl", "--seed", "7"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { child: child.expect("the program can be started"), dir }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("the swarm is there to be told");
    }

    /// Tells it to leave and gives its report.
    async fn leave(&mut self) -> Value {
        self.signal(Signal::TERM);
        let status = eventually("the swarm to end", async || self.child.try_wait().expect("a child")).await;
        let read = |pipe: &mut dyn std::io::Read| std::io::read_to_string(pipe).expect("text");
        let said = read(self.child.stderr.as_mut().expect("piped"));
        assert!(status.success(), "{status}: {said}");
        let report = read(self.child.stdout.as_mut().expect("piped"));
        serde_json::from_str(&report).unwrap_or_else(|e| panic!("{e}: {report}"))
    }

    fn seen(&self, file: &str) -> Vec<Value> {
        // Not there yet is nothing seen yet.
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of one kind.
fn of_kind<'a>(seen: &'a [Value], is: &'a str) -> impl Iterator<Item = &'a Value> {
    seen.iter().filter(move |line| line["is"] == is)
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"))
}

/// What a device of each behaviour sees and what the server makes of it, where it does not come back: how its
/// socket may end, the codes it may see, the reasons.
type Row = (&'static str, &'static [&'static str], &'static [Option<u64>], &'static [&'static str]);
const TABLE: &[Row] = &[
    ("answer", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("late", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("slow", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("lossy", &["close_frame"], &[Some(1000), Some(4012)], &["client_closed", "pong_timeout"]),
    ("silent", &["close_frame"], &[Some(4012)], &["pong_timeout"]),
    ("deaf", &["eof", "reset", "left"], &[None], &["pong_timeout", "ping_failed"]),
    ("reset", &["self"], &[None], &["read_error"]),
    ("vanish", &["self"], &[None], &["read_error"]),
    ("close", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("flap", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("bye", &["close_frame"], &[Some(1000)], &["client_closed"]),
    ("twice", &["close_frame"], &[Some(4509), Some(1000)], &["replaced", "client_closed"]),
];

/// Behaviours that end their session by themselves, or have it ended.
const LEAVING: &[&str] = &["silent", "deaf", "reset", "vanish", "close", "flap", "bye", "twice"];

#[tokio::test]
async fn each_behaviour_leads_to_its_reason() {
    let server = Server::start(QUICK).await;
    let mix: Vec<_> = TABLE.iter().map(|row| format!("{}=1", row.0)).collect();
    let mix = mix.join(",");
    let args = ["--devices", "36", "--mix", &mix, "--stay", "1s..2s", "--jitter", "20ms", "--no-reconnect"];
    let mut swarm = Swarm::start(&server, &args);

    // Every one of those that leave has left once, as the server sees it.
    let mut events = Events::new();
    let mut behaviours = BTreeMap::new();
    eventually("all devices to be there", async || {
        for dial in of_kind(&swarm.seen("seen.jsonl"), "dial") {
            behaviours.insert(text(dial, "device").to_owned(), text(dial, "behaviour").to_owned());
        }
        (behaviours.len() == 36).then_some(())
    })
    .await;
    for (device, _) in behaviours.iter().filter(|(_, b)| LEAVING.contains(&b.as_str())) {
        let ended = |e: &Value| e["subject"] == device.as_str() && !e["data"]["reason"].is_null();
        events.wait_for(&server, &format!("an end of {device}"), ended).await;
    }
    // An answering device lives to be told to leave, and has answered by then.
    eventually("pings of those that stay", async || {
        let live = server.json("/debug/connections?limit=1000").await;
        let items = live["items"].as_array().expect("items");
        let answered = |item: &Value| item["pongs_received"].as_u64().is_some_and(|n| n > 1);
        (!items.is_empty() && items.iter().filter(|i| i["state"] == "active").all(answered)).then_some(())
    })
    .await;
    let report = swarm.leave().await;
    let seen = swarm.seen("seen.jsonl");

    let ends: BTreeMap<_, _> = of_kind(&seen, "end").map(|e| (text(e, "session").to_owned(), e)).collect();
    let welcomes: Vec<_> = of_kind(&seen, "welcome").collect();
    assert_eq!(ends.len(), welcomes.len(), "each session has one end in the record");
    let mut kinds = BTreeSet::new();
    for welcome in &welcomes {
        let session = text(welcome, "session");
        let behaviour = behaviours[text(welcome, "device")].as_str();
        let (name, hows, codes, reasons) = TABLE.iter().find(|row| row.0 == behaviour).expect("a row");
        let end = ends[session];
        let event = events.wait_for(&server, "the end of a session", |e| is_end_of(e, session)).await;
        let reason = event["data"]["reason"].as_str().expect("a reason");
        assert!(reasons.contains(&reason), "{name}: {event:#} {end:#}");
        assert!(hows.contains(&text(end, "how")), "{name}: {end:#} {event:#}");
        assert!(codes.contains(&end["code"].as_u64()), "{name}: {end:#} {event:#}");
        check_counts(name, end);
        kinds.insert(*name);
    }
    assert_eq!(kinds.len(), TABLE.len(), "a behaviour was not tried: {kinds:?}");

    assert_eq!(report["handshakes"]["welcomed"], welcomes.len());
    assert_eq!(report["unexpected"]["count"], 0, "{report:#}");
    assert_eq!(report["did"]["reset"], 3, "{report:#}");
    assert_eq!(seen.first().map(|l| text(l, "is")), Some("swarm"));
    assert_eq!(seen.last().map(|l| text(l, "is")), Some("done"));
}

/// Holds what the end line of this behaviour must say of pings.
fn check_counts(behaviour: &str, end: &Value) {
    let n = |name: &str| end[name].as_u64().unwrap_or_else(|| panic!("no {name}: {end}"));
    match behaviour {
        "silent" => assert!(n("lost") > 0 && end["owed_since"].is_i64(), "{end}"),
        "lossy" => assert!(n("pings") >= n("pongs") + n("lost"), "{end}"),
        "answer" => assert!(n("pongs") > 0 && n("lost") == 0 && n("slowest_us") > 0, "{end}"),
        _ => assert!(n("pings") >= n("pongs"), "{end}"),
    }
    if n("pongs") > 0 {
        assert!(end["last_pong_at"].as_i64() >= end["welcome_at"].as_i64(), "{end}");
    }
}

#[tokio::test]
async fn the_close_code_says_who_comes_back() {
    let server = Server::start(QUICK).await;
    let mut swarm = Swarm::start(&server, &["--devices", "2", "--backoff", "10ms..20ms"]);
    let mut events = Events::new();
    let connected =
        |device: &'static str| move |e: &Value| e["subject"] == device && e["data"]["reason"].is_null();
    let first = events.wait_for(&server, "swarm-1 to connect", connected("swarm-1")).await;
    let session = first["data"]["session_id"].as_str().expect("an id").to_owned();
    events.wait_for(&server, "swarm-2 to connect", connected("swarm-2")).await;

    let kick = server.bare(reqwest::Method::DELETE, &format!("/v1/sessions/{session}"));
    let kicked = kick.bearer_auth(crate::support::server::ADMIN_TOKEN).send().await.expect("an answer");
    assert!(kicked.status().is_success(), "{}", kicked.status());
    let again = |e: &Value| connected("swarm-1")(e) && e["data"]["session_id"] != session.as_str();
    events.wait_for(&server, "swarm-1 to come back", again).await;

    let _other = Device::connect(&server, "swarm-2").await;
    let replaced = |e: &Value| e["subject"] == "swarm-2" && e["data"]["reason"] == "replaced";
    events.wait_for(&server, "swarm-2 to be replaced", replaced).await;
    eventually("the swarm to see it", async || {
        of_kind(&swarm.seen("seen.jsonl"), "end").any(|e| e["code"] == 4509).then_some(())
    })
    .await;
    let report = swarm.leave().await;
    assert_eq!(report["not_coming_back"], 1, "{report:#}");
    assert_eq!(report["handshakes"]["begun"], 3, "{report:#}");
    assert_eq!(report["unexpected"]["count"], 2, "neither did anything: {report:#}");
}

#[tokio::test]
async fn two_processes_are_one_swarm() {
    let server = Server::start(QUICK).await;
    let mut swarm = Swarm::start(&server, &["--devices", "10", "--processes", "2"]);
    let files = ["seen-0.jsonl", "seen-1.jsonl"];
    let welcomed = || files.iter().map(|file| of_kind(&swarm.seen(file), "welcome").count()).sum::<usize>();
    eventually("ten welcomes", async || (welcomed() == 10).then_some(())).await;
    let report = swarm.leave().await;
    assert_eq!(
        (&report["processes"], &report["handshakes"]["welcomed"]),
        (&2.into(), &10.into()),
        "{report:#}"
    );
    assert_eq!(report["ends_by_close_code"]["1000"], 10, "{report:#}");
    let mut devices = BTreeSet::new();
    for file in files {
        let seen = swarm.seen(file);
        let welcomed: Vec<_> = of_kind(&seen, "welcome").map(|w| text(w, "device").to_owned()).collect();
        assert_eq!(welcomed.len(), 5, "{file}");
        devices.extend(welcomed);
    }
    assert_eq!(devices.len(), 10, "no device is in both: {devices:?}");
}

#[tokio::test]
async fn all_processes_die_with_the_first() {
    let server = Server::start(QUICK).await;
    let swarm = Swarm::start(&server, &["--devices", "10", "--processes", "2"]);
    eventually("ten devices", async || (server.live().await == 10).then_some(())).await;
    swarm.signal(Signal::KILL);
    eventually("no device", async || (server.live().await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_swarm_ends_by_itself_when_its_time_is_over() {
    let server = Server::start(QUICK).await;
    let dir = tempfile::tempdir().expect("a directory");
    let run = run_to_end(command(dir.path(), Some(&server), &["--devices", "3", "--for", "1s"]));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for part in ["welcomed 3", "close_frame 3", "1000 3", "dial to welcome"] {
        assert!(run.stdout.contains(part), "{part:?} is not in {}", run.stdout);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for (args, code, parts) in [
        (&["--mix", "answr=1"][..], 2, &["answr", "vanish", "lossy"][..]),
        (&["--stay", "60s..10s"], 2, &["60s..10s", "10s..60s"]),
        (&["nowhere"], 2, &["nowhere", "HOST:PORT"]),
        (&["--devices", "2", "--processes", "3"], 2, &["--processes 3", "1 to 2"]),
        // Nobody listens there.
        (&["--devices", "1", "--for", "200ms", "127.0.0.1:1"], 1, &["no device was welcomed"]),
    ] {
        let run = run_to_end(command(dir.path(), None, args));
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        for part in parts {
            assert!(run.stderr.contains(part), "{args:?}: {part:?} is not in {}", run.stderr);
        }
    }
}
