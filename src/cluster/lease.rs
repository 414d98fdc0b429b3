//! When a peer may be declared lost, as a pure core: what the store said of the peers goes in, verdicts come out.
//!
//! - A peer is judged by the count of its renewals alone, which the store keeps; no two clocks are compared. It is lost
//!   when its count stood still for a whole lease.
//! - That lease is this node's own, unbroken time with the store: whoever could not reach the store, or stood still
//!   itself, has seen nothing and begins to watch anew. So an outage of the store for everyone makes nobody lost.
//!
//! ```text
//!   renewed ──▶ watching ──the count rose, or another run──▶ watching anew
//!                  │
//!                  └── a whole lease without a break ──▶ lost
//! ```

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::{Incarnation, NodeId};
use crate::store::{Peer, PeerState};
use crate::time::Mono;

/// What is to be done about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did not renew for a lease: declare it lost.
    Lost(Peer),
    /// This node declared it lost: end what it held.
    Reap(NodeId),
    /// Whoever was to end what it held is not alive: take that over.
    Adopt(NodeId),
}

/// This node's view of its peers.
#[derive(Debug)]
pub struct Watch {
    own: NodeId,
    lease: Duration,
    /// The last answer of the store.
    last: Option<Mono>,
    seen: HashMap<NodeId, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    incarnation: Incarnation,
    renewals: i64,
    /// Since when the two above stand.
    since: Mono,
}

impl Watch {
    pub fn new(own: NodeId, lease: Duration) -> Self {
        Self { own, lease, last: None, seen: HashMap::new() }
    }

    /// This node renewed, and was told of its `peers`; it asked at `asked` and heard at `heard`.
    pub fn renewed(&mut self, asked: Mono, heard: Mono, peers: &[Peer]) -> Vec<Verdict> {
        // Two answers half a lease apart are not one unbroken view.
        if self.last.is_none_or(|last| heard.since(last) > self.lease / 2) {
            self.seen.clear();
        }
        self.last = Some(heard);
        let alive: Vec<&NodeId> =
            peers.iter().filter(|p| p.state == PeerState::Live).map(|p| &p.run.node_id).collect();
        let mut verdicts = Vec::new();
        for peer in peers {
            let node_id = &peer.run.node_id;
            match &peer.state {
                PeerState::Live if self.stands_still(peer, asked, heard) => {
                    verdicts.push(Verdict::Lost(peer.clone()));
                }
                PeerState::Lost { reaper } if *reaper == self.own => {
                    verdicts.push(Verdict::Reap(node_id.clone()));
                }
                PeerState::Lost { reaper } if !alive.contains(&reaper) => {
                    verdicts.push(Verdict::Adopt(node_id.clone()));
                }
                PeerState::Live | PeerState::Lost { .. } | PeerState::Gone => {}
            }
        }
        self.seen.retain(|node_id, _| alive.contains(&node_id));
        verdicts
    }

    /// The store did not answer: what was seen before it does again proves nothing.
    pub fn failed(&mut self) {
        self.last = None;
    }

    fn stands_still(&mut self, peer: &Peer, asked: Mono, heard: Mono) -> bool {
        let now = Seen { incarnation: peer.run.incarnation, renewals: peer.renewals, since: heard };
        let seen = self.seen.entry(peer.run.node_id.clone()).or_insert(now);
        if (seen.incarnation, seen.renewals) != (now.incarnation, now.renewals) {
            *seen = now;
        }
        // From the answer that first showed the count to the question that was answered with it again.
        asked.since(seen.since) >= self.lease
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
