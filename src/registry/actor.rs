//! The registry actor: one piece of work for the store at a time, the most urgent first.
//!
//! Starts and ends come before signs of life, those before the sweep of what is past retention. While a commit
//! is under way the next group gathers. A store that fails is asked again with growing pauses, for as long as
//! it takes; meanwhile the gate tells admission to let nobody in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseFuture, WrapFuture};
use tokio::sync::oneshot;

use crate::event::EventKind;
use crate::feed::Feed;
use crate::ids::Run;
use crate::metrics::Metrics;
use crate::store::{Committed, HeardPage, Outcome, Store, StoreError, Write};
use crate::time::{Mono, Timestamp};

use super::batch::{Grouping, Next, Pending};
use super::messages::{Heard, Record, Recorded, Report, Settle};

const MAILBOX: usize = 256;
/// Pages of signs of life written in one go: a few milliseconds, so that a start does not wait long behind them.
const HEARD: usize = 32;
/// After so many commits what can wait has its turn, however many writes there are.
const COMMITS_IN_A_ROW: u32 = 50;
/// The store is taken for away when it takes so long.
const HANGING: Duration = Duration::from_secs(2);
/// How often an outage is logged.
const COMPLAIN: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(60);
/// The most rows of a sweep: tens of milliseconds, for the same reason.
const MAX_SWEEP: usize = 500;
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What the registry is made of.
pub struct Parts {
    pub store: Store,
    pub feed: Feed,
    pub metrics: Arc<Metrics>,
    pub run: Run,
    pub grouping: Grouping,
    pub retention: Duration,
    /// The least rows of a sweep; a sweep that finds more to do grows.
    pub sweep_batch: usize,
    /// True while the store does not take what it is given.
    pub store_away: Arc<AtomicBool>,
}

pub struct Registry {
    parts: Parts,
    root: Option<Recipient<Recorded>>,
    pending: Pending,
    /// The newest of each number: as many as the workers have.
    heard: BTreeMap<i64, HeardPage>,
    sweep_due: bool,
    sweep_batch: usize,
    /// The store has work of ours.
    busy_since: Option<Instant>,
    commits_in_a_row: u32,
    complained: Instant,
    pause: Duration,
    settling: Vec<oneshot::Sender<()>>,
}

impl Registry {
    pub fn new(parts: Parts) -> Self {
        Self {
            pending: Pending::new(parts.grouping.clone()),
            sweep_batch: parts.sweep_batch,
            parts,
            root: None,
            heard: BTreeMap::new(),
            sweep_due: true,
            busy_since: None,
            commits_in_a_row: 0,
            complained: Instant::now(),
            pause: PAUSE,
            settling: Vec::new(),
        }
    }

    /// Takes up the most urgent work, unless some is under way.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.busy_since.is_some() {
            return;
        }
        if self.commits_in_a_row >= COMMITS_IN_A_ROW && self.housekeep(ctx) {
            return;
        }
        match self.pending.next(Mono::now(), !self.settling.is_empty()) {
            Next::Commit(batch) => {
                self.commits_in_a_row += 1;
                self.commit(batch, ctx);
            }
            Next::WaitFor(wait) => _ = ctx.run_later(wait, |this, ctx| this.work(ctx)),
            Next::Nothing => {
                self.settling.drain(..).for_each(|asked| _ = asked.send(()));
                self.housekeep(ctx);
            }
        }
    }

    /// Takes up what can wait. False where there is none.
    fn housekeep(&mut self, ctx: &mut Context<Self>) -> bool {
        self.commits_in_a_row = 0;
        if !self.heard.is_empty() {
            self.touch(ctx);
        } else if std::mem::take(&mut self.sweep_due) {
            self.sweep(ctx);
        } else {
            return false;
        }
        true
    }

    /// A store that hangs says nothing: it is taken for away by the time that it takes.
    fn watch(&mut self) {
        if self.busy_since.is_some_and(|since| since.elapsed() > HANGING) {
            self.away("it has not answered for some time");
        }
    }

    fn away(&mut self, why: &str) {
        let first = !self.parts.store_away.swap(true, Relaxed);
        if first || self.complained.elapsed() > COMPLAIN {
            self.complained = Instant::now();
            log::error!(why, waiting = self.pending.count(); "nobody is let in until the store takes writes again");
        }
    }

    fn back(&mut self) {
        if self.parts.store_away.swap(false, Relaxed) {
            log::info!("the store takes writes again");
        }
    }

    fn commit(&mut self, batch: Arc<Vec<Write>>, ctx: &mut Context<Self>) {
        let began = Instant::now();
        self.busy_since = Some(began);
        let (store, run, writes) = (self.parts.store.clone(), self.parts.run.clone(), batch.clone());
        let work = async move { store.commit(&run, writes).await }.into_actor(self).then(
            move |result, this: &mut Self, ctx| {
                this.parts
                    .metrics
                    .store_seconds
                    .with_label_values(&["sql", "commit"])
                    .observe(began.elapsed().as_secs_f64());
                let answer = match result {
                    Ok(committed) => Some(this.committed(&batch, &committed)),
                    Err(error) => {
                        this.away(&error.to_string());
                        let pause = this.pause;
                        this.pause = (pause * 2).min(MAX_PAUSE);
                        ctx.run_later(pause, move |this, ctx| this.commit(batch, ctx));
                        None
                    }
                };
                let root = this.root.clone();
                async move {
                    let (Some(answer), Some(root)) = (answer, root) else { return false };
                    // Waits for room; the root is gone only when the node is.
                    let _ = root.send(answer).await;
                    true
                }
                .into_actor(this)
            },
        );
        ctx.spawn(work.map(|done, this, ctx| {
            if done {
                this.busy_since = None;
                this.work(ctx);
            }
        }));
    }

    /// The batch is durable: the feed may tell, the root may welcome.
    fn committed(&mut self, batch: &[Write], committed: &Committed) -> Recorded {
        self.back();
        self.pause = PAUSE;
        let metrics = &self.parts.metrics;
        metrics.batch_writes.observe(batch.len() as f64);
        let published = metrics.event_publish.with_label_values(&["feed"]).start_timer();
        self.parts.feed.publish(&committed.events);
        published.observe_duration();
        for event in committed.events.iter().filter(|event| event.kind == EventKind::SessionDisconnected) {
            if let Some(reason) = event.reason {
                metrics.disconnected(reason);
            }
        }
        let starts =
            batch.iter().zip(&committed.outcomes).filter_map(|(write, outcome)| match (write, outcome) {
                (Write::Start(start), Outcome::Recorded { device_seq }) => {
                    Some((start.data.device_id.clone(), start.data.session_id, Some(*device_seq)))
                }
                _ => None,
            });
        Recorded { starts: starts.collect(), writes: batch.len() }
    }

    fn touch(&mut self, ctx: &mut Context<Self>) {
        let some = (0..HEARD).map_while(|_| self.heard.pop_first()).map(|(_, page)| page).collect();
        let (store, incarnation) = (self.parts.store.clone(), self.parts.run.incarnation);
        self.aside(ctx, async move { store.touch(incarnation, some).await.map(|()| 0) });
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let (store, batch) = (self.parts.store.clone(), self.sweep_batch);
        let older_than = Timestamp::now().saturating_sub(self.parts.retention);
        self.aside(ctx, async move { store.expire_events(older_than, batch).await });
    }

    /// Does what may fail without loss. `work` says how many rows a sweep took away.
    fn aside(
        &mut self,
        ctx: &mut Context<Self>,
        work: impl Future<Output = Result<usize, StoreError>> + 'static,
    ) {
        self.busy_since = Some(Instant::now());
        ctx.spawn(work.into_actor(self).map(|result, this, ctx| {
            this.busy_since = None;
            if result.is_ok() {
                this.back();
            }
            match result {
                // A full batch: there is more, and it comes faster than was thought.
                Ok(swept) if swept > 0 && swept >= this.sweep_batch => {
                    this.sweep_due = true;
                    this.sweep_batch = (this.sweep_batch * 2).min(MAX_SWEEP);
                }
                Ok(swept) if swept > 0 => this.sweep_batch = this.parts.sweep_batch,
                Ok(_) => {}
                Err(error) => {
                    // Signs of life come again by themselves, and a sweep at its next time.
                    this.heard.clear();
                    log::warn!(error:% = error; "housekeeping is put off");
                }
            }
            this.work(ctx);
        }));
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(HANGING / 4, |this, _| this.watch());
        ctx.run_interval(SWEEP, |this, ctx| {
            this.sweep_due = true;
            this.work(ctx);
        });
        self.work(ctx);
    }
}

impl Handler<Report> for Registry {
    type Result = ();

    fn handle(&mut self, Report(root): Report, _: &mut Self::Context) {
        self.root = Some(root);
    }
}

impl Handler<Record> for Registry {
    type Result = ();

    fn handle(&mut self, Record(writes): Record, ctx: &mut Self::Context) {
        self.pending.push(writes, Mono::now());
        self.work(ctx);
    }
}

impl Handler<Heard> for Registry {
    type Result = ();

    fn handle(&mut self, Heard(page): Heard, ctx: &mut Self::Context) {
        self.heard.insert(page.number, page);
        self.work(ctx);
    }
}

impl Handler<Settle> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> Self::Result {
        let (asked, settled) = oneshot::channel();
        self.settling.push(asked);
        self.work(ctx);
        Box::pin(async move { settled.await.unwrap_or_default() })
    }
}
