//! Revocations in Postgres, the same for every node.
//!
//! One is a single statement that takes the row of `revocation_head` first and holds it to its end, so that changes are
//! numbered in the order of commits, and a client that stands still holds up nobody.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use uuid::Uuid;

use super::PostgresStore;
use super::actions::{Rev, with_entry};
use super::calls::sole;
use super::read::row_limit;
use super::schema::{revocation_head, revocations};
use crate::ids::RevocationId;
use crate::store::StoreError;
use crate::store::audit::Entry;
use crate::store::revocations::{self as kept, Revocation, Revocations, Tokens};
use crate::time::Timestamp;

const REVOKE: &str = "
    WITH head AS (UPDATE revocation_head SET newest = newest + 1 WHERE id = 1 RETURNING newest),
    revoked AS (
        INSERT INTO revocations (id, jti, device_id, reason, revoked_by, revoked_at, until, rev)
        SELECT $1, $2, $3, $4, $5, $6, $7, head.newest FROM head
        ON CONFLICT (REVOKED) DO UPDATE SET id = excluded.id, reason = excluded.reason,
            revoked_by = excluded.revoked_by, revoked_at = excluded.revoked_at, until = excluded.until,
            rev = excluded.rev
        RETURNING rev
    ),
    noted AS (
        INSERT INTO audit (id, at, actor, remote_addr, action, target, detail, node_id)
        SELECT $8, $9, $10, $11, $12, $13, $14, $15 FROM revoked
    )
    SELECT rev FROM revoked";

/// What another node is deleting, or an operator giving anew, is left to them: nobody waits, and none for each other.
const FORGET: &str = "
    DELETE FROM revocations WHERE id IN (
        SELECT id FROM revocations WHERE until < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    )";

impl PostgresStore {
    pub async fn revoke(&self, revocation: Revocation, entry: Entry) -> Result<i64, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let column = match revocation.tokens {
                        Tokens::Jti(_) => "jti",
                        Tokens::Device(_) => "device_id",
                    };
                    let query = diesel::sql_query(REVOKE.replace("REVOKED", column))
                        .bind::<SqlUuid, _>(revocation.id.0)
                        .bind::<Nullable<Text>, _>(revocation.tokens.jti().map(str::to_owned))
                        .bind::<Nullable<Text>, _>(revocation.tokens.device_id().map(str::to_owned))
                        .bind::<Nullable<Text>, _>(revocation.reason)
                        .bind::<Text, _>(revocation.by)
                        .bind::<BigInt, _>(revocation.at.0)
                        .bind::<Nullable<BigInt>, _>(revocation.until.map(|until| until.0));
                    let Rev { rev } = with_entry!(query, entry).load(conn).await.and_then(sole)?;
                    Ok(rev)
                }
                .boxed()
            })
            .await
    }

    pub async fn revoked(
        &self,
        before: Option<RevocationId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.reading
            .call(move |conn| {
                async move {
                    let mut page = holding(now).order(revocations::id.desc()).limit(row_limit(limit));
                    if let Some(before) = before {
                        page = page.filter(revocations::id.lt(before.0));
                    }
                    let rows = page.load(conn).await?;
                    rows.into_iter().map(|row| Ok(kept::change(row, id)?.1)).collect()
                }
                .boxed()
            })
            .await
    }

    pub async fn revoked_total(&self, now: Timestamp) -> Result<u64, StoreError> {
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

    pub async fn revocations(&self, rev: i64, limit: usize) -> Result<Revocations, StoreError> {
        self.following
            .call(move |conn| {
                async move {
                    // Read first, so that it is no newer than the changes that are read after it.
                    let newest = revocation_head::table.select(revocation_head::newest).first(conn).await?;
                    if newest == rev {
                        return Ok(Revocations { changes: Vec::new(), newest });
                    }
                    let rows = revocations::table
                        .filter(revocations::rev.gt(rev))
                        .order(revocations::rev)
                        .limit(row_limit(limit))
                        .load(conn)
                        .await?;
                    let changes = rows.into_iter().map(|row| kept::change(row, id));
                    Ok(Revocations { changes: changes.collect::<Result<_, _>>()?, newest })
                }
                .boxed()
            })
            .await
    }

    pub async fn forget_revocations(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let forget = diesel::sql_query(FORGET).bind::<BigInt, _>(before.0);
                    Ok(forget.bind::<BigInt, _>(row_limit(batch)).execute(conn).await?)
                }
                .boxed()
            })
            .await
    }
}

/// The revocations that hold.
fn holding(now: Timestamp) -> revocations::BoxedQuery<'static, Pg> {
    revocations::table.filter(revocations::until.is_null().or(revocations::until.gt(now.0))).into_boxed()
}

fn id(id: Uuid) -> Result<RevocationId, StoreError> {
    Ok(RevocationId(id))
}
