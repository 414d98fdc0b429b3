//! The supervisor of one worker thread: ticks its roster, carries facts up and orders down, publishes snapshots.
//!
//! Nothing here waits for another thread. A root that is behind costs a retry at the next tick, and is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use tokio::sync::watch;

use crate::registry::messages::Heard;
use crate::store::HeardPage;
use crate::time::{Mono, Now};

use super::closeup::CloseUp;
use super::messages::{Enlist, Facts, Flush, LookAt, Orders, TakeSnapshot};
use super::roster::Roster;
use super::snapshot::WorkerSnapshot;
use super::wheel::SLOT;

/// Facts in one message.
const FACTS: usize = 1_000;
/// Sessions looked at in one go by work that can wait: well under a millisecond of copying.
const VISIT: usize = 250;
const MAILBOX: usize = 256;

/// Where a worker's supervisor sends to.
#[derive(Clone)]
pub struct Uplinks {
    pub facts: Recipient<Facts>,
    pub enlist: Recipient<Enlist>,
    pub heard: Recipient<Heard>,
}

pub struct WorkerSupervisor {
    roster: Rc<Roster>,
    uplinks: Uplinks,
    update_interval: Duration,
    published: watch::Sender<Arc<WorkerSnapshot>>,
    copying: Option<WorkerSnapshot>,
    heard_since: Mono,
    /// What this worker has added to the depth of the facts' queue, which all workers share.
    told_waiting: i64,
}

impl WorkerSupervisor {
    pub fn new(
        roster: Rc<Roster>,
        uplinks: Uplinks,
        update_interval: Duration,
        published: watch::Sender<Arc<WorkerSnapshot>>,
    ) -> Self {
        Self {
            roster,
            uplinks,
            update_interval,
            published,
            copying: None,
            heard_since: Mono(0),
            told_waiting: 0,
        }
    }

    fn tick(&mut self) {
        if let Some(stall) = self.roster.tick(Mono::now()) {
            self.roster.metrics.loop_stall.observe(stall.as_secs_f64());
            log::warn!(worker = self.roster.worker, stall_ms = stall.as_millis() as u64;
                "this node stalled: no deadline passed meanwhile");
        }
        self.flush();
        self.tell_waiting();
    }

    fn tell_waiting(&mut self) {
        let waiting = self.roster.waiting() as i64;
        if waiting != self.told_waiting {
            self.roster.metrics.queue_depth.with_label_values(&["facts"]).add(waiting - self.told_waiting);
            self.told_waiting = waiting;
        }
    }

    fn flush(&mut self) {
        loop {
            let facts = self.roster.take_facts(FACTS);
            if facts.is_empty() {
                return;
            }
            let message = Facts { worker: self.roster.worker, facts };
            if let Err(actix::dev::SendError::Full(message) | actix::dev::SendError::Closed(message)) =
                self.uplinks.facts.try_send(message)
            {
                self.roster.return_facts(message.facts);
                self.roster.metrics.queue_refused.with_label_values(&["facts"]).inc();
                return;
            }
        }
    }

    /// Copies some sessions and comes back for the rest after the loop has turned.
    fn copy_from(&mut self, key: usize, ctx: &mut Context<Self>) {
        let Some(copying) = &mut self.copying else { return };
        let now = Now::read();
        let next = self.roster.visit(key, VISIT, |child| copying.sessions.extend(child.view(&now)));
        if let Some(key) = next {
            let turned = tokio::task::yield_now().into_actor(self);
            ctx.spawn(turned.map(move |(), this, ctx| this.copy_from(key, ctx)));
        } else if let Some(mut snapshot) = self.copying.take() {
            snapshot.took = now.mono.since(snapshot.taken);
            let last = self.published.send_replace(Arc::new(snapshot));
            // To let go of a million sessions takes longer than the loop has.
            actix_rt::task::spawn_blocking(move || drop(last));
        }
    }

    /// Reports when sessions were last heard, a page at a time, where one of the page was heard since `since`.
    fn report_heard(&mut self, key: usize, since: Mono, ctx: &mut Context<Self>) {
        let (mut heard, mut news) = (Vec::new(), false);
        let now = Now::read();
        let next = self.roster.visit(key, VISIT, |child| {
            heard.extend(child.last_heard(&now));
            news |= child.was_heard_since(since);
        });
        // Seats keep their page for the life of the worker, so that a page takes the place of its last one.
        let number = (self.roster.worker as i64) << 32 | key as i64;
        if news && self.uplinks.heard.try_send(Heard(HeardPage { number, heard })).is_err() {
            // The next round says it again for whoever is still heard.
            self.roster.metrics.queue_refused.with_label_values(&["heard"]).inc();
        }
        if let Some(key) = next {
            ctx.run_later(SLOT, move |this, ctx| this.report_heard(key, since, ctx));
        }
    }
}

impl Actor for WorkerSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.roster.flush_by(ctx.address().recipient());
        let enlist = Enlist { worker: self.roster.worker, address: ctx.address().recipient() };
        if self.uplinks.enlist.try_send(enlist).is_err() {
            log::error!(worker = self.roster.worker; "the root supervisor did not take this worker on");
        }
        ctx.run_interval(SLOT, |this, _| this.tick());
        ctx.run_interval(self.update_interval, |this, ctx| {
            let since = std::mem::replace(&mut this.heard_since, Mono::now());
            this.report_heard(0, since, ctx);
        });
    }
}

impl Handler<Orders> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, Orders(orders): Orders, _: &mut Self::Context) {
        for order in orders {
            self.roster.obey(order);
        }
        self.flush();
    }
}

impl Handler<Flush> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush();
    }
}

impl Handler<LookAt> for WorkerSupervisor {
    type Result = Option<CloseUp>;

    fn handle(&mut self, LookAt { key, session_id }: LookAt, _: &mut Self::Context) -> Option<CloseUp> {
        self.roster.look(key, session_id)
    }
}

impl Handler<TakeSnapshot> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, _: TakeSnapshot, ctx: &mut Self::Context) {
        if self.copying.is_none() {
            let sessions = Vec::with_capacity(self.roster.len());
            let taken_at = Now::read();
            self.copying = Some(WorkerSnapshot {
                worker: self.roster.worker,
                taken_at: taken_at.wall,
                taken: taken_at.mono,
                took: Duration::ZERO,
                sessions,
            });
            self.copy_from(0, ctx);
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
