//! The root supervisor: one a node, above the workers' supervisors.
//!
//! Every start and every end of the node passes here in order on its way to the registry, so that the order of
//! a device's events is decided in one place, whichever workers its connections came to.
//!
//! A node that was declared lost goes on as another run: what it holds of the old one has been ended on the record by
//! its peers, so those sessions are ended here too, and their devices return to the new run.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Recipient};

use tokio::sync::watch;

use crate::chaos::{Safety, lacks};
use crate::event::Connected;
use crate::ids::{Incarnation, Run};
use crate::metrics::Metrics;
use crate::reason::{DetectedBy, Reason};
use crate::registry::messages::{Fenced, Reborn, Record, Recorded};
use crate::revoked::Fresh;
use crate::store::Write;
use crate::time::Timestamp;
use crate::token::Proof;

use super::admission::Admission;
use super::directory::{Directory, Effects};
use super::drain::{self, Draining, Pace};
use super::messages::{
    Command, CountSessions, Drain, DrainFacts, DrainView, EndDevices, EndSessions, EndTokens, Enlist, Fact,
    Facts, Order, Orders, Seat, Stopping, ToEnd,
};

const MAILBOX: usize = 256;
const RETRY: Duration = Duration::from_millis(10);
/// Writes in one message to the registry.
const WRITES: usize = 1_000;

/// The registry, as the root knows it.
pub struct Registrar {
    pub record: Recipient<Record>,
    pub reborn: Recipient<Reborn>,
}

pub struct RootSupervisor {
    registry: Registrar,
    /// The run that sessions begin under, for all who make them.
    run: watch::Sender<Run>,
    /// The registry has not been told of the run yet. It is, before it is given anything more.
    newborn: bool,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    directory: Directory,
    workers: Vec<Worker>,
    /// For the registry, in order: at most two a session.
    writes: VecDeque<Write>,
    draining: Option<Draining>,
}

#[derive(Default)]
struct Worker {
    address: Option<Recipient<Orders>>,
    /// At most a few a session.
    waiting: Vec<Order>,
}

impl RootSupervisor {
    pub fn new(
        workers: usize,
        registry: Registrar,
        run: watch::Sender<Run>,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            run,
            newborn: false,
            admission,
            metrics,
            directory: Directory::default(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            writes: VecDeque::new(),
            draining: None,
        }
    }

    fn carry_out(&mut self, mut effects: Effects) {
        self.admission.less_backlog(effects.forgotten);
        if lacks(Safety::DurableWelcome) {
            self.welcome_at_once(&mut effects);
        }
        self.writes.extend(effects.writes);
        for (worker, order) in effects.orders {
            self.workers[worker].waiting.push(order);
        }
        self.send();
    }

    fn welcome_at_once(&self, effects: &mut Effects) {
        for write in std::mem::take(&mut effects.writes) {
            if let Write::Start(start) = &write {
                self.directory.recorded(&start.data.device_id, start.data.session_id, None, effects);
            }
            effects.writes.push(write);
        }
    }

    /// Sends what waits; what finds no room waits on.
    fn send(&mut self) {
        self.newborn =
            self.newborn && self.registry.reborn.try_send(Reborn(self.run.borrow().clone())).is_err();
        while !self.newborn && !self.writes.is_empty() {
            let batch = self.writes.drain(..self.writes.len().min(WRITES)).collect();
            if let Err(refused) = self.registry.record.try_send(Record(batch)) {
                let Record(batch) = refused.into_inner();
                batch.into_iter().rev().for_each(|write| self.writes.push_front(write));
                self.metrics.queue_refused.with_label_values(&["record"]).inc();
                break;
            }
        }
        for worker in &mut self.workers {
            let Some(address) = worker.address.as_ref().filter(|_| !worker.waiting.is_empty()) else {
                continue;
            };
            if let Err(refused) = address.try_send(Orders(std::mem::take(&mut worker.waiting))) {
                worker.waiting = refused.into_inner().0;
                self.metrics.queue_refused.with_label_values(&["orders"]).inc();
            }
        }
        let depth = &self.metrics.queue_depth;
        depth.with_label_values(&["record"]).set(self.admission.backlog() as i64);
        let orders: usize = self.workers.iter().map(|worker| worker.waiting.len()).sum();
        depth.with_label_values(&["orders"]).set(orders as i64);
    }

    fn drain(&mut self, spread: Duration, for_good: bool, ctx: &mut Context<Self>) {
        // Of one that is under way the count goes on.
        let before = self.stop_draining(ctx);
        let live = self.directory.len();
        let pace = Pace::of(live, spread);
        log::info!(sessions = live, per_sec = pace.per_sec as u64; "draining");
        self.admission.drain(true);
        let timer = ctx.run_interval(drain::STEP, |this, _| this.drain_step());
        self.draining = Some(Draining::new(before.unwrap_or(live), pace, for_good, timer));
        self.drain_step();
    }

    /// Says of how many the drain was that is no more. The doors stay as they are.
    fn stop_draining(&mut self, ctx: &mut Context<Self>) -> Option<usize> {
        let drain = self.draining.take()?;
        ctx.cancel_future(drain.timer);
        Some(drain.of)
    }

    fn drain_step(&mut self) {
        let Some(drain) = &mut self.draining else { return };
        for (worker, order) in drain.step() {
            self.workers[worker].waiting.push(order);
        }
        // Also who was let in just before the doors closed.
        let what = Command::End { reason: Reason::Draining, detected_by: DetectedBy::Watchdog };
        drain.refill(|| self.directory.orders_for_all(what));
        self.send();
    }

    fn drain_view(&self) -> DrainView {
        let facts =
            |drain: &Draining| DrainFacts { of: drain.of, until: drain.until, for_good: drain.for_good };
        DrainView { live: self.directory.len(), drain: self.draining.as_ref().map(facts) }
    }

    /// How a newcomer is to end at once, where it is.
    fn turned_away(&self, start: &Connected, proof: Proof, now: Timestamp) -> Option<Command> {
        if start.incarnation != self.run.borrow().incarnation {
            // Let in by the run that was declared lost meanwhile.
            return Some(Command::End { reason: Reason::NodeLost, detected_by: DetectedBy::Watchdog });
        }
        // Revoked or banned while it was on its way here. Whoever does that looks for sessions after it holds: none slips
        // between.
        if self.admission.revoked().refuses(&start.device_id, proof, now) {
            return Some(Command::End { reason: Reason::TokenRevoked, detected_by: DetectedBy::Operator });
        }
        let banned = self.admission.bans().refuse(&start.device_id, start.remote_addr.ip(), now);
        banned.map(|_| Command::End { reason: Reason::Banned, detected_by: DetectedBy::Operator })
    }
}

impl Actor for RootSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(RETRY, |this, _| this.send());
    }
}

impl Handler<Enlist> for RootSupervisor {
    type Result = ();

    fn handle(&mut self, Enlist { worker, address }: Enlist, _: &mut Self::Context) {
        if worker >= self.workers.len() {
            // A worker thread that died was replaced by one with a number of its own.
            self.workers.resize_with(worker + 1, Worker::default);
        }
        self.workers[worker].address = Some(address);
    }
}

impl Handler<Facts> for RootSupervisor {
    type Result = ();

    fn handle(&mut self, Facts { worker, facts }: Facts, _: &mut Self::Context) {
        let mut effects = Effects::default();
        let now = Timestamp::now();
        for fact in facts {
            match fact {
                Fact::Arrived { key, start, proof } => {
                    let seat = Seat { worker: worker as u32, key, proof };
                    match self.turned_away(&start.data, proof, now) {
                        Some(what) => Directory::turn_away(&start, seat, what, &mut effects),
                        None => self.directory.arrived(start, seat, &mut effects),
                    }
                }
                Fact::Ended { end } => self.directory.ended(end, &mut effects),
            }
        }
        self.carry_out(effects);
    }
}

impl Handler<Recorded> for RootSupervisor {
    type Result = ();

    fn handle(&mut self, Recorded { starts, overtaken, writes }: Recorded, _: &mut Self::Context) {
        self.admission.less_backlog(writes);
        let mut effects = Effects::default();
        for (device, session_id, device_seq) in starts {
            self.directory.recorded(&device, session_id, device_seq, &mut effects);
        }
        for (device_id, session_id) in overtaken {
            let (reason, detected_by) = (Reason::Replaced, DetectedBy::PeerNode);
            self.directory.to_end(&ToEnd { device_id, session_id, reason, detected_by }, &mut effects);
        }
        self.carry_out(effects);
    }
}

impl Handler<EndSessions> for RootSupervisor {
    type Result = usize;

    fn handle(&mut self, EndSessions(sessions): EndSessions, _: &mut Self::Context) -> usize {
        let mut effects = Effects::default();
        for what in &sessions {
            self.directory.to_end(what, &mut effects);
        }
        let held = effects.orders.len();
        self.carry_out(effects);
        held
    }
}

impl Handler<EndDevices> for RootSupervisor {
    type Result = usize;

    fn handle(&mut self, what: EndDevices, _: &mut Self::Context) -> usize {
        let mut effects = Effects::default();
        let command = Command::End { reason: what.reason, detected_by: what.detected_by };
        for device in &what.devices {
            self.directory.to_end_all_of(device, command, &mut effects);
        }
        let held = effects.orders.len();
        self.carry_out(effects);
        held
    }
}

impl Handler<EndTokens> for RootSupervisor {
    type Result = usize;

    fn handle(&mut self, EndTokens(fresh): EndTokens, _: &mut Self::Context) -> usize {
        let what = Command::End { reason: Reason::TokenRevoked, detected_by: DetectedBy::Operator };
        let (mut effects, now) = (Effects::default(), Timestamp::now());
        let revoked = self.admission.revoked();
        let mut tokens = HashSet::new();
        for one in fresh {
            match one {
                Fresh::Token(jti) => _ = tokens.insert(jti),
                Fresh::Device(device) => {
                    // What was issued since then is good.
                    let refused = |proof| revoked.refuses(&device, proof, now);
                    self.directory.to_end_of_where(&device, refused, what, &mut effects);
                }
            }
        }
        if !tokens.is_empty() {
            let refused = |_: &_, proof: Proof| tokens.contains(&proof.jti);
            self.directory.to_end_where(refused, what, &mut effects);
        }
        let held = effects.orders.len();
        self.carry_out(effects);
        held
    }
}

impl Handler<Fenced> for RootSupervisor {
    type Result = ();

    fn handle(&mut self, Fenced(lost): Fenced, _: &mut Self::Context) {
        let now = self.run.borrow().clone();
        if lost != now {
            return;
        }
        let reborn = Run { incarnation: Incarnation::new(), ..now };
        log::error!(lost:% = lost.incarnation, now:% = reborn.incarnation, sessions = self.directory.len();
            "this node was declared lost by another; its sessions are closed and it goes on as a new run");
        self.metrics.record.runs_lost.inc();
        self.run.send_replace(reborn);
        self.newborn = true;
        let what = Command::End { reason: Reason::NodeLost, detected_by: DetectedBy::Watchdog };
        for (worker, order) in self.directory.orders_for_all(what) {
            self.workers[worker].waiting.push(order);
        }
        self.send();
    }
}

impl Handler<Drain> for RootSupervisor {
    type Result = Result<DrainView, Stopping>;

    fn handle(&mut self, what: Drain, ctx: &mut Self::Context) -> Self::Result {
        let stopping = self.draining.as_ref().is_some_and(|drain| drain.for_good);
        match what {
            Drain::Look => {}
            Drain::Begin { .. } | Drain::Undo if stopping => return Err(Stopping),
            Drain::Begin { spread, for_good } => self.drain(spread, for_good, ctx),
            Drain::Undo => {
                if self.stop_draining(ctx).is_some() {
                    self.admission.drain(false);
                    log::info!(sessions = self.directory.len(); "draining no more");
                }
            }
        }
        Ok(self.drain_view())
    }
}

impl Handler<CountSessions> for RootSupervisor {
    type Result = usize;

    fn handle(&mut self, _: CountSessions, _: &mut Self::Context) -> usize {
        self.directory.len() + self.writes.len()
    }
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
