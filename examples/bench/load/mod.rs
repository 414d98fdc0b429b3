//! The load: devices in a process of their own, so that their processor time and their open files are not the driver's.
//!
//! One thread, one poll, one socket a device. Orders come over standard input, which is a socket, and are answered over
//! standard output, one after another; between orders every device goes on answering. [`Client`] is the driver's end.
//!
//! - A turn answers devices first, and does only so much of what else there is to do; the longest turn is told.
//! - Every order has a time within which it has to be done, and answers what was missing then.
//!
//! The handshake, its answer and the welcome are the swarm's own; the rest of a device is far simpler here.

mod client;
mod conn;
mod dialect;
mod ends;
mod order;
mod task;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use clap::Args;
use lastpong::secret::Secret;
use lastpong::token::DeviceTokens;
use mio::{Events, Interest, Poll, Token};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use slab::Slab;

use crate::clock::now_us;
pub use client::Client;
use conn::Conn;
pub use order::{Answer, Dialect, How, Late, Left, Order};
use task::Task;

/// The key of device tokens, for servers that ask for one.
pub const SECRET: &str = "LASTPONG_TOKEN_SECRET";

const ORDERS: Token = Token(usize::MAX);
const EVENTS_A_TURN: usize = 1_024;
const DIALS_A_TURN: u32 = 64;
const READ_BYTES: usize = 16 << 10;
/// The longest time without a turn, in microseconds.
const LONGEST_WAIT_US: u64 = 50_000;

/// Simulated devices; the driver starts this by itself.
#[derive(Debug, Args)]
pub struct Options {
    /// Where they connect to.
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_enum)]
    dialect: Dialect,
    /// From one ping to the next.
    #[arg(long)]
    interval_ms: u64,
    /// Devices are PREFIX-0, PREFIX-1, …
    #[arg(long)]
    prefix: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The device dials.
    Dial(u32),
    /// The connection in this place pings, if it is still this device's.
    Ping { place: usize, device: u32 },
}

/// What is kept of a device beside its connection.
#[derive(Debug, Clone, Copy, Default)]
struct Device {
    place: Option<usize>,
    /// Dials in a row that came to nothing.
    failures: u32,
}

struct Load {
    options: Options,
    host: String,
    tokens: Option<DeviceTokens>,
    poll: Poll,
    orders: mio::net::UnixStream,
    heard: Vec<u8>,
    devices: Vec<Device>,
    conns: Slab<Conn>,
    dials: VecDeque<u32>,
    timers: BinaryHeap<Reverse<(u64, Due)>>,
    /// Handshakes under way, and how many may be.
    pending: u32,
    most_pending: u32,
    dialled: u32,
    first_source: u32,
    rng: SmallRng,
    task: Option<Task>,
    told: Answer,
    /// Pings of devices below this number are told if they are late, and by how much each was.
    watched: u32,
    late_ms: Vec<f64>,
    now: u64,
    inbox: BytesMut,
    outbox: BytesMut,
    chunk: Box<[u8]>,
}

/// Serves orders until there are no more.
///
/// # Errors
/// What keeps the loop from going on.
pub fn run(options: Options) -> anyhow::Result<()> {
    let secret = std::env::var(SECRET).ok();
    let stdin = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stdin.set_nonblocking(true)?;
    let mut orders = mio::net::UnixStream::from_std(stdin);
    let poll = Poll::new()?;
    poll.registry().register(&mut orders, ORDERS, Interest::READABLE)?;
    let load = Load {
        host: options.to.to_string(),
        tokens: secret.map(|secret| DeviceTokens::new(&Secret::new(secret))),
        options,
        poll,
        orders,
        heard: Vec::new(),
        devices: Vec::new(),
        conns: Slab::new(),
        dials: VecDeque::new(),
        timers: BinaryHeap::new(),
        pending: 0,
        most_pending: 0,
        dialled: 0,
        first_source: rand::random_range(0..conn::SOURCES),
        rng: SmallRng::seed_from_u64(1),
        task: None,
        told: Answer::default(),
        watched: 0,
        late_ms: Vec::new(),
        now: now_us(),
        inbox: BytesMut::new(),
        outbox: BytesMut::new(),
        chunk: vec![0; READ_BYTES].into(),
    };
    load.serve()
}

impl Load {
    fn serve(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        loop {
            let wait = Duration::from_micros(self.wait_us());
            if let Err(e) = self.poll.poll(&mut events, Some(wait))
                && e.kind() != io::ErrorKind::Interrupted
            {
                return Err(e.into());
            }
            self.now = now_us();
            let mut ordered = false;
            for event in &events {
                match event.token() {
                    ORDERS => ordered = true,
                    Token(place) => self.on_event(place, event),
                }
            }
            self.on_time();
            self.dial_some();
            if ordered && !self.read_orders()? {
                return Ok(());
            }
            self.go_on()?;
            let turn_ms = crate::clock::millis(self.now, now_us());
            self.told.own_turn_ms = self.told.own_turn_ms.max(turn_ms);
        }
    }

    fn wait_us(&self) -> u64 {
        let can_dial = !self.dials.is_empty() && self.pending < self.most_pending;
        if can_dial {
            return 0;
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let task = self.task.as_ref().and_then(Task::next_us);
        let next = [timer, task].into_iter().flatten().min().unwrap_or(u64::MAX);
        next.saturating_sub(now_us()).min(LONGEST_WAIT_US)
    }

    fn on_time(&mut self) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= self.now
        {
            let Some(Reverse((at, due))) = self.timers.pop() else { return };
            match due {
                Due::Dial(device) => self.dials.push_back(device),
                Due::Ping { place, device } => self.ping(place, device, at),
            }
        }
    }

    fn dial_some(&mut self) {
        for _ in 0..DIALS_A_TURN {
            if self.pending >= self.most_pending {
                return;
            }
            let Some(device) = self.dials.pop_front() else { return };
            self.dial(device);
        }
    }

    /// Takes up an order; false when there will be no more.
    fn read_orders(&mut self) -> anyhow::Result<bool> {
        loop {
            let mut chunk = [0; 4096];
            match self.orders.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(n) => self.heard.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let order = serde_json::from_slice(&line)?;
            anyhow::ensure!(self.task.is_none(), "an order came before the one before it was answered");
            self.begin(order);
        }
        Ok(true)
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        self.told.ended_us = now_us();
        let mut line = serde_json::to_vec(&self.told)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
        Ok(())
    }
}
