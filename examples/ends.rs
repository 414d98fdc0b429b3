//! How many ends a second one connection puts on the record in Postgres, beside what Postgres does with the same rows
//! and no questions asked.
//!
//! Run it by `scripts/bench-ends`. Each way gets the same number of ends, in batches of the same size, each batch one
//! round trip and one transaction, over one connection. The ways take turns, batch by batch; what is told is the median
//! of some runs, of which the first, unmeasured, warms all of them. The whole is done on a server that waits for its
//! disk, and again on one that does not.
//!
//! - `lastpong` is [`Store::commit`] as the registry calls it, with the events that it hands back to the feed.
//! - `by hand` is one statement that leaves the same rows in the same tables, and trusts its caller in everything.
//! - `INSERT` and `COPY` put the event rows alone into a table like `events`, with its indexes.

#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use futures_util::SinkExt as _;
use lastpong::event::{Connected, Disconnected, RttMs};
use lastpong::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use lastpong::reason::{DetectedBy, Reason};
use lastpong::secret::Secret;
use lastpong::store::{End, Start, Store, Told, Write};
use lastpong::time::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

/// Measures ends a second into a private Postgres.
#[derive(Parser)]
struct Options {
    /// How many ends each way gets in each turn.
    #[arg(long, default_value_t = 20_000)]
    ends: usize,
    /// How many of them make a batch.
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// How many turns are measured; an odd number has a median.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// More settings of the server, as `name=value`.
    #[arg(long = "set")]
    settings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Lastpong,
    ByHand,
    Insert,
    Copy,
}

const WAYS: [Way; 4] = [Way::Lastpong, Way::ByHand, Way::Insert, Way::Copy];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let durable = measure(&options, "on").await.context("with fsync")?;
    let careless = measure(&options, "off").await.context("without fsync")?;
    println!(
        "{:<14} {:>10} {:>11} {:>10} {:>11}",
        "rows a second", "fsync on", "x lastpong", "fsync off", "x lastpong"
    );
    for (way, name) in ["lastpong", "by hand", "INSERT", "COPY"].into_iter().enumerate() {
        let [(on, on_times), (off, off_times)] =
            [&durable, &careless].map(|of| (of.rates[way], of.ratios[way]));
        println!("{name:<14} {on:>10.0} {on_times:>11.2} {off:>10.0} {off_times:>11.2}");
    }
    let rates = |of: &Figures| {
        let [lastpong, by_hand, insert, copy] = of.rates.map(f64::round);
        serde_json::json!({
            "lastpong": lastpong, "by_hand": by_hand, "insert": insert, "copy": copy,
            "by_hand_ratio": of.ratios[1], "insert_ratio": of.ratios[2], "copy_ratio": of.ratios[3],
        })
    };
    let line = serde_json::json!({
        "bench": "ends", "ends": options.ends, "batch": options.batch, "turns": options.turns,
        "fsync_on": rates(&durable), "fsync_off": rates(&careless),
    });
    println!("{line}");
    Ok(())
}

/// What a run of all ways on one server came to, by way.
struct Figures {
    /// Medians, in rows a second.
    rates: [f64; 4],
    /// To lastpong's rate of the same turn, medians.
    ratios: [f64; 4],
}

async fn measure(options: &Options, fsync: &str) -> anyhow::Result<Figures> {
    let fsync = format!("fsync={fsync}");
    // As a server is set up for such work: no checkpoint within a turn, full pages logged after each.
    let mut settings =
        vec![fsync.as_str(), "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB"];
    settings.extend(options.settings.iter().map(String::as_str));
    let server = postgres::Postgres::start_with(&settings);
    let mut bench = Bench::new(&server).await?;
    let mut turns = Vec::new();
    for turn in 0..=options.turns {
        let rates = bench.turn(options).await?;
        if turn > 0 {
            turns.push(rates);
        }
    }
    bench.store.close().await;
    let median = |of: &dyn Fn(&[f64; 4]) -> f64| {
        let mut all: Vec<_> = turns.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let of_ways = [0, 1, 2, 3];
    Ok(Figures {
        rates: of_ways.map(|way| median(&|turn| turn[way])),
        ratios: of_ways.map(|way| median(&|turn| turn[way] / turn[0])),
    })
}

/// A batch as its way wants it, made before the clock runs.
enum Batch {
    Lastpong(Arc<Vec<Write>>),
    ByHand(Rows),
    Insert(Rows),
    Copy(Rows, Bytes),
}

struct Bench {
    store: Store,
    run: Run,
    client: Client,
    by_hand: Statement,
    insert: Statement,
    /// Of the tables that only take events.
    newest: i64,
}

impl Bench {
    async fn new(server: &postgres::Postgres) -> anyhow::Result<Self> {
        let node: NodeId = "node-1".parse()?;
        let store = Store::open_postgres(&Secret::new(server.url()), &node, None)?;
        let run = Run { node_id: node, incarnation: Incarnation::new() };
        store.begin(&run, Timestamp::now()).await?;
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(TABLES).await?;
        let by_hand = client.prepare(BY_HAND).await?;
        let insert = client.prepare(INSERT).await?;
        Ok(Self { store, run, client, by_hand, insert, newest: 0 })
    }

    /// Rows a second of each way. The ways change batch by batch, so that whatever else the machine does befalls all.
    async fn turn(&mut self, options: &Options) -> anyhow::Result<[f64; 4]> {
        let mut batches = Vec::new();
        for way in WAYS {
            batches.push(self.batches(options, way).await?);
        }
        self.client.batch_execute("VACUUM (ANALYZE)").await?;
        let mut took = [Duration::ZERO; 4];
        for n in 0..options.ends.div_ceil(options.batch) {
            for (took, of_way) in took.iter_mut().zip(&batches) {
                let began = Instant::now();
                self.write(&of_way[n]).await?;
                *took += began.elapsed();
            }
        }
        Ok(took.map(|took| options.ends as f64 / took.as_secs_f64()))
    }

    /// The ends of one turn. Where they are of sessions on the record, those have begun when this returns.
    async fn batches(&mut self, options: &Options, way: Way) -> anyhow::Result<Vec<Batch>> {
        let starts: Vec<_> = (0..options.ends).map(|n| start(&self.run, way, n)).collect::<Result<_, _>>()?;
        let mut batches = Vec::new();
        for some in starts.chunks(options.batch) {
            if matches!(way, Way::Lastpong | Way::ByHand) {
                let writes = some.iter().cloned().map(Write::Start).collect();
                self.store.commit(&self.run, Arc::new(writes)).await?;
            }
            let ends: Vec<_> = some.iter().map(end).collect();
            let rows = Rows::of(&ends, self.newest)?;
            batches.push(match way {
                Way::Lastpong => Batch::Lastpong(Arc::new(ends.into_iter().map(Write::End).collect())),
                Way::ByHand => Batch::ByHand(rows),
                Way::Insert => Batch::Insert(rows),
                Way::Copy => {
                    let text = rows.text(&self.run.node_id);
                    Batch::Copy(rows, text)
                }
            });
            self.newest += some.len() as i64;
        }
        Ok(batches)
    }

    async fn write(&self, batch: &Batch) -> anyhow::Result<()> {
        let node = self.run.node_id.as_str();
        let (done, asked) = match batch {
            Batch::Lastpong(writes) => {
                let done = self.store.commit(&self.run, writes.clone()).await?;
                (done.events.len() as u64, writes.len())
            }
            Batch::ByHand(r) => {
                let given: [&(dyn ToSql + Sync); 10] = [
                    &r.ids,
                    &r.times,
                    &node,
                    &r.device_ids,
                    &r.device_types,
                    &r.session_ids,
                    &r.reasons,
                    &r.datas,
                    &self.run.incarnation.0,
                    &(r.ids.len() as i64),
                ];
                (self.client.execute(&self.by_hand, &given).await?, r.ids.len())
            }
            Batch::Insert(r) => {
                let given: [&(dyn ToSql + Sync); 9] = [
                    &r.ids,
                    &r.times,
                    &node,
                    &r.device_ids,
                    &r.device_types,
                    &r.session_ids,
                    &r.reasons,
                    &r.datas,
                    &r.seqs,
                ];
                (self.client.execute(&self.insert, &given).await?, r.ids.len())
            }
            Batch::Copy(r, text) => {
                let mut sink = Box::pin(self.client.copy_in(COPY).await?);
                sink.send(text.clone()).await?;
                (sink.as_mut().finish().await?, r.ids.len())
            }
        };
        anyhow::ensure!(done == asked as u64, "{done} of {asked} rows were written");
        Ok(())
    }
}

fn start(run: &Run, way: Way, n: usize) -> anyhow::Result<Start> {
    let data = Connected {
        device_id: format!("{way:?}-{n}").parse()?,
        device_type: "meter".parse()?,
        session_id: SessionId::new(),
        node_id: run.node_id.clone(),
        incarnation: run.incarnation,
        connected_at: Timestamp::now(),
        remote_addr: "198.51.100.7:4711".parse()?,
        meta: [("site".to_owned(), "north".to_owned())].into(),
        trace_id: None,
    };
    Ok(Start { event_id: EventId::new(), data: Arc::new(data), after_seq: 0, told: Told::Now })
}

fn end(start: &Start) -> End {
    let (d, now, reason) = (start.data.as_ref().clone(), Timestamp::now(), Reason::PongTimeout);
    let data = Disconnected {
        device_id: d.device_id,
        device_type: d.device_type,
        session_id: d.session_id,
        node_id: d.node_id,
        incarnation: d.incarnation,
        reason,
        initiator: reason.initiator(),
        detected_by: DetectedBy::Heartbeat,
        close_code: reason.close_code(),
        connected_at: d.connected_at,
        last_pong_at: Some(now),
        last_active_at: now,
        disconnected_at: now,
        detection_ms: 10_000.125,
        duration_ms: 3_600_000.5,
        rtt_ms: RttMs { last: Some(12.5), min: Some(8.25), avg: Some(11.0), max: Some(40.125) },
        pings_sent: Some(120),
        pongs_received: Some(118),
        reconnect_count: 2,
        remote_addr: d.remote_addr,
        meta: d.meta,
        trace_id: d.trace_id,
    };
    End { event_id: EventId::new(), data: Arc::new(data) }
}

/// The events, an array for each column that is not the same for all.
#[derive(Default)]
struct Rows {
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    times: Vec<i64>,
    device_ids: Vec<String>,
    device_types: Vec<String>,
    session_ids: Vec<Uuid>,
    reasons: Vec<&'static str>,
    datas: Vec<String>,
}

impl Rows {
    fn of(ends: &[End], newest: i64) -> anyhow::Result<Self> {
        let mut rows = Rows { seqs: (newest + 1..).take(ends.len()).collect(), ..Rows::default() };
        for End { event_id, data } in ends {
            rows.ids.push(event_id.0);
            rows.times.push(data.disconnected_at.0);
            rows.device_ids.push(data.device_id.to_string());
            rows.device_types.push(data.device_type.to_string());
            rows.session_ids.push(data.session_id.0);
            rows.reasons.push(data.reason.as_str());
            rows.datas.push(serde_json::to_string(&**data)?);
        }
        Ok(rows)
    }

    /// As `COPY` reads them.
    fn text(&self, node: &NodeId) -> Bytes {
        let mut text = String::new();
        for n in 0..self.ids.len() {
            let data = self.datas[n].replace('\\', r"\\");
            text += &format!(
                "{}\t{}\t{}\tlastpong.session.disconnected.v1\t{}\t{node}\t{}\t{}\t{}\t{}\t{data}\n",
                self.seqs[n],
                2,
                self.ids[n],
                self.times[n],
                self.device_ids[n],
                self.device_types[n],
                self.session_ids[n],
                self.reasons[n],
            );
        }
        text.into()
    }
}

/// As the store sets up its connections, but for the deadlines.
const TABLES: &str = "
    CREATE TABLE inserted (LIKE events INCLUDING ALL);
    CREATE TABLE copied (LIKE events INCLUDING ALL);
    SET jit = off; SET enable_seqscan = off;
";

/// The record of the ends, where every session is known to be active and every device to be there.
const BY_HAND: &str = "
    WITH head AS (
        UPDATE log_head SET newest = newest + $10 WHERE id = 1 RETURNING newest - $10 AS before
    ), ends AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[])
            WITH ORDINALITY AS w (id, at, device_id, device_type, session_id, reason, data, n)
    ), numbers AS (
        UPDATE devices d SET device_seq = d.device_seq + 1, device_type = e.device_type
        FROM ends e WHERE d.device_id = e.device_id RETURNING d.device_id, d.device_seq
    ), closed AS (
        UPDATE session_records r SET status = 'closed', end_time = e.at, reason = e.reason,
            end_seq = head.before + e.n, last_pong_at = e.at, last_active_at = e.at, reconnect_count = 2
        FROM ends e, head WHERE r.session_id = e.session_id AND r.status = 'active' AND r.incarnation = $9
    )
    INSERT INTO events (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data)
    SELECT head.before + e.n, d.device_seq, e.id, 'lastpong.session.disconnected.v1', e.at, $3, e.device_id,
        e.device_type, e.session_id, e.reason, e.data
    FROM head, ends e JOIN numbers d ON d.device_id = e.device_id
";

const INSERT: &str = "
    INSERT INTO inserted (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data)
    SELECT w.seq, 2, w.id, 'lastpong.session.disconnected.v1', w.at, $3, w.device_id, w.device_type, w.session_id,
        w.reason, w.data
    FROM unnest($1::uuid[], $2::bigint[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::bigint[])
        AS w (id, at, device_id, device_type, session_id, reason, data, seq)
";

const COPY: &str = "
    COPY copied (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data) FROM STDIN
";
