//! What a device may send: how often, how much, and how it ends where it sends more.
//!
//! What came while this node stood still comes all at once, and not for the device's haste: it is not counted.

use crate::metrics::Limit;
use crate::reason::{DetectedBy, Reason};
use crate::time::Mono;

use super::frames::Violation;
use super::life::{Farewell, Session};

impl Session {
    /// Counts a frame from the device. False where it was one too many and ended the session.
    pub fn count_frame(&self, now: Mono) -> bool {
        if self.house.frames_per_sec == 0 || self.house.roster.is_catching_up(now) {
            return true;
        }
        let mut frames = self.frames.get();
        if frames.take(self.house.frames_per_sec, now).is_err() {
            self.house.metrics().messages.refused.inc();
            self.house.metrics().limited(Limit::FramesPerSec);
            self.end(Reason::RateLimited, DetectedBy::Socket);
            return false;
        }
        self.frames.set(frames);
        true
    }

    /// Counts what was read, before it is looked at.
    pub fn count_bytes(&self, count: usize, now: Mono) {
        let (per_sec, at_once) = (self.house.bytes_per_sec, self.house.bytes_at_once);
        if per_sec == 0 || self.house.roster.is_catching_up(now) {
            return;
        }
        let mut bytes = self.bytes.get();
        if bytes.take_all(count as u64, per_sec, at_once, now).is_err() {
            self.house.metrics().messages.refused.inc();
            self.house.metrics().limited(Limit::BytesPerSec);
            self.end(Reason::RateLimited, DetectedBy::Socket);
        }
        self.bytes.set(bytes);
    }

    /// Ends the session where its device began a message and did not finish it in time. Says whether it did.
    pub fn is_overdue(&self, now: Mono) -> bool {
        let late = || {
            let since = self.socket().unfinished_since();
            since.is_some_and(|since| now.since(since) >= self.house.message_timeout)
        };
        if !late() || self.house.roster.is_catching_up(now) {
            return false;
        }
        // The rest may lie here unread.
        self.hear_out();
        if !late() || self.has_ended() {
            return self.has_ended();
        }
        self.house.metrics().limited(Limit::MessageTime);
        self.violated(Violation::Protocol);
        true
    }

    pub fn violated(&self, violation: Violation) {
        let house = &self.house;
        house.metrics().messages.refused.inc();
        let (reason, code) = match violation {
            Violation::Protocol => (Reason::ProtocolError, Reason::ProtocolError.close_code()),
            Violation::Utf8 => (Reason::ProtocolError, Some(1007)),
            Violation::TooBig => (Reason::MessageTooBig, Reason::MessageTooBig.close_code()),
        };
        match violation {
            Violation::TooBig => house.metrics().limited(Limit::MessageBytes),
            Violation::Protocol | Violation::Utf8 => {
                house.roster.admission().strike(self.start.remote_addr.ip(), Mono::now());
            }
        }
        self.end_with(reason, DetectedBy::Socket, code, Farewell::Close(code));
    }
}
