//! Could that explain this? For an end, whether a fault or an act that may end a session was there to do so.
//!
//! | reason | explained by |
//! | --- | --- |
//! | `draining` | its node was told to stop |
//! | `kicked` | the operator asked for it before |
//! | `replaced` | its device dialled again before (two newcomers at once, and sessions told late by a journal: either may give way) |
//! | `node_lost` | its node was killed; or stood still or was cut off from Postgres for most of a lease, while a peer was not; or went away in good order while Postgres was away, so that its word was not on the record |
//! | `read_error`, `ping_failed`, `pong_timeout`, `slow_consumer` | the network between device and node was hurt; the device's process stood still |
//! | `internal_error` | it was never welcomed, for its start could not be written: the disk was full, and Postgres away |
//! | `read_error`, `ping_failed` | the device's process was killed: the kernel ends its sockets |
//!
//! Nothing else ends a session in good faith. In particular no fault of Postgres or Redis alone does, nor load, floods,
//! clocks or full disks, nor a stop of the node for less than a lease.
//!
//! When an end was decided is known by its `disconnected_at` where no clock was set, else only to lie between the
//! welcome and the first subscriber's receipt. Faults are taken as open until whom they hit is ready again.

use super::at::{At, SECOND};
use super::devices::{Conn, Deed, How, Swarm};
use super::faults::Kind;
use super::log::{EndRecord, LogEvent, Session, What};
use super::order::told_late;
use super::records::{Records, Setup};
use super::rules::from_afar;

/// Between what happens and the times that two processes of one machine write for it.
const NEAR: i64 = 2 * SECOND;
/// Where no device says when a session began, clock faults that long before it are minded.
const UNKNOWN: i64 = 60 * SECOND;
/// Dials so near each other may be admitted in the other order.
const AT_ONCE: i64 = 5 * SECOND;

/// An end, with what the outside knows of its session.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub records: &'a Records,
    pub number: u32,
    pub session: &'a Session,
    pub conn: Option<&'a Conn>,
    pub event: &'a LogEvent,
    pub end: &'a EndRecord,
    pub reason: &'a str,
    pub detected_by: &'a str,
    pub node: &'a str,
    /// When the session began, as its device or else the log says.
    pub began: At,
    /// The decision fell between these two.
    pub from: At,
    pub to: At,
    /// When the first subscriber got it, or the end of the run.
    pub seen: At,
    /// No clock was set that wrote a time of its record.
    pub clocks: bool,
}

impl<'a> Case<'a> {
    /// The first end of this session, if it has one.
    pub fn of(records: &'a Records, number: u32) -> Option<Self> {
        let session = records.sessions.get(number);
        let event = &records.log.events[*session.ends.first()? as usize];
        let What::End { end, .. } = event.what else { return None };
        let end = &records.log.ends[end as usize];
        let conn = session.conn.map(|conn| &records.conns[conn]);
        let word = |name| records.names.text(name);
        let (node, detected_by) = (word(end.node), word(end.detected_by));
        let seen = event.seen_at.unwrap_or_else(|| records.finish());
        let afar = from_afar(detected_by);
        let whose: &[&str] = if afar { &[] } else { &[node] };
        let known = conn.map_or(end.connected_at.min(seen).before(UNKNOWN), |c| c.dial_at);
        let clocks = !records.faults.clock_was_set(whose, known.before(NEAR), seen);
        let began = match conn {
            Some(conn) => conn.dial_at,
            None if clocks => end.connected_at,
            None => At(i64::MIN),
        };
        // From afar the time may be that of the finding, or of the last that was known of the session.
        let decided = end.disconnected_at;
        let to = if clocks && !afar { seen.min(decided.after(NEAR)) } else { seen };
        let from = if clocks { decided.before(NEAR).min(to) } else { began.min(to) };
        let reason = word(end.reason);
        Some(Self {
            records,
            number,
            session,
            conn,
            event,
            end,
            reason,
            detected_by,
            node,
            began,
            from,
            to,
            seen,
            clocks,
        })
    }

    /// All ends, one of each session.
    pub fn all(records: &'a Records) -> impl Iterator<Item = Case<'a>> {
        let numbers = 0..u32::try_from(records.sessions.all().len()).unwrap_or(u32::MAX);
        numbers.filter_map(move |number| Case::of(records, number))
    }

    pub fn swarm(&self) -> Option<&'a Swarm> {
        self.conn.map(|conn| &self.records.swarms[conn.swarm as usize])
    }

    /// A fault or an act may have ended it for this reason, or for another by which the record could have it.
    pub fn explained(&self) -> bool {
        self.explains(self.reason)
    }

    pub fn explains(&self, reason: &str) -> bool {
        match reason {
            "draining" => self.drained(),
            "kicked" => self.kicked(),
            "replaced" => self.replaced(),
            "node_lost" => self.node_was_killed() || self.node_was_cut_off() || self.word_was_not_on_record(),
            "read_error" | "ping_failed" => self.network_was_hurt() || self.swarm_was_killed(),
            "pong_timeout" | "slow_consumer" => self.network_was_hurt(),
            "internal_error" => self.conn.is_none() && self.start_could_not_be_written(),
            _ => false,
        }
    }

    fn drained(&self) -> bool {
        self.records.faults.of(Kind::Drain, self.node).any(|f| f.overlaps(self.from, self.to))
    }

    fn kicked(&self) -> bool {
        self.records.kicks.iter().any(|kick| kick.session == self.session.id && kick.at <= self.to)
    }

    fn replaced(&self) -> bool {
        let device = self.conn.map_or(self.end.device, |c| c.device);
        let Some(dials) = self.records.dials.get(&device) else {
            // Not one of the devices that keep records.
            return self.conn.is_none();
        };
        let Some(conn) = self.conn else { return !dials.is_empty() };
        dials.iter().map(|place| &self.records.conns[*place]).any(|other| {
            if (other.swarm, other.number) == (conn.swarm, conn.number) || other.dial_at > self.to {
                return false;
            }
            let later = other.dial_at >= conn.dial_at;
            let at_once = other.dial_at.after(AT_ONCE) >= conn.dial_at;
            later || at_once || (self.met(other, conn) && self.either_told_late(other))
        })
    }

    /// The two connections of one device were there at the same time.
    fn met(&self, other: &Conn, conn: &Conn) -> bool {
        let gone = self.records.swarms[other.swarm as usize].gone_at;
        let over = other.end.map(|end| end.at).or(gone).unwrap_or(At::NEVER);
        over.after(NEAR) >= conn.dial_at
    }

    fn either_told_late(&self, other: &Conn) -> bool {
        told_late(self.records, self.number) || other.welcome.is_none_or(|w| w.device_seq.is_none())
    }

    fn node_was_killed(&self) -> bool {
        let faults = &self.records.faults;
        faults.of(Kind::Kill, self.node).any(|f| {
            f.begin <= self.to
                && self.began <= f.end
                && self.from <= faults.settled(self.node, f.end, self.settling())
        })
    }

    fn node_was_cut_off(&self) -> bool {
        let run = &self.records.run;
        let most = run.lease() / 5 * 4;
        self.records.faults.own_outages(self.node, &run.nodes).iter().any(|outage| {
            outage.to.since(outage.from) >= most
                && outage.from.after(most).before(NEAR) <= self.to
                && self.from <= self.records.faults.settled(self.node, outage.to, self.settling())
                && self.began <= outage.to.after(self.settling())
        })
    }

    /// It went away in good order while the record could not be written: what it had to say was with itself, and its
    /// peers had to take it for lost.
    fn word_was_not_on_record(&self) -> bool {
        let faults = &self.records.faults;
        faults.of(Kind::Drain, self.node).any(|f| {
            let before = f.begin.before(self.settling());
            f.begin <= self.to
                && self.began <= f.end
                && self.from <= faults.settled(self.node, f.end, self.settling())
                && (faults.postgres_was_away_for(self.node, before, f.end)
                    || self.own_store_was_full(before, f.end))
        })
    }

    fn start_could_not_be_written(&self) -> bool {
        let (records, from) = (self.records, self.from.before(self.settling()));
        let faults = &records.faults;
        faults.of(Kind::Full, self.node).any(|f| f.overlaps(from, self.to))
            && (records.run.setup == Setup::Embedded
                || faults.postgres_was_away_for(self.node, from, self.to))
    }

    /// The only store is on the node's own disk.
    fn own_store_was_full(&self, from: At, to: At) -> bool {
        let faults = &self.records.faults;
        self.records.run.setup == Setup::Embedded
            && faults.of(Kind::Full, self.node).any(|f| f.overlaps(from, to))
    }

    fn settling(&self) -> i64 {
        self.records.run.settling()
    }

    fn network_was_hurt(&self) -> bool {
        // A session without a welcome is of some device, wherever it is.
        let file = self.swarm().map(|s| s.file.as_str());
        let from = self.from.before(self.records.run.patience()).before(NEAR);
        let faults = &self.records.faults;
        let stood_still = |f: &super::faults::Fault| {
            f.kind == Kind::Stop && f.whom.iter().any(|w| self.swarm().is_some_and(|s| s.is(w)))
        };
        faults.way_was_hurt(self.node, "devices", from, self.to)
            || faults.open(from, self.to).any(stood_still)
            || file.is_some_and(|file| faults.way_was_hurt(self.node, file, from, self.to))
    }

    fn swarm_was_killed(&self) -> bool {
        let Some(swarm) = self.swarm() else { return true };
        let open = self.conn.is_some_and(|c| c.end.is_none());
        open && swarm.gone_at.is_some_and(|gone| gone.before(NEAR) <= self.to)
    }

    /// What the device did before the end was told, and so may have caused it.
    pub fn deeds(&self) -> impl Iterator<Item = (At, Deed)> + '_ {
        let deeds = self.conn.map_or(&[][..], |c| &c.deeds[..]);
        deeds.iter().copied().filter(|(at, _)| *at <= self.seen)
    }

    /// The code of a close frame that the device got, where it had not sent one itself.
    pub fn told_code(&self) -> Option<u16> {
        let end = self.conn?.end?;
        let closed_itself = self.conn?.deeds.iter().any(|(_, d)| matches!(d, Deed::Close | Deed::Bye));
        end.code.filter(|_| end.how == How::CloseFrame && !closed_itself)
    }
}
