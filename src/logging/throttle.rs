//! A bound on what each place of the program may log in a second.
//!
//! - A place is a line of the source at a level. The bound is each place's own: a storm of one kind of line leaves the
//!   others as they are.
//! - Nothing is left out in silence: how many lines of a place were is said at its level and by its target, a second or
//!   two later, with the next line of anybody. So it is also while the storm lasts, beyond the bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lastpong::rate::Rate;
use lastpong::time::Mono;
use log::{Level, Log, Metadata, Record};

/// How long a place owes its count, at least, and how often it is looked for those that do.
const LOOK: Duration = Duration::from_secs(1);

/// Passes on what there is room for.
pub(super) struct Throttle<L> {
    logger: L,
    /// 0 is no bound.
    per_sec: u32,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    known: HashMap<Key, Place>,
    looked: Mono,
}

type Key = (&'static str, u32, Level);

struct Place {
    rate: Rate,
    target: String,
    left_out: u64,
    /// When the first of them was.
    since: Mono,
}

/// So many lines of a place were left out.
struct Note {
    level: Level,
    target: String,
    left_out: u64,
}

impl<L: Log> Throttle<L> {
    pub fn new(logger: L, per_sec: u32) -> Self {
        Self { logger, per_sec, places: Mutex::default() }
    }

    fn log_at(&self, record: &Record<'_>, now: Mono) {
        let key = record.file_static().zip(record.line()).map(|(file, line)| (file, line, record.level()));
        let Some(key) = key.filter(|_| self.per_sec > 0) else { return self.logger.log(record) };
        let (passes, notes) = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            (places.take(key, record.target(), self.per_sec, now), places.owed(now))
        };
        for note in notes {
            self.tell(&note);
        }
        if passes {
            self.logger.log(record);
        }
    }

    fn tell(&self, note: &Note) {
        let pairs = [("left_out", note.left_out)];
        let pairs = pairs.as_slice();
        self.logger.log(
            &Record::builder()
                .level(note.level)
                .target(&note.target)
                .key_values(&pairs)
                .args(format_args!("lines like those before were left out, they came too fast"))
                .build(),
        );
    }
}

impl Places {
    /// Whether there is room for a line of this place.
    fn take(&mut self, key: Key, target: &str, per_sec: u32, now: Mono) -> bool {
        let place = self.known.entry(key).or_insert_with(|| Place {
            rate: Rate::new(per_sec),
            target: target.to_owned(),
            left_out: 0,
            since: now,
        });
        let passes = place.rate.take(now).is_ok();
        if !passes {
            place.since = if place.left_out == 0 { now } else { place.since };
            place.left_out += 1;
        }
        passes
    }

    /// The counts that are due.
    fn owed(&mut self, now: Mono) -> Vec<Note> {
        if now.since(self.looked) < LOOK {
            return Vec::new();
        }
        self.looked = now;
        let due = |place: &Place| place.left_out > 0 && now.since(place.since) >= LOOK;
        let owing = self.known.iter_mut().filter(|(_, place)| due(place));
        let told = owing.map(|((_, _, level), place)| {
            let left_out = std::mem::take(&mut place.left_out);
            Note { level: *level, target: place.target.clone(), left_out }
        });
        told.collect()
    }
}

impl<L: Log> Log for Throttle<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.logger.enabled(record.metadata()) {
            self.log_at(record, Mono::now());
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

#[cfg(test)]
mod tests {
    use log::kv::Key;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(String, Option<u64>)>>);

    impl Log for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Info
        }

        fn log(&self, record: &Record<'_>) {
            let left_out = record.key_values().get(Key::from("left_out")).and_then(|v| v.to_u64());
            self.0.lock().unwrap().push((record.args().to_string(), left_out));
        }

        fn flush(&self) {}
    }

    fn say(throttle: &Throttle<Kept>, line: u32, what: &str, now: Mono) {
        let mut record = Record::builder();
        record.file_static(Some("storm.rs")).line(Some(line)).level(Level::Info).target("storm");
        throttle.log_at(&record.args(format_args!("{what}")).build(), now);
    }

    fn said(throttle: &Throttle<Kept>) -> Vec<(String, Option<u64>)> {
        std::mem::take(&mut throttle.logger.0.lock().unwrap())
    }

    #[test]
    fn a_storm_leaves_the_others_alone_and_is_counted() {
        let throttle = Throttle::new(Kept::default(), 10);
        let now = Mono(60_000_000);
        for _ in 0..1_000 {
            say(&throttle, 1, "stormy", now);
        }
        say(&throttle, 2, "calm", now);
        let heard = said(&throttle);
        assert_eq!(heard.len(), 11, "{heard:?}");
        assert_eq!(heard.last(), Some(&("calm".to_owned(), None)));

        // Whoever speaks next brings the count with it.
        let later = now + Duration::from_secs(2);
        say(&throttle, 2, "calm again", later);
        let heard = said(&throttle);
        assert_eq!(heard[0].1, Some(990), "{heard:?}");
        assert_eq!((heard.len(), &*heard[1].0), (2, "calm again"), "{heard:?}");
        say(&throttle, 1, "after the storm", later);
        assert_eq!(said(&throttle), [("after the storm".to_owned(), None)]);
    }

    #[test]
    fn a_storm_that_goes_on_is_counted_while_it_does() {
        let throttle = Throttle::new(Kept::default(), 10);
        let at = |n: u64| Mono(60_000_000) + Duration::from_millis(10 * n);
        for n in 0..500 {
            say(&throttle, 1, "stormy", at(n));
        }
        let heard = said(&throttle);
        let notes: Vec<_> = heard.iter().filter_map(|(_, left_out)| *left_out).collect();
        assert!((2..=5).contains(&notes.len()), "{notes:?}");
        say(&throttle, 2, "calm", at(1_000));
        let last: u64 = said(&throttle).iter().filter_map(|(_, left_out)| *left_out).sum();
        let told = heard.len() - notes.len();
        assert_eq!(told as u64 + notes.iter().sum::<u64>() + last, 500);
        assert!(told <= 10 + 5 * 10, "{told} lines in five seconds");
    }

    #[test]
    fn zero_is_no_limit_and_levels_still_hold() {
        let throttle = Throttle::new(Kept::default(), 0);
        for _ in 0..1_000 {
            say(&throttle, 1, "stormy", Mono(1));
        }
        assert_eq!(said(&throttle).len(), 1_000);
        throttle.log(&Record::builder().level(Level::Debug).args(format_args!("a detail")).build());
        assert!(said(&throttle).is_empty());
    }
}
