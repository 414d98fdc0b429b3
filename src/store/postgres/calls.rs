//! The functions that write, as Diesel calls them: one statement each, which it keeps prepared. The migrations say
//! what they do.
//!
//! They are asked by `load`, and never by `get_result`, which is content with the first row: a statement's row is sent
//! before its transaction is committed, and where the commit fails, or the server ends the connection in between, the
//! row is followed by an error.

#![allow(clippy::too_many_arguments, reason = "a batch is as many arrays as it has columns")]

use diesel::QueryResult;
use diesel::result::Error::NotFound;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid};

/// The one row of a call, of all that it answered.
pub(super) fn sole<Row>(mut answer: Vec<Row>) -> QueryResult<Row> {
    answer.pop().ok_or(NotFound)
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn lastpong_begin(of_node: Text, run: Uuid, at: BigInt, home: Nullable<Uuid>) -> Bool;

    fn lastpong_commit_flapping(
        told_by: Text,
        run: Uuid,
        is_end: Array<Bool>,
        past: Array<Bool>,
        event_ids: Array<Uuid>,
        session_ids: Array<Uuid>,
        device_ids: Array<Text>,
        device_types: Array<Text>,
        node_ids: Array<Text>,
        runs: Array<Uuid>,
        times: Array<BigInt>,
        datas: Array<Text>,
        remote_addrs: Array<Nullable<Text>>,
        metas: Array<Nullable<Text>>,
        trace_ids: Array<Nullable<Text>>,
        reasons: Array<Nullable<Text>>,
        last_pongs: Array<Nullable<BigInt>>,
        last_actives: Array<Nullable<BigInt>>,
        reconnects: Array<Nullable<BigInt>>,
        flap_ids: Array<Nullable<Uuid>>,
        flap_count: BigInt,
        flap_window: BigInt,
        flap_ban: BigInt,
    ) -> Record<(
        Bool,
        Array<BigInt>,
        Array<Nullable<Uuid>>,
        Array<BigInt>,
        Array<BigInt>,
        Array<BigInt>,
        Array<BigInt>,
        Array<BigInt>,
        Array<BigInt>,
        Array<Text>,
    )>;

    fn lastpong_fenced(of_node: Text, run: Uuid) -> Bool;

    fn lastpong_renew(of_node: Text, run: Uuid) -> Text;

    fn lastpong_declare_lost(
        told_by: Text,
        run: Uuid,
        lost_node: Text,
        lost_run: Uuid,
        seen: BigInt,
        event_id: Uuid,
        at: BigInt,
    ) -> Record<(Bool, Nullable<BigInt>, Nullable<Text>)>;

    fn lastpong_adopt(told_by: Text, run: Uuid, lost_node: Text) -> Bool;

    fn lastpong_expire(older_than: BigInt, batch: BigInt) -> BigInt;
}
