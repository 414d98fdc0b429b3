//! When a device is asked: not all of them at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::raw::{PING, Raw};
use crate::support::{Server, token, within};

const DEVICES: usize = 200;
const INTERVAL: Duration = Duration::from_secs(4);

/// Each quarter of the interval should have 50 of 200. That one of four has fewer than 20 by chance is less likely
/// than 1 in 1,000,000 (Chernoff: 4 exp(-200 KL(0.095, 0.25))), and a machine that is late by half a second
/// moves 25 of them from one quarter to the next.
const LEAST: usize = 20;

#[tokio::test]
async fn first_pings_are_spread_over_the_interval() {
    let server = Server::start(&[("PING_INTERVAL", "4s"), ("PONG_TIMEOUT", "10s")]).await;
    let waits = join_all((0..DEVICES).map(|n| {
        let (addr, token) = (server.addr, token(&format!("asked-{n}")));
        async move {
            let (mut device, _) = Raw::connect(addr, &token).await;
            let welcomed = Instant::now();
            let first = within("a first ping", device.next()).await.expect("readable").expect("a frame");
            assert_eq!(first.opcode, PING);
            welcomed.elapsed()
        }
    }))
    .await;
    let mut quarters = [0; 4];
    for wait in &waits {
        // A ping that is late by the machine's fault belongs to the last.
        let quarter = wait.as_micros() * 4 / INTERVAL.as_micros();
        quarters[(quarter as usize).min(3)] += 1;
    }
    assert!(quarters.iter().all(|n| *n >= LEAST), "first pings are bunched: {quarters:?} of {waits:?}");
}
