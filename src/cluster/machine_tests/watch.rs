//! Leases: how a node renews its own, and what it makes of its peers'.

use super::*;

impl World<'_> {
    pub(super) fn renew(&mut self, n: usize, luck: Luck) {
        let (node, store, now) = (&mut self.nodes[n], &mut self.store, self.now);
        let reached = luck != Luck::Refused && !node.cut;
        if node.begun != Some(node.run.incarnation) {
            return;
        }
        if let Some(verdict) = node.verdicts.pop_front() {
            if reached {
                self.carry_out(n, verdict);
            }
            return;
        }
        match node.renewal.take() {
            None => node.renewal = Some(Renewal::Asked(now)),
            Some(Renewal::Asked(asked)) => {
                let mut answer = None;
                if reached {
                    if store.is_fenced(&node.run) {
                        let run = node.run.clone();
                        node.watch.failed();
                        self.tally.add("fenced", 1);
                        return node.fenced(&run);
                    }
                    let row = store.rows.get_mut(&node.name).expect("it has begun");
                    row.renewals += 1;
                    row.renewed_at = now;
                    let peers = store.peers_of(&node.name);
                    let silent = |peer: &Peer| now.since(store.rows[&peer.run.node_id].renewed_at);
                    let silent = peers.iter().map(silent).collect();
                    answer = Some((peers, silent)).filter(|_| luck != Luck::Unanswered);
                }
                node.renewal = Some(Renewal::Answered(asked, answer));
            }
            Some(Renewal::Answered(_, None)) => {
                node.watch.failed();
                node.sees = None;
            }
            Some(Renewal::Answered(asked, Some((peers, silent)))) => {
                let sees = node.sees.filter(|(_, last)| now.since(*last) <= LEASE / 2);
                let (since, _) = *node.sees.insert((sees.map_or(now, |(since, _)| since), now));
                let verdicts = node.watch.renewed(asked, now, &peers);
                for verdict in &verdicts {
                    if let Verdict::Lost(lost) = verdict {
                        let silent =
                            peers.iter().zip(&silent).find(|(peer, _)| *peer == lost).map(|(_, s)| *s);
                        assert!(silent.is_some_and(|silent| silent >= LEASE), "lost after {silent:?}");
                        assert!(now.since(since) >= LEASE, "lost to a watcher that looked away");
                    }
                }
                node.verdicts.extend(verdicts);
            }
        }
    }

    /// As the membership does it, one call of the store after the other.
    pub(super) fn carry_out(&mut self, n: usize, verdict: Verdict) {
        let (node, store) = (&mut self.nodes[n], &mut self.store);
        if store.live_run(&node.name) != Some(node.run.incarnation) {
            return;
        }
        let lost = match verdict {
            Verdict::Lost(peer) => {
                let row = store.rows.get_mut(&peer.run.node_id).expect("it was seen");
                let same = (row.run, row.renewals) == (peer.run.incarnation, peer.renewals);
                if !same || row.state != PeerState::Live {
                    return;
                }
                assert!(self.now.since(row.renewed_at) >= LEASE, "a node that renews is declared lost");
                row.state = PeerState::Lost { reaper: node.name.clone() };
                self.tally.add("declared lost", 1);
                node.stopped |= std::mem::take(&mut self.stop_who_declares);
                peer.run.node_id
            }
            Verdict::Adopt(lost) => {
                let reaper = match &store.rows[&lost].state {
                    PeerState::Lost { reaper } => reaper.clone(),
                    _ => return,
                };
                if reaper != node.name && store.live_run(&reaper).is_some() {
                    return;
                }
                self.tally.add("adopted", 1);
                store.rows.get_mut(&lost).unwrap().state = PeerState::Lost { reaper: node.name.clone() };
                lost
            }
            Verdict::Reap(lost) => lost,
        };
        let but = store.live_run(&lost);
        if store.end_of(&lost, but, 1) > 0 {
            self.tally.add("reaped", 1);
            // And the next with the next step.
            return node.verdicts.push_front(Verdict::Reap(lost));
        }
        let row = store.rows.get_mut(&lost).expect("it was seen");
        if row.state == (PeerState::Lost { reaper: node.name.clone() }) {
            row.state = PeerState::Gone;
        }
    }

    pub(super) fn notice(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.cut {
            return;
        }
        let mut effects = Effects::default();
        for (device, session, is_end) in &self.store.log[node.noticed..] {
            if *is_end {
                node.order_to_end(device.clone(), *session, &mut effects);
            }
        }
        node.noticed = self.store.log.len();
        node.carry_out(effects, self.now);
    }
}
