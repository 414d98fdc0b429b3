//! A node without sockets and without a store: the real supervisors on threads of their own, and phantoms for sessions.
//!
//! Each worker is a thread with its roster and [`WorkerSupervisor`], as in a serving node; the [`RootSupervisor`] is on the
//! caller's thread. In the registry's place a [`Scribe`] says at once that all is on the record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Arbiter, AsyncContext, Context, Handler, Recipient, WrapFuture};
use anyhow::Context as _;
use lastpong::ids::{Incarnation, Run};
use lastpong::metrics::Metrics;
use lastpong::registry::messages::{Heard, Reborn, Record, Recorded, Report as ReportTo};
use lastpong::store::Write;
use lastpong::supervisor::Inspector;
use lastpong::supervisor::admission::{Admission, Limits};
use lastpong::supervisor::inspector::Window;
use lastpong::supervisor::messages::{Drain, EndSessions};
use lastpong::supervisor::root::{Registrar, RootSupervisor};
use lastpong::supervisor::roster::Roster;
use lastpong::supervisor::snapshot::WorkerSnapshot;
use lastpong::supervisor::worker::{Uplinks, WorkerSupervisor};
use lastpong::time::Mono;
use tokio::sync::{mpsc, oneshot, watch};

use super::children::{Devices, Late};

/// Sessions that connect in one turn of a worker's loop.
const AT_ONCE: usize = 500;
/// How often devices answer what they were asked.
const ANSWERS: Duration = Duration::from_millis(20);
/// The longest that a million starts may take to be welcomed.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Node {
    pub inspector: Inspector,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    pub run: watch::Receiver<Run>,
    pub ends: Recipient<EndSessions>,
    pub drain: Recipient<Drain>,
    pub workers: Vec<Worker>,
}

/// One thread with its sessions.
pub struct Worker {
    pub arbiter: Arbiter,
    late: mpsc::Sender<oneshot::Sender<Late>>,
}

impl Worker {
    /// How late deadlines were acted on since it was last asked.
    pub async fn late(&self) -> anyhow::Result<Late> {
        let (ask, answer) = oneshot::channel();
        self.late.send(ask).await.ok().context("a worker's thread is gone")?;
        answer.await.context("a worker's thread is gone")
    }
}

impl Node {
    /// Starts it with so many sessions on each of `workers` threads; all of them are live when it returns.
    pub async fn start(workers: usize, sessions: usize) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let limits = Limits::default();
        let admission = Admission::new(limits, Arc::default());
        let run = Run { node_id: "bench".parse()?, incarnation: Incarnation::new() };
        let (run_now, runs) = watch::channel(run);
        let scribe = Scribe(None).start();
        let registrar = Registrar { record: scribe.clone().recipient(), reborn: scribe.clone().recipient() };
        let root =
            RootSupervisor::new(workers, registrar, run_now, admission.clone(), metrics.clone()).start();
        scribe.send(ReportTo(root.clone().recipient())).await?;
        let uplinks = Uplinks {
            facts: root.clone().recipient(),
            enlist: root.clone().recipient(),
            heard: scribe.recipient(),
        };
        let inspector = Inspector::default();
        let (ends, drain) = (root.clone().recipient(), root.recipient());
        let mut node = Self { inspector, admission, metrics, run: runs, ends, drain, workers: Vec::new() };
        let mut settled = Vec::new();
        for worker in 0..workers {
            settled.push(node.add(worker, sessions, uplinks.clone()));
        }
        for all in settled {
            let waited = tokio::time::timeout(PATIENCE, all).await;
            waited.context("not all sessions were welcomed in time")?.context("a worker's thread died")?;
        }
        Ok(node)
    }

    fn add(&mut self, worker: usize, sessions: usize, uplinks: Uplinks) -> oneshot::Receiver<()> {
        let (late, asked) = mpsc::channel(1);
        let (settled, all) = oneshot::channel();
        let (inspector, admission, metrics) =
            (self.inspector.clone(), self.admission.clone(), self.metrics.clone());
        let run = self.run.borrow().clone();
        let arbiter = Arbiter::new();
        arbiter.spawn_fn(move || {
            let roster = Roster::new(worker, metrics, admission, Mono::now());
            let none = WorkerSnapshot::none(worker);
            let (publish, published) = watch::channel(Arc::new(none));
            let supervisor =
                WorkerSupervisor::new(roster.clone(), uplinks, Duration::from_secs(5), publish).start();
            let look = supervisor.clone().recipient();
            inspector.add(Window { worker: supervisor.recipient(), look, published });
            let devices = Devices::new(roster, run);
            actix_rt::spawn(live(devices.clone()));
            actix_rt::spawn(tell_late(devices.clone(), asked));
            actix_rt::spawn(connect(devices, worker * sessions, sessions, settled));
        });
        self.workers.push(Worker { arbiter, late });
        all
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| _ = worker.arbiter.stop());
    }
}

async fn connect(devices: Rc<Devices>, first: usize, sessions: usize, settled: oneshot::Sender<()>) {
    for number in first..first + sessions {
        devices.connect(number, devices.roster.clocks()).expect("a number makes a device id");
        if number.is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    while devices.welcomed() < sessions {
        tokio::time::sleep(ANSWERS).await;
    }
    // Whoever waits may have given up.
    let _ = settled.send(());
}

async fn live(devices: Rc<Devices>) {
    let mut turn = tokio::time::interval(ANSWERS);
    loop {
        turn.tick().await;
        devices.answer(devices.roster.clocks());
    }
}

async fn tell_late(devices: Rc<Devices>, mut asked: mpsc::Receiver<oneshot::Sender<Late>>) {
    while let Some(answer) = asked.recv().await {
        let _ = answer.send(devices.take_late());
    }
}

/// Says that all is on the record, and keeps nothing.
struct Scribe(Option<Recipient<Recorded>>);

impl Actor for Scribe {
    type Context = Context<Self>;
}

impl Handler<ReportTo> for Scribe {
    type Result = ();

    fn handle(&mut self, ReportTo(root): ReportTo, _: &mut Self::Context) {
        self.0 = Some(root);
    }
}

impl Handler<Record> for Scribe {
    type Result = ();

    fn handle(&mut self, Record(batch): Record, ctx: &mut Self::Context) {
        let Some(root) = &self.0 else { return };
        let start = |write: &Write| match write {
            Write::Start(start) => Some((start.data.device_id.clone(), start.data.session_id, Some(1))),
            Write::End(_) => None,
        };
        let starts = batch.iter().filter_map(start).collect();
        let recorded = Recorded { starts, overtaken: Vec::new(), writes: batch.len() };
        ctx.wait(root.send(recorded).into_actor(self).map(|_, _, _| ()));
    }
}

impl Handler<Reborn> for Scribe {
    type Result = ();

    fn handle(&mut self, _: Reborn, _: &mut Self::Context) {}
}

impl Handler<Heard> for Scribe {
    type Result = ();

    fn handle(&mut self, _: Heard, _: &mut Self::Context) {}
}
