//! Revocations in the SQLite file.

use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel::upsert::excluded;

use super::SqliteStore;
use super::actions::note;
use super::read::row_limit;
use crate::ids::RevocationId;
use crate::store::StoreError;
use crate::store::audit::Entry;
use crate::store::revocations::{self as kept, Revocation, Revocations, Tokens};
use crate::store::schema::{revocation_head, revocations};
use crate::time::Timestamp;

impl SqliteStore {
    pub async fn revoke(&self, revocation: Revocation, entry: Entry) -> Result<i64, StoreError> {
        self.writer
            .run(move |conn| {
                let head = diesel::update(revocation_head::table)
                    .set(revocation_head::newest.eq(revocation_head::newest + 1));
                let rev: i64 = head.returning(revocation_head::newest).get_result(conn)?;
                put(conn, &revocation, rev)?;
                note(conn, &entry)?;
                Ok(rev)
            })
            .await
    }

    pub async fn revoked(
        &self,
        before: Option<RevocationId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.read(move |conn| {
            let mut page = holding(now).order(revocations::id.desc()).limit(row_limit(limit));
            if let Some(before) = before {
                page = page.filter(revocations::id.lt(before.to_string()));
            }
            let rows = page.load(conn)?;
            rows.into_iter().map(|row| Ok(kept::change(row, id)?.1)).collect()
        })
        .await
    }

    pub async fn revoked_total(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.read(move |conn| {
            let total: i64 = holding(now).count().get_result(conn)?;
            Ok(total.unsigned_abs())
        })
        .await
    }

    pub async fn revocations(&self, rev: i64, limit: usize) -> Result<Revocations, StoreError> {
        self.read(move |conn| {
            let newest = revocation_head::table.select(revocation_head::newest).first(conn)?;
            let after = revocations::table.filter(revocations::rev.gt(rev)).order(revocations::rev);
            let rows = after.limit(row_limit(limit)).load(conn)?;
            let changes = rows.into_iter().map(|row| kept::change(row, id)).collect::<Result<_, _>>()?;
            Ok(Revocations { changes, newest })
        })
        .await
    }

    pub async fn forget_revocations(&self, before: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writer
            .run(move |conn| {
                let over: Vec<String> = revocations::table
                    .filter(revocations::until.lt(before.0))
                    .limit(row_limit(batch))
                    .select(revocations::id)
                    .load(conn)?;
                Ok(diesel::delete(revocations::table.filter(revocations::id.eq_any(over))).execute(conn)?)
            })
            .await
    }
}

/// The revocations that hold.
fn holding(now: Timestamp) -> revocations::BoxedQuery<'static, Sqlite> {
    revocations::table.filter(revocations::until.is_null().or(revocations::until.gt(now.0))).into_boxed()
}

fn put(conn: &mut SqliteConnection, revocation: &Revocation, rev: i64) -> Result<(), StoreError> {
    let row = (
        revocations::id.eq(revocation.id.to_string()),
        revocations::jti.eq(revocation.tokens.jti()),
        revocations::device_id.eq(revocation.tokens.device_id()),
        revocations::reason.eq(revocation.reason.as_deref()),
        revocations::revoked_by.eq(&revocation.by),
        revocations::revoked_at.eq(revocation.at.0),
        revocations::until.eq(revocation.until.map(|until| until.0)),
        revocations::rev.eq(rev),
    );
    let anew = (
        revocations::id.eq(excluded(revocations::id)),
        revocations::reason.eq(excluded(revocations::reason)),
        revocations::revoked_by.eq(excluded(revocations::revoked_by)),
        revocations::revoked_at.eq(excluded(revocations::revoked_at)),
        revocations::until.eq(excluded(revocations::until)),
        revocations::rev.eq(excluded(revocations::rev)),
    );
    let insert = diesel::insert_into(revocations::table).values(row);
    match revocation.tokens {
        Tokens::Jti(_) => insert.on_conflict(revocations::jti).do_update().set(anew).execute(conn)?,
        Tokens::Device(_) => {
            insert.on_conflict(revocations::device_id).do_update().set(anew).execute(conn)?
        }
    };
    Ok(())
}

fn id(text: String) -> Result<RevocationId, StoreError> {
    text.parse().map_err(|_| StoreError::bad_row("revocations", "id", &text))
}
