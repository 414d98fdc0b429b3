//! The selection against a naive model: filter everything, sort everything, cut.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::{Connected, Meta, RttMs};
use crate::ids::Incarnation;
use crate::supervisor::snapshot::Source;
use crate::time::Timestamp;

fn start(n: u128) -> Connected {
    Connected {
        session_id: SessionId(uuid::Uuid::from_u128(n)),
        device_id: "d".parse().unwrap(),
        device_type: "device".parse().unwrap(),
        node_id: "n1".parse().unwrap(),
        incarnation: Incarnation::new(),
        connected_at: Timestamp(0),
        remote_addr: "127.0.0.1:1".parse().unwrap(),
        meta: Meta::default(),
        trace_id: None,
    }
}

fn session(start: Connected) -> SessionView {
    SessionView {
        session_id: start.session_id,
        start: Arc::new(start),
        device_seq: Some(1),
        source: Source::Here,
        key: 0,
        state: State::Live,
        last_pong_at: None,
        last_active_at: Timestamp(0),
        idle_ms: 0.0,
        rtt_ms: RttMs::default(),
        missed: 0,
        pings_sent: 0,
        pongs_received: 0,
        reconnect_count: 0,
    }
}

prop_compose! {
    // Few distinct values, so that ties are common.
    fn any_session()(
        id in any::<u128>(),
        device in "[ab]{1,2}",
        kind in "[xy]",
        node in "[mn]",
        state in prop::sample::select(vec![State::Starting, State::Live, State::Suspect]),
        times in [0i64..4, 0i64..4],
        pong in prop::option::of(0i64..4),
        rtt in prop::option::of(0u8..4),
        missed in 0u32..3,
        host in 0u8..4,
        port in 1u16..3,
    ) -> SessionView {
        let start = Connected {
            device_id: device.parse().unwrap(),
            device_type: kind.parse().unwrap(),
            node_id: node.parse().unwrap(),
            connected_at: Timestamp(times[0]),
            remote_addr: format!("10.0.{host}.1:{port}").parse().unwrap(),
            ..start(id)
        };
        SessionView {
            state,
            last_active_at: Timestamp(times[1]),
            idle_ms: (4 - times[1]) as f64,
            last_pong_at: pong.map(Timestamp),
            rtt_ms: RttMs { last: rtt.map(|r| f64::from(r) / 3.0), ..RttMs::default() },
            missed,
            ..session(start)
        }
    }
}

prop_compose! {
    fn any_filter()(
        state in prop::option::of(Just(State::Live)),
        device_id in prop::option::of(prop_oneof![
            Just(Match::Is("a".into())),
            Just(Match::StartsWith("a".into())),
        ]),
        node in prop::option::of(Just("n".to_owned())),
        net in prop::option::of(Just("10.0.2.0/23".parse().unwrap())),
        min_rtt_ms in prop::option::of(Just(0.5)),
        idle_over_ms in prop::option::of(Just(2.0)),
    ) -> Filter {
        Filter { state, device_id, node, remote_addr: net, min_rtt_ms, idle_over_ms, device_type: None }
    }
}

fn any_order() -> impl Strategy<Value = Order> {
    (0..SortBy::ALL.len(), any::<bool>()).prop_map(|(n, reverse)| Order { by: SortBy::ALL[n].1, reverse })
}

/// Each value in its own words: present before absent, then the value turned where asked, then the id.
fn model(sessions: &[SessionView], filter: &Filter, order: Order) -> Vec<SessionId> {
    let mut wanted: Vec<&SessionView> = sessions
        .iter()
        .filter(|s| filter.state != Some(State::Live) || s.state == State::Live)
        .filter(|s| match &filter.device_id {
            Some(Match::Is(_)) => s.start.device_id.as_str() == "a",
            Some(Match::StartsWith(_)) => s.start.device_id.as_str().as_bytes()[0] == b'a',
            None => true,
        })
        .filter(|s| filter.node.is_none() || s.start.node_id.as_str() == "n")
        .filter(|s| {
            filter.remote_addr.is_none()
                || ["10.0.2.1", "10.0.3.1"].contains(&&*s.start.remote_addr.ip().to_string())
        })
        .filter(|s| filter.min_rtt_ms.is_none() || s.rtt_ms.last.unwrap_or(0.0) >= 0.5)
        .filter(|s| filter.idle_over_ms.is_none() || s.idle_ms > 2.0)
        .collect();
    let turned = |o: Ordering| if order.reverse { o.reverse() } else { o };
    wanted.sort_by(|a, b| {
        let o = match order.by {
            SortBy::ConnectedAt => turned(a.start.connected_at.cmp(&b.start.connected_at)),
            SortBy::LastPong => a
                .last_pong_at
                .is_none()
                .cmp(&b.last_pong_at.is_none())
                .then(turned(a.last_pong_at.cmp(&b.last_pong_at))),
            SortBy::Rtt => {
                let (x, y) = (a.rtt_ms.last, b.rtt_ms.last);
                x.is_none().cmp(&y.is_none()).then(turned(x.partial_cmp(&y).unwrap()))
            }
            SortBy::Idle => turned(a.idle_ms.total_cmp(&b.idle_ms)),
            SortBy::Missed => turned(a.missed.cmp(&b.missed)),
            SortBy::DeviceId => turned(a.start.device_id.cmp(&b.start.device_id)),
            SortBy::DeviceType => turned(a.start.device_type.cmp(&b.start.device_type)),
            SortBy::State => turned(a.state.cmp(&b.state)),
            SortBy::Node => turned(a.start.node_id.cmp(&b.start.node_id)),
            SortBy::RemoteAddr => turned(a.start.remote_addr.cmp(&b.start.remote_addr)),
        };
        o.then(a.session_id.cmp(&b.session_id))
    });
    wanted.into_iter().map(|s| s.session_id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn paging_visits_each_session_once_in_order(
        sessions in prop::collection::vec(any_session(), 0..60),
        filter in any_filter(),
        order in any_order(),
        limit in 1usize..20,
    ) {
        let expected = model(&sessions, &filter, order);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = select(sessions.iter(), &filter, order, after.as_ref(), limit);
            prop_assert_eq!(page.total, expected.len());
            prop_assert!(page.items.len() <= limit);
            seen.extend(page.items.iter().map(|s| s.session_id));
            prop_assert!(seen.len() <= expected.len());
            let Some(next) = page.next else { break };
            // As a client would: through text.
            after = Place::read(order, &next.to_text());
            prop_assert_eq!(after.as_ref(), Some(&next));
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn whoever_stays_is_shown_once_while_others_come_and_go(
        stay in prop::collection::vec(any_session(), 0..40),
        come in prop::collection::vec(any_session(), 0..20),
        go in prop::collection::vec(any_session(), 0..20),
        order in any_order(),
        limit in 1usize..10,
    ) {
        let (mut seen, mut after) = (Vec::new(), None);
        for page_number in 0.. {
            let others = if page_number == 0 { &go } else { &come };
            let page = select(stay.iter().chain(others), &Filter::default(), order, after.as_ref(), limit);
            seen.extend(page.items.iter().map(|s| s.session_id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for session in &stay {
            prop_assert_eq!(seen.iter().filter(|id| **id == session.session_id).count(), 1);
        }
    }
}

#[test]
fn orders_are_read_and_written() {
    for (name, by) in SortBy::ALL {
        assert_eq!(name.parse(), Ok(Order { by, reverse: false }));
        assert_eq!(Order { by, reverse: true }.to_string(), format!("-{name}"));
    }
    for bad in ["", "-", "--rtt", "RTT", "last_pong_at"] {
        assert_eq!(bad.parse::<Order>(), Err(()), "{bad:?}");
    }
}

#[test]
fn a_place_of_another_sort_is_no_place() {
    let rtt = Order { by: SortBy::Rtt, reverse: false };
    let id = start(1).session_id;
    for bad in ["", "~", "x~1", &format!("{id}"), &format!("{id}~abc")] {
        assert_eq!(Place::read(rtt, bad), None, "{bad:?}");
    }
}

#[test]
fn an_ipv4_client_on_an_ipv6_socket_is_found_by_its_ipv4_net() {
    let mapped = session(Connected { remote_addr: "[::ffff:192.0.2.7]:9".parse().unwrap(), ..start(1) });
    let filter = Filter { remote_addr: Some("192.0.2.0/24".parse().unwrap()), ..Filter::default() };
    assert_eq!(select([mapped].iter(), &filter, Order::default(), None, 9).total, 1);
}
