//! The registry actor: does what the [`Course`] says, and tells everyone what came of it.
//!
//! Starts and ends come before signs of life, those before the sweep of what is past retention. While a commit is
//! under way the next group gathers. While the store is away, writes are durable in the node's journal and devices go
//! on being welcomed. Where that fails too, or there is none, the gate tells admission to let nobody in, and what was
//! refused is tried again for as long as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle};
use tokio::sync::oneshot;

use crate::feed::Feed;
use crate::ids::Run;
use crate::metrics::Metrics;
use crate::store::journal::Journal;
use crate::store::{HeardPage, Store};
use crate::time::{CautiousClock, Mono, Now, Timestamp};

use super::batch::Grouping;
use super::course::{Course, Job, Step};
use super::messages::{
    Begun, Fenced, Heard, Reborn, Record, Recorded, Report, ReportRuns, Settle, WhenDrained,
};

const MAILBOX: usize = 256;
/// The store, or the journal, is taken for away when it takes so long.
const HANGING: Duration = Duration::from_secs(2);
/// How often an outage is logged.
const COMPLAIN: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(60);

/// What the registry is made of.
pub struct Parts {
    pub store: Store,
    /// Where writes go while the store is away. Without one they wait.
    pub journal: Option<Journal>,
    pub feed: Feed,
    pub metrics: Arc<Metrics>,
    /// With a journal, the registry makes it known to the store itself.
    pub run: Run,
    pub grouping: Grouping,
    pub retention: Duration,
    /// How long the audit is kept.
    pub audit_retention: Duration,
    /// The least rows of a sweep; a sweep that finds more to do grows.
    pub sweep_batch: usize,
    /// True while writes are made durable nowhere.
    pub store_away: Arc<AtomicBool>,
    /// True while writes go to the store, and nothing waits in the journal.
    pub direct: Arc<AtomicBool>,
}

pub struct Registry {
    pub(super) parts: Parts,
    pub(super) course: Course,
    root: Option<Recipient<Recorded>>,
    runs_watch: Option<ReportRuns>,
    /// The run whose fence was told.
    fence_told: Option<Run>,
    /// A run that the store knows of, until that is told.
    begun: Option<Run>,
    /// The newest of each number: as many as the workers have.
    pub(super) heard: BTreeMap<i64, HeardPage>,
    pub(super) sweep_due: bool,
    pub(super) retention_clock: CautiousClock,
    pub(super) sweep_batch: usize,
    /// Entries of the journal moved in one go.
    pub(super) drain_limit: usize,
    /// What must be durable is under way since then.
    pub(super) busy_since: Option<Instant>,
    /// Asks the course again.
    timer: Option<SpawnHandle>,
    complained: Option<Instant>,
    settling: Vec<oneshot::Sender<()>>,
    draining: Vec<oneshot::Sender<Result<(), String>>>,
    /// Somebody has asked for the first time whether the store is there.
    judged: bool,
}

impl Registry {
    pub fn new(parts: Parts) -> Self {
        let course =
            Course::new(parts.run.clone(), Timestamp::now(), parts.grouping.clone(), parts.journal.is_some());
        Self {
            sweep_batch: parts.sweep_batch,
            drain_limit: parts.grouping.size,
            parts,
            course,
            root: None,
            runs_watch: None,
            fence_told: None,
            begun: None,
            heard: BTreeMap::new(),
            sweep_due: true,
            retention_clock: CautiousClock::new(Now::read()),
            busy_since: None,
            timer: None,
            complained: None,
            settling: Vec::new(),
            draining: Vec::new(),
            judged: false,
        }
    }

    /// Takes up whatever is to be done now.
    pub(super) fn work(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        loop {
            let chores = !self.heard.is_empty() || self.sweep_due;
            match self.course.next(chores, !self.settling.is_empty(), Mono::now()) {
                Step::Do(Job::Commit(batch)) => self.commit(batch, ctx),
                Step::Do(Job::Append(entries)) => self.append(entries, ctx),
                Step::Do(Job::Drain { begin }) => self.drain(begin, ctx),
                Step::Do(Job::Housekeep) => self.housekeep(ctx),
                Step::Wait(wait) => {
                    self.timer = Some(ctx.run_later(wait, |this, ctx| {
                        this.timer = None;
                        this.work(ctx);
                    }));
                    break;
                }
                Step::Rest => break,
            }
        }
        self.answer();
    }

    /// Answers who waits for a state that is reached, and shows the state.
    fn answer(&mut self) {
        if self.course.is_settled() {
            self.settling.drain(..).for_each(|asked| _ = asked.send(()));
        }
        self.parts.direct.store(self.course.is_direct(), Relaxed);
        if self.course.is_direct() {
            self.draining.drain(..).for_each(|asked| _ = asked.send(Ok(())));
        }
        let metrics = &self.parts.metrics;
        metrics.breaker_state.with_label_values(&["sql"]).set(self.course.store_breaker().gauge());
        metrics.queue_depth.with_label_values(&["heard"]).set(self.heard.len() as i64);
        if let Some(journal) = &self.parts.journal {
            metrics.journal_entries.set(i64::try_from(journal.len()).unwrap_or(i64::MAX));
        }
        self.tell_fence();
    }

    fn tell_fence(&mut self) {
        if !self.course.is_fenced() || self.fence_told.as_ref() == Some(self.course.run()) {
            return;
        }
        let run = self.course.run();
        if let Some(watch) = &self.runs_watch
            && watch.fenced.try_send(Fenced(run.clone())).is_ok()
        {
            self.fence_told = Some(run.clone());
        }
    }

    /// What hangs says nothing: it is taken for away by the time that it takes.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if self.busy_since.is_some_and(|since| since.elapsed() > HANGING) {
            self.refused("it has not answered for some time");
        }
        self.tell_fence();
        self.tell_begun();
        self.work(ctx);
    }

    /// Writes are made durable nowhere.
    pub(super) fn refused(&mut self, why: &str) {
        let first = !self.parts.store_away.swap(true, Relaxed);
        if self.complains(first) {
            log::error!(why, waiting = self.course.waiting(); "nobody is let in until writes are taken again");
        }
        self.draining.drain(..).for_each(|asked| _ = asked.send(Err(why.to_owned())));
    }

    /// Writes go to the journal, because the store is away.
    pub(super) fn store_failed(&mut self, why: &str, first: bool) {
        // Who waits for the store, as the start does, is told and judges.
        if self.judged && self.draining.is_empty() && self.complains(first) {
            let journaled = self.parts.journal.as_ref().map_or(0, Journal::len);
            log::error!(why, journaled; "the store is away: starts and ends wait in the journal");
        }
        self.draining.drain(..).for_each(|asked| _ = asked.send(Err(why.to_owned())));
    }

    fn complains(&mut self, first: bool) -> bool {
        let now = first || self.complained.is_none_or(|last| last.elapsed() > COMPLAIN);
        if now {
            self.complained = Some(Instant::now());
        }
        now
    }

    /// Writes are made durable again.
    pub(super) fn taken(&mut self) {
        if self.parts.store_away.swap(false, Relaxed) {
            log::info!("writes are taken again");
        }
    }

    /// Writes go to the store again, and the journal has nothing more.
    pub(super) fn drained(&mut self) {
        if self.complained.take().is_some() {
            log::info!("the store has what waited in the journal, and takes writes again");
        }
    }

    /// Tells the root of a batch. The job is over when it knows: the root is not told more than it can hear.
    pub(super) fn report(&self, recorded: Recorded) -> impl Future<Output = ()> + use<> {
        let root = self.root.clone();
        async move {
            if let Some(root) = root.filter(|_| recorded.writes > 0) {
                // Waits for room; the root is gone only when the node is.
                let _ = root.send(recorded).await;
            }
        }
    }

    fn tell_begun(&mut self) {
        if let Some(watch) = &self.runs_watch
            && let Some(run) = self.begun.take()
            && watch.begun.try_send(Begun(run.clone())).is_err()
        {
            self.begun = Some(run);
        }
    }

    fn reborn(&mut self, run: Run, ctx: &mut Context<Self>) {
        if run == *self.course.run() {
            return;
        }
        log::warn!(incarnation:% = run.incarnation; "the node goes on as another run");
        let dropped = self.course.reborn(run, Timestamp::now());
        self.forget(dropped, ctx);
        self.work(ctx);
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(HANGING / 4, Self::watch);
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

impl Handler<ReportRuns> for Registry {
    type Result = ();

    fn handle(&mut self, watch: ReportRuns, _: &mut Self::Context) {
        self.runs_watch = Some(watch);
        self.tell_fence();
        self.tell_begun();
    }
}

impl Handler<Begun> for Registry {
    type Result = ();

    fn handle(&mut self, Begun(run): Begun, _: &mut Self::Context) {
        self.begun = Some(run);
        self.tell_begun();
    }
}

impl Handler<Record> for Registry {
    type Result = ();

    fn handle(&mut self, Record(writes): Record, ctx: &mut Self::Context) {
        let dropped = self.course.push(writes, Mono::now());
        self.forget(dropped, ctx);
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

impl Handler<Reborn> for Registry {
    type Result = ();

    fn handle(&mut self, Reborn(run): Reborn, ctx: &mut Self::Context) {
        self.reborn(run, ctx);
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

impl Handler<WhenDrained> for Registry {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, _: WhenDrained, ctx: &mut Self::Context) -> Self::Result {
        let (asked, drained) = oneshot::channel();
        self.draining.push(asked);
        self.judged = true;
        self.work(ctx);
        Box::pin(async move { drained.await.unwrap_or_else(|_| Err("the registry has stopped".to_owned())) })
    }
}
