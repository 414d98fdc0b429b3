//! The statements that are run once for each write, in words that SQLite parses once for each connection.
//!
//! Diesel prepares an `UPDATE` and an `ON CONFLICT` of its own anew each time they are run, because their columns may
//! vary; to parse them took longer than to run them. Those below do not vary, and Diesel keeps them.

use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::Sqlite;

/// Closes the row of a session.
pub(super) struct EndSession<'a> {
    pub session_id: String,
    pub end_time: i64,
    pub reason: &'a str,
    pub end_seq: i64,
    pub last_pong_at: Option<i64>,
    pub last_active_at: i64,
    pub reconnect_count: i64,
}

impl QueryFragment<Sqlite> for EndSession<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE session_records SET status = 'closed', end_time = ");
        out.push_bind_param::<BigInt, _>(&self.end_time)?;
        out.push_sql(", reason = ");
        out.push_bind_param::<Text, _>(self.reason)?;
        out.push_sql(", end_seq = ");
        out.push_bind_param::<BigInt, _>(&self.end_seq)?;
        out.push_sql(", last_pong_at = ");
        out.push_bind_param::<Nullable<BigInt>, _>(&self.last_pong_at)?;
        out.push_sql(", last_active_at = ");
        out.push_bind_param::<BigInt, _>(&self.last_active_at)?;
        out.push_sql(", reconnect_count = ");
        out.push_bind_param::<BigInt, _>(&self.reconnect_count)?;
        out.push_sql(" WHERE session_id = ");
        out.push_bind_param::<Text, _>(&self.session_id)
    }
}

/// Notes the last number that a device has used, and what it now says that it is.
pub(super) struct NumberDevice<'a> {
    pub device_id: &'a str,
    pub device_type: &'a str,
    pub device_seq: i64,
}

impl QueryFragment<Sqlite> for NumberDevice<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO devices (device_id, device_type, device_seq) VALUES (");
        out.push_bind_param::<Text, _>(self.device_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(self.device_type)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.device_seq)?;
        out.push_sql(
            ") ON CONFLICT (device_id) DO UPDATE SET device_type = excluded.device_type, \
             device_seq = excluded.device_seq",
        );
        Ok(())
    }
}

/// When a device's sessions began, the one last recorded first: `limit` of them, without the first `offset`.
pub(super) struct StartsOf<'a> {
    device_id: &'a str,
    offset: i64,
    limit: i64,
}

impl<'a> StartsOf<'a> {
    pub fn device(device_id: &'a str, offset: usize, limit: usize) -> Self {
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        Self { device_id, offset: number(offset), limit: number(limit) }
    }
}

impl QueryFragment<Sqlite> for StartsOf<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("SELECT start_time FROM session_records WHERE device_id = ");
        out.push_bind_param::<Text, _>(self.device_id)?;
        out.push_sql(" ORDER BY rowid DESC LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(" OFFSET ");
        out.push_bind_param::<BigInt, _>(&self.offset)
    }
}

impl Query for StartsOf<'_> {
    type SqlType = BigInt;
}

/// Says that the words are the same whatever the values: Diesel's leave to keep the statement prepared.
macro_rules! kept {
    ($($statement:ident),*) => {
        $(
            impl QueryId for $statement<'_> {
                type QueryId = $statement<'static>;
                const HAS_STATIC_QUERY_ID: bool = true;
            }

            impl RunQueryDsl<SqliteConnection> for $statement<'_> {}
        )*
    };
}

kept!(EndSession, NumberDevice, StartsOf);
