//! Long tables are read by their indexes: the server itself tells how it went about every statement, those within
//! functions too, while each method of the store is used on a million rows.
//!
//! That an index was used says little, for one can be read through from end to end; so what counts is how many pages
//! a statement touched.

use serde_json::Value;

use super::*;
use crate::store::{LastHeard, Match};

const ROWS: i64 = 1_000_000;

/// Far more than a look-up of some rows takes; far less than reading through the smallest index on a million.
const MOST_PAGES: u64 = 1_500;

/// How many times each method is used: Postgres plans a prepared statement anew for the first five.
const TIMES: i64 = 8;

const SMALL: usize = 10;

/// Sessions `n` of `ROWS`, every hundredth of them still active on one of ten nodes, and as many events of 100,000
/// devices. Indexes are made after the rows, which is quicker.
const FILL: &str = "
    CREATE TABLE defs AS SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        AND tablename IN ('events', 'session_records') AND indexname NOT LIKE '%pkey';
    DO $$ DECLARE d RECORD; BEGIN
        FOR d IN SELECT * FROM defs LOOP EXECUTE 'DROP INDEX ' || d.indexname; END LOOP;
    END $$;
    ALTER TABLE events SET UNLOGGED;
    ALTER TABLE session_records SET UNLOGGED;
    INSERT INTO devices SELECT 'd' || n, 'meter', 100 FROM generate_series(0, 99999) n;
    INSERT INTO session_records SELECT lpad(to_hex(n), 32, '0')::uuid, 'd' || n % 100000, 'meter', 'n' || n / 100 % 10,
            lpad(to_hex(n / 100 % 10), 32, 'a')::uuid, CASE WHEN n % 100 = 0 THEN 'active' ELSE 'closed' END,
            n * 1000, CASE WHEN n % 100 > 0 THEN n * 1000 END, CASE WHEN n % 100 > 0 THEN 'kicked' END, 1, n,
            CASE WHEN n % 100 > 0 THEN n END, NULL, n * 1000, 0, '127.0.0.1:1', '{}', NULL
        FROM generate_series(1, 1000000) n;
    INSERT INTO events SELECT n, n % 10, lpad(to_hex(n), 32, '0')::uuid, 'lastpong.session.disconnected.v1', n * 1000,
            'n1', 'd' || n % 100000, 'meter', lpad(to_hex(n), 32, '0')::uuid, 'kicked', '{\"x\":1}'
        FROM generate_series(1, 1000000) n;
    UPDATE log_head SET newest = 1000000;
    INSERT INTO nodes (node_id, incarnation, started_at)
        SELECT 'n' || n, lpad(to_hex(n), 32, 'a')::uuid, 0 FROM generate_series(0, 9) n;
    DO $$ DECLARE d RECORD; BEGIN
        FOR d IN SELECT * FROM defs LOOP EXECUTE d.indexdef; END LOOP;
    END $$";

/// From here on the server tells its plans, to whoever connects anew.
const TELL: &str = "
    ALTER ROLE lastpong SET session_preload_libraries = 'auto_explain';
    ALTER ROLE lastpong SET auto_explain.log_min_duration = 0;
    ALTER ROLE lastpong SET auto_explain.log_nested_statements = on;
    ALTER ROLE lastpong SET auto_explain.log_analyze = on;
    ALTER ROLE lastpong SET auto_explain.log_buffers = on;
    ALTER ROLE lastpong SET auto_explain.log_timing = off;
    ALTER ROLE lastpong SET auto_explain.log_format = 'json'";

/// The plans in a log.
fn plans(log: &str) -> Vec<Value> {
    let mut plans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if line.ends_with("plan:") {
            let mut text = String::new();
            while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
                text += more;
            }
            plans.push(serde_json::from_str(&text).expect("a plan in JSON"));
        }
    }
    plans
}

/// Every step of a plan, as (its kind, the table it reads).
fn steps(plan: &Value, found: &mut Vec<(String, String)>) {
    let word = |key: &str| plan[key].as_str().unwrap_or_default().to_owned();
    found.push((word("Node Type"), word("Relation Name")));
    for below in plan["Plans"].as_array().into_iter().flatten() {
        steps(below, found);
    }
}

/// What is wrong with a plan; nothing, if nothing is.
fn fault(plan: &Value) -> Option<String> {
    let mut found = Vec::new();
    steps(&plan["Plan"], &mut found);
    let text = plan["Query Text"].as_str().unwrap_or_default();
    let long = ["session_records", "events", "devices"];
    if found.iter().any(|(kind, table)| kind.ends_with("Seq Scan") && long.contains(&table.as_str())) {
        return Some(format!("read through: {text}"));
    }
    // History by what is not indexed, and how much of it there is, is read along its order until there is enough.
    let along_history = text.contains("count(*)") || text.contains("COUNT(*)") || {
        text.contains("\"end_seq\" DESC") && (text.contains("reason\" =") || text.contains("device_id\" >="))
    };
    // A function's own statements are told one by one.
    let is_call = ["SELECT \"lastpong_", "SELECT lastpong_", "SELECT c.fenced,"]
        .iter()
        .any(|call| text.starts_with(call));
    let pages =
        ["Shared Hit Blocks", "Shared Read Blocks"].map(|key| plan["Plan"][key].as_u64().unwrap_or(0));
    let pages: u64 = pages.iter().sum();
    (pages > MOST_PAGES && !along_history && !is_call).then(|| format!("{pages} pages: {text}"))
}

async fn use_everything(nodes: &[Node; 3], round: i64) {
    let [a, b, c] = nodes;
    let second = round * 10;
    let starts: Vec<_> = (0..20).map(|n| a.start(&format!("d{}", n * 50 + round + 1), second)).collect();
    a.commit(starts.iter().map(Said::said).collect()).await.unwrap();
    // Takeover, and ends.
    let takes: Vec<_> = (0..10).map(|n| b.start(&format!("d{}", n * 50 + round + 1), second + 1)).collect();
    b.commit(takes.iter().map(Said::said).collect()).await.unwrap();
    a.commit(starts.iter().map(|s| s.ended(Reason::Kicked, second + 2)).collect()).await.unwrap();
    let heard = LastHeard { session_id: takes[0].id(), last_pong_at: None, last_active_at: at(second) };
    b.store.touch(b.run.incarnation, vec![HeardPage { number: 1, heard: vec![heard] }]).await.unwrap();
    b.store.end_session(&b.run, takes[1].id(), Reason::Kicked, DetectedBy::Operator).await.unwrap();
    let session = takes[2].id();
    let device: DeviceId = format!("d{}", round + 1).parse().unwrap();
    let exact = Match::Is(device.to_string());
    let beginning = Match::StartsWith("d99".into());
    for store in [&a.store, &c.store] {
        store.ping().await.unwrap();
        store.bounds().await.unwrap();
        store.session(session).await.unwrap().unwrap();
        store.active_of(std::slice::from_ref(&device)).await.unwrap();
        store.active_page(&b.run, Some(session), SMALL).await.unwrap();
        for after in [0, ROWS / 2, ROWS] {
            store.events(after, &EventFilter::default(), SMALL).await.unwrap();
            let one = EventFilter { device_ids: vec![exact.clone()], ..EventFilter::default() };
            store.events(after, &one, SMALL).await.unwrap();
            let some = EventFilter { device_ids: vec![beginning.clone()], ..EventFilter::default() };
            store.events(after, &some, SMALL).await.unwrap();
        }
        let any = HistoryFilter::default;
        for filter in [
            any(),
            HistoryFilter { before: Some(ROWS / 2), ..any() },
            HistoryFilter { device_id: Some(exact.clone()), ..any() },
            HistoryFilter { device_id: Some(exact.clone()), before: Some(ROWS / 2), ..any() },
            HistoryFilter { device_id: Some(beginning.clone()), ..any() },
            HistoryFilter { reason: Some(Reason::Kicked), ..any() },
        ] {
            assert!(!store.history(&filter, SMALL).await.unwrap().is_empty(), "{filter:?}");
        }
    }
    let lost = b.peer("n3").await;
    b.store.declare_lost(&b.run, &lost).await.unwrap();
    b.store.adopt(&b.run, &lost.run.node_id).await.unwrap();
    let reaped = b.store.reap(&b.run, &lost.run.node_id, at(second), SMALL).await.unwrap();
    assert_eq!(reaped.len(), SMALL);
    b.store.retire(&b.run).await.unwrap();
    let reborn = Run { node_id: "n4".parse().unwrap(), incarnation: Incarnation::new() };
    c.store.begin(&reborn, at(second)).await.unwrap();
    assert_eq!(c.store.recover(&reborn, at(second), SMALL).await.unwrap().len(), SMALL);
    assert_eq!(c.store.expire_events(Timestamp(i64::MAX), SMALL).await.unwrap(), SMALL);
}

#[tokio::test]
async fn a_million_rows_are_read_by_their_indexes() {
    let (server, nodes) = nodes(["a", "b", "c"]).await;
    for node in &nodes {
        node.store.close().await;
    }
    server.0.sql(FILL);
    server.0.sql(TELL);
    let nodes = nodes.map(|node| Node { store: server.store(node.run.node_id.as_str()), ..node });
    // First as after a sudden growth, when the planner knows nothing of the tables; then as it usually is.
    for round in 0..TIMES * 2 {
        if round == TIMES {
            server.0.sql("VACUUM ANALYZE");
        }
        use_everything(&nodes, round).await;
    }
    // By itself, because a count of a million is long whatever is done.
    let device = HistoryFilter { device_id: Some(Match::Is("d7".into())), ..HistoryFilter::default() };
    nodes[0].store.history_total(&HistoryFilter::default()).await.unwrap();
    nodes[0].store.history_total(&device).await.unwrap();

    let seen = plans(&server.0.log());
    let mut read = Vec::new();
    seen.iter().for_each(|plan| steps(&plan["Plan"], &mut read));
    for table in ["session_records", "events", "devices"] {
        let by_index = |(kind, of): &(String, String)| kind.contains("Index") && of == table;
        assert!(read.iter().any(by_index), "no plan on {table} was told");
    }
    let mut faults: Vec<_> = seen.iter().filter_map(fault).collect();
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{} plans, of which {faults:#?}", seen.len());

    // This test can fail: a table that is read through is noticed, and so is an index.
    for bad in [
        "SELECT count(data) FROM events WHERE data = 'x'",
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT max(data) FROM events WHERE seq > 9",
    ] {
        let before = server.0.log().len();
        server.0.sql(bad);
        let told = plans(&server.0.log()[before..]);
        assert!(told.iter().any(|plan| fault(plan).is_some()), "{bad}: {told:?}");
    }
}
