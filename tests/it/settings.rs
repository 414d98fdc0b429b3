//! What is wrong with the settings or the files stops the start with one line that says what, and what is allowed.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::server::{Run, lastpong, run_to_end};
use crate::support::token::SECRET;
use crate::support::{Device, Server};

/// Runs it in a directory of its own with these variables and arguments.
fn run(dir: &TempDir, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command: Command = lastpong();
    command.current_dir(dir.path()).args(arguments);
    command.env("LASTPONG_DATA_DIR", dir.path().join("data")).env("LASTPONG_BIND", "127.0.0.1:0");
    command.envs(variables.iter().copied());
    run_to_end(command)
}

/// Holds that it ended with `code` and one line on standard error that has all of `parts`.
fn one_line(run: &Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, Some(code), "stdout: {}\nstderr: {}", run.stdout, run.stderr);
    assert_eq!(run.stderr.trim_end().lines().count(), 1, "one line is enough: {}", run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?} is not in {:?}", run.stderr);
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    for (name, value, allowed) in [
        ("LASTPONG_PING_INTERVAL", "25", "25s"),
        ("LASTPONG_PING_INTERVAL", "soon", "allowed"),
        ("LASTPONG_PONG_TIMEOUT", "0s", "allowed"),
        ("LASTPONG_MAX_MISSED_PONGS", "0", "1"),
        ("LASTPONG_MAX_MISSED_PONGS", "two", "1"),
        ("LASTPONG_MAX_FRAME_BYTES", "lots", "64KiB"),
        ("LASTPONG_BIND", "nowhere", "allowed"),
        ("LASTPONG_LOG_FORMAT", "xml", "json"),
        ("LASTPONG_TOKEN_REPLAY", "twice", "once"),
        ("LASTPONG_NODE_ID", "no name", "allowed"),
        ("LASTPONG_ALLOWED_ORIGINS", "not an origin", "allowed"),
        ("LASTPONG_WORKERS", "-1", "allowed"),
        ("DATABASE_URL", "oracle://x", "allowed"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for arguments in [&["serve"][..], &["check-config"]] {
            let run = run(&dir, &[(name, value)], arguments);
            one_line(&run, 2, &[name, value, allowed]);
        }
        assert!(!dir.path().join("data").exists(), "{name}={value}: the start left something behind");
    }
}

#[test]
fn a_bad_secret_is_named_and_not_shown() {
    for (name, value) in [("LASTPONG_TOKEN_SECRET", "too-short-a-key"), ("LASTPONG_ADMIN_TOKEN", "short-one")]
    {
        let dir = tempfile::tempdir().unwrap();
        let run = run(&dir, &[(name, value)], &["serve"]);
        one_line(&run, 2, &[name]);
        assert!(!run.stderr.contains(value), "a secret is shown: {}", run.stderr);
    }
}

#[test]
fn an_unknown_variable_is_named_with_its_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(&dir, &[("LASTPONG_PING_INTERVALL", "25s")], &["serve"]);
    one_line(&run, 2, &["LASTPONG_PING_INTERVALL", "25s", "LASTPONG_PING_INTERVAL;"]);
}

#[test]
fn a_bad_line_of_dot_env_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "LASTPONG_PONG_TIMEOUT=never\n").unwrap();
    one_line(&run(&dir, &[], &["serve"]), 2, &["LASTPONG_PONG_TIMEOUT", "never"]);
}

#[test]
fn a_public_bind_needs_secrets_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let open = ("LASTPONG_BIND", "0.0.0.0:0");
    one_line(&run(&dir, &[open], &["serve"]), 2, &["LASTPONG_BIND", "0.0.0.0:0", "loopback"]);
    let half = [open, ("LASTPONG_TOKEN_SECRET", SECRET)];
    one_line(&run(&dir, &half, &["serve"]), 2, &["LASTPONG_BIND", "LASTPONG_ADMIN_TOKEN"]);
}

#[test]
fn bad_usage_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["dance"][..], &["serve", "--loudly"], &["token"], &["token", "not a name"]] {
        let run = run(&dir, &[], arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.is_empty(), "{arguments:?} said nothing");
    }
    for arguments in [&["--help"][..], &["serve", "--help"], &["token", "--help"], &["--version"]] {
        let run = run(&dir, &[], arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        assert!(run.stdout.contains("lastpong"), "{arguments:?}: {}", run.stdout);
    }
}

#[test]
fn an_address_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = run(&dir, &[("LASTPONG_BIND", &address), ("RUST_LOG", "error")], &["serve"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(&address), "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn a_damaged_database_is_named_and_left_as_it_is() {
    for damage in [
        &b"this is no database, whatever its name says, and it is long enough to be looked at"[..],
        &[0; 4096],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = database(dir.path());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, damage).unwrap();
        let run = run(&dir, &[("RUST_LOG", "error")], &["serve"]);
        if damage[0] == 0 && run.code != Some(1) {
            panic!("pages of zeros are no database: {}{}", run.stdout, run.stderr);
        }
        one_line(&run, 1, &["lastpong.db"]);
        assert_eq!(std::fs::read(&file).unwrap(), damage, "the damaged file was touched");
    }
}

#[tokio::test]
async fn a_database_damaged_in_its_middle_does_not_start() {
    let mut server = Server::start_embedded(&[]).await;
    for n in 0..50 {
        let mut device = Device::connect(&server, &format!("before-{n}")).await;
        device.close(Some(1000)).await;
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exited().await.code(), Some(0));
    let dir = tempfile::tempdir().unwrap();
    let file = database(dir.path());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut bytes = std::fs::read(server.data_dir().join("lastpong.db")).unwrap();
    // The header stays; the schema behind it is gone.
    bytes[100..4096].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();
    let run = run(&dir, &[("RUST_LOG", "error")], &["serve"]);
    one_line(&run, 1, &["lastpong.db"]);
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the damaged file was touched");
}

fn database(dir: &Path) -> std::path::PathBuf {
    dir.join("data").join("lastpong.db")
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file stands in its place").unwrap();
    let run = run(&dir, &[("RUST_LOG", "error")], &["serve"]);
    one_line(&run, 1, &["data"]);
}

#[tokio::test]
async fn two_programs_do_not_share_a_data_directory() {
    let server = Server::start(&[]).await;
    let mut second = lastpong();
    second.current_dir(std::env::temp_dir()).arg("serve");
    second
        .env("LASTPONG_DATA_DIR", server.data_dir())
        .env("LASTPONG_BIND", "127.0.0.1:0")
        .env("RUST_LOG", "error");
    if let Some(url) = server.setting("DATABASE_URL") {
        second.env("DATABASE_URL", url);
    }
    let run = run_to_end(second);
    one_line(&run, 1, &[server.data_dir().to_str().unwrap()]);
    // The first is none the worse for it.
    Device::connect(&server, "undisturbed").await;
}

#[tokio::test]
async fn secrets_are_made_once_and_kept_to_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let first = run(&dir, &[], &["token", "sensor-1", "--ttl", "1h"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let minted = first.stdout.lines().last().unwrap_or_default().trim().to_owned();
    assert_eq!(minted.split('.').count(), 3, "{}", first.stdout);
    let secret = std::fs::read_to_string(dir.path().join("data/token.secret")).unwrap();
    let mode = std::fs::metadata(dir.path().join("data/token.secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    run(&dir, &[], &["token", "sensor-2"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("data/token.secret")).unwrap(), secret);
    // What it minted is good where the secret is known.
    let server = Server::start(&[("TOKEN_SECRET", secret.trim())]).await;
    let device = Device::with_token(&server, &minted).await;
    assert_eq!(device.welcome["device_id"], "sensor-1");
}

#[test]
fn check_config_shows_every_setting_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        run(&dir, &[("LASTPONG_TOKEN_SECRET", SECRET), ("LASTPONG_PING_INTERVAL", "7s")], &["check-config"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for name in ["LASTPONG_PING_INTERVAL", "LASTPONG_BIND", "DATABASE_URL", "LASTPONG_EVENT_RETENTION", "7s"]
    {
        assert!(run.stdout.contains(name), "{name} is missing: {}", run.stdout);
    }
    assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "a secret is shown");
}
