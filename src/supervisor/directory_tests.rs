use std::sync::Arc;

use crate::store::Told;
use proptest::prelude::*;

use crate::event::{Connected, Disconnected, Meta, RttMs};
use crate::ids::{EventId, Incarnation};
use crate::time::Timestamp;

use super::*;

pub fn start(device: u8) -> Start {
    Start {
        event_id: EventId::new(),
        data: Arc::new(Connected {
            device_id: format!("d{device}").parse().unwrap(),
            device_type: Default::default(),
            session_id: SessionId::new(),
            node_id: "n".parse().unwrap(),
            incarnation: Incarnation::new(),
            connected_at: Timestamp(0),
            remote_addr: "127.0.0.1:1".parse().unwrap(),
            meta: Meta::new(),
            trace_id: None,
        }),
        after_seq: 0,
        told: Told::Now,
    }
}

pub fn end(start: &Start) -> End {
    let s = &start.data;
    End {
        event_id: EventId::new(),
        data: Arc::new(Disconnected {
            device_id: s.device_id.clone(),
            device_type: s.device_type.clone(),
            session_id: s.session_id,
            node_id: s.node_id.clone(),
            incarnation: s.incarnation,
            reason: Reason::Replaced,
            initiator: Reason::Replaced.initiator(),
            detected_by: DetectedBy::Watchdog,
            close_code: None,
            connected_at: s.connected_at,
            last_pong_at: None,
            last_active_at: s.connected_at,
            disconnected_at: s.connected_at,
            detection_ms: 0.0,
            duration_ms: 0.0,
            rtt_ms: RttMs::default(),
            pings_sent: Some(0),
            pongs_received: Some(0),
            reconnect_count: 0,
            remote_addr: s.remote_addr,
            meta: Meta::new(),
            trace_id: None,
        }),
    }
}

#[test]
fn whoever_is_to_end_is_told_where_it_is_here() {
    let mut directory = Directory::default();
    let (first, second) = (start(1), start(1));
    let seat = |key| Seat { worker: 0, key, proof: Default::default() };
    let mut effects = Effects::default();
    directory.arrived(first.clone(), seat(1), &mut effects);
    directory.arrived(second.clone(), seat(2), &mut effects);
    for (of, key, told) in
        [(&first, 1, true), (&second, 2, true), (&start(1), 0, false), (&start(2), 0, false)]
    {
        let (reason, detected_by) = (Reason::Kicked, DetectedBy::PeerNode);
        let (device_id, session_id) = (of.data.device_id.clone(), of.data.session_id);
        let mut effects = Effects::default();
        directory.to_end(&ToEnd { device_id, session_id, reason, detected_by }, &mut effects);
        let order = Order { key, session_id, what: Command::End { reason, detected_by } };
        assert_eq!(effects.orders, if told { vec![(0, order)] } else { vec![] });
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A device arrives.
    Arrive(u8),
    /// One of the sessions that are there (by rank) ends by itself.
    End(usize),
    /// One of the orders given (by rank) is carried out.
    Obey(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4).prop_map(Step::Arrive),
        any::<prop::sample::Index>().prop_map(|i| Step::End(i.index(1 << 16))),
        any::<prop::sample::Index>().prop_map(|i| Step::Obey(i.index(1 << 16))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_device_s_record_alternates_and_everyone_is_accounted_for(steps in prop::collection::vec(step(), 1..200)) {
        let mut directory = Directory::default();
        let (mut there, mut orders, mut writes): (Vec<(Start, Seat)>, Vec<Order>, Vec<Write>) = Default::default();
        let (mut facts, mut forgotten, mut key) = (0, 0, 0);
        // At last everyone leaves, so that what waited comes to its turn.
        let steps = steps.into_iter().chain((0..400).flat_map(|n| [Step::Obey(n), Step::End(n)]));
        for step in steps {
            let mut effects = Effects::default();
            let leaves = match step {
                Step::Arrive(device) => {
                    let (start, seat) = (start(device), Seat { worker: 0, key, proof: Default::default() });
                    key += 1;
                    facts += 1;
                    there.push((start.clone(), seat));
                    directory.arrived(start, seat, &mut effects);
                    None
                }
                Step::End(n) => (!there.is_empty()).then(|| n % there.len()),
                Step::Obey(n) if orders.is_empty() => { let _ = n; None }
                Step::Obey(n) => {
                    let order = orders.swap_remove(n % orders.len());
                    prop_assert_eq!(order.what, REPLACED);
                    there.iter().position(|(start, seat)| start.data.session_id == order.session_id && seat.key == order.key)
                }
            };
            if let Some(n) = leaves {
                let (start, _) = there.swap_remove(n);
                directory.ended(end(&start), &mut effects);
                facts += 1;
            }
            forgotten += effects.forgotten;
            writes.extend(effects.writes);
            orders.extend(effects.orders.into_iter().map(|(_, order)| order));
        }
        prop_assert!(there.is_empty() && directory.len() == 0);
        let mut open: HashMap<DeviceId, SessionId> = HashMap::new();
        let recorded = writes.len();
        for write in writes {
            match write {
                Write::Start(start) => {
                    let before = open.insert(start.data.device_id.clone(), start.data.session_id);
                    prop_assert_eq!(before, None, "two sessions of a device at once");
                }
                Write::End(end) => prop_assert_eq!(open.remove(&end.data.device_id), Some(end.data.session_id)),
            }
        }
        prop_assert!(open.is_empty());
        prop_assert_eq!(recorded + forgotten, facts, "every fact is written or forgotten");
    }
}

#[test]
fn only_the_holder_is_welcomed() {
    let mut directory = Directory::default();
    let (first, second) = (start(1), start(1));
    let seat = |key| Seat { worker: 3, key, proof: Default::default() };
    let mut effects = Effects::default();
    directory.arrived(first.clone(), seat(1), &mut effects);
    directory.arrived(second.clone(), seat(2), &mut effects);
    assert_eq!(effects.orders.len(), 1, "the holder is told to end");
    let mut effects = Effects::default();
    directory.recorded(&second.data.device_id, second.data.session_id, Some(9), &mut effects);
    assert!(effects.orders.is_empty());
    directory.recorded(&first.data.device_id, first.data.session_id, Some(1), &mut effects);
    let welcome =
        Order { key: 1, session_id: first.data.session_id, what: Command::Welcome { device_seq: Some(1) } };
    assert_eq!(effects.orders, [(3, welcome)]);
}
