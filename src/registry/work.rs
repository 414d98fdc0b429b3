//! The registry's jobs: each asks the store or the journal, then tells the feed, the root and the course, in that
//! order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use crate::bans::KEPT;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::store::journal::Entry;
use crate::store::{Committed, Outcome, Store, StoreError, Write};
use crate::time::{Mono, Now, Timestamp};

use super::actor::Registry;
use super::course::Failure;
use super::drain::{Drain, in_time};
use super::messages::Recorded;

/// Pages of signs of life written in one go: a few milliseconds, so that a start does not wait long behind them.
const HEARD: usize = 32;
/// A drain moves at least so many entries at once, however slow the store is.
const LEAST_DRAIN: usize = 16;
/// The most rows of a sweep: tens of milliseconds, for the same reason.
const MAX_SWEEP: usize = 500;

impl Registry {
    pub(super) fn commit(&mut self, batch: Arc<Vec<Write>>, ctx: &mut Context<Self>) {
        let began = Instant::now();
        let (store, run, writes) = (self.parts.store.clone(), self.course.run().clone(), batch.clone());
        // Without a journal there is nowhere else to go with it: it takes as long as it takes.
        let bounded = self.parts.journal.is_some();
        if !bounded {
            self.busy_since = Some(began);
        }
        let work = async move {
            let result = match bounded {
                true => in_time(store.commit(&run, writes)).await,
                false => store.commit(&run, writes).await,
            };
            (run, result)
        };
        let work = work.into_actor(self).then(move |(run, result), this: &mut Self, _| {
            this.took("sql", "commit", began.elapsed());
            let recorded = match &result {
                Ok(committed) => this.committed(&batch, committed),
                Err(_) => Recorded::default(),
            };
            let result = result.map(|_| ());
            this.report(recorded).into_actor(this).map(move |(), _, _| (run, batch, result))
        });
        ctx.spawn(work.map(|(run, batch, result), this, ctx| {
            this.busy_since = this.busy_since.filter(|_| this.parts.journal.is_some());
            let was_direct = this.course.is_direct();
            let told = result.as_ref().copied().map_err(failure);
            let dropped = this.course.committed(&run, batch, told, Mono::now());
            match result {
                Ok(()) => this.taken(),
                Err(StoreError::Fenced) => {}
                Err(error) if this.parts.journal.is_some() => {
                    this.store_failed(&error.to_string(), was_direct)
                }
                Err(error) => this.refused(&error.to_string()),
            }
            this.forget(dropped, ctx);
            this.work(ctx);
        }));
    }

    /// The batch is on the record: the feed may tell, the root may welcome.
    fn committed(&mut self, batch: &[Write], committed: &Committed) -> Recorded {
        self.parts.metrics.batch_writes.observe(batch.len() as f64);
        self.tell(&committed.events);
        let mut recorded = Recorded { writes: batch.len(), ..Recorded::default() };
        for (write, outcome) in batch.iter().zip(&committed.outcomes) {
            let Write::Start(start) = write else { continue };
            let (device_id, session_id) = (start.data.device_id.clone(), start.data.session_id);
            match outcome {
                Outcome::Recorded { device_seq } => {
                    recorded.starts.push((device_id, session_id, Some(*device_seq)));
                }
                Outcome::Superseded => recorded.overtaken.push((device_id, session_id)),
            }
        }
        recorded
    }

    fn tell(&self, events: &[Arc<Event>]) {
        self.parts.feed.publish(events);
        self.parts.metrics.count_ends(events);
    }

    pub(super) fn append(&mut self, entries: Arc<Vec<Entry>>, ctx: &mut Context<Self>) {
        let Some(journal) = self.parts.journal.clone() else { return };
        let began = Instant::now();
        self.busy_since = Some(began);
        let (run, appended) = (self.course.run().clone(), entries.clone());
        let work = async move { journal.append(appended).await };
        let work = work.into_actor(self).then(move |result, this: &mut Self, _| {
            this.took("journal", "append", began.elapsed());
            let recorded = match &result {
                Ok(()) => journaled(&entries),
                Err(_) => Recorded::default(),
            };
            this.report(recorded).into_actor(this).map(move |(), _, _| (run, entries, result))
        });
        ctx.spawn(work.map(|(run, entries, result), this, ctx| {
            this.busy_since = None;
            let dropped = this.course.appended(&run, entries, result.is_ok(), Mono::now());
            match result {
                Ok(()) => this.taken(),
                Err(error) => this.refused(&error.to_string()),
            }
            this.forget(dropped, ctx);
            this.work(ctx);
        }));
    }

    pub(super) fn drain(&mut self, begin: Option<Timestamp>, ctx: &mut Context<Self>) {
        let Some(journal) = self.parts.journal.clone() else { return };
        let began = Instant::now();
        let run = self.course.run().clone();
        let limit = self.drain_limit;
        let begun = ctx.address().recipient();
        let drain = Drain { store: self.parts.store.clone(), journal, run: run.clone(), begin, limit, begun };
        ctx.spawn(drain.run().into_actor(self).map(move |(drained, result), this, ctx| {
            if drained.entries > 0 {
                this.took("sql", "drain", began.elapsed());
            }
            this.tell(&drained.events);
            let told = result.as_ref().copied().map_err(failure);
            this.course.drained(&run, drained.begun, drained.all, told, Mono::now());
            match result {
                Ok(()) => {
                    this.drain_limit = (this.drain_limit * 2).min(this.parts.grouping.size);
                    if this.course.is_direct() {
                        this.drained();
                    }
                }
                // Told by the one who is to go on as another.
                Err(StoreError::Fenced) => {}
                Err(error) => {
                    // What was too much for one deadline is tried in smaller parts.
                    this.drain_limit = (this.drain_limit / 2).max(LEAST_DRAIN);
                    this.store_failed(&error.to_string(), false);
                }
            }
            this.work(ctx);
        }));
    }

    /// Takes up what can wait.
    pub(super) fn housekeep(&mut self, ctx: &mut Context<Self>) {
        let began = Instant::now();
        let bounded = self.parts.journal.is_some();
        if !bounded {
            self.busy_since = Some(began);
        }
        let (store, run) = (self.parts.store.clone(), self.course.run().clone());
        let pages: Vec<_> = (0..HEARD).map_while(|_| self.heard.pop_first()).map(|(_, page)| page).collect();
        let now = self.retention_clock.read(Now::read());
        let past = Past {
            events: now.saturating_sub(self.parts.retention),
            audit: now.saturating_sub(self.parts.audit_retention),
            bans: now.saturating_sub(KEPT),
            revocations: now,
        };
        let batch = self.sweep_batch;
        let sweeps = pages.is_empty();
        self.sweep_due &= !sweeps;
        let metrics = self.parts.metrics.clone();
        let work = async move {
            let call = async {
                match sweeps {
                    true => metrics.timed("sql", "sweep", sweep(&store, &metrics, past, batch)).await,
                    false => {
                        let touched = metrics.timed("sql", "touch", store.touch(run.incarnation, pages));
                        touched.await.map(|()| 0)
                    }
                }
            };
            let result = if bounded { in_time(call).await } else { call.await };
            (run, result)
        };
        ctx.spawn(work.into_actor(self).map(move |(run, result), this, ctx| {
            if !bounded {
                this.busy_since = None;
            }
            let was_direct = this.course.is_direct();
            let told = result.as_ref().map(|_| ()).map_err(failure);
            this.course.housekept(&run, told, Mono::now());
            match result {
                Ok(swept) => {
                    if !bounded {
                        this.taken();
                    }
                    this.swept(swept);
                }
                Err(error) => {
                    // Signs of life come again by themselves, and a sweep at its next time.
                    this.heard.clear();
                    log::warn!(error:% = error; "housekeeping is put off");
                    if was_direct && !this.course.is_direct() {
                        this.store_failed(&error.to_string(), true);
                    }
                }
            }
            this.work(ctx);
        }));
    }

    fn swept(&mut self, rows: usize) {
        if rows >= self.sweep_batch {
            // A full batch: there is more, and it comes faster than was thought.
            self.sweep_due = true;
            self.sweep_batch = (self.sweep_batch * 2).min(MAX_SWEEP);
        } else if rows > 0 {
            self.sweep_batch = self.parts.sweep_batch;
        }
    }

    /// Starts that were dropped are on their way no more.
    pub(super) fn forget(&self, dropped: usize, ctx: &mut Context<Self>) {
        if dropped > 0 {
            ctx.spawn(self.report(Recorded { writes: dropped, ..Recorded::default() }).into_actor(self));
        }
    }

    fn took(&self, store: &str, op: &str, time: Duration) {
        self.parts.metrics.store_seconds.with_label_values(&[store, op]).observe(time.as_secs_f64());
    }
}

/// What of each is older is past retention.
#[derive(Clone, Copy)]
struct Past {
    events: Timestamp,
    audit: Timestamp,
    bans: Timestamp,
    revocations: Timestamp,
}

/// Deletes what is past retention, and counts what the log keeps. Says how much of that went of which most did.
async fn sweep(store: &Store, metrics: &Metrics, past: Past, batch: usize) -> Result<usize, StoreError> {
    let events = store.expire_events(past.events, batch).await?;
    let audit = store.forget_audit(past.audit, batch).await?;
    let bans = store.forget_bans(past.bans, batch).await?;
    let revocations = store.forget_revocations(past.revocations, batch).await?;
    let bounds = store.bounds().await?;
    metrics.record.event_log_events.set(bounds.newest - bounds.oldest + 1);
    Ok(events.max(audit).max(bans).max(revocations))
}

/// What may be welcomed: its place in its device's order is known only when it is moved.
fn journaled(entries: &[Entry]) -> Recorded {
    let writes = entries.iter().filter(|entry| matches!(entry, Entry::Write(_))).count();
    let starts = entries.iter().filter_map(|entry| match entry {
        Entry::Write(Write::Start(start)) => {
            Some((start.data.device_id.clone(), start.data.session_id, None))
        }
        _ => None,
    });
    Recorded { starts: starts.collect(), writes, ..Recorded::default() }
}

fn failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Fenced => Failure::Fenced,
        StoreError::Retry(_) | StoreError::Broken(_) | StoreError::NameTaken => Failure::Away,
    }
}
