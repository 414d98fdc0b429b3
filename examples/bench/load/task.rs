//! The order that the load is at, from its beginning to its answer.

use std::ops::Range;

use lastpong::swarm::backoff::Outcome;

use super::conn::Conn;
use super::order::{Answer, How, Late, Left, Order};
use super::{Device, Load};
use crate::clock::millis;
use crate::stats::percentile;

/// So many leave in one turn: between turns the others are answered.
const LEAVES_A_TURN: usize = 256;

/// What is still to be reached.
pub struct Task {
    kind: Kind,
    until_us: u64,
}

enum Kind {
    /// So many are ready.
    Ready(u32),
    /// So many more come, and leave at once.
    Visits(u32),
    Leaves {
        devices: Range<u32>,
        how: How,
        gap_us: u64,
        next_us: u64,
    },
    /// These lose their connections and are then waited for.
    Drops {
        devices: Range<u32>,
        ready: u32,
    },
    /// So many are to be ready again.
    Back(u32),
    /// All are back; pings that come until then are looked at, too.
    Lingers(u64),
    /// So many more have to be found silent.
    Silent(u32),
    Nothing,
}

impl Task {
    /// When it has something to do by itself.
    pub fn next_us(&self) -> Option<u64> {
        match &self.kind {
            Kind::Leaves { next_us, .. } => Some(*next_us),
            Kind::Lingers(until_us) => Some(*until_us),
            Kind::Drops { .. } | Kind::Nothing => Some(0),
            _ => Some(self.until_us),
        }
    }
}

impl Load {
    pub(super) fn begin(&mut self, order: Order) {
        self.told = Answer {
            began_us: self.now,
            ready: self.told.ready,
            round_trips: self.told.round_trips,
            lost: self.told.lost,
            ..Answer::default()
        };
        let (kind, within_s) = match order {
            Order::Connect { count, under_way, within_s } => {
                self.newcomers(count, under_way);
                (Kind::Ready(self.told.ready + count), within_s)
            }
            Order::Visit { count, under_way, within_s } => {
                self.newcomers(count, under_way);
                (Kind::Visits(count), within_s)
            }
            Order::Leave { devices, how, gap_us, within_s } => {
                (Kind::Leaves { devices, how, gap_us, next_us: self.now }, within_s)
            }
            Order::Silence { devices, within_s } => (Kind::Silent(self.silence(devices)), within_s),
            Order::Storm { devices, within_s } => {
                self.watch(devices.start);
                self.most_pending = u32::MAX;
                (Kind::Drops { devices, ready: self.told.ready }, within_s)
            }
            Order::Stat => (Kind::Nothing, 0),
        };
        self.task = Some(Task { kind, until_us: self.now + within_s * 1_000_000 });
    }

    fn newcomers(&mut self, count: u32, under_way: u32) {
        let first = self.devices.len() as u32;
        self.devices.resize(self.devices.len() + count as usize, Device::default());
        self.dials.extend(first..first + count);
        self.most_pending = under_way.max(1);
    }

    /// Does some of the order, and answers it when it is done or its time is over.
    pub(super) fn go_on(&mut self) -> anyhow::Result<()> {
        let Some(mut task) = self.task.take() else { return Ok(()) };
        let missing = self.pursue(&mut task.kind);
        if missing > 0 && self.now < task.until_us {
            self.task = Some(task);
            return Ok(());
        }
        if missing > 0 {
            self.told.error = Some(format!("{missing} devices were still missing when the time was over"));
        }
        self.end_watch();
        self.answer()
    }

    /// Does what can be done now; gives how many devices are still missing.
    fn pursue(&mut self, kind: &mut Kind) -> u32 {
        match kind {
            Kind::Ready(wanted) => wanted.saturating_sub(self.told.ready),
            Kind::Visits(missing) | Kind::Silent(missing) => *missing,
            Kind::Leaves { devices, how, gap_us, next_us } => {
                let some = if *gap_us == 0 { LEAVES_A_TURN } else { usize::from(*next_us <= self.now) };
                let leaving: Vec<u32> = devices.by_ref().take(some).collect();
                if !leaving.is_empty() {
                    *next_us += *gap_us;
                }
                let missing = devices.len() as u32;
                self.leave_all(&leaving, *how);
                missing
            }
            Kind::Drops { devices, ready } => {
                let dropping: Vec<u32> = devices.by_ref().take(LEAVES_A_TURN).collect();
                let (is_last, ready) = (devices.start >= devices.end, *ready);
                self.leave_all(&dropping, How::Vanish);
                for device in dropping {
                    self.come_back(device, Outcome::Ended { code: None });
                }
                if is_last {
                    *kind = Kind::Back(ready);
                }
                1
            }
            Kind::Back(wanted) => {
                let missing = wanted.saturating_sub(self.told.ready);
                if missing == 0 {
                    self.told.back_us = self.now;
                    *kind = Kind::Lingers(self.now + self.options.interval_ms * 1_000);
                }
                missing.max(1)
            }
            Kind::Lingers(until_us) => u32::from(self.now < *until_us),
            Kind::Nothing => 0,
        }
    }

    fn leave_all(&mut self, devices: &[u32], how: How) {
        for device in devices {
            let place = self.devices.get(*device as usize).and_then(|known| known.place);
            let left = place.and_then(|place| self.leave(place, how));
            self.told.left.extend(left);
        }
    }

    /// These answer no more; gives how many they are.
    fn silence(&mut self, devices: Range<u32>) -> u32 {
        let mut count = 0;
        for device in devices {
            let place = self.devices.get(device as usize).and_then(|known| known.place);
            if let Some(conn) = place.and_then(|place| self.conns.get_mut(place)) {
                conn.silent = true;
                count += 1;
            }
        }
        count
    }

    /// A silent device was ended by the server.
    pub(super) fn found_silent(&mut self, conn: &Conn) {
        if let Some(Task { kind: Kind::Silent(missing), .. }) = &mut self.task {
            *missing = missing.saturating_sub(1);
        }
        let left = conn.unanswered_us.map(|at_us| Left { session: conn.session, at_us });
        self.told.left.extend(left);
    }

    /// A device got through its handshake.
    pub(super) fn arrived(&mut self, place: usize) {
        if let Some(Task { kind: Kind::Visits(missing), .. }) = &mut self.task {
            *missing = missing.saturating_sub(1);
            self.leave(place, How::Vanish);
        }
    }

    /// Whether a device that the server ended comes back: in a storm, all do.
    pub(super) fn comes_back(&self, device: u32) -> bool {
        self.watched > 0 && device >= self.watched
    }

    fn watch(&mut self, below: u32) {
        self.watched = below;
        self.late_ms.clear();
    }

    fn end_watch(&mut self) {
        if self.watched == 0 {
            return;
        }
        // A ping that has not come yet is late too.
        let interval_us = self.options.interval_ms * 1_000;
        let watched = self.conns.iter().filter(|(_, conn)| conn.device < self.watched);
        let overdue = watched.filter_map(|(_, conn)| Some(millis(conn.pinged_us? + interval_us, self.now)));
        self.late_ms.extend(overdue.filter(|late| *late > 0.0));
        let at = |share| percentile(&self.late_ms, share).unwrap_or_default();
        let (p50_ms, p99_ms, max_ms) = (at(0.5), at(0.99), at(1.0));
        self.told.late = Some(Late { pings: self.late_ms.len() as u64, p50_ms, p99_ms, max_ms });
        self.watched = 0;
    }
}
