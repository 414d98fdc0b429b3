//! What a session makes of what its device sends.

use crate::protocol::{FromDevice, NotUnderstood, ToDevice, lwp_ack};
use crate::supervisor::clock::Clocks;
use crate::supervisor::roster::Child;
use crate::supervisor::snapshot::State;
use crate::time::Now;
use crate::trace;

use super::frames::{Frame, Inbound};
use super::life::Session;
use super::poller::Owner;
use super::socket::Received;

impl Owner for Session {
    fn on_ready(&self) -> bool {
        // One reading of the clock for all that came at once.
        let now = self.house().roster.clocks();
        self.socket().on_ready(|received| self.received(now, received))
    }

    fn crashed(&self) {
        Child::crashed(self);
    }
}

impl Session {
    /// Takes in what lies unread, so that a verdict counts it: as much as the kernel holds for a socket, and no more where
    /// the device goes on sending.
    pub(super) fn hear_out(&self) {
        const READS: usize = 512;
        let mut more = self.socket().is_heard();
        for _ in 0..READS {
            if more && !self.has_ended() {
                more = self.on_ready();
            }
        }
        if more {
            self.socket().remind();
        }
    }

    fn received(&self, now: Clocks, received: Received) {
        match received {
            Received::Gone(gone) => self.gone(gone),
            Received::Frame(Inbound::Close(_)) if self.has_ended() => self.leave(),
            _ if self.has_ended() => {}
            Received::Bytes(count) => self.count_bytes(count, now.mono),
            Received::Violation(violation) => {
                self.heard_frame(now);
                self.violated(violation);
            }
            Received::Answer(token) => {
                if self.count_frame(now.mono) {
                    self.heard_pong(now, Some(token));
                }
            }
            Received::Frame(frame) => {
                self.heard_frame(now);
                self.heard(now, frame);
            }
        }
    }

    fn heard(&self, now: Clocks, frame: Inbound) {
        match frame {
            Inbound::Close(code) => self.closed_by_device(code),
            _ if !self.count_frame(now.mono) => {}
            Inbound::Pong(token) => self.heard_pong(now, token[..].try_into().ok().map(u64::from_be_bytes)),
            Inbound::Text(text) => match std::str::from_utf8(&text) {
                Ok(text) => self.heard_text(text),
                Err(_) => self.not_understood(NotUnderstood::NotJson),
            },
            Inbound::Binary(_) => self.not_understood(NotUnderstood::Binary),
            Inbound::Ping(data) => {
                self.house().metrics().messages.device_pings.inc();
                self.send(Frame::Pong(&data));
            }
            Inbound::Fragment => {}
        }
    }

    fn heard_pong(&self, now: Clocks, token: Option<u64>) {
        let house = &self.house;
        let awaited = self.liveness.borrow().awaits_pong();
        let heard = self.liveness.borrow_mut().on_pong(now, &house.pace, token);
        match heard.rtt {
            Some(rtt) => {
                log::trace!(session_id:% = self.start.session_id, rtt_ms = rtt.as_secs_f64() * 1e3; "pong");
                house.roster.counted.pongs_matched.inc();
                house.roster.counted.ping_rtt.observe(rtt.as_secs_f64());
            }
            None => house.metrics().messages.pongs_unmatched.inc(),
        }
        let in_time = awaited && !self.liveness.borrow().awaits_pong();
        house.noted.answered(self.key, in_time, heard.rtt);
        if heard.recovered {
            house.gauge(State::Suspect).dec();
            house.gauge(State::Live).inc();
            trace::noticed(self.start.session_id, "recovered");
            log::debug!(session_id:% = self.start.session_id; "recovered");
        }
        // The next ping may be nearer than the deadline that the pong has met.
        house.roster.hasten(self.key, self.due());
    }

    fn heard_text(&self, text: &str) {
        let messages = &self.house().metrics().messages;
        let answer = match FromDevice::parse(text) {
            Ok(FromDevice::Heartbeat { id }) => {
                messages.heartbeats.inc();
                messages.acks.inc();
                ToDevice::Ack { id, code: 200, server_time: Now::read().wall }.json()
            }
            Ok(FromDevice::Lwp { mid }) => {
                messages.heartbeats.inc();
                messages.acks.inc();
                lwp_ack(mid)
            }
            Ok(FromDevice::Bye) => {
                messages.byes.inc();
                return self.left();
            }
            #[cfg(feature = "chaos")]
            Ok(FromDevice::Panic) => panic!("a panic was asked for"),
            Err(why) => return self.not_understood(why),
        };
        self.send(Frame::Text(&answer));
    }

    fn not_understood(&self, why: NotUnderstood) {
        self.house().metrics().messages.errors.inc();
        let error = ToDevice::Error { code: why.code(), message: &why.to_string() };
        self.send(Frame::Text(&error.json()));
    }
}
