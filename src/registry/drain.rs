//! Moves what the journal holds into the store, in its order.
//!
//! An entry is removed only after the store has it. A drain that was cut short between the two does the same again
//! later, which changes nothing on the record: the store takes a start once, and an end only of an active session.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use crate::event::Event;
use crate::ids::Run;
use crate::store::journal::{Entry, Journal};
use crate::store::{Store, StoreError, Write};
use crate::time::Timestamp;

use super::messages::Begun;

/// The longest that one call of the store may take before the store is taken for away.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Sessions of earlier runs ended in one transaction.
const RECOVER: usize = 1_000;

/// One stretch of the journal that is done in one go, up to and with the entry of this number.
#[derive(Debug)]
pub enum Stretch {
    Begin { run: Run, at: Timestamp, to: i64 },
    Writes { writes: Arc<Vec<Write>>, to: i64 },
}

/// What a drain came to, also where it failed halfway.
#[derive(Debug, Default)]
pub struct Drained {
    /// The store knows of the run.
    pub begun: bool,
    /// It took all that the journal held when it began.
    pub all: bool,
    pub entries: usize,
    /// In `seq` order.
    pub events: Vec<Arc<Event>>,
}

/// Whose journal goes where.
pub struct Drain {
    pub store: Store,
    pub journal: Journal,
    pub run: Run,
    /// The run has yet to be made known to the store, as begun then.
    pub begin: Option<Timestamp>,
    pub limit: usize,
    /// Is told that the store knows of the run.
    pub begun: Recipient<Begun>,
}

impl Drain {
    /// Moves the oldest entries. Where there is none, sees whether the store would take any.
    pub async fn run(self) -> (Drained, Result<(), StoreError>) {
        let mut drained = Drained::default();
        let result = self.drain(&mut drained).await;
        (drained, result)
    }

    async fn drain(&self, drained: &mut Drained) -> Result<(), StoreError> {
        // The store knows a run before it is told anything in its name, also of what an earlier run left.
        if let Some(at) = self.begin {
            // Not hurried: it may have tables to make.
            self.store.begin(&self.run, at).await?;
            // Before anything else is done: a run that is known and gives no sign of life is taken for lost.
            let _ = self.begun.send(Begun(self.run.clone())).await;
        }
        drained.begun = true;
        let entries = self.journal.oldest(self.limit).await?;
        let all = entries.len() < self.limit;
        if entries.is_empty() && self.begin.is_none() {
            in_time(self.store.ping()).await?;
        }
        for stretch in stretches(entries) {
            let to = match stretch {
                Stretch::Begin { run, to, .. } if self.is_later(&run, to) => return Ok(()),
                Stretch::Begin { at, to, .. } => {
                    self.recover(at, drained).await?;
                    drained.entries += 1;
                    to
                }
                Stretch::Writes { writes, to } => {
                    drained.entries += writes.len();
                    drained.events.extend(in_time(self.store.commit(&self.run, writes)).await?.events);
                    to
                }
            };
            self.journal.remove_to(to).await?;
        }
        drained.all = all;
        Ok(())
    }

    /// Whether that run followed on ours meanwhile: it is for its own drain to begin it. Within one process runs are
    /// numbered upwards; what an earlier process left is earlier, whatever the clock was then.
    fn is_later(&self, run: &Run, entry: i64) -> bool {
        entry > self.journal.left_by_earlier() && run.incarnation > self.run.incarnation
    }

    /// Ends what is active under other runs, as of when this one began.
    async fn recover(&self, at: Timestamp, drained: &mut Drained) -> Result<(), StoreError> {
        loop {
            let ends = in_time(self.store.recover(&self.run, at, RECOVER)).await?;
            if ends.is_empty() {
                return Ok(());
            }
            drained.events.extend(ends);
        }
    }
}

/// A store that hangs is like one that is dead.
pub async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Retry(format!("it did not answer in {} s", DEADLINE.as_secs()));
    tokio::time::timeout(DEADLINE, call).await.unwrap_or_else(|_| Err(late()))
}

/// Puts together the writes that follow each other.
pub fn stretches(entries: Vec<(i64, Entry)>) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut gathered = Vec::new();
    let mut last = 0;
    let close = |gathered: &mut Vec<Write>, to: i64, stretches: &mut Vec<Stretch>| {
        if !gathered.is_empty() {
            stretches.push(Stretch::Writes { writes: Arc::new(std::mem::take(gathered)), to });
        }
    };
    for (id, entry) in entries {
        match entry {
            Entry::Write(write) => gathered.push(write),
            Entry::Begin(run, at) => {
                close(&mut gathered, last, &mut stretches);
                stretches.push(Stretch::Begin { run, at, to: id });
            }
        }
        last = id;
    }
    close(&mut gathered, last, &mut stretches);
    stretches
}
