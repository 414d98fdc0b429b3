//! What the supervisors say to each other, and to the registry's answers.
//!
//! Facts go up from a worker in the order in which they happened; orders come down. Both travel in batches, so
//! that a storm fills few places of a mailbox.

use std::time::Duration;

use actix::Message;

use crate::ids::{DeviceId, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::revoked::Fresh;
use crate::store::{End, Start};
use crate::time::Timestamp;
use crate::token::Proof;

use super::closeup::CloseUp;

/// Where a session sits: which worker's roster, and under which key; and by what token it sits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub worker: u32,
    pub key: u32,
    // Here and not in the session, which has no use for it.
    pub proof: Proof,
}

/// What happened on a worker.
#[derive(Debug)]
pub enum Fact {
    /// A device was let in and waits for its start to be recorded.
    Arrived { key: u32, start: Start, proof: Proof },
    /// A session ended.
    Ended { end: End },
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Facts {
    pub worker: usize,
    pub facts: Vec<Fact>,
}

/// What is to be done about one session. The key may have passed to another session since: the id decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub key: u32,
    pub session_id: SessionId,
    pub what: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Its start is durable: welcome the device.
    Welcome { device_seq: Option<i64> },
    /// End it.
    End { reason: Reason, detected_by: DetectedBy },
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Orders(pub Vec<Order>);

/// A worker's supervisor is up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Enlist {
    pub worker: usize,
    pub address: actix::Recipient<Orders>,
}

/// These sessions are to end, or have been ended on the record by someone else: where this node holds them, their
/// devices are told so. The answer is how many it holds.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct EndSessions(pub Vec<ToEnd>);

#[derive(Debug, Clone)]
pub struct ToEnd {
    pub device_id: DeviceId,
    pub session_id: SessionId,
    pub reason: Reason,
    pub detected_by: DetectedBy,
}

/// Whatever sessions these devices have here are to end. The answer is how many that are.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct EndDevices {
    pub devices: Vec<DeviceId>,
    pub reason: Reason,
    pub detected_by: DetectedBy,
}

/// Whoever is here by one of these tokens is to end, as [`Reason::TokenRevoked`]. The answer is how many that are.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct EndTokens(pub Vec<Fresh>);

/// What is asked of this node's drain. The answer is how it stands then.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<DrainView, Stopping>")]
pub enum Drain {
    /// Let nobody in, and end every session, spread over a time; asked again, over the new time. `for_good` where the
    /// process stops after it.
    Begin {
        spread: Duration,
        for_good: bool,
    },
    /// Let devices in again. Who was told to end has ended.
    Undo,
    Look,
}

/// How this node's drain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainView {
    /// Sessions that have not ended.
    pub live: usize,
    /// None where it is not draining.
    pub drain: Option<DrainFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainFacts {
    /// Sessions there were when it began.
    pub of: usize,
    /// When all of them will have been told to end.
    pub until: Timestamp,
    /// The process stops after it: it is not to be changed.
    pub for_good: bool,
}

impl DrainView {
    pub fn for_good(&self) -> bool {
        self.drain.is_some_and(|drain| drain.for_good)
    }
}

/// This node drains because its process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node is stopping: its drain is not to be changed any more")]
pub struct Stopping;

/// How many sessions have not ended yet, with what of others has not gone to the registry.
#[derive(Debug, Message)]
#[rtype(usize)]
pub struct CountSessions;

/// Publish a fresh snapshot.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TakeSnapshot;

/// Look closely at the session of this key, if it is this one.
#[derive(Debug, Message)]
#[rtype(result = "Option<CloseUp>")]
pub struct LookAt {
    pub key: u32,
    pub session_id: SessionId,
}

/// There are facts to send up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Flush;
