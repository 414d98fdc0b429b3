//! Row `drop`: all devices lose their connections at once; how long until every end is on the record, with a subscriber,
//! and in the Redis stream.
//!
//! Times are from the first socket that was closed; the load takes a while for all of them, and that is in them.

use std::thread;
use std::time::Duration;

use super::ends::newest;
use super::{Measured, SEEN_WITHIN, UNDER_WAY, delays};
use crate::clock::millis;
use crate::line::Figures;
use crate::load::How;
use crate::subjects::{Server, Subject};
use crate::watch::record::Record;
use crate::watch::sse::Sse;
use crate::watch::stream::StreamReader;
use crate::world::World;

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let server = Server::start(subject, world, INTERVAL)?;
    let lastpong = server.lastpong()?;
    let mut load = server.load()?;
    let (devices, _) = load.connect(world.sessions, UNDER_WAY)?;
    let sse = Sse::subscribe(&lastpong.http, 1)?;
    let stream =
        lastpong.stores.as_ref().map(|stores| StreamReader::start(&stores.redis.url())).transpose()?;
    let mut record = Record::open(lastpong)?;
    std::thread::sleep(world.settle);

    let count = devices.len();
    let all = newest(lastpong)? + count as i64;
    let (answer, recorded_us) = thread::scope(|scope| {
        let recorded = scope.spawn(|| record.until(all, SEEN_WITHIN));
        let answer = load.leave(devices, How::Vanish, Duration::ZERO);
        let recorded =
            recorded.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the record's watch panicked")));
        anyhow::Ok((answer?, recorded?))
    })?;
    sse.seen.until(count, SEEN_WITHIN)?;
    if let Some(stream) = &stream {
        stream.seen.until(count, SEEN_WITHIN)?;
    }

    let seconds = |moment: Option<u64>| millis(answer.began_us, moment.unwrap_or_default()) / 1_000.0;
    let at_subscriber = seconds(sse.seen.last_us());
    let recorded = seconds(Some(recorded_us));
    let in_stream = stream.as_ref().map(|stream| seconds(stream.seen.last_us()));
    let whole = at_subscriber.max(recorded).max(in_stream.unwrap_or_default());
    let closed = seconds(answer.left.last().map(|left| left.at_us));
    let mut value = Figures::default()
        .with("all_s", whole)
        .with("ends_per_s", count as f64 / whole)
        .with("recorded_s", recorded)
        .with("recorded_per_s", count as f64 / recorded)
        .with("subscriber_s", at_subscriber)
        .with("load_s", closed);
    if let Some(in_stream) = in_stream {
        value = value.with("stream_s", in_stream);
    }
    let value = delays(value, "", &sse.seen.delays_ms(&answer.left)?);
    Ok(Measured::new(value, server.settings).and("sessions", world.sessions))
}
