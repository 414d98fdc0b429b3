//! Revocations: tokens that are good no more although they have not expired, and how those who enforce it follow what
//! changes.
//!
//! - A token is revoked by its `jti`, or all of a device that were issued up to a moment. Either has one revocation at
//!   most; one given anew takes the place of the one before, with an id of its own.
//! - Every change has a `rev`, which rises in the order of commits: whoever has read the changes up to one has missed none.
//! - A revocation and the entry that says who did it are on the record together, or neither is.
//! - There is no way back: who is to come in again gets a new token.
//!
//! Left out on purpose: enforcing them. Whether a revocation is over is for the clock of whoever asks.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::audit::Entry;
use super::{Store, StoreError};
use crate::ids::{DeviceId, RevocationId};
use crate::time::Timestamp;

/// Which tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tokens {
    Jti(String),
    /// All of it that were issued up to the revocation.
    Device(DeviceId),
}

/// A revocation, as it is kept and as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Shown", try_from = "Shown")]
pub struct Revocation {
    pub id: RevocationId,
    pub tokens: Tokens,
    pub reason: Option<String>,
    /// Who revoked them.
    pub by: String,
    pub at: Timestamp,
    /// When they have expired in any case; none is never.
    pub until: Option<Timestamp>,
}

/// Some of the changes, in their order, each with its `rev`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    pub changes: Vec<(i64, Revocation)>,
    /// The last change there is.
    pub newest: i64,
}

/// A revocation: of a token, or of a device's tokens that were issued up to `at`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
struct Shown {
    id: RevocationId,
    jti: Option<String>,
    device_id: Option<DeviceId>,
    reason: Option<String>,
    by: String,
    at: Timestamp,
    until: Option<Timestamp>,
}

impl PartialSchema for Revocation {
    fn schema() -> RefOr<Schema> {
        Shown::schema()
    }
}

impl ToSchema for Revocation {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Shown::schemas(schemas);
    }
}

impl Revocation {
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Tokens {
    pub(super) fn jti(&self) -> Option<&str> {
        match self {
            Tokens::Jti(jti) => Some(jti),
            Tokens::Device(_) => None,
        }
    }

    pub(super) fn device_id(&self) -> Option<&str> {
        match self {
            Tokens::Jti(_) => None,
            Tokens::Device(id) => Some(id.as_str()),
        }
    }

    fn from_columns(jti: Option<String>, device_id: Option<DeviceId>) -> Option<Self> {
        match (jti, device_id) {
            (Some(jti), None) => Some(Tokens::Jti(jti)),
            (None, Some(device)) => Some(Tokens::Device(device)),
            _ => None,
        }
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tokens::Jti(jti) => write!(f, "token {jti}"),
            Tokens::Device(id) => write!(f, "tokens of {id}"),
        }
    }
}

impl From<Revocation> for Shown {
    fn from(Revocation { id, tokens, reason, by, at, until }: Revocation) -> Self {
        let (jti, device_id) = match tokens {
            Tokens::Jti(jti) => (Some(jti), None),
            Tokens::Device(device) => (None, Some(device)),
        };
        Self { id, jti, device_id, reason, by, at, until }
    }
}

impl TryFrom<Shown> for Revocation {
    type Error = String;

    fn try_from(Shown { id, jti, device_id, reason, by, at, until }: Shown) -> Result<Self, String> {
        let tokens = Tokens::from_columns(jti, device_id)
            .ok_or_else(|| format!("revocation {id} is not of a token or of a device"))?;
        Ok(Self { id, tokens, reason, by, at, until })
    }
}

/// A revocation's row, but for the id, whose type is each database's own: token, device, reason, who, since and until
/// when, and its change.
pub(super) type RevocationRow<I> =
    (I, Option<String>, Option<String>, Option<String>, String, i64, Option<i64>, i64);

pub(super) fn change<I>(
    (id, jti, device_id, reason, by, at, until, rev): RevocationRow<I>,
    read: impl Fn(I) -> Result<RevocationId, StoreError>,
) -> Result<(i64, Revocation), StoreError> {
    let device = device_id
        .map(|text| text.parse().map_err(|_| StoreError::bad_row("revocations", "device_id", &text)))
        .transpose()?;
    let none = || StoreError::bad_row("revocations", "jti", "NULL");
    let tokens = Tokens::from_columns(jti, device).ok_or_else(none)?;
    let (id, at, until) = (read(id)?, Timestamp(at), until.map(Timestamp));
    Ok((rev, Revocation { id, tokens, reason, by, at, until }))
}

impl Store {
    /// Revokes, in place of a revocation that there was, and notes who did it. Returns the change's `rev`.
    pub async fn revoke(&self, revocation: Revocation, entry: Entry) -> Result<i64, StoreError> {
        match self {
            Store::Sqlite(s) => s.revoke(revocation, entry).await,
            Store::Postgres(s) => s.revoke(revocation, entry).await,
        }
    }

    /// Up to `limit` revocations that hold at `now`, the newest first, from those before `before`.
    pub async fn revoked(
        &self,
        before: Option<RevocationId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        match self {
            Store::Sqlite(s) => s.revoked(before, now, limit).await,
            Store::Postgres(s) => s.revoked(before, now, limit).await,
        }
    }

    /// How many revocations hold at `now`.
    pub async fn revoked_total(&self, now: Timestamp) -> Result<u64, StoreError> {
        match self {
            Store::Sqlite(s) => s.revoked_total(now).await,
            Store::Postgres(s) => s.revoked_total(now).await,
        }
    }

    /// Up to `limit` changes after `rev`, in their order; of one that changed several times, the last.
    pub async fn revocations(&self, rev: i64, limit: usize) -> Result<Revocations, StoreError> {
        match self {
            Store::Sqlite(s) => s.revocations(rev, limit).await,
            Store::Postgres(s) => s.revocations(rev, limit).await,
        }
    }

    /// Forgets up to `batch` revocations that were over before `before`. Says how many.
    pub async fn forget_revocations(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        match self {
            Store::Sqlite(s) => s.forget_revocations(before, batch).await,
            Store::Postgres(s) => s.forget_revocations(before, batch).await,
        }
    }
}
