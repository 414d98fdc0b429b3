//! Full mailboxes below and beside the root: what finds no room waits in its order, and is counted.

use super::*;
use crate::supervisor::admission::Limits;
use crate::supervisor::directory::tests::{end, start};

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
takes!(Record, Reborn, Orders);

fn root(busy: &actix::Addr<Busy>) -> RootSupervisor {
    let registrar = Registrar { record: busy.clone().recipient(), reborn: busy.clone().recipient() };
    let run = Run { node_id: "n".parse().unwrap(), incarnation: Incarnation::new() };
    let limits = Limits { sessions: 0, sessions_per_ip: 0, handshakes_per_sec: 0 };
    let admission = Admission::new(limits, Arc::default());
    RootSupervisor::new(1, registrar, watch::channel(run).0, admission, Arc::default())
}

#[actix::test]
async fn writes_that_a_registry_has_no_room_for_wait_and_are_counted() {
    let busy = Busy.start();
    let mut root = root(&busy);
    let refused = |root: &RootSupervisor| root.metrics.queue_refused.with_label_values(&["record"]).get();
    let mut sent = Vec::new();
    while refused(&root) == 0 {
        assert!(sent.len() < 10_000, "a mailbox without a bound");
        let ended = end(&start(1));
        sent.push(ended.data.session_id);
        root.admission.more_backlog(1);
        root.writes.push_back(Write::End(ended));
        root.send();
    }
    // What was refused is still the oldest that waits.
    let last = *sent.last().unwrap();
    root.writes.push_back(Write::End(end(&start(1))));
    root.send();
    assert_eq!(refused(&root), 2);
    assert!(matches!(&root.writes[0], Write::End(first) if first.data.session_id == last));
    let depth = root.metrics.queue_depth.with_label_values(&["record"]).get();
    assert_eq!(depth, sent.len() as i64, "all that is on its way");
}

#[actix::test]
async fn orders_that_a_worker_has_no_room_for_wait_and_are_counted() {
    let busy = Busy.start();
    let mut root = root(&busy);
    root.workers[0].address = Some(busy.clone().recipient());
    let refused = |root: &RootSupervisor| root.metrics.queue_refused.with_label_values(&["orders"]).get();
    let depth = |root: &RootSupervisor| root.metrics.queue_depth.with_label_values(&["orders"]).get();
    let order = || {
        let session_id = start(1).data.session_id;
        Order { key: 1, session_id, what: Command::Welcome { device_seq: None } }
    };
    let mut sent = 0;
    while refused(&root) == 0 {
        assert_eq!(depth(&root), 0);
        assert!(sent < 10_000, "a mailbox without a bound");
        sent += 1;
        root.workers[0].waiting.push(order());
        root.send();
    }
    root.workers[0].waiting.push(order());
    root.send();
    assert_eq!((refused(&root), depth(&root), root.workers[0].waiting.len()), (2, 2, 2));
}
