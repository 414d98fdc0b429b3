//! Who may know whom, held by reading the source.
//!
//! A file uses only rooms before its own in [`ORDER`], and its own. `http` stands aside: it asks by messages and reads
//! snapshots, and knows neither a session's state nor a kind of store. SQL is spoken in `store/` alone.

use std::path::{Path, PathBuf};

/// The rooms, each knowing only those before it. Names on one line do not order each other.
const ORDER: &[&[&str]] = &[
    &[
        "breaker",
        "chaos",
        "config",
        "event",
        "ids",
        "log_filter",
        "metrics",
        "peer",
        "problem",
        "protocol",
        "rate",
        "reason",
        "role",
        "schema",
        "secret",
        "time",
        "tls",
        "token",
        "trace",
    ],
    &["store"],
    &["login", "bans", "revoked"],
    &["feed"],
    &["registry"],
    &["supervisor"],
    &["projection"],
    &["cluster"],
    &["session"],
    &["http"],
    &["upgrade", "front"],
    &["startup"],
    &["swarm"],
    &["watch"],
    &["main", "lib", "logging", "users"],
    &["fuzz"],
];

/// What `http` does not know, although it comes before it.
const HIDDEN_FROM_HTTP: &[&str] = &[
    "session::state",
    "session::frames",
    "session::life",
    "session::socket",
    "supervisor::state",
    "store::sqlite",
    "store::postgres",
    "diesel",
];

/// All that a simulated device knows of lastpong: it stands outside, and none of the rooms knows of it.
const KNOWN_TO_SWARM: &[&str] = &["config", "ids", "protocol", "reason", "secret", "swarm", "time", "token"];

/// As much of it as a terminal view knows, which may be of another machine's.
const KNOWN_TO_WATCH: &[&str] = &["config", "reason", "secret", "time", "watch"];

const MAX_LINES: usize = 400;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

struct Source {
    /// Below `src/`.
    name: String,
    /// Without comments and without tests.
    code: String,
    lines: usize,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

/// All but the tests, which may know more.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.retain(|path| {
        let name = path.to_string_lossy();
        !(name.ends_with("tests.rs") || name.contains("tests/"))
    });
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file is text");
        let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        Source { code: code_of(&text), lines: text.lines().count(), name }
    };
    let sources: Vec<_> = files.into_iter().map(read).collect();
    assert!(sources.len() > 10, "the source was not found");
    sources
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments, and without the tests at its end: those may know more.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = |line: &str| if line.trim_start().starts_with("//") { "" } else { line }.to_owned();
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a text speaks of as `crate::room`, also within braces.
fn used(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            rooms.extend(top_level(list));
        } else {
            rooms.push(word(part));
        }
    }
    rooms
}

/// The first words of a brace list's items, up to its closing brace.
fn top_level(list: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => item.push(c),
        }
    }
    items.push(item);
    items.iter().map(|i| word(i.trim())).filter(|w| !w.is_empty()).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_room_knows_only_those_before_it() {
    let mut broken = Vec::new();
    for source in sources() {
        let room = source.room();
        let own =
            rank(room).unwrap_or_else(|| panic!("src/{}: its room has no place in the order", source.name));
        for other in used(&source.code) {
            let Some(other_rank) = rank(&other) else {
                // A macro or item of the crate's root, which holds nothing but rooms.
                broken.push(format!("src/{}: crate::{other} is no room", source.name));
                continue;
            };
            // Leaves may know each other; they know nothing else.
            if other != room && (other_rank > own || (other_rank == own && own != 0)) {
                broken.push(format!("src/{}: {room} knows {other}", source.name));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn who_looks_from_outside_stands_outside() {
    for (outsider, known) in [("swarm", KNOWN_TO_SWARM), ("watch", KNOWN_TO_WATCH)] {
        let knows: Vec<_> =
            sources().into_iter().filter(|s| s.room() == outsider).flat_map(|s| used(&s.code)).collect();
        assert!(!knows.is_empty(), "{outsider} was not found");
        let strangers: Vec<_> = knows.iter().filter(|r| !known.contains(&r.as_str())).collect();
        assert!(strangers.is_empty(), "{outsider} knows {strangers:?}");
        let insiders: Vec<_> = sources()
            .into_iter()
            .filter(|s| {
                ![outsider, "main"].contains(&s.room()) && used(&s.code).contains(&outsider.to_owned())
            })
            .map(|s| s.name)
            .collect();
        assert!(insiders.is_empty(), "these know {outsider}: {insiders:?}");
    }
}

#[test]
fn http_asks_and_does_not_reach_in() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.room() == "http") {
        for hidden in HIDDEN_FROM_HTTP {
            if source.code.contains(hidden) {
                broken.push(format!("src/{}: speaks of {hidden}", source.name));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn sql_is_spoken_in_the_store_alone() {
    let words = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "PRAGMA ",
        "CREATE TABLE",
        "diesel::",
        "use diesel",
    ];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.room() != "store") {
        for word in words.iter().filter(|w| source.code.contains(**w)) {
            broken.push(format!("src/{}: {word}", source.name));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn only_one_file_knows_the_websocket_library() {
    // Frames; the handshake is HTTP. Streams of events to subscribers are another matter than devices' sockets.
    let words = ["ws::Parser", "OpCode", "ws::Codec", "ws::Frame", "ws::Message", "CloseReason"];
    let knows = |s: &Source| words.iter().any(|word| s.code.contains(word)) && s.name != "http/events_ws.rs";
    let mut knowing: Vec<_> = sources().into_iter().filter(knows).map(|s| s.name).collect();
    knowing.sort();
    assert_eq!(knowing, ["session/frames.rs", "swarm/wire.rs"], "one at each end of the wire");
}

#[test]
fn what_is_unsafe_is_where_it_is_looked_for() {
    let unsafe_in = |s: &Source| s.code.contains("unsafe {") || s.code.contains("(unsafe_code");
    let held = ["lib.rs", "main.rs"];
    let mut found: Vec<_> = sources().into_iter().filter(unsafe_in).map(|s| s.name).collect();
    found.retain(|name| !held.contains(&name.as_str()));
    found.sort();
    assert_eq!(found, ["session/poller.rs", "session/tcp.rs"], "SECURITY.md names them");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, rule) in [("lib.rs", "#![deny(unsafe_code)]"), ("main.rs", "#![forbid(unsafe_code)]")] {
        assert!(std::fs::read_to_string(root.join(file)).expect("text").contains(rule), "{file} allows it");
    }
}

#[test]
fn settings_are_read_in_one_place() {
    let reads = |s: &Source| s.code.contains("env::var") || s.code.contains("std::env::vars");
    // What a build with deliberate faults lacks is no setting.
    let may = |s: &Source| ["config", "chaos"].contains(&s.room());
    let outside: Vec<_> = sources().into_iter().filter(|s| reads(s) && !may(s)).map(|s| s.name).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn only_the_command_line_prints() {
    let prints = |s: &Source| s.code.contains("println!(") || s.code.contains("print!(");
    let allowed = ["main"];
    let outside: Vec<_> =
        sources().into_iter().filter(|s| prints(s) && !allowed.contains(&s.room())).map(|s| s.name).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn files_stay_short() {
    let sources = sources();
    let long: Vec<_> = sources
        .iter()
        .filter(|s| s.lines > MAX_LINES && !LONGER.iter().any(|(name, _)| *name == s.name))
        .map(|s| format!("src/{}: {} lines", s.name, s.lines))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines, and no reason is listed: {long:#?}");
    for (name, _) in LONGER {
        assert!(
            sources.iter().any(|s| s.name == *name && s.lines > MAX_LINES),
            "{name} needs no exception any more"
        );
    }
}

#[test]
fn every_module_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|s| !std::fs::read_to_string(root.join(&s.name)).expect("text").starts_with("//!"))
        .map(|s| s.name)
        .collect();
    assert!(silent.is_empty(), "these begin without a `//!`: {silent:?}");
}

#[test]
fn the_reader_of_this_file_reads_right() {
    assert_eq!(used("use crate::ids::X; crate::store::y()"), ["ids", "store"]);
    assert_eq!(used("use crate::{event::{A, B}, time,\n    reason::Reason};"), ["event", "time", "reason"]);
    assert_eq!(code_of("a\n// crate::b\n#[cfg(test)]\nmod tests {}"), "a\n");
}
