//! How many heartbeats a second one connection writes to Redis, beside redis-benchmark with as many commands in flight.
//!
//! Run it by `scripts/bench-heartbeats`, which starts a Redis of its own. Arguments: URL, sessions, seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lastpong::config::RedisUrl;
use lastpong::event::RttMs;
use lastpong::ids::{Incarnation, SessionId};
use lastpong::metrics::Metrics;
use lastpong::store::live::{Live, LiveSession, LiveState, Vitals};
use lastpong::time::Timestamp;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("usage: heartbeats URL [SESSIONS [SECONDS]]")?;
    let count = arguments.next().map_or(Ok(20_000), |n| n.parse())?;
    let seconds = arguments.next().map_or(Ok(5), |n| n.parse())?;
    let url = RedisUrl::parse(&url).context("not a URL of Redis")?;
    let live = Live::open(Some(&url), Duration::from_secs(900), Arc::new(Metrics::new()))?;
    let sessions: Vec<_> = (0..count).map(session).collect::<Result<_, _>>()?;
    live.put(&sessions).await?;
    let (began, mut written, mut pongs) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        pongs += 1;
        for some in sessions.chunks(1_000) {
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
    println!("{:.0}", written as f64 / began.elapsed().as_secs_f64());
    Ok(())
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
