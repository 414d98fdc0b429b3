use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    swarm: SwarmOptions,
}

const ALL: Part = Part { index: 0, of: 1 };

fn options(words: &[&str]) -> Result<SwarmOptions, String> {
    let words = ["swarm"].iter().chain(words);
    Line::try_parse_from(words).map(|line| line.swarm).map_err(|e| e.to_string())
}

fn plan(words: &[&str], part: Part) -> Result<Plan, BadOptions> {
    let settings = Settings::from_pairs([("LASTPONG_BIND", "127.0.0.1:8080")]).unwrap();
    Plan::new(&options(words).unwrap(), &settings, 1, part)
}

#[test]
fn what_is_not_said_has_its_default() {
    let plan = plan(&[], ALL).unwrap();
    assert_eq!((plan.devices, plan.rate, plan.backoff.reconnect), (100, 500.0, true));
    assert_eq!(plan.targets[0].addr, "127.0.0.1:8080".parse().unwrap());
    assert_eq!((plan.source, plan.record), (None, None));
}

#[test]
fn bad_options_are_refused_with_what_is_allowed() {
    for (words, part) in [
        (&["--mix", "answr=1"][..], "vanish"),
        (&["--stay", "60s..10s"], "10s..60s"),
        (&["--loss", "1.5"], "0 to 1"),
        (&["--devices", "0"], "1.."),
        (&["--jitter", "0s"], "1ms"),
        (&["--for", "soon"], "duration"),
        (&["--dialect", "xml"], "lwp"),
    ] {
        let refused = options(words).unwrap_err();
        assert!(refused.contains(part), "{words:?}: {refused}");
    }
    for (words, part) in [
        (&["nowhere"][..], "HOST:PORT"),
        (&["wss://localhost:1"], "HOST:PORT"),
        (&["--source", "10.0.0.0/8", "[::1]:80"], "family"),
        (&["--prefix", "a b"], "A-Za-z0-9"),
    ] {
        let refused = plan(words, ALL).unwrap_err().to_string();
        assert!(refused.contains(part), "{words:?}: {refused}");
    }
    let refused = plan(&["--devices", "2"], Part { index: 0, of: 3 }).unwrap_err().to_string();
    assert!(refused.contains("1 to 2"), "{refused}");
}

#[test]
fn addresses_come_with_and_without_a_scheme() {
    let plan = plan(&["127.0.0.1:1", "ws://127.0.0.1:2", "ws://127.0.0.1:3/ws"], ALL).unwrap();
    let hosts: Vec<_> = plan.targets.iter().map(|t| (t.addr.port(), t.host.as_str())).collect();
    assert_eq!(hosts, [(1, "127.0.0.1:1"), (2, "127.0.0.1:2"), (3, "127.0.0.1:3")]);
}

#[test]
fn parts_share_all_devices_and_the_rate() {
    let words = ["--devices", "10", "--record", "a/seen.jsonl", "--rate", "90"];
    let parts: Vec<_> = (0..3).map(|index| plan(&words, Part { index, of: 3 }).unwrap()).collect();
    let mut numbers: Vec<_> = parts.iter().flat_map(Plan::numbers).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    assert!(parts.iter().all(|p| p.rate == 30.0));
    assert_eq!(parts[2].record, Some("a/seen-2.jsonl".into()));
}

#[test]
fn sources_are_taken_in_turn() {
    let plan = plan(&["--source", "127.0.0.0/29"], ALL).unwrap();
    let last = |n| plan.source_of(n).unwrap().to_string();
    assert_eq!([last(0), last(1), last(5), last(6)], ["127.0.0.1", "127.0.0.2", "127.0.0.6", "127.0.0.1"]);
    assert_eq!(nth_host("127.0.0.7/32".parse().unwrap(), 9).to_string(), "127.0.0.7");
    assert_eq!(nth_host("::1/128".parse().unwrap(), 9).to_string(), "::1");
}
