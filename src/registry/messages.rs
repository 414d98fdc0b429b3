//! What the registry is asked, and what it answers.

use actix::Message;

use crate::ids::{DeviceId, Run, SessionId};
use crate::store::{HeardPage, Write};

/// Put these on the record, in this order, after all that came before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Record(pub Vec<Write>);

/// A batch is durable. Where it is on the record already, its events are with the feed; where it is in the journal,
/// they follow when it is moved.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct Recorded {
    /// The sessions that may be welcomed, with their place in their device's order where it is known already.
    pub starts: Vec<(DeviceId, SessionId, Option<i64>)>,
    /// The sessions that came too late: their devices have gone to another node since.
    pub overtaken: Vec<(DeviceId, SessionId)>,
    /// How many writes the batch had.
    pub writes: usize,
}

/// When sessions were last heard. May be lost: the next page of its number makes up for it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Heard(pub HeardPage);

/// Answers when all that was asked before is durable, be it in the journal.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Answer to this root supervisor from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Report(pub actix::Recipient<Recorded>);

/// This run was declared lost by another node, which has ended its sessions: nothing more is written until
/// [`Reborn`]. Told again while that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Fenced(pub Run);

/// The store knows of this run: its lease is to be renewed from now on.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Begun(pub Run);

/// Tell these of [`Fenced`] and of [`Begun`] from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReportRuns {
    pub fenced: actix::Recipient<Fenced>,
    pub begun: actix::Recipient<Begun>,
}

/// The node goes on as this run. Starts of earlier runs that are not durable yet are dropped, and counted in the next
/// [`Recorded::writes`]; what is active under those runs ends as lost. Says nothing new where it is the run already.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reborn(pub Run);

/// Answers when writes go to the store directly again: the run is known there and the journal is drained. With an
/// error, in one line, as soon as the store or the journal has refused something.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), String>")]
pub struct WhenDrained;
