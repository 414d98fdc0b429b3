//! What operators are given is true of the program: alert rules, the dashboard, and the page that explains both.
//!
//! The rules are tried by promtool, against series as the program shows them (`deploy/prometheus/alerts*.test.yaml`). That
//! every metric and label that a rule, a panel or the page names is one of a running node's is held by parsing each
//! expression (`python/deploy.py`).

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Device, Events, Scraper, Server, Sse, Stores};

/// What the tools say of these files; they are named from the root of the package.
fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_owned();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap_or_else(|e| {
        panic!("{name:?} cannot be run: {e} (`scripts/setup` installs it, `scripts/test` knows where)")
    })
}

fn succeeded(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{both}");
    both
}

#[test]
fn the_alert_rules_are_well_formed() {
    let said =
        succeeded(&run(Command::new("promtool").args(["check", "rules", "deploy/prometheus/alerts.yaml"])));
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn each_alert_fires_when_it_should_and_a_healthy_node_is_quiet() {
    for file in ["deploy/prometheus/alerts.test.yaml", "deploy/prometheus/alerts.days.test.yaml"] {
        let said = succeeded(&run(Command::new("promtool").args(["test", "rules", file])));
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn the_unit_lets_the_program_do_little() {
    // Ten times the exposure that systemd reckons, of 100 at most; what it does not know by now costs a little, too.
    let check = ["security", "--offline=true", "--no-pager", "--threshold=20", "deploy/lastpong.service"];
    succeeded(&run(Command::new("systemd-analyze").args(check)));
}

#[test]
fn the_container_runs_as_nobody_in_particular() {
    let file = include_str!("../../Containerfile");
    let last_stage = file.rsplit("\nFROM ").next().expect("a stage");
    let users: Vec<_> = last_stage.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    assert_eq!(users, ["10001"], "by a number that is not root's");
    assert!(last_stage.contains("--uid 10001") && file.contains("cargo build --release --locked"));
}

#[tokio::test]
async fn rules_dashboard_and_page_name_only_what_a_node_shows() {
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &[("PING_INTERVAL", "500ms"), ("UPDATE_INTERVAL", "200ms")]).await;
    server.whole().await;
    // Series that begin with their first use.
    let mut sse = Sse::open(&server, "", None).await;
    let mut device = Device::connect(&server, "seen").await;
    sse.expect().await;
    device.answer_pings(1).await;
    device.close(Some(1000)).await;
    Events::new().only_end(&server, &device.session_id()).await;
    let mut scraper = Scraper::of(&server).await;
    for begun in [
        r#"lastpong_store_seconds_count{op="commit"}"#,
        r#"lastpong_store_seconds_count{op="sweep"}"#,
        r#"lastpong_store_seconds_count{store="redis"}"#,
        r#"lastpong_outbox_lag_events{sink="redis_stream"}"#,
    ] {
        scraper.until(begun, |n| n >= 0.0).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let shown = dir.path().join("metrics.txt");
    std::fs::write(&shown, server.status("/metrics").await.1).expect("written");

    let wrong = check(&shown);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It would see it.
    std::fs::write(&shown, "# HELP lastpong_other x\n# TYPE lastpong_other gauge\nlastpong_other 1\n")
        .expect("written");
    assert!(check(&shown).len() > 50, "what a node does not show passes");
}

/// What is wrong, one line each.
fn check(shown: &Path) -> Vec<String> {
    let interpreter = std::env::var_os("TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let output = run(Command::new(interpreter).args(["-c", include_str!("python/deploy.py")]).arg(shown));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some("checked"), "{}", String::from_utf8_lossy(&output.stderr));
    lines
}
