//! The functions that write, as Diesel calls them: one statement each, which it keeps prepared. The migrations say
//! what they do.

#![allow(clippy::too_many_arguments, reason = "a batch is as many arrays as it has columns")]

use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid};

#[diesel::declare_sql_function]
extern "SQL" {
    fn lastpong_begin(of_node: Text, run: Uuid, at: BigInt, home: Nullable<Uuid>) -> Bool;

    fn lastpong_commit(
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
    ) -> Record<(Bool, Array<BigInt>, Array<Nullable<Uuid>>, Array<BigInt>, Array<BigInt>, Array<BigInt>)>;

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
