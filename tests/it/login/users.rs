//! Users as the command line makes them, lists them and takes them away.

use serde_json::Value;

use crate::support::login::{PASSWORD, user_in};
use crate::support::python::Script;
use crate::support::server::lastpong;

const TERMINAL: &str = include_str!("../python/terminal.py");

#[test]
fn users_are_kept_by_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let run = |arguments: &[&str], input: &str| user_in(&data, None, arguments, input);
    // No node has run here yet.
    let added = run(&["add", "ada", "--role", "admin"], "a password of ada\nnot this line\n");
    assert_eq!((added.code, added.stdout.as_str()), (Some(0), "added ada as admin\n"), "{}", added.stderr);
    assert_eq!(run(&["add", "zoe@wall", "--role", "reader"], "a password of zoe").code, Some(0));
    let listed = run(&["list"], "").stdout;
    let columns: Vec<Vec<&str>> = listed.lines().map(|l| l.split_whitespace().take(2).collect()).collect();
    assert_eq!(columns, [["NAME", "ROLE"], ["ada", "admin"], ["zoe@wall", "reader"]]);
    assert!(!listed.contains("argon2"), "{listed}");
    assert_eq!(run(&["passwd", "zoe@wall"], "another of hers\n").code, Some(0));
    assert_eq!(run(&["remove", "zoe@wall"], "").code, Some(0));
    assert_eq!(run(&["list"], "").stdout.lines().count(), 2);

    for (arguments, input, code, says) in [
        (&["add", "ada", "--role", "admin"][..], "a password of ada\n", 1, "ada is there already"),
        (&["add", "bob", "--role", "admin"], "too short\n", 1, "12 to 1024"),
        (&["add", "bob", "--role", "admin"], "", 1, "12 to 1024"),
        (&["passwd", "nobody"], "a password of nobody\n", 1, "no user nobody"),
        (&["remove", "nobody"], "", 1, "no user nobody"),
        (&["add", "bob", "--role", "root"], PASSWORD, 2, "admin or reader"),
        (&["add", "b b", "--role", "admin"], PASSWORD, 2, "A-Za-z0-9"),
        (&["add", "bob", "--role", "admin", "--password", "x"], PASSWORD, 2, "--password"),
        (&["add", "bob"], PASSWORD, 2, "--role"),
    ] {
        let refused = run(arguments, input);
        assert_eq!(refused.code, Some(code), "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{arguments:?}: {}", refused.stderr);
        assert!(input.is_empty() || !refused.stderr.contains(input.trim()), "a password is shown");
    }
    assert_eq!(run(&["list"], "").stdout.lines().count(), 2, "what was refused left something behind");
}

#[tokio::test]
async fn a_terminal_does_not_show_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let program = lastpong().get_program().to_string_lossy().into_owned();
    let database = format!("DATABASE_URL={}", dir.path().join("x.db").display());
    let typing = async |typed: &str, arguments: &[&str]| {
        let command = [&[typed, "/usr/bin/env", &database, program.as_str(), "user"], arguments].concat();
        let ended: Value = Script::start("pty", TERMINAL, &command).await.next("ended").await;
        let seen = ended["seen"].as_str().expect("text").to_owned();
        assert!(!typed.split(',').any(|password| seen.contains(password)), "a password shows: {seen}");
        (ended["code"].as_i64().expect("a code"), seen)
    };
    let add = ["add", "ada", "--role", "admin"];
    let (code, seen) = typing("a password of ada,a password of bob", &add).await;
    assert!(code == 1 && seen.contains("the two passwords differ"), "{code}: {seen}");
    let (code, seen) = typing("a password of ada,a password of ada", &add).await;
    assert!(code == 0 && seen.contains("added ada as admin"), "{code}: {seen}");
    let (code, seen) = typing("another of hers,another of hers", &["passwd", "ada"]).await;
    assert!(code == 0 && seen.contains("ada has another password"), "{code}: {seen}");
}
