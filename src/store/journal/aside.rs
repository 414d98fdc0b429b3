//! What the journal keeps beside starts and ends, for a node that has to do without the SQL store: the bans and
//! revocations as they were last told, and what operators did meanwhile.

use std::collections::HashSet;

use diesel::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Journal;
use crate::ids::{AuditId, RevocationId};
use crate::store::StoreError;
use crate::store::audit::Entry;
use crate::store::bans::{Ban, Target};
use crate::store::revocations::Revocation;

diesel::table! {
    known_bans (target) {
        target -> Text,
        ban -> Text,
    }
}

diesel::table! {
    known_revocations (id) {
        id -> Text,
        revocation -> Text,
    }
}

diesel::table! {
    audit_waiting (id) {
        id -> Text,
        entry -> Text,
        refused -> Nullable<Text>,
    }
}

/// Bans or revocations written in one go: a few milliseconds, so that a start does not wait long behind them.
const BANS: usize = 500;

impl Journal {
    /// The bans that were kept.
    pub async fn known_bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.run(|conn| {
            let rows: Vec<String> = known_bans::table.select(known_bans::ban).load(conn)?;
            rows.iter().map(|text| read("a ban", text)).collect()
        })
        .await
    }

    /// Keeps these bans, each in place of another of its target, and forgets those of the targets that are `gone`.
    pub async fn keep_bans(&self, bans: Vec<Ban>, gone: Vec<Target>) -> Result<(), StoreError> {
        self.forget_bans(gone.iter().map(name).collect()).await?;
        for part in bans.chunks(BANS) {
            let rows = part.iter().map(|ban| Ok((name(&ban.target), text(ban)?)));
            let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
            self.run(move |conn| {
                for (target, ban) in rows {
                    let row = (known_bans::target.eq(target), known_bans::ban.eq(ban));
                    diesel::replace_into(known_bans::table).values(row).execute(conn)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn forget_bans(&self, targets: Vec<String>) -> Result<(), StoreError> {
        for part in targets.chunks(BANS).map(<[_]>::to_vec) {
            self.run(move |conn| {
                diesel::delete(known_bans::table.filter(known_bans::target.eq_any(part))).execute(conn)?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Keeps these bans and forgets all others.
    pub async fn keep_only_bans(&self, bans: Vec<Ban>) -> Result<(), StoreError> {
        let kept = self.run(|conn| {
            let targets: Vec<String> = known_bans::table.select(known_bans::target).load(conn)?;
            Ok(targets)
        });
        let targets = kept.await?;
        let stay: HashSet<String> = bans.iter().map(|ban| name(&ban.target)).collect();
        let gone: Vec<String> = targets.into_iter().filter(|target| !stay.contains(target)).collect();
        self.forget_bans(gone).await?;
        self.keep_bans(bans, Vec::new()).await
    }

    /// The revocations that were kept.
    pub async fn known_revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.run(|conn| {
            let rows: Vec<String> =
                known_revocations::table.select(known_revocations::revocation).load(conn)?;
            rows.iter().map(|text| read("a revocation", text)).collect()
        })
        .await
    }

    /// Keeps these revocations, and forgets those that are `gone`.
    pub async fn keep_revocations(
        &self,
        revocations: Vec<Revocation>,
        gone: Vec<RevocationId>,
    ) -> Result<(), StoreError> {
        for part in revocations.chunks(BANS) {
            let rows = part.iter().map(|revocation| Ok((revocation.id.to_string(), text(revocation)?)));
            let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
            self.run(move |conn| {
                for (id, revocation) in rows {
                    let row = (known_revocations::id.eq(id), known_revocations::revocation.eq(revocation));
                    diesel::replace_into(known_revocations::table).values(row).execute(conn)?;
                }
                Ok(())
            })
            .await?;
        }
        for part in gone.chunks(BANS) {
            let ids: Vec<String> = part.iter().map(RevocationId::to_string).collect();
            self.run(move |conn| {
                let these = known_revocations::table.filter(known_revocations::id.eq_any(ids));
                diesel::delete(these).execute(conn)?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Keeps an entry of the audit until it is moved.
    pub async fn note(&self, entry: Entry) -> Result<(), StoreError> {
        self.run(move |conn| {
            let row = (audit_waiting::id.eq(entry.id.to_string()), audit_waiting::entry.eq(text(&entry)?));
            diesel::replace_into(audit_waiting::table).values(row).execute(conn)?;
            Ok(())
        })
        .await
    }

    /// The oldest entries of the audit that wait, at most `limit`; without those that were set aside.
    pub async fn notes(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |conn| {
            let waiting = audit_waiting::table.filter(audit_waiting::refused.is_null());
            let oldest = waiting.order(audit_waiting::id).limit(limit);
            let rows: Vec<String> = oldest.select(audit_waiting::entry).load(conn)?;
            rows.iter().map(|text| read("an entry of the audit", text)).collect()
        })
        .await
    }

    /// Keeps an entry that the record will not have, and why.
    pub async fn set_note_aside(&self, id: AuditId, why: String) -> Result<(), StoreError> {
        self.run(move |conn| {
            let row = audit_waiting::table.find(id.to_string());
            diesel::update(row).set(audit_waiting::refused.eq(why)).execute(conn)?;
            Ok(())
        })
        .await
    }

    /// Removes entries of the audit that are on the record now.
    pub async fn forget_notes(&self, ids: Vec<AuditId>) -> Result<(), StoreError> {
        let ids: Vec<String> = ids.iter().map(AuditId::to_string).collect();
        self.run(move |conn| {
            diesel::delete(audit_waiting::table.filter(audit_waiting::id.eq_any(ids))).execute(conn)?;
            Ok(())
        })
        .await
    }
}

/// A device's name has no slash, and a network always has.
fn name(target: &Target) -> String {
    target.to_string()
}

fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Broken(format!("it cannot be written: {error}")))
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Broken(format!("{what} cannot be read: {error}")))
}
