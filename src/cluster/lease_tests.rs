//! A cluster of counters: nodes that live, stop and are cut off, and one that watches them.

use proptest::prelude::*;

use super::*;
use crate::ids::Run;

const LEASE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(1);

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn live(name: &str, incarnation: Incarnation, renewals: i64) -> Peer {
    Peer { run: Run { node_id: node(name), incarnation }, renewals, state: PeerState::Live }
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

#[test]
fn who_stands_still_for_a_lease_is_lost_and_not_before() {
    let mut watch = Watch::new(node("me"), LEASE);
    let peer = live("peer", Incarnation::new(), 7);
    for second in 0..10 {
        assert_eq!(watch.renewed(at(second), at(second), std::slice::from_ref(&peer)), []);
    }
    assert_eq!(watch.renewed(at(10), at(10), std::slice::from_ref(&peer)), [Verdict::Lost(peer.clone())]);
    // The question before which nothing was known any more counts, not the answer.
    let mut slow = Watch::new(node("me"), LEASE);
    for (asked, heard) in [(0, 4), (5, 9), (10, 14)] {
        assert_eq!(slow.renewed(at(asked), at(heard), std::slice::from_ref(&peer)), []);
    }
}

#[test]
fn a_break_in_one_s_own_view_begins_anew() {
    let peer = live("peer", Incarnation::new(), 7);
    let stood_still = |watch: &mut Watch, from: u64| {
        (from..).find(|s| !watch.renewed(at(*s), at(*s), std::slice::from_ref(&peer)).is_empty()).unwrap()
    };
    let mut watch = Watch::new(node("me"), LEASE);
    assert_eq!(watch.renewed(at(0), at(0), std::slice::from_ref(&peer)), []);
    assert_eq!(watch.renewed(at(5), at(5), std::slice::from_ref(&peer)), []);
    watch.failed();
    assert_eq!(stood_still(&mut watch, 6), 16, "a question without an answer");
    let mut watch = Watch::new(node("me"), LEASE);
    assert_eq!(watch.renewed(at(0), at(0), std::slice::from_ref(&peer)), []);
    assert_eq!(stood_still(&mut watch, 30), 40, "a stop of one's own");
}

#[test]
fn what_a_lost_node_held_is_one_node_s_to_end() {
    let lost = |reaper: &str| Peer {
        state: PeerState::Lost { reaper: node(reaper) },
        ..live("gone", Incarnation::new(), 3)
    };
    let helper = live("helper", Incarnation::new(), 1);
    let mut watch = Watch::new(node("me"), LEASE);
    assert_eq!(watch.renewed(at(0), at(0), &[lost("me")]), [Verdict::Reap(node("gone"))]);
    assert_eq!(watch.renewed(at(1), at(1), &[lost("helper"), helper]), []);
    assert_eq!(watch.renewed(at(2), at(2), &[lost("helper")]), [Verdict::Adopt(node("gone"))]);
}

#[derive(Debug, Clone)]
enum Step {
    /// Some polls go by; peers whose bit is set renew between them.
    Polls {
        count: u64,
        renewing: u8,
    },
    /// Polls that fail, however the peers do meanwhile.
    Outage {
        count: u64,
        renewing: u8,
    },
    /// The watcher itself stands still.
    Stop {
        seconds: u64,
        renewing: u8,
    },
    Restart {
        peer: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..25, any::<u8>()).prop_map(|(count, renewing)| Step::Polls { count, renewing }),
        2 => (1u64..40, any::<u8>()).prop_map(|(count, renewing)| Step::Outage { count, renewing }),
        1 => (1u64..60, any::<u8>()).prop_map(|(seconds, renewing)| Step::Stop { seconds, renewing }),
        1 => (0usize..3).prop_map(|peer| Step::Restart { peer }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Only who truly did not renew for a lease of the watcher's unbroken view is lost, and then it is soon.
    #[test]
    fn only_the_silent_are_lost(steps in prop::collection::vec(step(), 1..40)) {
        let mut watch = Watch::new(node("me"), LEASE);
        let mut peers: Vec<Peer> = ["a", "b", "c"].map(|name| live(name, Incarnation::new(), 0)).into();
        let mut renewed_at = [at(0); 3];
        let (mut now, mut unbroken_since) = (at(0), None::<Mono>);
        for step in steps {
            let (polls, answered, pace, renewing) = match step {
                Step::Polls { count, renewing } => (count, true, POLL, renewing),
                Step::Outage { count, renewing } => (count, false, POLL, renewing),
                Step::Stop { seconds, renewing } => (1, true, Duration::from_secs(seconds), renewing),
                Step::Restart { peer } => {
                    peers[peer].run.incarnation = Incarnation::new();
                    peers[peer].renewals = 0;
                    renewed_at[peer] = now;
                    continue;
                }
            };
            for _ in 0..polls {
                now = now + pace;
                for (n, peer) in peers.iter_mut().enumerate() {
                    if renewing & (1 << n) != 0 {
                        peer.renewals += 1;
                        renewed_at[n] = now;
                    }
                }
                if !answered {
                    watch.failed();
                    unbroken_since = None;
                    continue;
                }
                if pace > LEASE / 2 || unbroken_since.is_none() {
                    unbroken_since = Some(now);
                }
                let lost = watch.renewed(now, now, &peers);
                for (n, peer) in peers.iter().enumerate() {
                    let told = lost.contains(&Verdict::Lost(peer.clone()));
                    let silent = now.since(renewed_at[n].max(unbroken_since.unwrap_or(now)));
                    prop_assert!(!told || silent >= LEASE, "{} after {:?}", peer.run.node_id, silent);
                    // Its last sign of life may have been seen as much later as a view stays unbroken.
                    prop_assert!(told || silent < LEASE + LEASE / 2, "{} after {:?}", peer.run.node_id, silent);
                }
            }
        }
    }
}
