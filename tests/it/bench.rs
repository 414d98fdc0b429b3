//! The bench measures what it says: a short run against a program of its own, whose figures are there and make sense.
//!
//! How large they are says nothing here: the program is not built for speed, and other tests run beside it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::server::{lastpong, run_to_end};

/// An example with tests of its own is built as those alone, so `scripts/test` builds the program before.
fn bench() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_lastpong")).with_file_name("examples").join("bench");
    assert!(program.is_file(), "{} is not built: cargo build --example bench", program.display());
    Command::new(program)
}

#[test]
fn a_short_run_gives_figures_and_a_table() {
    let dir = TempDir::new().expect("a folder for the measurements");
    let out = dir.path().join("measurements.jsonl");
    let mut run = bench();
    run.args(["run", "memory", "pings", "--rounds", "1", "--sessions", "50", "--no-peers"]);
    run.args(["--measured", "2s", "--settle", "200ms", "--interval", "100ms"]);
    run.arg("--lastpong").arg(lastpong().get_program()).arg("--out").arg(&out);
    let ran = run_to_end(run);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let text = std::fs::read_to_string(&out).expect("the measurements");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (row, positive) in [
        ("memory", &["pss_mib", "rss_mib", "empty_mib"][..]),
        ("pings", &["cpu_s_per_million", "round_trips", "round_trips_per_s"]),
    ] {
        let line = lines.iter().find(|line| line["row"] == row).unwrap_or_else(|| panic!("no {row}: {text}"));
        assert_eq!((&line["subject"], &line["round"]), (&"lastpong".into(), &1.into()), "{line}");
        for key in positive {
            assert!(line["value"][key].as_f64().is_some_and(|value| value > 0.0), "{key}: {line}");
        }
        assert!(line["settings"]["LASTPONG_PING_INTERVAL"].is_string(), "{line}");
    }
    // The difference of two small numbers may be anything, but it is there.
    assert!(lines[0]["value"]["bytes_per_session"].is_f64(), "{text}");

    let mut table = bench();
    table.arg("table").arg(&out);
    let told = run_to_end(table).stdout;
    assert!(told.contains("memory (rounds: 1)") && told.contains("round trips a second"), "{told}");
}
