//! The store, deciding as Postgres does.

use super::*;

pub(super) struct Row {
    pub(super) run: Incarnation,
    pub(super) renewals: i64,
    pub(super) renewed_at: Mono,
    pub(super) state: PeerState,
}

/// The store as Postgres keeps it.
#[derive(Default)]
pub(super) struct Store {
    pub(super) now: Mono,
    pub(super) rows: BTreeMap<NodeId, Row>,
    pub(super) active: BTreeMap<SessionId, Arc<Connected>>,
    pub(super) seen: BTreeSet<SessionId>,
    /// Device, session, whether it is the end.
    pub(super) log: Vec<(DeviceId, SessionId, bool)>,
    /// Starts that came by a journal: their devices were elsewhere meanwhile.
    pub(super) late: BTreeSet<SessionId>,
}

/// What a commit says of each start: on the record, or overtaken.
pub(super) type Outcomes = Vec<(DeviceId, SessionId, bool)>;

impl Store {
    pub(super) fn is_fenced(&self, run: &Run) -> bool {
        let row = self.rows.get(&run.node_id);
        row.is_some_and(|row| row.run != run.incarnation || row.state != PeerState::Live)
    }

    pub(super) fn begin(&mut self, run: &Run, now: Mono) {
        let (run, name) = (run.incarnation, run.node_id.clone());
        let before = self.rows.get(&name).filter(|row| row.run == run).map_or(-1, |row| row.renewals);
        self.rows.insert(name, Row { run, renewals: before + 1, renewed_at: now, state: PeerState::Live });
    }

    pub(super) fn commit(&mut self, run: &Run, batch: &[Write]) -> Result<Outcomes, Failure> {
        if self.is_fenced(run) {
            return Err(Failure::Fenced);
        }
        let mut outcomes = Vec::new();
        for write in batch {
            match write {
                Write::End(end) => {
                    let of = self.active.get(&end.data.session_id);
                    if of.is_some_and(|of| of.incarnation == end.data.incarnation) {
                        self.end(end.data.session_id);
                    }
                }
                Write::Start(start) => {
                    let recorded = self.seen.contains(&start.data.session_id) || self.start(start);
                    outcomes.push((start.data.device_id.clone(), start.data.session_id, recorded));
                }
            }
        }
        Ok(outcomes)
    }

    pub(super) fn start(&mut self, start: &Start) -> bool {
        let is_live = |of: &Connected| self.live_run(&of.node_id) == Some(of.incarnation);
        let data = &start.data;
        let there: Vec<_> =
            self.active.values().filter(|there| there.device_id == data.device_id).cloned().collect();
        let own = there.iter().find(|there| there.incarnation == data.incarnation);
        assert!(own.is_none(), "a start before the end of the one it replaces");
        let outlived = !is_live(data) && there.iter().any(|there| is_live(there));
        let is_later = |there: &Connected| there.connected_at > data.connected_at;
        let overtaken = there.iter().any(|there| is_later(there) && (is_live(there) || !is_live(data)));
        match start.told {
            Told::Now if overtaken && data.connected_at.0 + PROMPT < self.now.0 as i64 => return false,
            Told::Past => {}
            Told::Late if outlived || overtaken => {}
            Told::Now | Told::Late => there.iter().for_each(|there| self.end(there.session_id)),
        }
        self.seen.insert(data.session_id);
        self.active.insert(data.session_id, data.clone());
        self.log.push((data.device_id.clone(), data.session_id, false));
        if start.told != Told::Now {
            self.late.insert(data.session_id);
        }
        if start.told == Told::Late && (outlived || overtaken) {
            self.end(data.session_id);
        }
        true
    }

    pub(super) fn end(&mut self, id: SessionId) {
        if let Some(start) = self.active.remove(&id) {
            self.log.push((start.device_id.clone(), id, true));
        }
    }

    /// Ends what a node's other runs have left; at most so many.
    pub(super) fn end_of(&mut self, node: &NodeId, but: Option<Incarnation>, most: usize) -> usize {
        let left = self.active.values().filter(|s| s.node_id == *node && Some(s.incarnation) != but);
        let left: Vec<_> = left.map(|s| s.session_id).take(most).collect();
        left.iter().for_each(|id| self.end(*id));
        left.len()
    }

    pub(super) fn live_run(&self, node: &NodeId) -> Option<Incarnation> {
        self.rows.get(node).filter(|row| row.state == PeerState::Live).map(|row| row.run)
    }

    pub(super) fn peers_of(&self, node: &NodeId) -> Vec<Peer> {
        let peers = self.rows.iter().filter(|(name, _)| *name != node);
        peers
            .map(|(name, row)| Peer {
                run: Run { node_id: name.clone(), incarnation: row.run },
                renewals: row.renewals,
                state: row.state.clone(),
            })
            .collect()
    }
}
