//! What the journal holds of a start, an end, a run's beginning: JSON, so that a later version can still read it and
//! an operator can look at it with the sqlite3 shell.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Connected, Disconnected};
use crate::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use crate::store::{End, Start, StoreError, Told, Write};
use crate::time::Timestamp;

/// One entry of the journal.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A run of this node began. Whatever is active under another run when this is moved was lost with that one.
    Begin(Run, Timestamp),
    Write(Write),
}

#[derive(Serialize, Deserialize)]
struct Begin {
    node_id: NodeId,
    incarnation: Incarnation,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Fact<T> {
    event_id: EventId,
    data: Arc<T>,
    /// Of a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_seq: Option<i64>,
}

impl Entry {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Entry::Begin(..) => "begin",
            Entry::Write(Write::Start(_)) => "start",
            Entry::Write(Write::End(_)) => "end",
        }
    }

    pub(crate) fn session_id(&self) -> Option<SessionId> {
        match self {
            Entry::Begin(..) => None,
            Entry::Write(Write::Start(start)) => Some(start.data.session_id),
            Entry::Write(Write::End(end)) => Some(end.data.session_id),
        }
    }

    pub(crate) fn to_json(&self) -> Result<String, StoreError> {
        let json = match self {
            Entry::Begin(Run { node_id, incarnation }, at) => {
                serde_json::to_string(&Begin { node_id: node_id.clone(), incarnation: *incarnation, at: *at })
            }
            Entry::Write(Write::Start(Start { event_id, data, after_seq, .. })) => {
                let after_seq = Some(*after_seq);
                serde_json::to_string(&Fact { event_id: *event_id, data: data.clone(), after_seq })
            }
            Entry::Write(Write::End(End { event_id, data })) => {
                serde_json::to_string(&Fact { event_id: *event_id, data: data.clone(), after_seq: None })
            }
        };
        json.map_err(|error| StoreError::Broken(format!("a journal entry cannot be written: {error}")))
    }

    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn from_json(kind: &str, json: &str, told: Told) -> Result<Self, String> {
        let bad = |error: serde_json::Error| error.to_string();
        match kind {
            "begin" => {
                let Begin { node_id, incarnation, at } = serde_json::from_str(json).map_err(bad)?;
                Ok(Entry::Begin(Run { node_id, incarnation }, at))
            }
            "start" => {
                let Fact::<Connected> { event_id, data, after_seq } =
                    serde_json::from_str(json).map_err(bad)?;
                let after_seq = after_seq.unwrap_or_default();
                Ok(Entry::Write(Write::Start(Start { event_id, data, after_seq, told })))
            }
            "end" => {
                let Fact::<Disconnected> { event_id, data, .. } = serde_json::from_str(json).map_err(bad)?;
                Ok(Entry::Write(Write::End(End { event_id, data })))
            }
            other => Err(format!("{other:?} is no kind of entry")),
        }
    }
}
