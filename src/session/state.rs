//! The life of one session, as a pure machine: what happened and when go in, what to do comes out.
//!
//! ```text
//!              recorded()              deadline, no pong              deadlines, max_missed in a row
//!   Starting ─────────────▶ Live ───────────────────────▶ Suspect ─────────────────────────────────┐
//!      │                     ▲  ◀───────────────────────     │                                      │
//!      │                     │          any pong             │                                      ▼
//!      └─────────────────────┴───────────── end() ───────────┴──────────────────────────────────▶ Ended
//! ```
//!
//! - At most one ping is outstanding for judgement: the newest. A missed pong sends another at once.
//! - Any pong proves life; only the answer to the newest ping measures a round trip, and only where this
//!   process did not stall in between (a late pong, a forged one and a pong that lay unread are no measurements).
//! - Any other frame moves `last_active` alone: answering pings is a device's one duty.
//! - Deadlines are kept in [`Attended`] time, which stands still while this process does, so that a stall of
//!   ours never counts against a device.
//! - What lies unread may be an answer: whoever asks for a verdict has read it before.
//!
//! Left out on purpose: sockets, close frames, records. The session does what [`Action`] says.

use std::time::Duration;

use crate::event::RttMs;
use crate::supervisor::clock::{Attended, Clocks};
use crate::supervisor::closeup::{Heartbeat, Outcome};
use crate::supervisor::snapshot::State;
use crate::time::{Mono, Now, millis};

/// How often a device is asked, and how long it may take.
#[derive(Debug, Clone)]
pub struct Pace {
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    /// At least 1.
    pub max_missed_pongs: u32,
    /// Ask a device by how well it answered so far, in place of `ping_interval`.
    pub adaptive: bool,
}

impl Pace {
    /// Quality is the share of pings answered, weighted to the recent ones.
    pub fn interval(&self, quality: f32) -> Duration {
        match quality {
            _ if !self.adaptive => self.ping_interval,
            q if q > 0.8 => Duration::from_secs(60),
            q if q > 0.5 => Duration::from_secs(30),
            _ => Duration::from_secs(15),
        }
    }

    /// From the ping to the verdict over a device that never answers.
    pub fn verdict(&self) -> Duration {
        self.pong_timeout * self.max_missed_pongs
    }
}

/// What the machine wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing before the next deadline.
    Wait,
    /// Send a ping with this token, then call [`Liveness::pinged`]. With `suspect`, a pong was missed.
    Ping { token: u64, suspect: bool },
    /// The device is dead: end the session as `pong_timeout`.
    Dead,
}

/// What a pong meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The round trip, where the pong answered the newest ping.
    pub rtt: Option<Duration>,
    /// The session was suspect.
    pub recovered: bool,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    token: u64,
    sent: Clocks,
}

/// One session's liveness.
#[derive(Debug, Clone)]
pub struct Liveness {
    phase: Phase,
    due: Attended,
    outstanding: Option<Outstanding>,
    missed: u32,
    quality: f32,
    connected: Mono,
    last_active: Mono,
    /// Where any pong was received.
    last_pong: Mono,
    pings_sent: u32,
    pongs_received: u32,
    rtt: Rtt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Live,
    Suspect,
    Ended,
}

/// Round trips so far, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Rtt {
    last: u32,
    min: u32,
    max: u32,
    count: u32,
    sum: u64,
}

impl Rtt {
    fn add(&mut self, rtt: Duration) {
        let us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.last = us;
        self.min = if self.count == 0 { us } else { self.min.min(us) };
        self.max = self.max.max(us);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(us.into());
    }

    fn millis(&self) -> RttMs {
        if self.count == 0 {
            return RttMs::default();
        }
        let ms = |us: u64| Some(us as f64 / 1000.0);
        RttMs {
            last: ms(self.last.into()),
            min: ms(self.min.into()),
            avg: ms(self.sum / u64::from(self.count)),
            max: ms(self.max.into()),
        }
    }
}

impl Liveness {
    /// A session that is being admitted. It is Starting until [`recorded`](Self::recorded), for at most `patience`.
    pub fn new(now: Clocks, patience: Duration) -> Self {
        Self {
            phase: Phase::Starting,
            due: now.attended + patience,
            outstanding: None,
            missed: 0,
            quality: 1.0,
            connected: now.mono,
            last_active: now.mono,
            last_pong: now.mono,
            pings_sent: 0,
            pongs_received: 0,
            rtt: Rtt::default(),
        }
    }

    /// The start is durable. The first ping comes at `phase` (0 to 1) of an interval, so that sessions that
    /// began together are not asked together. False where the session is not waiting for this.
    pub fn recorded(&mut self, now: Clocks, pace: &Pace, phase: f64) -> bool {
        if self.phase != Phase::Starting {
            return false;
        }
        self.phase = Phase::Live;
        self.due = now.attended + pace.interval(self.quality).mul_f64(phase.clamp(0.0, 1.0));
        true
    }

    /// The next deadline. It is the machine's only one, and may be asked for at any time.
    pub fn due(&self) -> Attended {
        self.due
    }

    /// The next deadline is a verdict.
    pub fn awaits_pong(&self) -> bool {
        self.outstanding.is_some() && self.is_recorded()
    }

    /// The deadline may be over. `token` is for the ping, should there be one: not to be guessed.
    pub fn on_deadline(&mut self, now: Clocks, pace: &Pace, token: u64) -> Action {
        if now.attended < self.due {
            return Action::Wait;
        }
        match self.phase {
            Phase::Ended => Action::Wait,
            Phase::Starting => Action::Dead,
            Phase::Live | Phase::Suspect if self.outstanding.is_none() => {
                Action::Ping { token, suspect: false }
            }
            Phase::Live | Phase::Suspect => {
                self.missed += 1;
                self.answered(0.0);
                if self.missed >= pace.max_missed_pongs {
                    return Action::Dead;
                }
                let suspect = self.phase == Phase::Live;
                self.phase = Phase::Suspect;
                Action::Ping { token, suspect }
            }
        }
    }

    /// The ping is on its way, or waits in the output.
    pub fn pinged(&mut self, now: Clocks, pace: &Pace, token: u64) {
        self.outstanding = Some(Outstanding { token, sent: now });
        self.pings_sent = self.pings_sent.saturating_add(1);
        self.due = now.attended + pace.pong_timeout;
    }

    /// A pong came; `token` where it has the form of ours.
    pub fn on_pong(&mut self, now: Clocks, pace: &Pace, token: Option<u64>) -> Heard {
        self.last_active = now.mono;
        self.last_pong = now.mono;
        self.pongs_received = self.pongs_received.saturating_add(1);
        self.missed = 0;
        let recovered = self.phase == Phase::Suspect;
        if recovered {
            self.phase = Phase::Live;
        }
        let Some(ping) = self.outstanding.filter(|ping| Some(ping.token) == token) else {
            return Heard { rtt: None, recovered };
        };
        self.outstanding = None;
        self.answered(1.0);
        self.due = ping.sent.attended + pace.interval(self.quality);
        let rtt = (!now.stalled_since(ping.sent)).then(|| now.mono.since(ping.sent.mono));
        if let Some(rtt) = rtt {
            self.rtt.add(rtt);
        }
        Heard { rtt, recovered }
    }

    /// A frame other than a pong came.
    pub fn on_frame(&mut self, now: Clocks) {
        self.last_active = now.mono;
    }

    /// Ends it. False where it had ended before: the first end stands.
    pub fn end(&mut self) -> bool {
        std::mem::replace(&mut self.phase, Phase::Ended) != Phase::Ended
    }

    fn answered(&mut self, share: f32) {
        self.quality += 0.2 * (share - self.quality);
    }

    /// Where it is in its life; none after its end.
    pub fn state(&self) -> Option<State> {
        match self.phase {
            Phase::Starting => Some(State::Starting),
            Phase::Live => Some(State::Live),
            Phase::Suspect => Some(State::Suspect),
            Phase::Ended => None,
        }
    }

    /// Welcomed, or about to be: its start is durable.
    pub fn is_recorded(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Suspect)
    }

    pub fn connected(&self) -> Mono {
        self.connected
    }

    pub fn last_active(&self) -> Mono {
        self.last_active
    }

    pub fn last_pong(&self) -> Option<Mono> {
        (self.pongs_received > 0).then_some(self.last_pong)
    }

    pub fn missed(&self) -> u32 {
        self.missed
    }

    pub fn pings_sent(&self) -> u32 {
        self.pings_sent
    }

    pub fn pongs_received(&self) -> u32 {
        self.pongs_received
    }

    pub fn rtt_ms(&self) -> RttMs {
        self.rtt.millis()
    }

    /// The heartbeats that are known without notes of them: the last that was answered, and the one that waits.
    pub fn beats(&self, now: &Now) -> Vec<Heartbeat> {
        let mut beats = Vec::new();
        // A pong that came while a ping waits was late: no round trip is known of it.
        let in_time = |at: &Mono| self.outstanding.is_none_or(|ping| *at <= ping.sent.mono);
        if let (Some(at), Some(rtt_ms)) = (self.last_pong().filter(in_time), self.rtt_ms().last) {
            let at = now.wall_at(Mono(at.0.saturating_sub(u64::from(self.rtt.last))));
            beats.push(Heartbeat { at, outcome: Outcome::Answered, rtt_ms: Some(rtt_ms) });
        }
        if let Some(ping) = self.outstanding.filter(|_| self.is_recorded()) {
            beats.push(Heartbeat {
                at: now.wall_at(ping.sent.mono),
                outcome: Outcome::Waiting,
                rtt_ms: None,
            });
        }
        beats
    }

    /// From the last proof of life to `now`, in milliseconds.
    pub fn silent_ms(&self, now: Mono) -> f64 {
        millis(now.since(self.last_active))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
