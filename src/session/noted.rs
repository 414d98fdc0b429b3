//! The heartbeats of the few sessions of a worker that somebody looks at.
//!
//! - A session that nobody looks at costs nothing: its pings find an empty list, and no session has a place for it.
//! - Noting begins with the first look and ends some minutes after the last; at most [`MOST`] sessions are noted, the
//!   one that was looked at longest ago makes room. Of each the last [`BEATS`] heartbeats are kept. What the first look
//!   finds is what the session itself knows: its last round trip, and the ping that waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::supervisor::closeup::{Heartbeat, Heartbeats, Outcome};
use crate::time::{Mono, Now, Timestamp, millis};

const MOST: usize = 64;
const BEATS: usize = 240;
/// After the last look.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// Whose heartbeats are noted, by their keys.
#[derive(Debug, Default)]
pub struct Noted(RefCell<Vec<Notes>>);

#[derive(Debug)]
struct Notes {
    key: u32,
    since: Timestamp,
    looked: Mono,
    beats: VecDeque<Heartbeat>,
}

impl Noted {
    /// What is noted of it so far; from here on its heartbeats are. `known` are those that it knows of by itself.
    pub fn look(&self, key: u32, now: &Now, known: impl IntoIterator<Item = Heartbeat>) -> Heartbeats {
        let mut all = self.0.borrow_mut();
        all.retain(|notes| notes.key == key || now.mono.since(notes.looked) < LINGER);
        let notes = match all.iter_mut().position(|notes| notes.key == key) {
            Some(at) => &mut all[at],
            None => {
                if all.len() >= MOST
                    && let Some(oldest) = all.iter().enumerate().min_by_key(|(_, notes)| notes.looked)
                {
                    let at = oldest.0;
                    all.swap_remove(at);
                }
                all.push(Notes {
                    key,
                    since: now.wall,
                    looked: now.mono,
                    beats: known.into_iter().collect(),
                });
                let last = all.len() - 1;
                &mut all[last]
            }
        };
        notes.looked = now.mono;
        notes.told()
    }

    pub fn pinged(&self, key: u32) {
        self.note(key, |beats| {
            if let Some(last) = waiting(beats) {
                last.outcome = Outcome::Missed;
            }
            push(beats, Heartbeat { at: Timestamp::now(), outcome: Outcome::Waiting, rtt_ms: None });
        });
    }

    /// A pong came; `in_time` where it answers the newest ping.
    pub fn answered(&self, key: u32, in_time: bool, rtt: Option<Duration>) {
        self.note(key, |beats| match waiting(beats) {
            Some(last) if in_time => (last.outcome, last.rtt_ms) = (Outcome::Answered, rtt.map(millis)),
            // To the ping that was under way when the first look came: its time is not known, the round trip is.
            _ => {
                let outcome = if in_time { Outcome::Answered } else { Outcome::Late };
                push(beats, Heartbeat { at: Timestamp::now(), outcome, rtt_ms: rtt.map(millis) });
            }
        });
    }

    /// The session ended: its key may pass to another. What was noted of it, if it was; `missed` where it ended because
    /// nothing answered.
    pub fn take(&self, key: u32, missed: bool) -> Option<Heartbeats> {
        if self.0.borrow().is_empty() {
            return None;
        }
        let mut all = self.0.borrow_mut();
        let at = all.iter().position(|notes| notes.key == key)?;
        let mut notes = all.swap_remove(at);
        if let Some(last) = waiting(&mut notes.beats).filter(|_| missed) {
            last.outcome = Outcome::Missed;
        }
        Some(notes.told())
    }

    fn note(&self, key: u32, note: impl FnOnce(&mut VecDeque<Heartbeat>)) {
        if self.0.borrow().is_empty() {
            return;
        }
        if let Some(notes) = self.0.borrow_mut().iter_mut().find(|notes| notes.key == key) {
            note(&mut notes.beats);
        }
    }
}

impl Notes {
    fn told(&self) -> Heartbeats {
        Heartbeats { noted_since: Some(self.since), items: self.beats.iter().copied().collect() }
    }
}

fn waiting(beats: &mut VecDeque<Heartbeat>) -> Option<&mut Heartbeat> {
    beats.iter_mut().rev().find(|beat| beat.outcome == Outcome::Waiting)
}

fn push(beats: &mut VecDeque<Heartbeat>, beat: Heartbeat) {
    if beats.len() >= BEATS {
        beats.pop_front();
    }
    beats.push_back(beat);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000), wall: Timestamp(seconds as i64 * 1_000_000) }
    }

    fn told(heartbeats: &Heartbeats) -> Vec<(Outcome, Option<f64>)> {
        heartbeats.items.iter().map(|beat| (beat.outcome, beat.rtt_ms)).collect()
    }

    #[test]
    fn only_who_is_looked_at_is_noted() {
        let noted = Noted::default();
        noted.pinged(1);
        assert_eq!(told(&noted.look(1, &at(1), [])), []);
        let rtt = Some(Duration::from_millis(3));
        // The answer to a ping of before.
        noted.answered(1, true, rtt);
        noted.pinged(1);
        noted.answered(1, true, rtt);
        noted.pinged(1);
        noted.pinged(1);
        noted.answered(1, false, None);
        noted.pinged(2);
        let seen = noted.look(1, &at(2), []);
        assert_eq!(seen.noted_since, Some(Timestamp(1_000_000)));
        let (answered, none) = (Some(3.0), None);
        assert_eq!(
            told(&seen),
            [
                (Outcome::Answered, answered),
                (Outcome::Answered, answered),
                (Outcome::Missed, none),
                (Outcome::Waiting, none),
                (Outcome::Late, none)
            ]
        );
        assert_eq!(told(&noted.look(2, &at(2), [])), []);
        noted.pinged(1);
        let taken = noted.take(1, true).expect("it was noted");
        assert_eq!(told(&taken).last(), Some(&(Outcome::Missed, none)), "what it died of");
        assert!(noted.take(1, true).is_none());
        assert_eq!(noted.look(1, &at(3), []).noted_since, Some(Timestamp(3_000_000)));
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let noted = Noted::default();
        for key in 0..=MOST as u32 {
            noted.look(key, &at(u64::from(key)), []);
        }
        assert_eq!(noted.0.borrow().len(), MOST);
        assert_eq!(
            noted.look(0, &at(100), []).noted_since,
            Some(Timestamp(100_000_000)),
            "the oldest made room"
        );
        for _ in 0..2 * BEATS {
            noted.pinged(0);
        }
        assert_eq!(noted.look(0, &at(101), []).items.len(), BEATS);
        noted.look(9, &at(100_000), []);
        assert_eq!(noted.0.borrow().len(), 1, "nobody looks at the others any more");
    }
}
