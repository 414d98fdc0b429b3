//! The checker against made-up runs: one that held, and that one broken in one way after another.

mod allowed;
mod doctored;
mod session;
mod torn;
mod world;

use super::verdict::Promise;
use super::{Options, Verdict, check};
use world::{Files, World};

fn judged(files: &Files) -> Verdict {
    let dir = tempfile::tempdir().unwrap();
    files.write(dir.path());
    check(dir.path(), &Options::default()).unwrap()
}

fn broken(verdict: &Verdict) -> Vec<(Promise, &'static str)> {
    verdict.kinds.iter().map(|(promise, kind, _)| (*promise, *kind)).collect()
}

#[test]
fn a_run_that_held_is_called_so() {
    let verdict = judged(&World::healthy().files());
    let shown = verdict.to_string();
    assert_eq!(broken(&verdict), [], "{shown}");
    assert!(verdict.held(), "{shown}");
    assert!(verdict.tallies.iter().all(|(p, tally)| tally.tried > 10 || *p == Promise::P5), "{shown}");
    assert_eq!(verdict.tallies[&Promise::P5].tried, 3, "{shown}");
    assert_eq!(verdict.faults.len(), 13, "every kind of fault");
    assert_eq!(verdict.faults.values().sum::<u64>(), 17, "{shown}");
    let kinds: Vec<_> = verdict.delays.iter().filter(|d| d.calm.is_some()).map(|d| d.kind).collect();
    assert_eq!(
        kinds,
        ["close", "bye", "reset", "vanish", "silent", "node killed", "leaving", "swarm killed"],
        "{shown}"
    );
    assert!(Verdict { strict: true, ..verdict }.held(), "{shown}");
}
