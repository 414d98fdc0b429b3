//! Two relays, a log that grows and expires, and a Redis that forgets, is set back, and does what it was asked some time
//! later; the relays die, stand still and hear nothing at any point between two steps.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::random_tests::{Tally, try_histories};

const MAX_LEN: i64 = 12;
const BATCH: i64 = 5;
const LEASE: u64 = 5;

#[derive(Debug, Clone)]
enum Step {
    Log(i64),
    /// The log's oldest events go.
    Expire(i64),
    /// One relay does its next step; what it asks of Redis is done and answered.
    Relay(usize),
    /// The same, and the answer is lost.
    Unheard(usize),
    /// The same, and it is done later or never.
    Late(usize),
    /// What was asked longest ago and not done, is done.
    Done,
    Kill(usize),
    Pass(u64),
    Empty,
    Save,
    SetBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0i64..8).prop_map(Step::Log),
        2 => (0i64..20).prop_map(Step::Expire),
        60 => (0usize..2).prop_map(Step::Relay),
        5 => (0usize..2).prop_map(Step::Unheard),
        5 => (0usize..2).prop_map(Step::Late),
        6 => Just(Step::Done),
        2 => (0usize..2).prop_map(Step::Kill),
        12 => (0u64..3).prop_map(Step::Pass),
        1 => Just(Step::Empty),
        2 => Just(Step::Save),
        1 => Just(Step::SetBack),
    ];
    prop::collection::vec(step, 1..400)
}

/// The stream and the lock, as Redis keeps them.
#[derive(Debug, Clone, Default)]
struct Redis {
    entries: Vec<i64>,
    /// `last-generated-id`; 0 where there is no stream.
    last: i64,
    /// Whose it is, and until when.
    lock: Option<(Token, u64)>,
    /// The mark.
    told: i64,
}

/// A relay, and its turn.
type Token = (u64, u64);

/// A call of the script that appends.
#[derive(Debug, Clone)]
struct Append {
    token: Token,
    last: i64,
    told: i64,
    events: Vec<i64>,
}

/// What Redis was asked and does later.
#[derive(Debug)]
enum Call {
    Take(Token),
    Append(Append),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Moved(String),
    Fenced,
}

/// What a relay does next.
#[derive(Debug, Clone)]
enum Next {
    TakeLock,
    AskEnd { held: bool },
    AskLog { end: String },
    Read,
    Append(Vec<i64>),
}

struct Relay {
    token: Token,
    place: Place,
    next: Next,
}

struct World<'a> {
    now: u64,
    oldest: i64,
    newest: i64,
    redis: Redis,
    saved: Redis,
    /// The stream lost something, or was empty for longer than a relay could know: not all need be published.
    lost: bool,
    /// Redis knows less than it did: some may be published twice.
    was_set_back: bool,
    published: Vec<i64>,
    late: VecDeque<Call>,
    relays: [Relay; 2],
    /// How many there have been.
    numbered: u64,
    tally: &'a Tally,
}

fn relay(number: u64) -> Relay {
    Relay { token: (number, 0), place: Place::default(), next: Next::TakeLock }
}

impl<'a> World<'a> {
    fn new(tally: &'a Tally) -> Self {
        Self {
            now: 0,
            oldest: 1,
            newest: 0,
            redis: Redis::default(),
            saved: Redis::default(),
            lost: false,
            was_set_back: false,
            published: Vec::new(),
            late: VecDeque::new(),
            relays: [relay(0), relay(1)],
            numbered: 2,
            tally,
        }
    }

    fn take(&mut self, step: Step) {
        self.tally.add("steps", 1);
        match step {
            Step::Log(events) => self.newest += events,
            Step::Expire(events) => self.oldest = (self.oldest + events).min(self.newest + 1),
            Step::Relay(n) => self.step(n, true, true),
            Step::Unheard(n) => self.step(n, true, false),
            Step::Late(n) => self.step(n, false, false),
            Step::Done => match self.late.pop_front() {
                Some(Call::Take(token)) => _ = self.take_lock(token),
                Some(Call::Append(call)) => {
                    self.lost |= self.redis.last == 0;
                    let answer = self.append(&call);
                    if answer == Answer::Done && !call.events.is_empty() {
                        self.tally.add("appended late", 1);
                    }
                }
                None => {}
            },
            Step::Kill(n) => {
                self.tally.add("kills", 1);
                self.relays[n] = relay(self.numbered);
                self.numbered += 1;
            }
            Step::Pass(seconds) => {
                self.now += seconds;
                self.redis.lock = self.redis.lock.filter(|(_, until)| *until > self.now);
            }
            Step::Empty => {
                self.lost |= self.redis.last > 0;
                self.redis = Redis::default();
            }
            Step::Save => self.saved = self.redis.clone(),
            Step::SetBack => {
                self.lost |= self.redis.last > self.saved.last;
                self.was_set_back |= self.published.iter().any(|seq| *seq > self.saved.told);
                self.redis = self.saved.clone();
                self.tally.add("set back", 1);
            }
        }
    }

    /// As the copier does it, one call of Redis or the log a step.
    fn step(&mut self, n: usize, done: bool, heard: bool) {
        let next = match self.relays[n].next.clone() {
            Next::TakeLock => {
                self.relays[n].token.1 += 1;
                let token = self.relays[n].token;
                if !done {
                    self.late.push_back(Call::Take(token));
                }
                let held = done && self.take_lock(token);
                heard.then_some(Next::AskEnd { held })
            }
            Next::AskEnd { held } => {
                let end = format!("{}-0", self.redis.last);
                match (heard, held) {
                    (false, _) => None,
                    (true, true) => Some(Next::AskLog { end }),
                    (true, false) => {
                        self.relays[n].place.stands_by(&end);
                        None
                    }
                }
            }
            Next::AskLog { end } => {
                let last = seq_of(&end).unwrap();
                assert!(last <= self.newest, "the stream is ahead of the log");
                let log = LogBounds { oldest: self.oldest, newest: self.newest };
                self.relays[n].place.found(last, log, MAX_LEN);
                Some(Next::Read)
            }
            Next::Read => {
                let first = (self.relays[n].place.after + 1).max(self.oldest);
                Some(Next::Append((first..=self.newest.min(first + BATCH - 1)).collect()))
            }
            Next::Append(events) => {
                let Relay { token, place: Place { last, told, .. }, .. } = self.relays[n];
                let call = Append { token, last, told, events };
                if !done {
                    self.late.push_back(Call::Append(call));
                    None
                } else {
                    let answer = self.append(&call);
                    heard.then(|| self.answered(n, answer, call.events))
                }
            }
        };
        self.relays[n].next = next.unwrap_or(Next::TakeLock);
    }

    fn answered(&mut self, n: usize, answer: Answer, events: Vec<i64>) -> Next {
        match answer {
            Answer::Fenced => Next::TakeLock,
            Answer::Moved(end) => Next::AskLog { end },
            Answer::Done => {
                if let Some(newest) = events.last() {
                    self.relays[n].place.appended(*newest);
                }
                Next::Read
            }
        }
    }

    /// `take.lua`.
    fn take_lock(&mut self, token: Token) -> bool {
        if self.redis.lock.is_some_and(|((holder, _), _)| holder != token.0) {
            return false;
        }
        self.redis.lock = Some((token, self.now + LEASE));
        self.tally.add("locks taken", 1);
        true
    }

    /// `append.lua`.
    fn append(&mut self, call: &Append) -> Answer {
        let redis = &mut self.redis;
        if redis.lock.is_none_or(|(holder, _)| holder != call.token) {
            self.tally.add("fenced", 1);
            return Answer::Fenced;
        }
        if redis.last != call.last {
            self.tally.add("moved", 1);
            return Answer::Moved(format!("{}-0", redis.last));
        }
        if let Some(first) = call.events.first() {
            let oldest_wanted = (self.newest - MAX_LEN).max(self.oldest - 1) + 1;
            let follows = match redis.last {
                0 => *first <= oldest_wanted,
                last => *first == last + 1 || (*first > last && *first <= self.oldest),
            };
            assert!(
                follows,
                "{first} after {}, of a log from {} to {}",
                redis.last, self.oldest, self.newest
            );
        }
        let mut told = if redis.last == 0 { call.told } else { call.told.max(redis.told) };
        for event in &call.events {
            assert!(*event > redis.last, "Redis refuses {event} after {}", redis.last);
            (redis.last, _) = (*event, redis.entries.push(*event));
            if *event > told {
                told = *event;
                self.published.push(*event);
            }
        }
        if !call.events.is_empty() {
            redis.told = told;
        }
        self.tally.add("appended", call.events.len() as u64);
        redis.lock = Some((call.token, self.now + LEASE));
        Answer::Done
    }

    /// All goes well: the stream comes to the log's end.
    fn heal(&mut self) {
        self.late.clear();
        for turn in 0..400 {
            self.step(turn % 2, true, true);
            self.now += u64::from(turn % 8 == 0);
            self.redis.lock = self.redis.lock.filter(|(_, until)| *until > self.now);
        }
        let kept = self.newest >= self.oldest;
        assert!(!kept || self.redis.last == self.newest, "{} of {}", self.redis.last, self.newest);
        assert!(self.redis.entries.is_sorted_by(|a, b| a < b), "{:?}", self.redis.entries);
        if !self.was_set_back {
            assert!(self.published.is_sorted_by(|a, b| a < b), "published twice: {:?}", self.published);
        }
        if !self.lost {
            let first = self.published.first().copied().unwrap_or(self.newest + 1);
            let missing =
                (first..=self.newest).filter(|seq| *seq >= self.oldest && !self.published.contains(seq));
            assert_eq!(missing.count(), 0, "of {first} to {}: {:?}", self.newest, self.published);
        }
    }
}

fn history(steps: Vec<Step>, tally: &Tally) -> TestCaseResult {
    let mut world = World::new(tally);
    steps.into_iter().for_each(|step| world.take(step));
    world.heal();
    Ok(())
}

/// The second relay's call is done late, in a turn of its own that came by a Redis that was emptied.
#[test]
fn what_an_earlier_turn_asked_is_fenced() {
    let (tally, lead) = (Tally::default(), |n| [Step::Relay(n), Step::Relay(n), Step::Relay(n)]);
    let mut steps = Vec::from(lead(1));
    steps.extend([Step::Log(1), Step::Relay(1), Step::Late(1), Step::Pass(LEASE)]);
    steps.extend(lead(0));
    steps.extend([Step::Log(1), Step::Relay(0), Step::Relay(0), Step::Empty, Step::Relay(1), Step::Done]);
    history(steps, &tally).unwrap();
    assert_eq!(tally.of("appended late"), 0);
}

#[test]
fn the_stream_has_no_hole_no_double_and_no_inversion() {
    let least = [
        ("steps", 150_000),
        ("appended", 60_000),
        ("appended late", 50),
        ("locks taken", 3_000),
        ("kills", 2_000),
        ("fenced", 300),
        ("moved", 75),
        ("set back", 1_000),
    ];
    try_histories("relay", 5_000, steps(), &least, history);
}
