//! Could that explain this? For an end, whether a fault or an act that may end a session was there to do so.
//!
//! | reason | explained by |
//! | --- | --- |
//! | `draining` | its node was told to stop |
//! | `kicked` | the operator asked for it before |
//! | `replaced` | its device dialled again before: see `replaced` |
//! | `node_lost` | its node was killed, and not before its incarnation was there; or stood still or was cut off from Postgres for most of a lease, while a peer was not; or went away in good order while Postgres was away, so that its word was not on the record |
//! | `read_error`, `ping_failed`, `pong_timeout`, `slow_consumer` | the network between device and node was hurt; the device's process stood still |
//! | `internal_error` | it was never welcomed, for its start could not be written: the disk was full, and Postgres away or slow |
//! | `read_error`, `ping_failed` | the device's process was killed: the kernel ends its sockets |
//!
//! Nothing else ends a session in good faith. In particular no fault of Postgres or Redis alone does, nor load, floods,
//! clocks or full disks, nor a stop of the node for less than a lease.
//!
//! When an end was decided is known by its `disconnected_at` where no clock was set; else by when the device's socket ended,
//! whose clock is right; and where that is not known only to lie between the welcome and the first subscriber's receipt.
//! How long an outage was is counted until its cause was gone; what settles does so once whom it hit is ready again.

use super::at::{At, SECOND};
use super::devices::{Conn, ConnEnd, Deed, How, Swarm};
use super::faults::{Fault, Kind};
use super::log::{EndRecord, LogEvent, Session, What};
use super::records::{Records, Setup};
use super::replaced::was_replaced;
use super::rules::from_afar;

/// Between what happens and the times that two processes of one machine write for it.
pub const NEAR: i64 = 2 * SECOND;
/// Where no device says when a session began, clock faults that long before it are minded.
const UNKNOWN: i64 = 60 * SECOND;
/// A kill lasts at least so long: before that nothing new can have started.
const SHORTEST_KILL: i64 = SECOND / 2;

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
        let (from, to) = match conn.and_then(|c| c.end).filter(|_| !clocks) {
            Some(end) => by_device(records, &end, afar, from, seen),
            None => (from, to),
        };
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
            "replaced" => was_replaced(self),
            "node_lost" => self.node_was_killed() || self.node_was_cut_off() || self.word_was_not_on_record(),
            "read_error" | "ping_failed" => self.network_was_hurt() || self.swarm_was_killed(),
            "pong_timeout" | "slow_consumer" => self.network_was_hurt(),
            "internal_error" => self.conn.is_none() && self.start_could_not_be_written(),
            _ => false,
        }
    }

    fn drained(&self) -> bool {
        let mut drains = self.records.faults.of(Kind::Drain, self.node);
        drains.any(|f| f.begin <= self.to && f.healed >= self.from && self.began <= f.healed)
    }

    fn kicked(&self) -> bool {
        self.records.kicks.iter().any(|kick| kick.session == self.session.id && kick.at <= self.to)
    }

    /// What ended the incarnation of its node that it was held by: the first kill or drain that came after it was there.
    fn incarnation_ended_by(&self) -> Option<&'a Fault> {
        let records = self.records;
        let start = &records.log.events[*self.session.starts.first()? as usize];
        let first = match start.what {
            What::Start { node, incarnation: Some(incarnation), .. } => {
                records.incarnations.get(&(node, incarnation)).copied()?
            }
            _ => self.began,
        };
        let ends = |f: &&Fault| matches!(f.kind, Kind::Kill | Kind::Drain) && f.hits(self.node);
        let mut later = records.faults.all().iter().filter(ends);
        later.find(|f| f.begin.after(SHORTEST_KILL) >= first)
    }

    fn node_was_killed(&self) -> bool {
        let faults = &self.records.faults;
        self.incarnation_ended_by().is_some_and(|f| {
            f.kind == Kind::Kill
                && f.begin <= self.to
                && self.from <= faults.settled(self.node, f.end, self.settling())
        })
    }

    fn node_was_cut_off(&self) -> bool {
        let run = &self.records.run;
        let most = run.lease() / 5 * 4;
        self.records.faults.own_outages(self.node, &run.nodes).iter().any(|outage| {
            outage.to.since(outage.from) >= most
                && outage.from.after(most).before(NEAR) <= self.to
                && self.from <= self.records.faults.settled(self.node, outage.ready, self.settling())
                && self.began <= outage.to.after(NEAR)
        })
    }

    /// It went away in good order while the record could not be written: what it had to say was with itself, and its
    /// peers had to take it for lost.
    fn word_was_not_on_record(&self) -> bool {
        let faults = &self.records.faults;
        self.incarnation_ended_by().is_some_and(|f| {
            let before = f.begin.before(self.settling());
            f.kind == Kind::Drain
                && f.begin <= self.to
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
                || faults.postgres_was_away_for(self.node, from, self.to)
                || records.was_slow(from, self.to))
    }

    /// The only store is on the node's own disk.
    fn own_store_was_full(&self, from: At, to: At) -> bool {
        let faults = &self.records.faults;
        self.records.run.setup == Setup::Embedded
            && faults.of(Kind::Full, self.node).any(|f| f.overlaps(from, to))
    }

    pub fn settling(&self) -> i64 {
        self.records.run.settling()
    }

    fn network_was_hurt(&self) -> bool {
        // A session without a welcome is of some device, wherever it is.
        let file = self.swarm().map(|s| s.file.as_str());
        let from = self.from.before(self.records.run.patience()).before(NEAR);
        let faults = &self.records.faults;
        let stood_still =
            |f: &Fault| f.kind == Kind::Stop && f.whom.iter().any(|w| self.swarm().is_some_and(|s| s.is(w)));
        faults.way_was_hurt(self.node, "devices", from, self.to)
            || faults.open(from, self.to).any(stood_still)
            || file.is_some_and(|file| faults.way_was_hurt(self.node, file, from, self.to))
    }

    /// Why a device that gave up its connection heard nothing for so long: the network was hurt, its node or its own
    /// process was not there, or all cores were busy and the node came to ask late.
    pub fn silence_explained(&self, gave_up: At) -> bool {
        let faults = &self.records.faults;
        let from = gave_up.before(self.records.run.given_up_after()).before(NEAR);
        let file = self.swarm().map_or("", |s| s.file.as_str());
        let absent = |f: &Fault| match f.kind {
            Kind::Stop | Kind::Kill | Kind::Drain if f.hits(self.node) => true,
            Kind::Load => true,
            Kind::Stop => f.whom.iter().any(|w| self.swarm().is_some_and(|s| s.is(w))),
            _ => false,
        };
        faults.way_was_hurt(self.node, "devices", from, gave_up)
            || faults.way_was_hurt(self.node, file, from, gave_up)
            || faults.open(from, gave_up).any(absent)
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

/// When an end was decided, by when its socket ended, where the record's own time is of a clock that was set: the holder
/// closes it at once, others may have known earlier or later, and a device that ends it itself may be the last to know.
fn by_device(records: &Records, end: &ConnEnd, afar: bool, began: At, seen: At) -> (At, At) {
    let run = &records.run;
    let closed_by_holder = !afar && !matches!(end.how, How::Itself | How::Left);
    let earlier = match (afar, end.how) {
        (true, _) => run.patience().saturating_add(run.settling()),
        (false, How::Itself) => run.patience().saturating_add(run.given_up_after()),
        (false, How::Left) => return (began, seen),
        (false, _) => run.patience(),
    };
    let to = if closed_by_holder { seen.min(end.at.after(NEAR)) } else { seen };
    (end.at.before(earlier).max(began).min(to), to)
}
