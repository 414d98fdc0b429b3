//! What the row `drop` is measured by on Postgres: the same ends put on the record without asking anything.
//!
//! Each way gets as many ends as the row has sessions, in batches of a thousand, each batch one round trip and one
//! transaction over one connection, on a Postgres that is set up as lastpong's. The ways take turns, batch by batch; a
//! first turn of a few batches, unmeasured, warms all of them.
//!
//! - `store` is [`Store::commit`] as the registry calls it, with the events that it hands back to the feed.
//! - `by hand` is one statement that leaves the same rows in the same tables, and trusts its caller in everything.
//! - `INSERT` and `COPY` put the event rows alone into a table like `events`, with its indexes.

mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt as _;
use lastpong::event::{Connected, Disconnected, RttMs};
use lastpong::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use lastpong::reason::{DetectedBy, Reason};
use lastpong::secret::Secret;
use lastpong::store::{End, Start, Store, Told, Write};
use lastpong::time::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use super::Measured;
use crate::line::Figures;
use crate::postgres::Postgres;
use crate::subjects::Subject;
use crate::subjects::lastpong::POSTGRES;
use crate::world::World;
use sql::{BY_HAND, COPY, INSERT, Rows, TABLES};

pub const SUBJECT: Subject = Subject::Reference("by hand");

const BATCH: usize = 1_000;
const BATCHES_TO_WARM: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Lastpong,
    ByHand,
    Insert,
    Copy,
}

const WAYS: [Way; 4] = [Way::Lastpong, Way::ByHand, Way::Insert, Way::Copy];

pub fn measure(world: &World) -> anyhow::Result<Measured> {
    let ends = world.sessions as usize;
    let server = Postgres::start_with(&POSTGRES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [store, by_hand, insert, copy] = runtime.block_on(async {
        let mut bench = Bench::new(&server).await?;
        bench.turn(ends.min(BATCHES_TO_WARM * BATCH)).await?;
        let rates = bench.turn(ends).await?;
        bench.store.close().await;
        anyhow::Ok(rates)
    })?;
    let value = Figures::default()
        .with("ends_per_s", by_hand)
        .with("store_per_s", store)
        .with("insert_per_s", insert)
        .with("copy_per_s", copy);
    let settings = Figures::default().and("postgres", POSTGRES.join(" ")).and("batch", BATCH);
    Ok(Measured::new(value, settings.0).and("sessions", world.sessions))
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
    async fn new(server: &Postgres) -> anyhow::Result<Self> {
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
    async fn turn(&mut self, ends: usize) -> anyhow::Result<[f64; 4]> {
        let mut batches = Vec::new();
        for way in WAYS {
            batches.push(self.batches(ends, way).await?);
        }
        self.client.batch_execute("VACUUM (ANALYZE)").await?;
        let mut took = [Duration::ZERO; 4];
        for n in 0..ends.div_ceil(BATCH) {
            for (took, of_way) in took.iter_mut().zip(&batches) {
                let began = Instant::now();
                self.write(&of_way[n]).await?;
                *took += began.elapsed();
            }
        }
        Ok(took.map(|took| ends as f64 / took.as_secs_f64()))
    }

    /// The ends of one turn. Where they are of sessions on the record, those have begun when this returns.
    async fn batches(&mut self, ends: usize, way: Way) -> anyhow::Result<Vec<Batch>> {
        let starts: Vec<_> = (0..ends).map(|n| start(&self.run, way, n)).collect::<Result<_, _>>()?;
        let mut batches = Vec::new();
        for some in starts.chunks(BATCH) {
            if matches!(way, Way::Lastpong | Way::ByHand) {
                let writes = some.iter().cloned().map(Write::Start).collect();
                self.store.commit(&self.run, Arc::new(writes)).await?;
            }
            let these: Vec<_> = some.iter().map(end).collect();
            let rows = Rows::of(&these, self.newest)?;
            batches.push(match way {
                Way::Lastpong => Batch::Lastpong(Arc::new(these.into_iter().map(Write::End).collect())),
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
