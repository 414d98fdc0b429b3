//! Who holds which device's place on this node, as a pure core: facts go in, writes and orders come out.
//!
//! - A device has at most one session on the record at a time, and at most one newcomer that waits for it to end.
//! - The end of the session that is replaced is written before its successor's start (promise P2).
//! - A newcomer that is itself overtaken while it waits was never on the record, and leaves no trace there. Nor does one
//!   that is turned away at once; it takes nobody's place.
//!
//! ```text
//!   arrived ──▶ holder ──ended──▶ (none)
//!                 │  another arrives: holder is told to end, the newcomer waits
//!                 └──ended──▶ the newcomer becomes holder
//! ```

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::event::Connected;
use crate::ids::{DeviceId, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::{End, Start, Write};
use crate::token::Proof;

use super::messages::{Command, Order, Seat, ToEnd};

#[derive(Debug, Default)]
pub struct Directory {
    holders: HashMap<Holder, Seat>,
    newcomers: HashMap<DeviceId, (Start, Seat)>,
}

/// The session that holds a place, found by its device; its names are those of its start.
#[derive(Debug)]
struct Holder(Arc<Connected>);

impl Borrow<DeviceId> for Holder {
    fn borrow(&self) -> &DeviceId {
        &self.0.device_id
    }
}

impl Hash for Holder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.device_id.hash(state);
    }
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        self.0.device_id == other.0.device_id
    }
}

impl Eq for Holder {}

/// What follows from a fact.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the registry, in this order.
    pub writes: Vec<Write>,
    /// For the workers.
    pub orders: Vec<(usize, Order)>,
    /// Facts of sessions that never come to be on the record.
    pub forgotten: usize,
}

impl Effects {
    fn order(&mut self, start: &Connected, Seat { worker, key, .. }: Seat, what: Command) {
        self.orders.push((worker as usize, Order { key, session_id: start.session_id, what }));
    }
}

const REPLACED: Command = Command::End { reason: Reason::Replaced, detected_by: DetectedBy::Watchdog };

impl Directory {
    pub fn arrived(&mut self, start: Start, seat: Seat, effects: &mut Effects) {
        match self.holders.entry(Holder(start.data.clone())) {
            Entry::Vacant(vacant) => {
                vacant.insert(seat);
                effects.writes.push(Write::Start(start));
            }
            Entry::Occupied(holder) => {
                match self.newcomers.insert(start.data.device_id.clone(), (start, seat)) {
                    None => effects.order(&holder.key().0, *holder.get(), REPLACED),
                    Some((overtaken, seat)) => {
                        effects.order(&overtaken.data, seat, REPLACED);
                        effects.forgotten += 1;
                    }
                }
            }
        }
    }

    /// A newcomer that may not stay ends where it is.
    pub fn turn_away(start: &Start, seat: Seat, what: Command, effects: &mut Effects) {
        effects.order(&start.data, seat, what);
        // Its end is, too, when it comes.
        effects.forgotten += 1;
    }

    pub fn ended(&mut self, end: End, effects: &mut Effects) {
        let (device, session_id) = (end.data.device_id.clone(), end.data.session_id);
        if self.holder(&device, session_id).is_some() {
            effects.writes.push(Write::End(end));
            self.holders.remove(&device);
            if let Some((start, seat)) = self.newcomers.remove(&device) {
                self.holders.insert(Holder(start.data.clone()), seat);
                effects.writes.push(Write::Start(start));
            }
        } else if self.newcomer(&device, session_id).is_some() {
            self.newcomers.remove(&device);
            effects.forgotten += 2;
        } else {
            effects.forgotten += 1;
        }
    }

    pub fn recorded(
        &self,
        device: &DeviceId,
        session_id: SessionId,
        device_seq: Option<i64>,
        effects: &mut Effects,
    ) {
        if let Some((start, seat)) = self.holder(device, session_id) {
            effects.order(start, seat, Command::Welcome { device_seq });
        }
    }

    /// The session is to end, where it is here.
    pub fn to_end(&self, what: &ToEnd, effects: &mut Effects) {
        let (device, session_id) = (&what.device_id, what.session_id);
        let found = self.holder(device, session_id).or_else(|| self.newcomer(device, session_id));
        let Some((start, seat)) = found else { return };
        effects.order(start, seat, Command::End { reason: what.reason, detected_by: what.detected_by });
    }

    /// Whatever the device has here is to end.
    pub fn to_end_all_of(&self, device: &DeviceId, what: Command, effects: &mut Effects) {
        if let Some((holder, seat)) = self.holders.get_key_value(device) {
            effects.order(&holder.0, *seat, what);
        }
        if let Some((start, seat)) = self.newcomers.get(device) {
            effects.order(&start.data, *seat, what);
        }
    }

    /// Whoever is here by a token that `is_revoked` is to end.
    pub fn to_end_where(
        &self,
        is_revoked: impl Fn(&DeviceId, Proof) -> bool,
        what: Command,
        effects: &mut Effects,
    ) {
        let held = self.holders.iter().map(|(holder, seat)| (&*holder.0, *seat));
        let waiting = self.newcomers.values().map(|(start, seat)| (&*start.data, *seat));
        for (start, seat) in held.chain(waiting) {
            if is_revoked(&start.device_id, seat.proof) {
                effects.order(start, seat, what);
            }
        }
    }

    /// The same of this device alone.
    pub fn to_end_of_where(
        &self,
        device: &DeviceId,
        is_revoked: impl Fn(Proof) -> bool,
        what: Command,
        effects: &mut Effects,
    ) {
        let held = self.holders.get_key_value(device).map(|(holder, seat)| (&*holder.0, *seat));
        let waiting = self.newcomers.get(device).map(|(start, seat)| (&*start.data, *seat));
        for (start, seat) in held.into_iter().chain(waiting) {
            if is_revoked(seat.proof) {
                effects.order(start, seat, what);
            }
        }
    }

    /// Sessions that hold a place or wait for one.
    pub fn len(&self) -> usize {
        self.holders.len() + self.newcomers.len()
    }

    /// An order for every session, to be given out over time.
    pub fn orders_for_all(&self, what: Command) -> Vec<(usize, Order)> {
        let mut effects = Effects::default();
        self.holders.iter().for_each(|(holder, seat)| effects.order(&holder.0, *seat, what));
        self.newcomers.values().for_each(|(start, seat)| effects.order(&start.data, *seat, what));
        effects.orders
    }

    /// The session of this id, where it holds its device's place.
    fn holder(&self, device: &DeviceId, session_id: SessionId) -> Option<(&Connected, Seat)> {
        let (holder, seat) = self.holders.get_key_value(device)?;
        (holder.0.session_id == session_id).then_some((&*holder.0, *seat))
    }

    /// The session of this id, where it waits for its device's place.
    fn newcomer(&self, device: &DeviceId, session_id: SessionId) -> Option<(&Connected, Seat)> {
        let (start, seat) = self.newcomers.get(device)?;
        (start.data.session_id == session_id).then_some((&*start.data, *seat))
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(crate) mod tests;
