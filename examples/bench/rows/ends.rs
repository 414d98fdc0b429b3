//! Row `ends`: among many sessions some devices close, one after another; how long until the end of each is told to a
//! subscriber, and until it is found by whoever asks for it.

use std::time::{Duration, Instant};

use super::{Measured, SEEN_WITHIN, UNDER_WAY, delays};
use crate::clock::{millis, now_us};
use crate::line::Figures;
use crate::load::How;
use crate::subjects::lastpong::Lastpong;
use crate::subjects::{Server, Subject};
use crate::watch::sse::{ENDS, Sse};
use crate::world::World;

const GAP: Duration = Duration::from_millis(10);

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

/// Between two questions for the same end.
const ASK_AGAIN: Duration = Duration::from_micros(500);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let server = Server::start(subject, world, INTERVAL)?;
    let lastpong = server.lastpong()?;
    let (told, asked) = (world.share(1, 50), world.share(1, 150));
    let mut load = server.load()?;
    let (devices, _) = load.connect(world.sessions, UNDER_WAY)?;
    let sse = Sse::subscribe(&lastpong.http, 1)?;
    std::thread::sleep(world.settle);

    let middle = devices.start + told;
    let answer = load.leave(devices.start..middle, How::Close, GAP)?;
    sse.seen.until(told as usize, SEEN_WITHIN)?;
    let to_subscriber = sse.seen.delays_ms(&answer.left)?;

    let mut to_whoever_asks = Vec::new();
    for device in middle..middle + asked {
        let after = newest(lastpong)?;
        let left = load.leave(device..device + 1, How::Close, Duration::ZERO)?.left[0];
        to_whoever_asks.push(millis(left.at_us, found(lastpong, device, after)?));
    }
    let value = delays(Figures::default(), "", &to_subscriber);
    let value = delays(value, "asked_", &to_whoever_asks);
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("sessions", world.sessions).and("closes", told).and("closes_asked_for", asked))
}

/// The `seq` of the newest event.
pub fn newest(lastpong: &Lastpong) -> anyhow::Result<i64> {
    let page = lastpong.http.json("/v1/events?limit=1")?;
    page["newest"].as_i64().ok_or_else(|| anyhow::anyhow!("a page without `newest`: {page}"))
}

/// Asks for the device's end until it is there; gives the moment.
fn found(lastpong: &Lastpong, device: u32, after: i64) -> anyhow::Result<u64> {
    let path = format!("/v1/events?after={after}&limit=1&types={ENDS}&device_id=bench-{device}");
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let page = lastpong.http.json(&path)?;
        if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
            return Ok(now_us());
        }
        anyhow::ensure!(Instant::now() < deadline, "bench-{device} closed and has no end in {SEEN_WITHIN:?}");
        std::thread::sleep(ASK_AGAIN);
    }
}
