//! What is written to the record, and what becomes of it.

use std::sync::Arc;

use crate::event::{Connected, Disconnected, Event};
use crate::ids::EventId;

/// One fact for the record.
#[derive(Debug, Clone)]
pub enum Write {
    Start(Start),
    End(End),
}

/// A session was admitted.
#[derive(Debug, Clone)]
pub struct Start {
    pub event_id: EventId,
    pub data: Arc<Connected>,
    /// The newest event that the node knew of when it let the device in. A session that had begun by then is the older
    /// one, whatever the clocks say.
    pub after_seq: i64,
    pub told: Told,
}

/// When a start is told. It matters where its device has come to another node as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// As it happens; nobody is welcome yet.
    Now,
    /// The device was welcomed while the store was away. If it has come elsewhere since, that stands.
    Late,
    /// Late, and its end with it: it takes its device's place from nobody.
    Past,
}

/// A session ended.
#[derive(Debug, Clone)]
pub struct End {
    pub event_id: EventId,
    pub data: Arc<Disconnected>,
}

/// What became of one [`Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// On the record, with this place in the device's order. Also the answer to a start that was there already.
    Recorded { device_seq: i64 },
    /// An end that found no active session under its incarnation: another end stands. Or a start that came too late:
    /// its device has gone elsewhere since, and of this session nothing is on the record.
    Superseded,
}

/// A batch on the record.
#[derive(Debug, Default)]
pub struct Committed {
    /// One for each write, in their order.
    pub outcomes: Vec<Outcome>,
    /// In `seq` order.
    pub events: Vec<Arc<Event>>,
}
