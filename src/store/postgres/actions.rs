//! Bans and the audit in Postgres, the same for every node.
//!
//! A ban, and its lifting, is one statement that takes the row of `ban_head` first and holds it to its end, so that
//! changes are numbered in the order of commits, and a client that stands still holds up nobody.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use uuid::Uuid;

use super::PostgresStore;
use super::calls::sole;
use super::read::row_limit;
use super::schema::{audit, ban_head, bans};
use crate::ids::{AuditId, BanId};
use crate::store::StoreError;
use crate::store::audit::{self as noted, Entry};
use crate::store::bans::{self as kept, Ban, BanChanges, WhichBan};
use crate::time::Timestamp;

const BAN: &str = "
    WITH head AS (UPDATE ban_head SET newest = newest + 1 WHERE id = 1 RETURNING newest),
    banned AS (
        INSERT INTO bans (id, device_id, remote_addr, reason, banned_by, banned_at, until, rev)
        SELECT $1, $2, $3, $4, $5, $6, $7, head.newest FROM head
        ON CONFLICT (BANNED) DO UPDATE SET id = excluded.id, reason = excluded.reason,
            banned_by = excluded.banned_by, banned_at = excluded.banned_at, until = excluded.until,
            lifted_at = NULL, rev = excluded.rev
        RETURNING rev
    ),
    noted AS (
        INSERT INTO audit (id, at, actor, remote_addr, action, target, detail, node_id)
        SELECT $8, $9, $10, $11, $12, $13, $14, $15 FROM banned
    )
    SELECT rev FROM banned";

const LIFT: &str = "
    WITH head AS (UPDATE ban_head SET newest = newest + 1 WHERE id = 1 RETURNING newest),
    lifted AS (
        UPDATE bans b SET lifted_at = $3, rev = head.newest FROM head
        WHERE (b.id = $1 OR b.device_id = $2) AND b.lifted_at IS NULL AND (b.until IS NULL OR b.until > $3)
        RETURNING b.rev
    ),
    noted AS (
        INSERT INTO audit (id, at, actor, remote_addr, action, target, detail, node_id)
        SELECT $4, $5, $6, $7, $8, $9, $10, $11 FROM lifted
    )
    SELECT rev FROM lifted";

/// What another node is deleting, or an operator giving anew, is left to them: nobody waits, and none for each other.
const FORGET_BANS: &str = "
    DELETE FROM bans WHERE id IN (
        SELECT id FROM bans WHERE until < $1 OR lifted_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    )";

const FORGET_AUDIT: &str = "
    DELETE FROM audit WHERE id IN (
        SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )";

#[derive(QueryableByName)]
pub(super) struct Rev {
    #[diesel(sql_type = BigInt)]
    pub rev: i64,
}

/// Binds what an entry of the audit is made of.
macro_rules! with_entry {
    ($query:expr, $entry:expr) => {
        $query
            .bind::<SqlUuid, _>($entry.id.0)
            .bind::<BigInt, _>($entry.at.0)
            .bind::<Text, _>($entry.actor)
            .bind::<Nullable<Text>, _>($entry.remote_addr.map(|ip| ip.to_string()))
            .bind::<Text, _>($entry.action.as_str())
            .bind::<Text, _>($entry.target)
            .bind::<Nullable<Text>, _>($entry.detail)
            .bind::<Text, _>($entry.node.to_string())
    };
}
pub(super) use with_entry;

impl PostgresStore {
    pub async fn ban(&self, ban: Ban, entry: Entry) -> Result<i64, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let column = match ban.target {
                        kept::Target::Device(_) => "device_id",
                        kept::Target::Network(_) => "remote_addr",
                    };
                    let query = diesel::sql_query(BAN.replace("BANNED", column))
                        .bind::<SqlUuid, _>(ban.id.0)
                        .bind::<Nullable<Text>, _>(ban.target.device_id().map(str::to_owned))
                        .bind::<Nullable<Text>, _>(ban.target.remote_addr())
                        .bind::<Nullable<Text>, _>(ban.reason)
                        .bind::<Text, _>(ban.by)
                        .bind::<BigInt, _>(ban.at.0)
                        .bind::<Nullable<BigInt>, _>(ban.until.map(|until| until.0));
                    let Rev { rev } = with_entry!(query, entry).load(conn).await.and_then(sole)?;
                    Ok(rev)
                }
                .boxed()
            })
            .await
    }

    pub async fn lift_ban(
        &self,
        which: WhichBan,
        now: Timestamp,
        entry: Entry,
    ) -> Result<Option<i64>, StoreError> {
        let (id, device) = match which {
            WhichBan::Device(device) => (None, Some(device.to_string())),
            WhichBan::Id(id) => (Some(id.0), None),
        };
        self.writing
            .call(move |conn| {
                async move {
                    let query = diesel::sql_query(LIFT)
                        .bind::<Nullable<SqlUuid>, _>(id)
                        .bind::<Nullable<Text>, _>(device)
                        .bind::<BigInt, _>(now.0);
                    let lifted: Option<Rev> = with_entry!(query, entry).load(conn).await?.pop();
                    Ok(lifted.map(|lifted| lifted.rev))
                }
                .boxed()
            })
            .await
    }

    pub async fn ban_by_id(&self, id: BanId, now: Timestamp) -> Result<Option<Ban>, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let row = holding(now).filter(bans::id.eq(id.0)).first(conn).await.optional()?;
                    Ok(row.map(|row| kept::change(row, ban_id)).transpose()?.map(|change| change.ban))
                }
                .boxed()
            })
            .await
    }

    pub async fn bans(
        &self,
        before: Option<BanId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let mut page = holding(now).order(bans::id.desc()).limit(row_limit(limit));
                    if let Some(before) = before {
                        page = page.filter(bans::id.lt(before.0));
                    }
                    let rows = page.load(conn).await?;
                    rows.into_iter().map(|row| Ok(kept::change(row, ban_id)?.ban)).collect()
                }
                .boxed()
            })
            .await
    }

    pub async fn bans_total(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let total: i64 = holding(now).count().get_result(conn).await?;
                    Ok(total.unsigned_abs())
                }
                .boxed()
            })
            .await
    }

    pub async fn ban_changes(&self, rev: i64, limit: usize) -> Result<BanChanges, StoreError> {
        self.following
            .call(move |conn| {
                async move {
                    // Read first, so that it is no newer than the changes that are read after it.
                    let newest = ban_head::table.select(ban_head::newest).first(conn).await?;
                    if newest == rev {
                        return Ok(BanChanges { changes: Vec::new(), newest });
                    }
                    let rows = bans::table
                        .filter(bans::rev.gt(rev))
                        .order(bans::rev)
                        .limit(row_limit(limit))
                        .load(conn)
                        .await?;
                    let read = |row| kept::change(row, ban_id);
                    let changes = rows.into_iter().map(read).collect::<Result<_, _>>()?;
                    Ok(BanChanges { changes, newest })
                }
                .boxed()
            })
            .await
    }

    pub async fn forget_bans(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let forget = diesel::sql_query(FORGET_BANS).bind::<BigInt, _>(before.0);
                    Ok(forget.bind::<BigInt, _>(row_limit(batch)).execute(conn).await?)
                }
                .boxed()
            })
            .await
    }

    pub async fn note(&self, entry: Entry) -> Result<(), StoreError> {
        self.writing.call(move |conn| async move { note(conn, &entry).await }.boxed()).await
    }

    pub async fn audit(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let mut page =
                        audit::table.order(audit::id.desc()).limit(row_limit(limit)).into_boxed::<Pg>();
                    if let Some(before) = before {
                        page = page.filter(audit::id.lt(before.0));
                    }
                    page.load(conn).await?.into_iter().map(|row| noted::entry(row, audit_id)).collect()
                }
                .boxed()
            })
            .await
    }

    pub async fn audit_total(&self) -> Result<u64, StoreError> {
        self.reading
            .call(|conn| {
                async move {
                    let total: i64 = audit::table.count().get_result(conn).await?;
                    Ok(total.unsigned_abs())
                }
                .boxed()
            })
            .await
    }

    pub async fn forget_audit(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let forget = diesel::sql_query(FORGET_AUDIT).bind::<BigInt, _>(older_than.0);
                    Ok(forget.bind::<BigInt, _>(row_limit(batch)).execute(conn).await?)
                }
                .boxed()
            })
            .await
    }
}

/// The bans that hold.
fn holding(now: Timestamp) -> bans::BoxedQuery<'static, Pg> {
    bans::table
        .filter(bans::lifted_at.is_null())
        .filter(bans::until.is_null().or(bans::until.gt(now.0)))
        .into_boxed()
}

async fn note(conn: &mut AsyncPgConnection, entry: &Entry) -> Result<(), StoreError> {
    let row = (
        audit::id.eq(entry.id.0),
        audit::at.eq(entry.at.0),
        audit::actor.eq(&entry.actor),
        audit::remote_addr.eq(entry.remote_addr.map(|ip| ip.to_string())),
        audit::action.eq(entry.action.as_str()),
        audit::target.eq(&entry.target),
        audit::detail.eq(entry.detail.as_deref()),
        audit::node_id.eq(entry.node.as_str()),
    );
    diesel::insert_into(audit::table).values(row).on_conflict(audit::id).do_nothing().execute(conn).await?;
    Ok(())
}

fn ban_id(id: Uuid) -> Result<BanId, StoreError> {
    Ok(BanId(id))
}

fn audit_id(id: Uuid) -> Result<AuditId, StoreError> {
    Ok(AuditId(id))
}
