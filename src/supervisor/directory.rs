//! Who holds which device's place on this node, as a pure core: facts go in, writes and orders come out.
//!
//! - A device has at most one session on the record at a time, and at most one newcomer that waits for it to end.
//! - The end of the session that is replaced is written before its successor's start (promise P2).
//! - A newcomer that is itself overtaken while it waits was never on the record, and leaves no trace there.
//!
//! ```text
//!   arrived ──▶ holder ──ended──▶ (none)
//!                 │  another arrives: holder is told to end, the newcomer waits
//!                 └──ended──▶ the newcomer becomes holder
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::ids::{DeviceId, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::{End, Start, Write};

use super::messages::{Command, Order, Seat, ToEnd};

#[derive(Debug, Default)]
pub struct Directory {
    devices: HashMap<DeviceId, Place>,
}

#[derive(Debug)]
struct Place {
    holder: Holder,
    newcomer: Option<Box<(Start, Seat)>>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    session_id: SessionId,
    seat: Seat,
}

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
    fn order(&mut self, holder: Holder, what: Command) {
        let Holder { session_id, seat: Seat { worker, key } } = holder;
        self.orders.push((worker, Order { key, session_id, what }));
    }
}

const REPLACED: Command = Command::End { reason: Reason::Replaced, detected_by: DetectedBy::Watchdog };

impl Directory {
    pub fn arrived(&mut self, start: Start, seat: Seat, effects: &mut Effects) {
        let session_id = start.data.session_id;
        match self.devices.entry(start.data.device_id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Place { holder: Holder { session_id, seat }, newcomer: None });
                effects.writes.push(Write::Start(start));
            }
            Entry::Occupied(occupied) => {
                let place = occupied.into_mut();
                let overtaken = place.newcomer.replace(Box::new((start, seat)));
                match overtaken {
                    None => effects.order(place.holder, REPLACED),
                    Some(newcomer) => {
                        let (start, seat) = *newcomer;
                        effects.order(Holder { session_id: start.data.session_id, seat }, REPLACED);
                        effects.forgotten += 1;
                    }
                }
            }
        }
    }

    pub fn ended(&mut self, end: End, effects: &mut Effects) {
        let Entry::Occupied(mut occupied) = self.devices.entry(end.data.device_id.clone()) else {
            effects.forgotten += 1;
            return;
        };
        let place = occupied.get_mut();
        if place.holder.session_id == end.data.session_id {
            effects.writes.push(Write::End(end));
            match place.newcomer.take() {
                None => _ = occupied.remove(),
                Some(newcomer) => {
                    let (start, seat) = *newcomer;
                    place.holder = Holder { session_id: start.data.session_id, seat };
                    effects.writes.push(Write::Start(start));
                }
            }
        } else if let Some(newcomer) = &place.newcomer
            && newcomer.0.data.session_id == end.data.session_id
        {
            place.newcomer = None;
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
        if let Some(place) = self.devices.get(device)
            && place.holder.session_id == session_id
        {
            effects.order(place.holder, Command::Welcome { device_seq });
        }
    }

    /// The session is to end, where it is here.
    pub fn to_end(&self, what: &ToEnd, effects: &mut Effects) {
        let Some(place) = self.devices.get(&what.device_id) else { return };
        let command = Command::End { reason: what.reason, detected_by: what.detected_by };
        if place.holder.session_id == what.session_id {
            effects.order(place.holder, command);
        } else if let Some((start, seat)) = place.newcomer.as_deref()
            && start.data.session_id == what.session_id
        {
            effects.order(Holder { session_id: what.session_id, seat: *seat }, command);
        }
    }

    /// Whatever the device has here is to end.
    pub fn to_end_all_of(&self, device: &DeviceId, what: Command, effects: &mut Effects) {
        let Some(place) = self.devices.get(device) else { return };
        effects.order(place.holder, what);
        if let Some((start, seat)) = place.newcomer.as_deref() {
            effects.order(Holder { session_id: start.data.session_id, seat: *seat }, what);
        }
    }

    /// Sessions that hold a place or wait for one.
    pub fn len(&self) -> usize {
        self.devices.values().map(|place| 1 + usize::from(place.newcomer.is_some())).sum()
    }

    /// An order for every session, to be given out over time.
    pub fn orders_for_all(&self, what: Command) -> Vec<(usize, Order)> {
        let mut effects = Effects::default();
        self.devices.keys().for_each(|device| self.to_end_all_of(device, what, &mut effects));
        effects.orders
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(crate) mod tests;
