//! How connections end, by the device or by the server, and when devices come back.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use lastpong::swarm::backoff::{Backoff, Outcome};
use lastpong::swarm::wire;
use socket2::SockRef;

use super::conn::{Conn, Step};
use super::order::{How, Left};
use super::{Due, Load};
use crate::clock::now_us;

/// As the swarm's devices come back by default.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(500),
    max: Duration::from_secs(15),
    reconnect: true,
    stubborn: false,
};

/// Why a connection is no more.
pub enum Broken {
    Refused { status: u16, retry_after: Option<Duration> },
    Ended(Option<u16>),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Ended(None)
    }
}

impl Load {
    /// The device leaves; gives when, and its session.
    pub(super) fn leave(&mut self, place: usize, how: How) -> Option<Left> {
        let conn = self.conns.get_mut(place).filter(|conn| conn.step == Step::Ready)?;
        let left = Left { session: conn.session, at_us: now_us() };
        if how == How::Close {
            let mut frame = BytesMut::new();
            wire::Say::Close(Some(1000)).write(&mut frame);
            conn.step = Step::Leaving;
            self.told.ready -= 1;
            // What is broken here is told by the socket's next event.
            let _ = conn.send(&frame);
            return Some(left);
        }
        if how == How::Reset {
            // A socket that can not be reset is closed, which the server takes for the same end.
            let _ = SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
        }
        self.take_away(place);
        Some(left)
    }

    fn take_away(&mut self, place: usize) -> Conn {
        let conn = self.conns.remove(place);
        self.devices[conn.device as usize].place = None;
        match conn.step {
            Step::Ready => self.told.ready -= 1,
            Step::Leaving => {}
            _ => self.pending -= 1,
        }
        conn
    }

    pub(super) fn broken(&mut self, place: usize, broken: Broken) {
        if !self.conns.contains(place) {
            return;
        }
        let conn = self.take_away(place);
        let outcome = match (conn.step, broken) {
            (Step::Leaving, _) => return,
            (Step::Ready, _) if conn.silent => return self.found_silent(&conn),
            (Step::Ready, Broken::Ended(code)) => {
                self.told.lost += 1;
                if !self.comes_back(conn.device) {
                    return;
                }
                Outcome::Ended { code }
            }
            (_, Broken::Refused { status, retry_after }) => {
                *self.told.refused.entry(status).or_default() += 1;
                Outcome::Refused { retry_after }
            }
            (_, Broken::Ended(code)) => {
                self.told.failed += 1;
                Outcome::Failed { code }
            }
        };
        self.come_back(conn.device, outcome);
    }

    /// The device dials again when the server's advice and its own backoff say so.
    pub(super) fn come_back(&mut self, device: u32, outcome: Outcome) {
        let known = &mut self.devices[device as usize];
        let delay = BACKOFF.next(outcome, known.failures, &mut self.rng);
        known.failures += 1;
        if let Some(delay) = delay {
            self.timers.push(Reverse((self.now + delay.as_micros() as u64, Due::Dial(device))));
        }
    }
}
