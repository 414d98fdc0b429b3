//! Row `heartbeats`: how many heartbeats a second one connection writes to Redis, beside redis-benchmark with as many
//! commands in flight, each on a private Redis that they reach by its Unix socket.
//!
//! A heartbeat is not one command: a script looks whether the session is still there, and writes its JSON and its time to
//! live; its place goes into a sorted set.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use lastpong::config::RedisUrl;
use lastpong::event::RttMs;
use lastpong::ids::{Incarnation, SessionId};
use lastpong::metrics::Metrics;
use lastpong::store::live::{Live, LiveSession, LiveState, Vitals};
use lastpong::time::Timestamp;

use super::Measured;
use crate::line::Figures;
use crate::redis_server::Redis;
use crate::subjects::Subject;
use crate::world::World;

pub const REFERENCE: Subject = Subject::Reference("redis-benchmark");

const IN_FLIGHT: usize = 1_000;
/// As many keys as there are sessions, values as long as a session's JSON.
const SESSIONS: usize = 20_000;
const BYTES: usize = 640;
const COMMANDS: usize = 1_000_000;

fn redis() -> Redis {
    Redis::start_with(&["--appendonly", "no", "--unixsocket", "socket"])
}

fn socket(redis: &Redis) -> String {
    redis.dir().join("socket").display().to_string()
}

pub fn measure(world: &World) -> anyhow::Result<Measured> {
    let redis = redis();
    let url = format!("unix://{}", socket(&redis));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let per_s = runtime.block_on(write(&url, world.measured / 4))?;
    let settings = Figures::default().and("sessions", SESSIONS).and("in_flight", IN_FLIGHT);
    Ok(Measured::new(Figures::default().with("per_s", per_s), settings.0))
}

async fn write(url: &str, during: Duration) -> anyhow::Result<f64> {
    let url = RedisUrl::parse(url).context("not a URL of Redis")?;
    let live = Live::open(Some(&url), Duration::from_secs(900), Arc::new(Metrics::new()))?;
    let sessions: Vec<_> = (0..SESSIONS).map(session).collect::<Result<_, _>>()?;
    live.put(&sessions).await?;
    let (began, mut written, mut pongs) = (Instant::now(), 0, 0);
    while began.elapsed() < during {
        pongs += 1;
        for some in sessions.chunks(IN_FLIGHT) {
            let now = Timestamp::now();
            let mut beats: Vec<_> = some.iter().map(LiveSession::heartbeat).collect();
            for beat in &mut beats {
                (beat.vitals.last_pong_at, beat.vitals.last_active_at) = (Some(now), now);
                (beat.vitals.pings_sent, beat.vitals.pongs_received) = (pongs, pongs);
            }
            let unknown = live.update_heartbeat_batch(&beats).await?;
            anyhow::ensure!(unknown.is_empty(), "{} sessions were not there", unknown.len());
            written += beats.len();
        }
    }
    Ok(written as f64 / began.elapsed().as_secs_f64())
}

fn session(n: usize) -> anyhow::Result<LiveSession> {
    let now = Timestamp::now();
    Ok(LiveSession {
        vitals: Vitals {
            state: LiveState::Live,
            last_pong_at: Some(now),
            last_active_at: now,
            rtt_ms: RttMs { last: Some(12.5), min: Some(8.25), avg: Some(11.0), max: Some(40.125) },
            missed: 0,
            pings_sent: 1,
            pongs_received: 1,
        },
        session_id: SessionId::new(),
        device_id: format!("device-{n}").parse()?,
        device_type: "meter".parse()?,
        device_seq: Some(1),
        node_id: "node-1".parse()?,
        incarnation: Incarnation::new(),
        connected_at: now,
        reconnect_count: 0,
        remote_addr: "198.51.100.7:4711".parse()?,
        meta: Arc::new([("site".to_owned(), "north".to_owned())].into()),
        trace_id: None,
    })
}

pub fn reference() -> anyhow::Result<Measured> {
    let redis = redis();
    let (set, zadd) = (benchmark(&redis, "set")?, benchmark(&redis, "zadd")?);
    // A SET and a ZADD for each.
    let value = Figures::default()
        .with("per_s", 1.0 / (1.0 / set + 1.0 / zadd))
        .with("set_per_s", set)
        .with("zadd_per_s", zadd);
    let settings = Figures::default().and("bytes", BYTES).and("in_flight", IN_FLIGHT);
    Ok(Measured::new(value, settings.0))
}

/// Commands a second of one client.
fn benchmark(redis: &Redis, test: &str) -> anyhow::Result<f64> {
    let numbers = [("-c", 1), ("-P", IN_FLIGHT), ("-r", SESSIONS), ("-n", COMMANDS), ("-d", BYTES)];
    let mut command = Command::new("redis-benchmark");
    command.args(["-s", &socket(redis), "--csv", "-t", test]);
    for (name, number) in numbers {
        command.args([name, &number.to_string()]);
    }
    let output = command.output().context("redis-benchmark can not be run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.lines().nth(1).and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok());
    rate.with_context(|| format!("redis-benchmark told no rate: {said}"))
}
