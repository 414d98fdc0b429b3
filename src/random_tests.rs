//! How tests by random histories are run, and how they show that they looked.
//!
//! `PROPTEST_CASES` multiplies: its default, 256, stands for the number of histories that a test asks for, 2560 for ten
//! times as many.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// What happened in all histories together: a test whose histories come to nothing proves nothing.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    pub fn add(&self, what: &'static str, times: u64) {
        *self.0.lock().unwrap().entry(what).or_default() += times;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

/// Tries `histories` of them, and then holds the tally to `least` of each in every thousand histories.
pub fn try_histories<S: Strategy>(
    name: &str,
    histories: u32,
    strategy: S,
    least: &[(&str, u64)],
    history: impl Fn(S::Value, &Tally) -> TestCaseResult,
) {
    let default = Config::default();
    let cases = (u64::from(histories) * u64::from(default.cases) / 256).max(1) as u32;
    let config = Config { cases, failure_persistence: None, ..default };
    let tally = Tally::default();
    let tried = TestRunner::new(config).run(&strategy, |input| history(input, &tally));
    eprintln!("{name}: {cases} histories, {:?}", tally.0.lock().unwrap());
    if let Err(found) = tried {
        panic!("{found}");
    }
    for (what, a_thousand) in least {
        let least = u64::from(cases) * a_thousand / 1_000;
        assert!(tally.of(what) >= least, "{} times {what}, {least} at least were meant", tally.of(what));
    }
}
