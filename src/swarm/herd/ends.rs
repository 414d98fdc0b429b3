//! Welcomes and ends, and what follows of them: the record, the counts, and the device's return.

use std::time::Duration;

use super::{Conn, Herd};
use crate::swarm::backoff::Outcome;
use crate::swarm::behaviour::{Lot, chance};
use crate::swarm::record::{End, Line};
use crate::swarm::tale::How;
use crate::swarm::tally::{TOLD_BY_NAME, Unexpected};
use crate::swarm::timers::Due;
use crate::swarm::visit::Visit;
use crate::swarm::wire::Welcome;
use crate::time::Mono;

impl Herd<'_> {
    pub(super) fn welcomed(&mut self, place: usize, welcome: &Welcome) {
        let visit = &self.conns[place].visit;
        let (conn, number, dialled_at) = (visit.number, visit.device, visit.dialled_at);
        self.device(number).failures = 0;
        self.tally.pulse.welcomed += 1;
        *self.tally.by_second.entry(self.turn.wall.0.div_euclid(1_000_000)).or_default() += 1;
        self.tally.welcome.take(self.turn.mono.since(dialled_at));
        if self.record.is_some() {
            let device = &self.plan.device_id(number);
            let (session, node, device_seq) = (welcome.session, welcome.node.as_str(), welcome.device_seq);
            self.tell(Line::Welcome { conn, device, session, node, device_seq });
        }
    }

    /// The session is over.
    pub(super) fn end(&mut self, place: usize, how: How, code: Option<u16>, error: Option<&str>) {
        let Some(Conn { visit, output, .. }) = self.conns.try_remove(place) else { return };
        let owed_since = visit.owed_since(output.owed_since());
        let tale = &visit.tale;
        self.tell(Line::End(End {
            conn: visit.number,
            session: visit.session,
            how: how.as_str(),
            code,
            error,
            pings: tale.pings,
            pongs: tale.pongs,
            lost: tale.lost,
            slowest_us: tale.slowest_us,
            owed_since,
            last_pong_at: tale.last_pong_at(),
            welcome_at: tale.welcome_at(),
        }));
        self.tally.pulse.pings += u64::from(tale.pings);
        self.tally.lost += u64::from(tale.lost);
        // For people it is another thing than an end of the device's choosing.
        let how_told = if visit.gave_up() { "gave_up" } else { how.as_str() };
        *self.tally.pulse.ends.entry(how_told.to_owned()).or_default() += 1;
        if let Some(code) = code {
            *self.tally.codes.entry(code).or_default() += 1;
        }
        let device = self.device(visit.device);
        device.lines -= 1;
        // One that connected twice is replaced by its own doing.
        let by_itself = device.lines > 0;
        if visit.did_nothing() && !by_itself && how != How::Left {
            self.unexpected(&visit, how_told, code);
        }
        self.come_back(visit.device, Outcome::Ended { code });
    }

    fn unexpected(&mut self, visit: &Visit, how: &str, code: Option<u16>) {
        self.tally.pulse.unexpected += 1;
        if self.tally.unexpected.len() < TOLD_BY_NAME {
            self.tally.unexpected.push(Unexpected {
                device: self.plan.device_id(visit.device).to_string(),
                session: visit.session.to_string(),
                how: how.to_owned(),
                code,
            });
        }
    }

    /// The handshake was answered with another status than 101.
    pub(super) fn refuse(&mut self, place: usize, status: u16, retry_after: Option<Duration>) {
        let Some(Conn { visit, .. }) = self.conns.try_remove(place) else { return };
        let retry_after_s = retry_after.map(|d| d.as_secs());
        self.tell(Line::Refused { conn: visit.number, status, retry_after_s });
        self.tally.pulse.refused += 1;
        *self.tally.statuses.entry(status).or_default() += 1;
        self.not_welcomed(&visit, Outcome::Refused { retry_after });
    }

    /// The connection was over before its welcome.
    pub(super) fn fail(&mut self, place: usize, error: &str, code: Option<u16>) {
        let Some(Conn { visit, .. }) = self.conns.try_remove(place) else { return };
        self.failed(&visit, error, code);
    }

    pub(super) fn failed(&mut self, visit: &Visit, error: &str, code: Option<u16>) {
        self.tell(Line::Failed { conn: visit.number, error, code });
        self.tally.pulse.failed += 1;
        *self.tally.failures.entry(error.to_owned()).or_default() += 1;
        self.not_welcomed(visit, Outcome::Failed { code });
    }

    fn not_welcomed(&mut self, visit: &Visit, outcome: Outcome) {
        let device = self.device(visit.device);
        device.lines -= 1;
        device.failures = device.failures.saturating_add(1);
        self.come_back(visit.device, outcome);
    }

    /// A device without a connection comes back, where its last end allows it.
    fn come_back(&mut self, number: u32, outcome: Outcome) {
        let device = *self.device(number);
        // One that still has a connection, or is about to dial beside it, goes on.
        if device.lines > 0 || device.due || self.leaving.is_some() {
            return;
        }
        self.aim_elsewhere(number);
        let mut rng = chance(self.plan.habits.seed, Lot::Backoff, number, device.visits);
        match self.plan.backoff.next(outcome, u32::from(device.failures), &mut rng) {
            Some(delay) => {
                self.device(number).due = true;
                self.timers.add(Mono::now() + delay, Due::Dial { device: number });
            }
            None => self.tally.gone += 1,
        }
    }

    pub(super) fn aim_elsewhere(&mut self, number: u32) {
        let targets = self.plan.targets.len() as u16;
        let device = self.device(number);
        device.target = (device.target + 1) % targets;
    }

    /// Connections that outlast the run.
    pub(super) fn end_the_rest(&mut self) {
        for place in 0..self.conns.capacity() {
            match self.conns.get(place).map(|conn| conn.visit.is_live()) {
                Some(true) => self.end(place, How::Left, None, None),
                Some(false) => self.fail(place, "left before the welcome", None),
                None => {}
            }
        }
    }
}
