//! Whether this node alone is cut off from the store, as a pure core.
//!
//! A node that cannot reach the store cannot tell its own cut from everyone's. Redis is a second witness: the nodes write
//! there how often they have renewed. While this node's own renewals fail and a peer's go on, the store is there, and
//! its lease is over: it may close its sessions now rather than when it is back.
//! Without a word from the witness it serves on.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::NodeId;
use crate::time::Mono;

#[derive(Debug)]
pub struct Witness {
    lease: Duration,
    /// When this node last renewed; none before the first time, and once it was told that it is cut off.
    renewed: Option<Mono>,
    /// What was said last: the peers' counts.
    last: Option<HashMap<NodeId, i64>>,
}

impl Witness {
    pub fn new(lease: Duration) -> Self {
        Self { lease, renewed: None, last: None }
    }

    /// This node reached the store.
    pub fn renewed(&mut self, now: Mono) {
        self.renewed = Some(now);
        self.last = None;
    }

    /// Whether to ask the witness: this node's own lease is over.
    pub fn is_worth_asking(&self, now: Mono) -> bool {
        self.renewed.is_some_and(|at| now.since(at) >= self.lease)
    }

    /// What it says of the peers' renewals. True, and only once, where this node's lease was over before the last time,
    /// and a peer has renewed since then: the store is there, and this node is not.
    pub fn said(&mut self, now: Mono, peers: &[(NodeId, i64)]) -> bool {
        if !self.is_worth_asking(now) {
            return false;
        }
        let counts = peers.iter().cloned().collect();
        let Some(before) = self.last.replace(counts) else { return false };
        let alone = peers.iter().any(|(node_id, count)| before.get(node_id).is_some_and(|b| count > b));
        if alone {
            self.renewed = None;
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn peer(count: i64) -> [(NodeId, i64); 1] {
        [("peer".parse().unwrap(), count)]
    }

    #[test]
    fn only_a_peer_that_goes_on_proves_it() {
        let mut witness = Witness::new(Duration::from_secs(10));
        assert!(!witness.said(at(99), &peer(1)), "it never had a lease");
        witness.renewed(at(100));
        assert!(!witness.is_worth_asking(at(109)) && witness.is_worth_asking(at(110)));
        assert!(!witness.said(at(109), &peer(6)) && !witness.said(at(110), &peer(7)));
        assert!(!witness.said(at(111), &peer(7)), "it has not renewed in between");
        assert!(witness.said(at(112), &peer(8)));
        assert!(!witness.said(at(113), &peer(20)), "twice");
    }

    #[test]
    fn an_outage_for_everyone_proves_nothing() {
        let mut witness = Witness::new(Duration::from_secs(10));
        witness.renewed(at(0));
        // The last to reach the store did so while this node already could not.
        for second in 5..500 {
            assert!(!witness.said(at(second), &peer(if second < 10 { 7 } else { 8 })));
        }
        assert!(!witness.said(at(500), &[]));
        witness.renewed(at(501));
        assert!(!witness.said(at(530), &peer(8)), "what was said before the last renewal counts for nothing");
    }
}
