//! Bans: who may not come in, and how those who enforce it follow what changes.
//!
//! - A device or a network has one ban at most; one that is given anew takes the place of the one before and is another
//!   ban, with an id of its own.
//! - Every change has a `rev`, which rises in the order of commits: whoever has read the changes up to one has missed
//!   none. A ban that was lifted is told as a change too, until it is forgotten.
//! - A ban or its lifting and the entry that says who did it are on the record together, or neither is.
//!
//! Left out on purpose: enforcing them. Whether a ban holds is for the clock of whoever asks.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::audit::Entry;
use super::{Store, StoreError};
use crate::ids::{BanId, DeviceId};
use crate::time::Timestamp;

/// Whom a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Device(DeviceId),
    /// Without bits beyond its length, and never IPv4 in IPv6's clothes: see [`network`].
    Network(IpNet),
}

/// A ban, as it is kept and as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Shown", try_from = "Shown")]
pub struct Ban {
    pub id: BanId,
    pub target: Target,
    pub reason: Option<String>,
    /// Who banned it.
    pub by: String,
    pub at: Timestamp,
    /// None is for good.
    pub until: Option<Timestamp>,
}

/// A ban as it became with one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanChange {
    pub rev: i64,
    pub ban: Ban,
    pub lifted: bool,
}

/// Some of the changes, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BanChanges {
    pub changes: Vec<BanChange>,
    /// The last change there is.
    pub newest: i64,
}

/// Which ban is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichBan {
    Device(DeviceId),
    Id(BanId),
}

/// A ban: of a device, or of an address or a network.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
struct Shown {
    id: BanId,
    device_id: Option<DeviceId>,
    remote_addr: Option<String>,
    reason: Option<String>,
    by: String,
    at: Timestamp,
    until: Option<Timestamp>,
}

impl PartialSchema for Ban {
    fn schema() -> RefOr<Schema> {
        Shown::schema()
    }
}

impl ToSchema for Ban {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Shown::schemas(schemas);
    }
}

impl Ban {
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Target {
    pub(super) fn device_id(&self) -> Option<&str> {
        match self {
            Target::Device(id) => Some(id.as_str()),
            Target::Network(_) => None,
        }
    }

    pub(super) fn remote_addr(&self) -> Option<String> {
        match self {
            Target::Device(_) => None,
            Target::Network(net) => Some(net.to_string()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Device(id) => id.fmt(f),
            Target::Network(net) => net.fmt(f),
        }
    }
}

/// A network as bans have it: an address is one of itself alone, bits beyond the length are dropped, and an IPv4 address
/// within IPv6 (`::ffff:0:0/96`) is the IPv4 address that a socket of both kinds means by it.
pub fn network(text: &str) -> Option<IpNet> {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let mapped = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            v6.network().to_ipv4_mapped().map(|v4| (v4, v6.prefix_len() - 96))
        }
        IpNet::V4(_) | IpNet::V6(_) => None,
    };
    match mapped {
        Some((v4, length)) => IpNet::new(v4.into(), length).ok().map(|net| net.trunc()),
        None => Some(net.trunc()),
    }
}

impl From<Ban> for Shown {
    fn from(Ban { id, target, reason, by, at, until }: Ban) -> Self {
        let remote_addr = target.remote_addr();
        let device_id = match target {
            Target::Device(id) => Some(id),
            Target::Network(_) => None,
        };
        Self { id, device_id, remote_addr, reason, by, at, until }
    }
}

impl TryFrom<Shown> for Ban {
    type Error = String;

    fn try_from(Shown { id, device_id, remote_addr, reason, by, at, until }: Shown) -> Result<Self, String> {
        let target = match (device_id, remote_addr) {
            (Some(device), None) => Target::Device(device),
            (None, Some(net)) => {
                Target::Network(network(&net).ok_or_else(|| format!("{net:?} is no network"))?)
            }
            _ => return Err(format!("ban {id} is not of a device or of a network")),
        };
        Ok(Self { id, target, reason, by, at, until })
    }
}

/// A ban's row, but for the id, whose type is each database's own: device, network, reason, who, since and until when,
/// lifted when, and its change.
pub(super) type BanRow<I> =
    (I, Option<String>, Option<String>, Option<String>, String, i64, Option<i64>, Option<i64>, i64);

pub(super) fn change<I>(
    (id, device_id, remote_addr, reason, by, at, until, lifted_at, rev): BanRow<I>,
    read: impl Fn(I) -> Result<BanId, StoreError>,
) -> Result<BanChange, StoreError> {
    let target = match (device_id, remote_addr) {
        (Some(device), _) => {
            let bad = |_| StoreError::bad_row("bans", "device_id", &device);
            Target::Device(device.parse().map_err(bad)?)
        }
        (None, Some(net)) => {
            Target::Network(network(&net).ok_or_else(|| StoreError::bad_row("bans", "remote_addr", &net))?)
        }
        (None, None) => return Err(StoreError::bad_row("bans", "device_id", "NULL")),
    };
    let (id, at, until) = (read(id)?, Timestamp(at), until.map(Timestamp));
    Ok(BanChange { rev, ban: Ban { id, target, reason, by, at, until }, lifted: lifted_at.is_some() })
}

impl Store {
    /// Bans, in place of a ban that there was, and notes who did it. Returns the change's `rev`.
    pub async fn ban(&self, ban: Ban, entry: Entry) -> Result<i64, StoreError> {
        match self {
            Store::Sqlite(s) => s.ban(ban, entry).await,
            Store::Postgres(s) => s.ban(ban, entry).await,
        }
    }

    /// Lifts a ban that holds at `now`, and notes who did it. Returns the change's `rev`; `None`, and no note, where
    /// there is no such ban.
    pub async fn lift_ban(
        &self,
        which: WhichBan,
        now: Timestamp,
        entry: Entry,
    ) -> Result<Option<i64>, StoreError> {
        match self {
            Store::Sqlite(s) => s.lift_ban(which, now, entry).await,
            Store::Postgres(s) => s.lift_ban(which, now, entry).await,
        }
    }

    /// The ban with this id, where it holds at `now`.
    pub async fn ban_by_id(&self, id: BanId, now: Timestamp) -> Result<Option<Ban>, StoreError> {
        match self {
            Store::Sqlite(s) => s.ban_by_id(id, now).await,
            Store::Postgres(s) => s.ban_by_id(id, now).await,
        }
    }

    /// Up to `limit` bans that hold at `now`, the newest first, from those before `before`.
    pub async fn bans(
        &self,
        before: Option<BanId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError> {
        match self {
            Store::Sqlite(s) => s.bans(before, now, limit).await,
            Store::Postgres(s) => s.bans(before, now, limit).await,
        }
    }

    /// How many bans hold at `now`.
    pub async fn bans_total(&self, now: Timestamp) -> Result<u64, StoreError> {
        match self {
            Store::Sqlite(s) => s.bans_total(now).await,
            Store::Postgres(s) => s.bans_total(now).await,
        }
    }

    /// Up to `limit` changes after `rev`, in their order; of a ban that changed several times, the last.
    pub async fn ban_changes(&self, rev: i64, limit: usize) -> Result<BanChanges, StoreError> {
        match self {
            Store::Sqlite(s) => s.ban_changes(rev, limit).await,
            Store::Postgres(s) => s.ban_changes(rev, limit).await,
        }
    }

    /// Forgets up to `batch` bans that were lifted or over before `before`. Says how many.
    pub async fn forget_bans(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        match self {
            Store::Sqlite(s) => s.forget_bans(before, batch).await,
            Store::Postgres(s) => s.forget_bans(before, batch).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_one_way() {
        for (text, is) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), Some(is), "{text}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "everywhere", "::/129", "10.0.0.0/-1"] {
            assert_eq!(network(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_ban_is_read_as_it_is_shown() {
        for target in [Target::Device("a-1".parse().unwrap()), Target::Network("10.0.0.0/8".parse().unwrap())]
        {
            let (at, until) = (Timestamp(1), Some(Timestamp(2)));
            let ban = Ban { id: BanId::new(), target, reason: None, by: "ada".into(), at, until };
            let text = serde_json::to_string(&ban).unwrap();
            assert_eq!(serde_json::from_str::<Ban>(&text).unwrap(), ban, "{text}");
            assert!(ban.holds(Timestamp(1)) && !ban.holds(Timestamp(2)));
        }
        let neither = format!(r#"{{"id":"{}","by":"ada","at":"2026-01-01T00:00:00Z"}}"#, BanId::new());
        assert!(serde_json::from_str::<Ban>(&neither).is_err());
    }
}
