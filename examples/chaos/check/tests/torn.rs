//! Records that are torn: cut last lines are no matter, anything else is an error that names it, and nothing panics.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Options, Verdict, check};
use super::judged;
use super::world::{SUBSCRIBERS, World};

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    World::healthy().files().write(dir.path());
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn error(dir: &Path) -> String {
    format!("{:#}", check(dir, &Options::default()).unwrap_err())
}

#[test]
fn a_cut_last_line_is_as_if_it_was_not_written() {
    let dir = written();
    for path in files(dir.path()).iter().filter(|path| path.extension().is_some_and(|e| e == "jsonl")) {
        let text = std::fs::read(path).unwrap();
        std::fs::write(path, [&text[..], br#"{"at":12345,"is":"ev"#].concat()).unwrap();
    }
    let verdict = check(dir.path(), &Options::default()).unwrap();
    assert_eq!(verdict.to_string(), judged(&World::healthy().files()).to_string());
}

#[test]
fn a_file_that_is_missing_is_named() {
    for name in [
        "run.json",
        "faults.jsonl",
        "operator.jsonl",
        "slow.jsonl",
        "log.jsonl",
        "live.jsonl",
        "stream.jsonl",
    ] {
        let dir = written();
        std::fs::remove_file(dir.path().join(name)).unwrap();
        assert!(error(dir.path()).contains(name), "{}", error(dir.path()));
    }
    for name in ["devices", "subscribers"] {
        let dir = written();
        for path in files(&dir.path().join(name)) {
            std::fs::remove_file(path).unwrap();
        }
        assert!(error(dir.path()).contains(name), "{}", error(dir.path()));
    }
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    let dir = written();
    for path in files(dir.path()).iter().filter(|path| path.extension().is_some_and(|e| e == "jsonl")) {
        let text = std::fs::read_to_string(path).unwrap();
        for line in ["garbage", "{}", r#"{"at":1,"is":"tea"}"#, ""] {
            let (first, rest) = text.split_once('\n').unwrap();
            std::fs::write(path, format!("{first}\n{line}\n{rest}")).unwrap();
            let error = error(dir.path());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.contains(name) && error.contains("line 2"), "{error}");
        }
        std::fs::write(path, text).unwrap();
    }
    assert!(check(dir.path(), &Options::default()).unwrap().held());
}

#[test]
fn the_embedded_run_has_no_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = World::healthy().files();
    files.run["setup"] = "embedded".into();
    files.write(dir.path());
    std::fs::remove_file(dir.path().join("stream.jsonl")).unwrap();
    assert!(check(dir.path(), &Options::default()).unwrap().held());
}

/// Which file of its kind a record is in, and the order of the lines of independent connections, do not matter.
#[test]
fn the_order_of_what_is_independent_changes_nothing() {
    let mut files = World::healthy().files();
    let place = files.place("closes", "disconnected", 0);
    files.log.remove(place);
    files.number();
    files.tell();
    let shape = |verdict: &Verdict| {
        (
            verdict.tallies.clone(),
            verdict.kinds.clone(),
            verdict.reasons.clone(),
            format!("{:?}", verdict.delays),
        )
    };
    let before = shape(&judged(&files));
    let held = ["sse", "ws", "page", "stream"].map(|kind| format!("{kind}-1"));
    let moved = files.subscribers.remove(&held[0]).unwrap();
    let other = files.subscribers.insert(held[3].clone(), moved).unwrap();
    files.subscribers.insert("sse-9".into(), other);
    let lines = files.devices.get_mut("swarm-a").unwrap();
    let over = lines.len() - 1;
    lines[1..over].sort_by_key(|line| (line["conn"].is_null(), -line["conn"].as_i64().unwrap_or(0)));
    assert_eq!(shape(&judged(&files)), before);
    assert_eq!(SUBSCRIBERS.len(), files.subscribers.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_whatever_is_torn_swapped_or_overwritten(
        file in any::<Index>(),
        cut in any::<Option<Index>>(),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..20),
        strikes in prop::collection::vec((any::<Index>(), prop::sample::select(&b"0123456789-\"{},:naz"[..])), 0..4),
    ) {
        let dir = written();
        let files = files(dir.path());
        let path = file.get(&files);
        let mut text = std::fs::read(path).unwrap();
        let mut lines: Vec<Vec<u8>> = text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        text = lines.concat();
        for (place, byte) in strikes {
            let place = place.index(text.len());
            text[place] = byte;
        }
        if let Some(cut) = cut {
            text.truncate(cut.index(text.len()));
        }
        std::fs::write(path, text).unwrap();
        if let Ok(verdict) = check(dir.path(), &Options::default()) {
            prop_assert!(!verdict.to_string().is_empty());
        }
    }
}
