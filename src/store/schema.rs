//! The tables as Diesel sees them. The migrations say what the columns mean.

diesel::table! {
    nodes (node_id) {
        node_id -> Text,
        incarnation -> Text,
        started_at -> BigInt,
    }
}

diesel::table! {
    devices (device_id) {
        device_id -> Text,
        device_type -> Text,
        device_seq -> BigInt,
    }
}

diesel::table! {
    session_records (session_id) {
        session_id -> Text,
        device_id -> Text,
        device_type -> Text,
        node_id -> Text,
        incarnation -> Text,
        status -> Text,
        start_time -> BigInt,
        end_time -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        start_device_seq -> BigInt,
        end_seq -> Nullable<BigInt>,
        last_pong_at -> Nullable<BigInt>,
        last_active_at -> BigInt,
        reconnect_count -> BigInt,
        remote_addr -> Text,
        meta -> Text,
        trace_id -> Nullable<Text>,
    }
}

diesel::table! {
    last_heard (incarnation, page) {
        incarnation -> Text,
        page -> BigInt,
        heard -> Binary,
    }
}

diesel::table! {
    events (seq) {
        seq -> BigInt,
        device_seq -> Nullable<BigInt>,
        id -> Text,
        kind -> Text,
        time -> BigInt,
        node_id -> Text,
        device_id -> Nullable<Text>,
        device_type -> Nullable<Text>,
        session_id -> Nullable<Text>,
        reason -> Nullable<Text>,
        data -> Text,
    }
}

diesel::table! {
    log_head (id) {
        id -> BigInt,
        newest -> BigInt,
        checked_at -> BigInt,
    }
}

diesel::table! {
    users (name) {
        name -> Text,
        role -> Text,
        password -> Text,
        credential -> Text,
        created_at -> BigInt,
        changed_at -> BigInt,
    }
}

diesel::table! {
    logins (token) {
        token -> Binary,
        credential -> Text,
        kind -> Text,
        created_at -> BigInt,
        used_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    bans (id) {
        id -> Text,
        device_id -> Nullable<Text>,
        remote_addr -> Nullable<Text>,
        reason -> Nullable<Text>,
        banned_by -> Text,
        banned_at -> BigInt,
        until -> Nullable<BigInt>,
        lifted_at -> Nullable<BigInt>,
        rev -> BigInt,
    }
}

diesel::table! {
    ban_head (id) {
        id -> BigInt,
        newest -> BigInt,
    }
}

diesel::table! {
    revocations (id) {
        id -> Text,
        jti -> Nullable<Text>,
        device_id -> Nullable<Text>,
        reason -> Nullable<Text>,
        revoked_by -> Text,
        revoked_at -> BigInt,
        until -> Nullable<BigInt>,
        rev -> BigInt,
    }
}

diesel::table! {
    revocation_head (id) {
        id -> BigInt,
        newest -> BigInt,
    }
}

diesel::table! {
    audit (id) {
        id -> Text,
        at -> BigInt,
        actor -> Text,
        remote_addr -> Nullable<Text>,
        action -> Text,
        target -> Text,
        detail -> Nullable<Text>,
        node_id -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(users, logins);
diesel::allow_tables_to_appear_in_same_query!(nodes, devices, session_records, last_heard, events, log_head);
