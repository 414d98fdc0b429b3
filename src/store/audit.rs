//! The audit: what operators did, who, when and from where.
//!
//! - [`Book::note`] is durable when it returns: on the record, or in the node's journal while the record cannot be
//!   written. What waits there is moved by [`Book::move_waiting`]; an entry that was moved twice is there once. One that
//!   the record will not have stays in the journal, and holds up no other.
//! - Entries are never changed, and leave by retention alone.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::journal::Journal;
use super::{Store, StoreError};
use crate::ids::{AuditId, NodeId};
use crate::time::Timestamp;

/// Entries moved out of the journal in one go.
const MOVE: usize = 100;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Kick,
    Ban,
    Lift,
    Mint,
    Revoke,
    Drain,
    Undrain,
    LogFilter,
    UserAdd,
    UserPassword,
    UserRemove,
}

impl Action {
    pub const ALL: &[Action] = &[
        Action::Kick,
        Action::Ban,
        Action::Lift,
        Action::Mint,
        Action::Revoke,
        Action::Drain,
        Action::Undrain,
        Action::LogFilter,
        Action::UserAdd,
        Action::UserPassword,
        Action::UserRemove,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Kick => "kick",
            Action::Ban => "ban",
            Action::Lift => "lift",
            Action::Mint => "mint",
            Action::Revoke => "revoke",
            Action::Drain => "drain",
            Action::Undrain => "undrain",
            Action::LogFilter => "log_filter",
            Action::UserAdd => "user_add",
            Action::UserPassword => "user_password",
            Action::UserRemove => "user_remove",
        }
    }
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub id: AuditId,
    pub at: Timestamp,
    /// A user's name; or words that are none, for they have a space.
    pub actor: String,
    /// From where; none for the command line.
    #[schema(value_type = Option<String>)]
    pub remote_addr: Option<IpAddr>,
    pub action: Action,
    /// To what it was done.
    pub target: String,
    pub detail: Option<String>,
    /// The node that was asked.
    pub node: NodeId,
}

/// Who does something where, before it is said what.
#[derive(Debug, Clone)]
pub struct Signature {
    pub actor: String,
    pub remote_addr: Option<IpAddr>,
    pub node: NodeId,
}

impl Signature {
    /// An entry of this moment.
    pub fn entry(self, action: Action, target: impl ToString, detail: Option<String>) -> Entry {
        let Self { actor, remote_addr, node } = self;
        let (id, at, target) = (AuditId::new(), Timestamp::now(), target.to_string());
        Entry { id, at, actor, remote_addr, action, target, detail, node }
    }
}

impl Entry {
    /// Tells the log: whatever becomes of the record, who reads that knows as well.
    pub fn tell(&self) {
        log::info!(actor = self.actor.as_str(), action = self.action.as_str(), target = self.target.as_str(),
            from:? = self.remote_addr, detail = self.detail.as_deref().unwrap_or_default(); "an operator acts");
    }
}

/// Where entries are written. Cheap to clone.
#[derive(Clone)]
pub struct Book {
    store: Store,
    journal: Option<Journal>,
}

impl Book {
    pub fn new(store: Store, journal: Option<Journal>) -> Self {
        Self { store, journal }
    }

    /// Writes an entry down before what it says is done.
    ///
    /// # Errors
    /// It is durable nowhere: nothing may be done.
    pub async fn note(&self, entry: Entry) -> Result<(), StoreError> {
        entry.tell();
        let noted = self.store.note(entry.clone()).await;
        match (&noted, &self.journal) {
            (Err(StoreError::Retry(_)), Some(journal)) => journal.note(entry).await,
            _ => noted,
        }
    }

    /// Moves what waits in the journal to the record; says whether there is more.
    ///
    /// # Errors
    /// It stays where it is.
    pub async fn move_waiting(&self) -> Result<bool, StoreError> {
        let Some(journal) = &self.journal else { return Ok(false) };
        let waiting = journal.notes(MOVE).await?;
        if waiting.is_empty() {
            return Ok(false);
        }
        let mut moved = Vec::with_capacity(waiting.len());
        for entry in waiting {
            let (id, action, at) = (entry.id, entry.action, entry.at);
            match self.store.note(entry).await {
                Ok(()) => moved.push(id),
                Err(StoreError::Broken(why)) => {
                    log::error!(id:% = id, action = action.as_str(), at:% = at, error = why.as_str();
                        "an entry of the audit is refused by the store; it stays in the journal");
                    journal.set_note_aside(id, why).await?;
                }
                Err(error) => return Err(error),
            }
        }
        journal.forget_notes(moved).await?;
        Ok(true)
    }
}

/// An entry's row, but for the id, whose type is each database's own.
pub(super) type AuditRow<I> = (I, i64, String, Option<String>, String, String, Option<String>, String);

pub(super) fn entry<I>(
    (id, at, actor, remote_addr, action, target, detail, node): AuditRow<I>,
    read: impl Fn(I) -> Result<AuditId, StoreError>,
) -> Result<Entry, StoreError> {
    let known = Action::ALL.iter().copied().find(|known| known.as_str() == action);
    let address = |text: String| text.parse().map_err(|_| StoreError::bad_row("audit", "remote_addr", &text));
    Ok(Entry {
        id: read(id)?,
        at: Timestamp(at),
        actor,
        remote_addr: remote_addr.map(address).transpose()?,
        action: known.ok_or_else(|| StoreError::bad_row("audit", "action", &action))?,
        target,
        detail,
        node: node.parse().map_err(|_| StoreError::bad_row("audit", "node_id", &node))?,
    })
}

impl Store {
    /// Adds an entry; one that is there already stays as it is.
    pub async fn note(&self, entry: Entry) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.note(entry).await,
            Store::Postgres(s) => s.note(entry).await,
        }
    }

    /// Up to `limit` entries, the newest first, from those before `before`.
    pub async fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        match self {
            Store::Sqlite(s) => s.audit(before, limit).await,
            Store::Postgres(s) => s.audit(before, limit).await,
        }
    }

    pub async fn audit_total(&self) -> Result<u64, StoreError> {
        match self {
            Store::Sqlite(s) => s.audit_total().await,
            Store::Postgres(s) => s.audit_total().await,
        }
    }

    /// Forgets up to `batch` entries that are older than `older_than`. Says how many.
    pub async fn forget_audit(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        match self {
            Store::Sqlite(s) => s.forget_audit(older_than, batch).await,
            Store::Postgres(s) => s.forget_audit(older_than, batch).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_one_name() {
        for action in Action::ALL {
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        }
    }
}
