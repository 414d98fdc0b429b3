//! A full mailbox above a worker: facts wait in their order, signs of life are dropped, and both are counted.

use super::*;
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::store::LastHeard;
use crate::supervisor::admission::{Admission, Limits};
use crate::supervisor::clock::{Attended, Clocks};
use crate::supervisor::directory::tests::{end, start};
use crate::supervisor::messages::{Command, Fact};
use crate::supervisor::roster::Child;
use crate::supervisor::snapshot::SessionView;

/// Takes nothing until its thread is free, which it is not while a test runs.
struct Busy;

impl Actor for Busy {
    type Context = Context<Self>;
}

macro_rules! takes {
    ($($message:ty),*) => {
        $(impl Handler<$message> for Busy {
            type Result = ();
            fn handle(&mut self, _: $message, _: &mut Self::Context) {}
        })*
    };
}
takes!(Facts, Enlist, Heard);

/// Always heard.
struct Talker(SessionId);

impl Child for Talker {
    fn session_id(&self) -> SessionId {
        self.0
    }

    fn due(&self) -> Attended {
        Attended(u64::MAX)
    }

    fn on_deadline(&self, _: Clocks) -> bool {
        true
    }

    fn obey(&self, _: Command) {}

    fn crashed(&self) {}

    fn view(&self, _: &Now) -> Option<SessionView> {
        None
    }

    fn last_heard(&self, now: &Now) -> Option<LastHeard> {
        Some(LastHeard { session_id: self.0, last_pong_at: None, last_active_at: now.wall })
    }

    fn was_heard_since(&self, _: Mono) -> bool {
        true
    }
}

fn worker(metrics: &Arc<Metrics>) -> WorkerSupervisor {
    let busy = Busy.start();
    let limits = Limits::default();
    let roster = Roster::new(0, metrics.clone(), Admission::new(limits, Arc::default()), Mono::now());
    let uplinks = Uplinks {
        facts: busy.clone().recipient(),
        enlist: busy.clone().recipient(),
        heard: busy.recipient(),
    };
    let nothing = WorkerSnapshot::none(0);
    WorkerSupervisor::new(roster, uplinks, Duration::from_secs(5), watch::channel(Arc::new(nothing)).0)
}

#[actix::test]
async fn facts_that_the_root_has_no_room_for_wait_and_are_counted() {
    let metrics = Arc::new(Metrics::new());
    let (mut one, mut other) = (worker(&metrics), worker(&metrics));
    let depth = || metrics.queue_depth.with_label_values(&["facts"]).get();
    let refused = || metrics.queue_refused.with_label_values(&["facts"]).get();
    for (n, worker) in [&mut one, &mut other].into_iter().enumerate() {
        let mut sent = 0;
        while refused() == n as u64 {
            assert_eq!(depth(), n as i64, "nothing of this one waits yet");
            assert!(sent < 10_000, "a mailbox without a bound");
            sent += 1;
            worker.roster.tell(Fact::Ended { end: end(&start(1)) });
            worker.tick();
        }
    }
    assert_eq!(depth(), 2, "of both workers together");
    let oldest = one.roster.take_facts(1);
    one.tick();
    assert_eq!((oldest.len(), depth()), (1, 1));
}

#[actix::test]
async fn signs_of_life_that_find_no_room_are_counted() {
    let metrics = Arc::new(Metrics::new());
    let mut worker = worker(&metrics);
    let started = start(1);
    let id = started.data.session_id;
    worker.roster.join(started, Default::default(), |_| Rc::new(Talker(id)));
    let refused = || metrics.queue_refused.with_label_values(&["heard"]).get();
    let mut ctx = Context::new();
    let mut rounds = 0;
    while refused() == 0 {
        assert!(rounds < 10_000, "a mailbox without a bound");
        rounds += 1;
        worker.report_heard(0, Mono(0), &mut ctx);
    }
    worker.report_heard(0, Mono(0), &mut ctx);
    assert_eq!(refused(), 2);
}
