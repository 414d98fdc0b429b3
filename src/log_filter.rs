//! What is logged, and how that is changed while the program runs.
//!
//! The program's logger asks [`LogFilter::passes`] for each record. A filter that was set for a time gives way to the one
//! of the start when it is over; [`LogFilter::keep`] sees to that, for a filter may be so narrow that nobody asks.
//!
//! A filter that is set says what holds of all modules that it does not name: a slip in one word would else silence the
//! rest. The one of the start need not, as with other programs. No filter looks for a text in the lines.
//!
//! Left out on purpose: where lines go and how they look. That is the program's.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use env_filter::Filter;
use log::{LevelFilter, Metadata};
use tokio::sync::Notify;

use crate::time::{Mono, Timestamp};

/// A longer text than anyone needs.
pub const MOST_BYTES: usize = 1_024;
/// What a filter may be, in words.
pub const ALLOWED: &str = "at most 1024 of [A-Za-z0-9_:=,-], with a level for all modules and others for some, as warn or \
                           info,lastpong::session=debug";
/// What the one of the start may be, in words.
pub const ALLOWED_AT_START: &str =
    "at most 1024 of [A-Za-z0-9_:=, -]: log levels, as info, warn or info,lastpong::session=debug";

/// One for the whole process.
pub struct LogFilter {
    /// That of the start.
    usual: String,
    now: RwLock<Now>,
    changed: Notify,
}

struct Now {
    text: String,
    filter: Filter,
    /// Until when, where it is for a time.
    until: Option<(Mono, Timestamp)>,
}

/// What is logged at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub filter: String,
    /// What is logged when nothing else is asked for.
    pub usual: String,
    pub until: Option<Timestamp>,
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no filter of log levels")]
pub struct BadFilter;

/// Whether [`LogFilter::set`] would take it.
///
/// # Errors
/// It would not.
pub fn check(text: &str) -> Result<(), BadFilter> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    if text.contains(' ') || !text.split(',').any(is_level) {
        return Err(BadFilter);
    }
    check_at_start(text)
}

/// Whether [`LogFilter::new`] would take it.
///
/// # Errors
/// It would not.
pub fn check_at_start(text: &str) -> Result<(), BadFilter> {
    // A slash would begin a text to look for, which nobody does; a line break, a line of the log that nobody wrote.
    let is_known = |c: char| c.is_ascii_alphanumeric() || "_:=,- ".contains(c);
    if text.trim().is_empty() || text.len() > MOST_BYTES || !text.chars().all(is_known) {
        return Err(BadFilter);
    }
    Now::of(text, None).map(|_| ())
}

impl LogFilter {
    /// # Errors
    /// `usual` is no filter.
    pub fn new(usual: &str) -> Result<Self, BadFilter> {
        check_at_start(usual)?;
        let now = RwLock::new(Now::of(usual, None)?);
        Ok(Self { usual: usual.to_owned(), now, changed: Notify::new() })
    }

    /// The level of the most talkative place.
    pub fn level(&self) -> LevelFilter {
        self.now.read().unwrap_or_else(PoisonError::into_inner).filter.filter()
    }

    /// Whether a record of this place and level is logged.
    pub fn passes(&self, metadata: &Metadata<'_>) -> bool {
        self.now.read().unwrap_or_else(PoisonError::into_inner).filter.enabled(metadata)
    }

    pub fn view(&self) -> View {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let until = now.until.map(|(_, until)| until);
        View { filter: now.text.clone(), usual: self.usual.clone(), until }
    }

    /// Logs by this filter from here on, or for so long.
    ///
    /// # Errors
    /// It is none, and nothing changes.
    pub fn set(&self, text: &str, lasts: Option<Duration>) -> Result<(), BadFilter> {
        check(text)?;
        self.put(Now::of(text, lasts)?);
        // Where nobody waits just now, whoever waits next finds it.
        self.changed.notify_one();
        Ok(())
    }

    fn put(&self, now: Now) {
        self.now.write().unwrap_or_else(PoisonError::into_inner).turn_into(now);
    }

    /// Goes back to the usual filter whenever the time of another is over.
    pub async fn keep(&self) {
        loop {
            let until = self.now.read().unwrap_or_else(PoisonError::into_inner).until;
            let over = async {
                match until {
                    Some((until, _)) => tokio::time::sleep(until.since(Mono::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = over => self.fall_back(),
            }
        }
    }

    /// Unless another filter was set meanwhile.
    fn fall_back(&self) {
        let Ok(usual) = Now::of(&self.usual, None) else { return };
        let mut held = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if held.is_over() {
            held.turn_into(usual);
            // Whoever logs reads the filter.
            drop(held);
            log::info!(filter = self.usual.as_str(); "the log is as usual again");
        }
    }
}

impl Now {
    fn turn_into(&mut self, other: Self) {
        log::set_max_level(other.filter.filter());
        *self = other;
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|(until, _)| until <= Mono::now())
    }

    fn of(text: &str, lasts: Option<Duration>) -> Result<Self, BadFilter> {
        let mut builder = env_filter::Builder::new();
        builder.try_parse(text).map_err(|_| BadFilter)?;
        let until = lasts.map(|lasts| (Mono::now() + lasts, Timestamp::now().saturating_add(lasts)));
        Ok(Self { text: text.to_owned(), filter: builder.build(), until })
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn passes(filter: &LogFilter, target: &str, level: Level) -> bool {
        filter.passes(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn a_filter_is_changed_and_a_bad_one_changes_nothing() {
        let filter = LogFilter::new("info").unwrap();
        assert!(passes(&filter, "lastpong::feed", Level::Info));
        assert!(!passes(&filter, "lastpong::session::life", Level::Debug));
        filter.set("warn,lastpong::session=debug", None).unwrap();
        assert!(!passes(&filter, "lastpong::feed", Level::Info));
        assert!(passes(&filter, "lastpong::session::life", Level::Debug));
        assert_eq!(filter.level(), LevelFilter::Debug);
        let long = format!("info,{}", "x".repeat(MOST_BYTES));
        for bad in ["", " ", "info,lastpong=loud", "info,a=b=c", &long] {
            assert_eq!(filter.set(bad, None), Err(BadFilter), "{bad}");
            assert!(LogFilter::new(bad).is_err(), "{bad}");
        }
        // A slip, which would silence all else; a text to look for; a line of its own; what no database keeps.
        for bad in
            ["inof", "lastpong=debug", "info/xyz", "info,a\nb=debug", "debug,a\0b=debug", "info, a=debug"]
        {
            assert_eq!(filter.set(bad, None), Err(BadFilter), "{bad:?}");
        }
        for (usual, taken) in [("lastpong=debug", true), ("info, a=debug", true), ("info/xyz", false)] {
            assert_eq!(LogFilter::new(usual).is_ok(), taken, "{usual}");
        }
        let view = filter.view();
        assert_eq!((&*view.filter, &*view.usual, view.until), ("warn,lastpong::session=debug", "info", None));
    }

    #[test]
    fn what_is_for_a_time_gives_way_only_when_it_is_over() {
        let filter = LogFilter::new("info").unwrap();
        filter.set("off", Some(Duration::from_secs(3_600))).unwrap();
        assert!(filter.view().until.is_some());
        filter.fall_back();
        assert_eq!(filter.view().filter, "off");
        filter.set("off", Some(Duration::ZERO)).unwrap();
        filter.fall_back();
        let view = filter.view();
        assert_eq!((&*view.filter, view.until), ("info", None));
    }

    #[test]
    fn what_is_set_while_another_gives_way_stays() {
        const ROUNDS: usize = 20_000;
        let filter = LogFilter::new("info").unwrap();
        let (over, set) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    over.wait();
                    filter.fall_back();
                    set.wait();
                }
            });
            for round in 0..ROUNDS {
                filter.set("off", Some(Duration::ZERO)).unwrap();
                over.wait();
                filter.set("warn", None).unwrap();
                set.wait();
                assert_eq!(filter.view().filter, "warn", "round {round}");
            }
        });
    }
}
