//! Where writes go next, as a pure core: to the store, or through the journal to the store. The actor does the jobs
//! that are given out here and says how they ended; time is passed in.
//!
//! - What waits leaves in order, and a group that failed goes back to its place, so that nothing is lost or overtaken.
//! - A write goes directly to the store only while the journal is empty and no append is under way: what is in the
//!   journal came before it.
//! - One job on the store at a time, and one append at a time; an append and a drain may run side by side. Appends
//!   wait for a drain at most [`HANDOVER`], and only for one that is likely to be the last.
//! - A run begins in the journal: the entry says where, between the writes, other runs' sessions are to be ended.
//!
//! ```text
//!               commit failed, or housekeeping
//!    directly ───────────────────────────────────▶ by journal ──▶ append, append, …
//!       ▲                                              │    └───▶ drain, drain, … as the breaker allows
//!       └── the journal is empty, no append under way ─┘
//! ```
//!
//! Without a journal a group that failed is committed again, as the breaker allows, for as long as it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Due, Grouping, Pending, unshared};
use crate::breaker::{Breaker, BreakerState};
use crate::ids::Run;
use crate::store::Write;
use crate::store::journal::Entry;
use crate::time::{Mono, Timestamp};

/// After so many commits what can wait has its turn, however many writes there are.
const COMMITS_IN_A_ROW: u32 = 50;

/// How long appends wait for what may be the last drain. Without that a journal that is written to without a break
/// would never be found empty.
pub const HANDOVER: Duration = Duration::from_secs(1);

/// Something to do. How it ended is to be told, with its run.
#[derive(Debug, Clone)]
pub enum Job {
    /// To [`Course::committed`].
    Commit(Arc<Vec<Write>>),
    /// To [`Course::appended`].
    Append(Arc<Vec<Entry>>),
    /// To [`Course::drained`]. `begin`: this run has yet to be made known, as begun then.
    Drain { begin: Option<Timestamp> },
    /// What can wait: to [`Course::housekept`].
    Housekeep,
}

#[derive(Debug)]
pub enum Step {
    /// In the name of [`Course::run`], as it is now.
    Do(Job),
    /// Ask again after this time, or when something was told.
    Wait(Duration),
    /// Ask again when something was told.
    Rest,
}

/// Why a job on the store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Away,
    /// The run was declared lost.
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Directly,
    ByJournal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnStore {
    Commit,
    Housekeep,
    Drain {
        /// Appends that had ended when it began.
        appended: u64,
        /// Until when appends wait for it.
        hold: Mono,
    },
}

#[derive(Debug)]
pub struct Course {
    run: Run,
    began_at: Timestamp,
    /// The store knows of the run.
    begun: bool,
    /// No job is given out until the run is another.
    fenced: bool,
    has_journal: bool,
    way: Way,
    waiting: Pending,
    /// Before all that waits.
    begins: VecDeque<Entry>,
    store: Breaker,
    journal: Breaker,
    on_store: Option<OnStore>,
    appending: bool,
    /// Appends that have ended, either way.
    appended: u64,
    /// The journal may hold something, or nobody knows yet whether the store is back.
    left: bool,
    /// The last drain took all that there was when it began.
    nearly_empty: bool,
    commits_in_a_row: u32,
}

impl Course {
    /// With a journal the run begins there, and goes on by it until it is drained.
    pub fn new(run: Run, began_at: Timestamp, grouping: Grouping, has_journal: bool) -> Self {
        let mut course = Self {
            run,
            began_at,
            begun: false,
            fenced: false,
            has_journal,
            way: Way::Directly,
            waiting: Pending::new(grouping),
            begins: VecDeque::new(),
            store: Breaker::new(),
            journal: Breaker::new(),
            on_store: None,
            appending: false,
            appended: 0,
            left: false,
            nearly_empty: false,
            commits_in_a_row: 0,
        };
        if has_journal {
            course.begin();
        }
        course
    }

    fn begin(&mut self) {
        self.begins.push_back(Entry::Begin(self.run.clone(), self.began_at));
        self.begun = false;
        self.fenced = false;
        self.by_journal();
    }

    fn by_journal(&mut self) {
        self.way = Way::ByJournal;
        self.left = true;
        self.nearly_empty = false;
    }

    /// The run goes on as another. Starts of earlier runs that are not durable yet are dropped, because nobody was
    /// welcomed for them and nobody will be; says how many.
    pub fn reborn(&mut self, run: Run, at: Timestamp) -> usize {
        if !self.has_journal || run == self.run {
            return 0;
        }
        self.run = run;
        self.began_at = at;
        self.begin();
        self.waiting.drop_other_starts(self.run.incarnation)
    }

    /// Says how many starts were dropped, as [`Course::reborn`] does.
    pub fn push(&mut self, writes: Vec<Write>, now: Mono) -> usize {
        let (ours, others): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| match write {
            Write::Start(start) => !self.has_journal || start.data.incarnation == self.run.incarnation,
            Write::End(_) => true,
        });
        self.waiting.push(ours, now);
        others.len()
    }

    /// The next job. `chores`: there is something to do that can wait; `hurry`: groups wait for no company. To be
    /// asked again until there is none.
    pub fn next(&mut self, chores: bool, hurry: bool, now: Mono) -> Step {
        match self.way {
            _ if self.fenced => Step::Rest,
            Way::Directly => self.next_directly(chores, hurry, now),
            Way::ByJournal => self.next_by_journal(hurry, now),
        }
    }

    fn next_directly(&mut self, chores: bool, hurry: bool, now: Mono) -> Step {
        if self.on_store.is_some() || self.appending {
            return Step::Rest;
        }
        let chores_first = chores && self.commits_in_a_row >= COMMITS_IN_A_ROW;
        let due = self.waiting.due(now, hurry);
        match due {
            Due::Never if !chores => return Step::Rest,
            Due::After(wait) if !chores => return Step::Wait(wait),
            _ if !self.store.allows(now) => return Step::Wait(self.store.wait(now)),
            Due::Now if !chores_first => {}
            _ => {
                self.commits_in_a_row = 0;
                self.on_store = Some(OnStore::Housekeep);
                return Step::Do(Job::Housekeep);
            }
        }
        self.commits_in_a_row += 1;
        self.on_store = Some(OnStore::Commit);
        Step::Do(Job::Commit(Arc::new(self.waiting.take(now))))
    }

    fn next_by_journal(&mut self, hurry: bool, now: Mono) -> Step {
        // What may be the last drain has the journal to itself; else appends come first.
        let jobs: [fn(&mut Self, bool, Mono) -> Step; 2] = match self.nearly_empty {
            true => [Self::next_drain, Self::next_append],
            false => [Self::next_append, Self::next_drain],
        };
        let mut sooner: Option<Duration> = None;
        for job in jobs {
            match job(self, hurry, now) {
                Step::Do(job) => return Step::Do(job),
                Step::Wait(wait) => sooner = Some(sooner.map_or(wait, |other| other.min(wait))),
                Step::Rest => {}
            }
        }
        sooner.map_or(Step::Rest, Step::Wait)
    }

    fn next_append(&mut self, hurry: bool, now: Mono) -> Step {
        // What a commit holds comes before what waits.
        if self.appending || self.on_store == Some(OnStore::Commit) {
            return Step::Rest;
        }
        let held = match self.on_store {
            Some(OnStore::Drain { hold, .. }) => hold.since(now),
            _ => Duration::ZERO,
        };
        let due = if self.begins.is_empty() { self.waiting.due(now, hurry) } else { Due::Now };
        match due {
            Due::Never => Step::Rest,
            Due::After(wait) => Step::Wait(wait.max(held)),
            Due::Now if !held.is_zero() => Step::Wait(held),
            Due::Now if !self.journal.allows(now) => Step::Wait(self.journal.wait(now)),
            Due::Now => {
                self.appending = true;
                let writes = self.waiting.take(now).into_iter().map(Entry::Write);
                Step::Do(Job::Append(Arc::new(self.begins.drain(..).chain(writes).collect())))
            }
        }
    }

    fn next_drain(&mut self, _hurry: bool, now: Mono) -> Step {
        if !self.left || self.on_store.is_some() || (self.nearly_empty && self.appending) {
            return Step::Rest;
        }
        if !self.store.allows(now) {
            return Step::Wait(self.store.wait(now));
        }
        let hold = if self.nearly_empty { now + HANDOVER } else { now };
        self.on_store = Some(OnStore::Drain { appended: self.appended, hold });
        Step::Do(Job::Drain { begin: (!self.begun).then_some(self.began_at) })
    }

    /// Says how many starts were dropped, as [`Course::reborn`] does.
    pub fn committed(
        &mut self,
        run: &Run,
        batch: Arc<Vec<Write>>,
        result: Result<(), Failure>,
        now: Mono,
    ) -> usize {
        self.on_store = None;
        let Err(failure) = result else {
            self.store.succeeded();
            // The store takes what the journal may not.
            self.journal.succeeded();
            return 0;
        };
        self.failed(run, failure, now);
        self.put_back(run, unshared(batch).into_iter())
    }

    /// Says how many starts were dropped, as [`Course::reborn`] does.
    pub fn appended(&mut self, run: &Run, entries: Arc<Vec<Entry>>, taken: bool, now: Mono) -> usize {
        self.appending = false;
        self.appended += 1;
        // Also one that failed may have left something there.
        self.left = true;
        if taken {
            self.journal.succeeded();
            return 0;
        }
        self.journal.failed(now);
        let mut writes = Vec::with_capacity(entries.len());
        let mut begins = VecDeque::new();
        for entry in unshared(entries) {
            match entry {
                Entry::Begin(..) => begins.push_back(entry),
                Entry::Write(write) => writes.push(write),
            }
        }
        begins.append(&mut self.begins);
        self.begins = begins;
        self.put_back(run, writes.into_iter())
    }

    fn put_back(&mut self, run: &Run, writes: impl DoubleEndedIterator<Item = Write>) -> usize {
        self.waiting.put_back(writes);
        if *run == self.run { 0 } else { self.waiting.drop_other_starts(self.run.incarnation) }
    }

    /// `begun`: the store knows of the run. `all`: it took all that the journal held when it began.
    pub fn drained(&mut self, run: &Run, begun: bool, all: bool, result: Result<(), Failure>, now: Mono) {
        let job = self.on_store.take();
        if *run == self.run {
            self.begun |= begun;
        }
        if let Err(failure) = result {
            return self.failed(run, failure, now);
        }
        self.store.succeeded();
        self.nearly_empty = all;
        let appended_since = match job {
            Some(OnStore::Drain { appended, .. }) => appended != self.appended,
            _ => true,
        };
        if all && !appended_since && !self.appending && *run == self.run {
            self.left = false;
            if self.begins.is_empty() {
                self.way = Way::Directly;
            }
        }
    }

    pub fn housekept(&mut self, run: &Run, result: Result<(), Failure>, now: Mono) {
        self.on_store = None;
        match result {
            Ok(()) => self.store.succeeded(),
            // What failed comes again by itself; whether the store is away is for the next commit to find out.
            Err(_) if !self.has_journal && self.store.state() == BreakerState::Closed => {}
            Err(failure) => self.failed(run, failure, now),
        }
    }

    fn failed(&mut self, run: &Run, failure: Failure, now: Mono) {
        match failure {
            // The store answers; it is the run that is over. One that was followed by another already is no news.
            Failure::Fenced if self.has_journal => {
                self.store.succeeded();
                self.fenced |= *run == self.run;
            }
            _ => self.store.failed(now),
        }
        if self.has_journal {
            self.by_journal();
        }
    }

    /// Who writes from now on.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Whether the run was declared lost and waits to go on as another.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether writes go to the store directly: the journal is drained.
    pub fn is_direct(&self) -> bool {
        self.way == Way::Directly
    }

    /// Whether writes are made durable nowhere.
    pub fn refuses(&self) -> bool {
        let way = if self.has_journal { &self.journal } else { &self.store };
        way.state() != BreakerState::Closed
    }

    /// Whether all that was pushed is durable.
    pub fn is_settled(&self) -> bool {
        self.waiting.count() == 0
            && self.begins.is_empty()
            && !self.appending
            && self.on_store != Some(OnStore::Commit)
    }

    /// Writes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.count()
    }

    pub fn store_breaker(&self) -> BreakerState {
        self.store.state()
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
