//! Full mailboxes below and beside the root: what finds no room waits in its order, and is counted. And who is sent away
//! on arrival, and how drains follow each other.

use super::*;
use crate::ids::{BanId, DeviceId, RevocationId};
use crate::store::Start;
use crate::store::bans::{Ban, BanChange, Target, network};
use crate::store::revocations::{Revocation, Tokens};
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
    let limits = Limits::default();
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

/// A newcomer of this run.
fn newcomer(root: &RootSupervisor, device: u8) -> Start {
    let mut start = start(device);
    let mut data = (*start.data).clone();
    data.incarnation = root.run.borrow().incarnation;
    start.data = Arc::new(data);
    start
}

fn arrive(root: &mut RootSupervisor, start: Start) {
    let facts = vec![Fact::Arrived { key: 1, start, proof: Default::default() }];
    root.handle(Facts { worker: 0, facts }, &mut Context::new());
}

/// The ends that wait for the worker.
fn told(root: &RootSupervisor) -> Vec<(Reason, DetectedBy)> {
    let ends = root.workers[0].waiting.iter().map(|order| match order.what {
        Command::End { reason, detected_by } => (reason, detected_by),
        Command::Welcome { .. } => panic!("nobody is welcome yet"),
    });
    ends.collect()
}

#[actix::test]
async fn whoever_was_banned_on_the_way_here_ends_on_arrival() {
    let busy = Busy.start();
    let targets =
        [Target::Device("d1".parse().unwrap()), Target::Network(network("127.0.0.1").expect("a network"))];
    for target in targets {
        let mut root = root(&busy);
        let ban =
            Ban { id: BanId::new(), target, reason: None, by: "ada".into(), at: Timestamp(0), until: None };
        let newcomers = [newcomer(&root, 1), newcomer(&root, 1)];
        let [before, after] = newcomers;
        arrive(&mut root, before);
        assert_eq!(told(&root), []);
        root.admission.bans().apply(vec![BanChange { rev: 1, ban, lifted: false }], Timestamp::now());
        // The one who is here is for who banned him to find. The newcomer is told to go and takes nobody's place: the
        // other may come from elsewhere, where nobody is banned.
        let (held, facts) = (root.directory.len(), root.admission.backlog());
        let end = end(&after);
        root.admission.more_backlog(2);
        arrive(&mut root, after);
        assert_eq!(told(&root), [(Reason::Banned, DetectedBy::Operator)]);
        root.handle(Facts { worker: 0, facts: vec![Fact::Ended { end }] }, &mut Context::new());
        assert_eq!((root.directory.len(), root.admission.backlog()), (held, facts), "it left a trace");
    }
}

const REVOKED: (Reason, DetectedBy) = (Reason::TokenRevoked, DetectedBy::Operator);

fn revocation(tokens: Tokens, at: Timestamp) -> Revocation {
    Revocation { id: RevocationId::new(), tokens, reason: None, by: "ada".into(), at, until: None }
}

/// A newcomer by this token.
fn arrive_by(root: &mut RootSupervisor, device: u8, proof: Proof) {
    let facts = vec![Fact::Arrived { key: device.into(), start: newcomer(root, device), proof }];
    root.handle(Facts { worker: 0, facts }, &mut Context::new());
}

#[actix::test]
async fn whoever_comes_by_a_token_that_was_revoked_meanwhile_ends_on_arrival() {
    let busy = Busy.start();
    let mut root = root(&busy);
    let at = Timestamp(50_000_000);
    let of_device = revocation(Tokens::Device("d1".parse().unwrap()), at);
    root.admission.revoked().apply(vec![of_device], Timestamp::now());
    arrive_by(&mut root, 1, Proof { jti: 7, issued: 51 });
    assert_eq!(told(&root), [], "it was issued later");
    arrive_by(&mut root, 2, Proof { jti: 7, issued: 50 });
    assert_eq!(told(&root), [], "it is another's");
    arrive_by(&mut root, 1, Proof { jti: 7, issued: 50 });
    assert_eq!(told(&root), [REVOKED], "it takes nobody's place");
}

#[actix::test]
async fn whoever_is_here_by_a_token_that_is_revoked_ends() {
    let busy = Busy.start();
    let mut root = root(&busy);
    for (device, jti, issued) in [(1, 7, 40), (2, 8, 40), (3, 7, 60), (4, 0, 0), (5, 9, 60), (6, 9, 60)] {
        arrive_by(&mut root, device, Proof { jti, issued });
    }
    // A newcomer that waits for the place of the one before him.
    arrive_by(&mut root, 6, Proof { jti: 7, issued: 60 });
    root.workers[0].waiting.clear();
    let held = root.handle(EndTokens(vec![Fresh::Token(7), Fresh::Token(1)]), &mut Context::new());
    assert_eq!((held, told(&root)), (3, vec![REVOKED; 3]));
    let mut keys: Vec<u32> = root.workers[0].waiting.drain(..).map(|order| order.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, [1, 3, 6]);

    let devices = ["d2", "d5"].map(|name| name.parse().unwrap());
    let until = |device: &DeviceId| revocation(Tokens::Device(device.clone()), Timestamp(50_000_000));
    root.admission.revoked().apply(devices.iter().map(until).collect(), Timestamp::now());
    let fresh = devices.map(Fresh::Device).into_iter().collect();
    let held = root.handle(EndTokens(fresh), &mut Context::new());
    assert_eq!((held, root.workers[0].waiting[0].key), (1, 2), "what was issued later is good");
}

#[actix::test]
async fn whatever_a_banned_device_has_here_ends() {
    let busy = Busy.start();
    let mut root = root(&busy);
    for device in [1, 1, 2] {
        let newcomer = newcomer(&root, device);
        arrive(&mut root, newcomer);
    }
    root.workers[0].waiting.clear();
    let (reason, detected_by) = (Reason::Banned, DetectedBy::Operator);
    let devices = vec!["d1".parse().unwrap(), "d3".parse().unwrap()];
    let held = root.handle(EndDevices { devices, reason, detected_by }, &mut Context::new());
    assert_eq!((held, told(&root)), (2, vec![(reason, detected_by); 2]));
}

#[actix::test]
async fn nobody_is_told_to_go_at_every_step() {
    const HELD: usize = 250;
    let busy = Busy.start();
    let mut root = root(&busy);
    for device in 0..HELD {
        let newcomer = newcomer(&root, device as u8);
        arrive(&mut root, newcomer);
    }
    let ctx = &mut Context::new();
    root.handle(Drain::Begin { spread: Duration::ZERO, for_good: false }, ctx).expect("it begins");
    for _ in 0..18 {
        root.drain_step();
    }
    assert_eq!(told(&root).len(), HELD);
    // Who is still here after a second, or came in at the last moment, is told.
    let late = newcomer(&root, 251);
    arrive(&mut root, late);
    for _ in 0..20 {
        root.drain_step();
    }
    assert_eq!(told(&root).len(), 2 * HELD + 1);
}

#[actix::test]
async fn a_stop_goes_over_a_slow_drain_and_is_not_undone() {
    let busy = Busy.start();
    let mut root = root(&busy);
    let ctx = &mut Context::new();
    const HELD: usize = 250;
    for device in 0..HELD {
        let newcomer = newcomer(&root, device as u8);
        arrive(&mut root, newcomer);
    }
    let slow = Drain::Begin { spread: Duration::from_secs(3_600), for_good: false };
    let view = root.handle(slow, ctx).expect("it begins");
    assert_eq!((view.live, view.drain.map(|drain| drain.of)), (HELD, Some(HELD)));
    assert!(root.admission.is_draining());
    root.drain_step();
    assert_eq!(told(&root).len(), 10, "200 a second, by steps of 50 ms");

    // Taken back: nobody else is told, and devices may come.
    assert_eq!(root.handle(Drain::Undo, ctx).expect("it is undone").drain, None);
    assert!(!root.admission.is_draining());
    root.drain_step();
    assert_eq!(told(&root).len(), 10);

    root.handle(slow, ctx).expect("it begins again");
    let stop = Drain::Begin { spread: Duration::ZERO, for_good: true };
    assert_eq!(root.handle(stop, ctx).expect("a stop goes over it").drain.map(|drain| drain.of), Some(HELD));
    root.drain_step();
    assert_eq!(told(&root).len(), 10 + HELD, "the slow drain has its way");
    for late in [Drain::Undo, slow] {
        assert_eq!(root.handle(late, ctx), Err(Stopping));
    }
    assert!(root.handle(Drain::Look, ctx).expect("it can be looked at").drain.is_some());
    assert!(root.admission.is_draining());
}
