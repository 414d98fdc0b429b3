//! What the registry is asked, and what it answers.

use actix::Message;

use crate::ids::{DeviceId, SessionId};
use crate::store::{HeardPage, Write};

/// Put these on the record, in this order, after all that came before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Record(pub Vec<Write>);

/// A batch is on the record, and its events are with the feed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Recorded {
    /// The sessions that may be welcomed, with their place in their device's order where it is known already.
    pub starts: Vec<(DeviceId, SessionId, Option<i64>)>,
    /// How many writes the batch had.
    pub writes: usize,
}

/// When sessions were last heard. May be lost: the next page of its number makes up for it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Heard(pub HeardPage);

/// Answers when all that was asked before is on the record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Answer to this root supervisor from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Report(pub actix::Recipient<Recorded>);
