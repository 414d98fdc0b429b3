//! What docs/events.md and docs/operations.md say, held against what a running lastpong does.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use lastpong::event::EventKind;
use lastpong::reason::Reason;
use serde_json::Value;
use tokio::process::Command;

use crate::support::server::{ADMIN_TOKEN, lastpong};
use crate::support::{Device, Events, Server, within};

const EVENTS: &str = include_str!("../../docs/events.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The code blocks of a language, in their order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())).collect()
}

/// What is between this heading and the next of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap_or_default();
    let rest = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}")).1;
    rest.split(&format!("\n{level} ")).next().unwrap_or_default()
}

/// The words in backquotes in the first column of a section's tables.
fn first_column(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0)).collect()
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

/// Each has the members of the other, and members of the same kind where both have one.
fn same_shape(shown: &Value, real: &Value) {
    assert_eq!(members(shown), members(real));
    for (name, shown) in shown.as_object().expect("an object") {
        let kind = |v: &Value| std::mem::discriminant(v);
        let real = &real[name];
        assert!(shown.is_null() || real.is_null() || kind(shown) == kind(real), "{name}: {shown} and {real}");
    }
}

#[tokio::test]
async fn the_page_of_events_shows_them_as_they_are() {
    let server = Server::start_embedded(&[]).await;
    let device = Device::connect(&server, "d1").await;
    let (id, welcome) = (device.session_id(), device.welcome.clone());
    drop(device);
    let mut events = Events::new();
    let end = events.only_end(&server, &id).await;
    let start = events.of_kind("lastpong.session.connected.v1").next().expect("its start").clone();
    let shown: Vec<Value> =
        blocks(EVENTS, "json").iter().map(|block| serde_json::from_str(block).expect("JSON")).collect();
    same_shape(&shown[0], &end);
    same_shape(&shown[0]["data"], &end["data"]);
    same_shape(&shown[1], &start["data"]);
    same_shape(&shown[2], &welcome);
    assert_eq!(shown.len(), 3);
}

#[test]
fn every_type_reason_and_code_is_told_of() {
    let types: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(first_column(section(EVENTS, "## Types")), types);
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(first_column(section(OPERATIONS, "## Reasons")), reasons);
    let codes = section(EVENTS, "## Devices").split_once("| code | reason |").expect("the table of codes").1;
    for reason in Reason::ALL {
        let row = codes.lines().find(|line| line.contains(&format!("`{reason}`")));
        let row = row.unwrap_or_else(|| panic!("{reason} is not told of"));
        if let Some(code) = reason.close_code() {
            assert!(row.contains(&code.to_string()), "{reason}: {row}");
        }
    }
}

#[tokio::test]
async fn every_metric_is_told_of_and_no_other() {
    let server = Server::start_embedded(&[]).await;
    let (_, text) = server.status("/metrics").await;
    let there: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let told: BTreeSet<&str> = first_column(section(OPERATIONS, "## Metrics")).into_iter().collect();
    let ours = |name: &&&str| !name.starts_with("process_");
    let untold: Vec<_> = there.iter().filter(ours).filter(|name| !told.contains(**name)).collect();
    assert!(untold.is_empty(), "docs/operations.md does not tell of {untold:?}");
    // Those of stores that this one does without begin with them.
    let with_others =
        ["lastpong_breaker_state", "lastpong_heartbeat", "lastpong_activity", "lastpong_reconcile"];
    let gone = told.iter().filter(|name| !there.contains(**name));
    let gone: Vec<_> = gone.filter(|name| !with_others.iter().any(|other| name.starts_with(other))).collect();
    assert!(gone.is_empty(), "docs/operations.md tells of {gone:?}, which are not there");
}

#[tokio::test]
async fn each_of_the_ten_questions_has_a_command_that_answers_it_and_a_page() {
    let server = Server::start_embedded(&[]).await;
    let live = Device::connect(&server, "truck-1").await;
    let gone = Device::connect(&server, "truck-2").await;
    let ended = gone.session_id();
    drop(gone);
    Events::new().only_end(&server, &ended).await;
    let questions: Vec<_> = section(OPERATIONS, "## Ten questions").split("\n### ").skip(1).collect();
    assert_eq!(questions.len(), 10);
    for (n, question) in questions.iter().enumerate() {
        let number = n + 1;
        assert!(question.starts_with(&format!("{number}. ")), "{question}");
        let commands = blocks(question, "sh");
        assert_eq!(commands.len(), 1, "{question}");
        // The session that is about to be ended, or one that is over.
        let session = if commands[0].contains("DELETE") { live.session_id() } else { ended.clone() };
        let (code, said) = run(&server, &commands[0], &session).await;
        assert_eq!(code, Some(0), "{}\n{said}", commands[0]);
        let answer = match number {
            1 => "\"truck-1\"",
            2 => "session.disconnected truck-2 reason=read_error",
            3 => "\"reason\":\"read_error\"",
            4 => " 1 20",
            5 => "lastpong_disconnects_total{reason=\"read_error\"} 1",
            6 => "",
            7 => "\"slowest_lag\":0",
            8 => "\"dependencies\"",
            9 => "\"items\":[]",
            _ => "session.connected truck-2",
        };
        assert!(said.contains(answer), "{}\n{said}", commands[0]);
        let page = question.split("Page: `").nth(1).and_then(|rest| rest.split('`').next());
        let page = page.unwrap_or_else(|| panic!("no page: {question}"));
        let page = page.replace("$SESSION", &ended).replace("$DEVICE", "truck-2");
        let (status, body) = server.status(&page).await;
        assert_eq!(status, 200, "{page}: {body}");
    }
}

/// Runs a command of the page as an operator does.
async fn run(server: &Server, command: &str, session: &str) -> (Option<i32>, String) {
    let program = lastpong();
    let folder = Path::new(program.get_program()).parent().expect("a folder");
    let path = std::env::var("PATH").expect("a path");
    let running = Command::new("sh")
        .args(["-c", command])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("URL", server.url(""))
        .env("LASTPONG_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("SESSION", session)
        .env("DEVICE", "truck-2")
        .current_dir(server.data_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the command to end", running).await.expect("a shell");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
