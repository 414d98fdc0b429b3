//! A lean WebSocket server of the usual kind: tokio-tungstenite, a task for each connection, which pings by an interval
//! and gives a client up that was silent for too long. Its read buffer is 1 KiB in place of 128.
//!
//! It keeps no record, knows no devices and tells nobody.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// A task a connection, on tokio-tungstenite.
#[derive(Debug, Clone, Copy, Parser)]
struct Options {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// From one ping to the next, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    interval_ms: u64,
    /// How long a client may be silent, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

const READ_BUFFER: usize = 1 << 10;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(options.workers).enable_all().build()?;
    runtime.block_on(async {
        // A task of its own, so that connections are accepted on a worker and not on the thread that waits here.
        tokio::spawn(accept(options)).await.context("the listener ended")?
    })
}

async fn accept(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.bind).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        // A connection that is gone before it was accepted is no reason to stop.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { hold(stream, options).await });
        }
    }
}

/// Holds one connection to its end, whatever that is.
async fn hold(stream: TcpStream, options: Options) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let mut socket = accept_async_with_config(stream, Some(config)).await.ok()?;
    let period = Duration::from_millis(options.interval_ms);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            message = socket.next() => match message?.ok()? {
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) => heard = Instant::now(),
                other => {
                    heard = Instant::now();
                    socket.send(other).await.ok()?;
                }
            },
            _ = ticks.tick() => {
                if heard.elapsed() > Duration::from_millis(options.timeout_ms) {
                    return None;
                }
                socket.send(Message::Ping(Bytes::new())).await.ok()?;
            }
        }
    }
}
