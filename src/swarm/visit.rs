//! One connection of one device, from its dial to its end: pure.
//!
//! What happened goes in with the time, and what is to be done comes out as [`Act`]s; the loop does them. A visit is
//! kept small, for there are thousands.
//!
//! Left to the loop: the socket, and whether and when the device comes back.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;

use super::behaviour::{Behaviour, Deed, lateness, loses, phase, stay};
use super::tale::{How, Tale};
use super::wire::{Dialect, Frame, Say, Told, Welcome, ping_number};
use crate::ids::SessionId;
use crate::time::{Mono, Timestamp};

/// How long a dial may take to its welcome; dribbles take longer.
const WELCOMED_WITHIN: Duration = Duration::from_secs(15);
/// How long the other side may take to answer a close.
pub const ECHOED_WITHIN: Duration = Duration::from_secs(5);
/// A device takes the other side for gone after so many pings that did not come, and the time for a pong.
const MISSED_PINGS: u32 = 3;
/// At most one line of the record per so much time tells of unanswered pings.
const TELL_LOSSES: Duration = Duration::from_secs(10);
/// So many answers of one device may be late at once; one more is given at once, and first.
const MAX_LATE: usize = 16;

const NEVER: Mono = Mono(u64::MAX);

/// What devices of one swarm have in common.
#[derive(Debug, Clone)]
pub struct Habits {
    pub seed: u64,
    pub stay: (Duration, Duration),
    /// Median of the lateness of [`Behaviour::Late`].
    pub jitter: Duration,
    /// The share of pings that [`Behaviour::Lossy`] leaves unanswered.
    pub loss: f64,
    /// The time from one of the device's own pings to the next.
    pub ping: Option<Duration>,
    pub heartbeat: Option<Duration>,
    pub dialect: Dialect,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    Say(Say),
    Did(Deed),
    /// A ping was deliberately left unanswered, and it is time to say so.
    TellLoss,
    Welcomed(Welcome),
    /// The device's own ping, or heartbeat, came back after so long.
    PingTook(Duration),
    HeartbeatTook(Duration),
    /// Lastpong did not understand something.
    NotUnderstood,
    /// The device dials once more, beside this connection.
    Again,
    /// The socket is to be reset when it is closed.
    Linger,
    /// The session is over: close the socket.
    End(How, Option<u16>),
    /// There was no welcome, for this reason: close the socket.
    Fail(&'static str, Option<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialling,
    Live,
    /// A close frame or a bye was sent.
    Leaving,
    Over,
}

#[derive(Debug)]
struct LatePong {
    due: Mono,
    came: Mono,
    came_at: Timestamp,
    payload: BytesMut,
}

/// A moment of the loop: when the kernel told what is being handled, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub mono: Mono,
    pub wall: Timestamp,
}

#[derive(Debug)]
pub struct Visit {
    /// Unique in this process.
    pub number: u64,
    pub device: u32,
    /// Which of the device's visits it is.
    visit: u32,
    pub behaviour: Behaviour,
    stage: Stage,
    deed: Option<Deed>,
    pub session: SessionId,
    pong_timeout_ms: u32,
    /// A device that hears nothing for so long gives its connection up.
    patience: Duration,
    heard_at: Mono,
    pub dialled_at: Mono,
    deed_at: Mono,
    ping_at: Mono,
    beat_at: Mono,
    limit_at: Mono,
    loss_told_at: Mono,
    pub tale: Tale,
    late: VecDeque<LatePong>,
}

impl Visit {
    pub fn new(number: u64, device: u32, visit: u32, behaviour: Behaviour, now: Mono) -> Self {
        let within = if behaviour == Behaviour::Slow { WELCOMED_WITHIN * 2 } else { WELCOMED_WITHIN };
        Self {
            number,
            device,
            visit,
            behaviour,
            stage: Stage::Dialling,
            deed: None,
            session: SessionId(uuid::Uuid::nil()),
            pong_timeout_ms: 0,
            patience: Duration::ZERO,
            heard_at: now,
            dialled_at: now,
            deed_at: NEVER,
            ping_at: NEVER,
            beat_at: NEVER,
            limit_at: now + within,
            loss_told_at: Mono(0),
            tale: Tale::default(),
            late: VecDeque::new(),
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Leaving)
    }

    /// Reads nothing more.
    pub fn is_deaf(&self) -> bool {
        self.deed == Some(Deed::Deaf)
    }

    /// Whether the device took the other side for gone, and had done nothing else before.
    pub fn gave_up(&self) -> bool {
        self.deed == Some(Deed::GaveUp)
    }

    /// Whether the device did nothing that may end its session: it answered all, and in time. To give up is what it has to
    /// do where it is told nothing more, and none of its doing.
    pub fn did_nothing(&self) -> bool {
        (self.deed.is_none() || self.gave_up())
            && self.tale.lost == 0
            && self.late.is_empty()
            && self.tale.slowest_us < self.pong_timeout_ms.saturating_mul(1_000)
    }

    /// When the oldest ping came that was never answered, deliberately or not; `unwritten` is that of pongs that did not
    /// leave this machine.
    pub fn owed_since(&self, unwritten: Option<Timestamp>) -> Option<i64> {
        let lost = (self.tale.lost_since != 0).then_some(self.tale.lost_since);
        let late = self.late.front().map(|l| l.came_at.0);
        [lost, late, unwritten.map(|t| t.0)].into_iter().flatten().min()
    }

    /// When [`Visit::on_time`] is to be called next.
    pub fn next_due(&self) -> Mono {
        let late = self.late.front().filter(|_| self.stage == Stage::Live).map_or(NEVER, |l| l.due);
        self.deed_at.min(self.ping_at).min(self.beat_at).min(self.limit_at).min(late).min(self.gives_up_at())
    }

    /// When the device takes the other side for gone, unless it hears from it.
    fn gives_up_at(&self) -> Mono {
        let waits = self.stage == Stage::Live && !self.is_deaf();
        if waits { self.heard_at + self.patience } else { NEVER }
    }

    pub fn on_frame(&mut self, frame: Frame, turn: Turn, habits: &Habits, acts: &mut Vec<Act>) {
        self.heard_at = turn.mono;
        match frame {
            Frame::Ping(payload) => self.on_ping(payload, turn, habits, acts),
            Frame::Pong(payload) => {
                acts.extend(ping_number(&payload).map(|sent| Act::PingTook(turn.mono.since(Mono(sent)))));
            }
            Frame::Text(text) => match Told::parse(&text) {
                Told::Welcome(welcome) if self.stage == Stage::Dialling => {
                    self.on_welcome(welcome, turn, habits, acts);
                }
                Told::Ack(sent) => acts.push(Act::HeartbeatTook(turn.mono.since(Mono(sent)))),
                Told::Error => acts.push(Act::NotUnderstood),
                Told::Welcome(_) | Told::Other => {}
            },
            Frame::Close(code) => self.on_close(code, acts),
            Frame::Other => {}
        }
    }

    fn on_welcome(&mut self, welcome: Welcome, turn: Turn, habits: &Habits, acts: &mut Vec<Act>) {
        let (seed, device, visit) = (habits.seed, self.device, self.visit);
        self.stage = Stage::Live;
        self.session = welcome.session;
        self.pong_timeout_ms = welcome.pong_timeout_ms;
        self.patience = MISSED_PINGS * welcome.ping_interval() + welcome.pong_timeout();
        self.tale.welcome_at = turn.wall.0;
        self.limit_at = NEVER;
        if self.behaviour.deed().is_some() {
            self.deed_at = turn.mono + stay(seed, device, visit, self.behaviour, habits.stay);
        }
        let first =
            |period: Option<Duration>| period.map_or(NEVER, |p| turn.mono + phase(seed, device, visit, p));
        (self.ping_at, self.beat_at) = (first(habits.ping), first(habits.heartbeat));
        acts.push(Act::Welcomed(welcome));
    }

    fn on_ping(&mut self, payload: BytesMut, turn: Turn, habits: &Habits, acts: &mut Vec<Act>) {
        self.tale.pings += 1;
        // After a close frame nothing more is said (RFC 6455 section 5.5.1).
        if self.deed == Some(Deed::Silent) || self.stage == Stage::Leaving {
            return self.lose(turn);
        }
        // Another number for each ping of each visit.
        let n = self.visit.wrapping_mul(65_537).wrapping_add(self.tale.pings);
        match self.behaviour {
            Behaviour::Lossy if loses(habits.seed, self.device, n, habits.loss) => {
                self.lose(turn);
                if self.loss_told_at == Mono(0) || turn.mono.since(self.loss_told_at) >= TELL_LOSSES {
                    self.loss_told_at = turn.mono;
                    acts.push(Act::TellLoss);
                }
            }
            Behaviour::Late => {
                let due = turn.mono + lateness(habits.seed, self.device, n, habits.jitter);
                let late = &mut self.late;
                // In the order in which the pings came, so that the first in the queue is owed the longest.
                let due = late.back().map_or(due, |last| due.max(last.due));
                if late.len() == MAX_LATE {
                    acts.extend(late.pop_front().map(|l| Act::Say(Say::Pong(l.payload))));
                }
                // A copy: a slice of the read buffer would keep all of it.
                let payload = BytesMut::from(&payload[..]);
                late.push_back(LatePong { due, came: turn.mono, came_at: turn.wall, payload });
            }
            _ => acts.push(Act::Say(Say::Pong(payload))),
        }
    }

    fn lose(&mut self, turn: Turn) {
        self.tale.lost += 1;
        if self.tale.lost_since == 0 {
            self.tale.lost_since = turn.wall.0;
        }
    }

    fn on_close(&mut self, code: Option<u16>, acts: &mut Vec<Act>) {
        // A close of our own is answered by this one; a bye is not.
        if self.deed != Some(Deed::Close) {
            acts.push(Act::Say(Say::Close(code)));
        }
        let was_live = self.is_live();
        self.stage = Stage::Over;
        acts.push(match was_live {
            true => Act::End(How::CloseFrame, code),
            false => Act::Fail("closed before the welcome", code),
        });
    }

    /// Does all that is due.
    pub fn on_time(&mut self, now: Mono, habits: &Habits, acts: &mut Vec<Act>) {
        while self.stage == Stage::Live
            && self.late.front().is_some_and(|l| l.due <= now)
            && let Some(pong) = self.late.pop_front()
        {
            acts.push(Act::Say(Say::Pong(pong.payload)));
            self.note_slowest(now.since(pong.came));
        }
        if self.ping_at <= now {
            self.ping_at = habits.ping.map_or(NEVER, |p| now + p);
            acts.push(Act::Say(Say::Ping(now.0)));
        }
        if self.beat_at <= now {
            self.beat_at = habits.heartbeat.map_or(NEVER, |p| now + p);
            acts.push(Act::Say(Say::Heartbeat(habits.dialect, now.0)));
        }
        if self.deed_at <= now
            && let Some(deed) = self.behaviour.deed()
        {
            self.deed_at = NEVER;
            self.perform(deed, now, habits, acts);
        }
        if self.gives_up_at() <= now {
            self.perform(Deed::GaveUp, now, habits, acts);
        }
        if self.limit_at <= now {
            self.limit_at = NEVER;
            let was_live = self.is_live();
            self.stage = Stage::Over;
            acts.push(match was_live {
                true => Act::End(How::Own, None),
                false => Act::Fail("no welcome in time", None),
            });
        }
    }

    fn perform(&mut self, deed: Deed, now: Mono, habits: &Habits, acts: &mut Vec<Act>) {
        if deed == Deed::Again {
            // Nothing happened to this session; it is replaced, or else the device tries once more.
            self.deed_at = now + stay(habits.seed, self.device, self.visit, self.behaviour, habits.stay);
            return acts.push(Act::Again);
        }
        // One that gives up has done so because of what it did before, if it did anything.
        if deed != Deed::GaveUp || self.deed.is_none() {
            self.deed = Some(deed);
        }
        match deed {
            Deed::Close => return self.close(now, acts),
            Deed::Silent | Deed::Deaf => self.quieten(),
            Deed::Reset => acts.extend([Act::Linger, Act::Did(deed), Act::End(How::Own, None)]),
            Deed::Vanish | Deed::GaveUp => acts.extend([Act::Did(deed), Act::End(How::Own, None)]),
            Deed::Bye => {
                self.quieten();
                self.stage = Stage::Leaving;
                self.limit_at = now + ECHOED_WITHIN;
                acts.extend([Act::Say(Say::Bye), Act::Did(deed)]);
            }
            Deed::Again => {}
        }
        match deed {
            Deed::Silent | Deed::Deaf => acts.push(Act::Did(deed)),
            Deed::Reset | Deed::Vanish | Deed::GaveUp => self.stage = Stage::Over,
            Deed::Close | Deed::Bye | Deed::Again => {}
        }
    }

    fn close(&mut self, now: Mono, acts: &mut Vec<Act>) {
        self.quieten();
        self.stage = Stage::Leaving;
        self.limit_at = now + ECHOED_WITHIN;
        acts.extend([Act::Say(Say::Close(Some(1000))), Act::Did(Deed::Close)]);
    }

    /// Says nothing more of its own.
    fn quieten(&mut self) {
        (self.deed_at, self.ping_at, self.beat_at) = (NEVER, NEVER, NEVER);
    }

    /// The run is over: a live device that reads closes, and a dial is given up.
    pub fn leave(&mut self, now: Mono, acts: &mut Vec<Act>) {
        match self.stage {
            Stage::Dialling => {
                self.stage = Stage::Over;
                acts.push(Act::Fail("left before the welcome", None));
            }
            Stage::Live if !self.is_deaf() => {
                self.deed = Some(Deed::Close);
                self.close(now, acts);
            }
            Stage::Live | Stage::Leaving | Stage::Over => {}
        }
    }

    /// So many pongs left this machine, the first of them for a ping that was readable at `since`.
    pub fn pongs_written(&mut self, count: u32, since: Mono, now: Mono, wall: Timestamp) {
        self.tale.pongs += count;
        self.tale.last_pong_at = wall.0;
        self.note_slowest(now.since(since));
    }

    fn note_slowest(&mut self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.tale.slowest_us = self.tale.slowest_us.max(us);
    }
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;
