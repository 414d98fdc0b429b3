//! Bans and the audit in the SQLite file.

use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel::upsert::excluded;

use super::SqliteStore;
use super::read::row_limit;
use crate::ids::{AuditId, BanId};
use crate::store::StoreError;
use crate::store::audit::{self as noted, Entry};
use crate::store::bans::{self as kept, Ban, BanChanges, WhichBan};
use crate::store::schema::{audit, ban_head, bans};
use crate::time::Timestamp;

impl SqliteStore {
    pub async fn ban(&self, ban: Ban, entry: Entry) -> Result<i64, StoreError> {
        self.writer
            .run(move |conn| {
                let rev = next_rev(conn)?;
                put(conn, &ban, rev)?;
                note(conn, &entry)?;
                Ok(rev)
            })
            .await
    }

    pub async fn lift_ban(
        &self,
        which: WhichBan,
        now: Timestamp,
        entry: Entry,
    ) -> Result<Option<i64>, StoreError> {
        self.writer
            .run(move |conn| {
                let found: Option<String> = match which {
                    WhichBan::Device(device) => holding(now)
                        .filter(bans::device_id.eq(device.as_str()))
                        .select(bans::id)
                        .first(conn)
                        .optional()?,
                    WhichBan::Id(id) => holding(now)
                        .filter(bans::id.eq(id.to_string()))
                        .select(bans::id)
                        .first(conn)
                        .optional()?,
                };
                let Some(id) = found else { return Ok(None) };
                let rev = next_rev(conn)?;
                diesel::update(bans::table.find(id))
                    .set((bans::lifted_at.eq(now.0), bans::rev.eq(rev)))
                    .execute(conn)?;
                note(conn, &entry)?;
                Ok(Some(rev))
            })
            .await
    }

    pub async fn ban_by_id(&self, id: BanId, now: Timestamp) -> Result<Option<Ban>, StoreError> {
        self.read(move |conn| {
            let row = holding(now).filter(bans::id.eq(id.to_string())).first(conn).optional()?;
            Ok(row.map(|row| kept::change(row, ban_id)).transpose()?.map(|change| change.ban))
        })
        .await
    }

    pub async fn bans(
        &self,
        before: Option<BanId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError> {
        self.read(move |conn| {
            let mut page = holding(now).order(bans::id.desc()).limit(row_limit(limit));
            if let Some(before) = before {
                page = page.filter(bans::id.lt(before.to_string()));
            }
            let rows = page.load(conn)?;
            rows.into_iter().map(|row| Ok(kept::change(row, ban_id)?.ban)).collect()
        })
        .await
    }

    pub async fn bans_total(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.read(move |conn| {
            let total: i64 = holding(now).count().get_result(conn)?;
            Ok(total.unsigned_abs())
        })
        .await
    }

    pub async fn ban_changes(&self, rev: i64, limit: usize) -> Result<BanChanges, StoreError> {
        self.read(move |conn| {
            let newest = ban_head::table.select(ban_head::newest).first(conn)?;
            let rows =
                bans::table.filter(bans::rev.gt(rev)).order(bans::rev).limit(row_limit(limit)).load(conn)?;
            let changes = rows.into_iter().map(|row| kept::change(row, ban_id)).collect::<Result<_, _>>()?;
            Ok(BanChanges { changes, newest })
        })
        .await
    }

    pub async fn forget_bans(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writer
            .run(move |conn| {
                let over: Vec<String> = bans::table
                    .filter(bans::until.lt(before.0).or(bans::lifted_at.lt(before.0)))
                    .limit(row_limit(batch))
                    .select(bans::id)
                    .load(conn)?;
                Ok(diesel::delete(bans::table.filter(bans::id.eq_any(over))).execute(conn)?)
            })
            .await
    }

    pub async fn note(&self, entry: Entry) -> Result<(), StoreError> {
        self.writer.run(move |conn| note(conn, &entry)).await
    }

    pub async fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(move |conn| {
            let mut page =
                audit::table.order(audit::id.desc()).limit(row_limit(limit)).into_boxed::<Sqlite>();
            if let Some(before) = before {
                page = page.filter(audit::id.lt(before.to_string()));
            }
            page.load(conn)?.into_iter().map(|row| noted::entry(row, audit_id)).collect()
        })
        .await
    }

    pub async fn audit_total(&self) -> Result<u64, StoreError> {
        self.read(|conn| {
            let total: i64 = audit::table.count().get_result(conn)?;
            Ok(total.unsigned_abs())
        })
        .await
    }

    pub async fn forget_audit(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writer
            .run(move |conn| {
                let old: Vec<String> = audit::table
                    .filter(audit::at.lt(older_than.0))
                    .order(audit::at)
                    .limit(row_limit(batch))
                    .select(audit::id)
                    .load(conn)?;
                Ok(diesel::delete(audit::table.filter(audit::id.eq_any(old))).execute(conn)?)
            })
            .await
    }
}

/// The bans that hold.
fn holding(now: Timestamp) -> bans::BoxedQuery<'static, Sqlite> {
    bans::table
        .filter(bans::lifted_at.is_null())
        .filter(bans::until.is_null().or(bans::until.gt(now.0)))
        .into_boxed()
}

fn next_rev(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    let head = diesel::update(ban_head::table).set(ban_head::newest.eq(ban_head::newest + 1));
    Ok(head.returning(ban_head::newest).get_result(conn)?)
}

fn put(conn: &mut SqliteConnection, ban: &Ban, rev: i64) -> Result<(), StoreError> {
    let none: Option<i64> = None;
    let row = (
        bans::id.eq(ban.id.to_string()),
        bans::device_id.eq(ban.target.device_id()),
        bans::remote_addr.eq(ban.target.remote_addr()),
        bans::reason.eq(ban.reason.as_deref()),
        bans::banned_by.eq(&ban.by),
        bans::banned_at.eq(ban.at.0),
        bans::until.eq(ban.until.map(|until| until.0)),
        bans::lifted_at.eq(none),
        bans::rev.eq(rev),
    );
    let anew = (
        bans::id.eq(excluded(bans::id)),
        bans::reason.eq(excluded(bans::reason)),
        bans::banned_by.eq(excluded(bans::banned_by)),
        bans::banned_at.eq(excluded(bans::banned_at)),
        bans::until.eq(excluded(bans::until)),
        bans::lifted_at.eq(excluded(bans::lifted_at)),
        bans::rev.eq(excluded(bans::rev)),
    );
    let insert = diesel::insert_into(bans::table).values(row);
    match ban.target {
        kept::Target::Device(_) => insert.on_conflict(bans::device_id).do_update().set(anew).execute(conn)?,
        kept::Target::Network(_) => {
            insert.on_conflict(bans::remote_addr).do_update().set(anew).execute(conn)?
        }
    };
    Ok(())
}

pub(super) fn note(conn: &mut SqliteConnection, entry: &Entry) -> Result<(), StoreError> {
    let row = (
        audit::id.eq(entry.id.to_string()),
        audit::at.eq(entry.at.0),
        audit::actor.eq(&entry.actor),
        audit::remote_addr.eq(entry.remote_addr.map(|ip| ip.to_string())),
        audit::action.eq(entry.action.as_str()),
        audit::target.eq(&entry.target),
        audit::detail.eq(entry.detail.as_deref()),
        audit::node_id.eq(entry.node.as_str()),
    );
    diesel::insert_into(audit::table).values(row).on_conflict(audit::id).do_nothing().execute(conn)?;
    Ok(())
}

fn ban_id(text: String) -> Result<BanId, StoreError> {
    text.parse().map_err(|_| StoreError::bad_row("bans", "id", &text))
}

fn audit_id(text: String) -> Result<AuditId, StoreError> {
    text.parse().map_err(|_| StoreError::bad_row("audit", "id", &text))
}
