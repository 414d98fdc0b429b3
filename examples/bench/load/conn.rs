//! A device's connection: dialled, upgraded, answering.

use std::cmp::Reverse;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lastpong::ids::SessionId;
use lastpong::swarm::backoff::Outcome;
use lastpong::swarm::wire;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use rand::Rng;
use socket2::{Domain, Protocol, Socket, Type};

use super::dialect::KEY;
use super::ends::Broken;
use super::{Due, Load};
use crate::clock::millis;

/// A source address has about 28,000 ports, those of connections that were closed are taken for a minute, and once half
/// of them are taken Linux looks for milliseconds before it finds one more.
const DIALS_OF_ONE_SOURCE: u32 = 2_000;
/// So many sources before the first is used again. Each load begins anywhere among them: the one before it may just
/// have ended.
pub(super) const SOURCES: u32 = 1 << 23;

/// Longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Connecting,
    Asked,
    Upgraded,
    Ready,
    /// It said that it leaves.
    Leaving,
}

pub struct Conn {
    pub device: u32,
    pub step: Step,
    pub session: Option<SessionId>,
    /// It answers no more.
    pub silent: bool,
    /// The first ping that it did not answer.
    pub unanswered_us: Option<u64>,
    /// The latest ping.
    pub pinged_us: Option<u64>,
    pub(super) stream: TcpStream,
    /// What is left of an unfinished frame, or of the answer to the handshake.
    rest: Box<[u8]>,
    /// What the kernel did not take.
    unsent: Vec<u8>,
}

impl Load {
    pub(super) fn dial(&mut self, device: u32) {
        let source = self.first_source.wrapping_add(self.dialled / DIALS_OF_ONE_SOURCE) % SOURCES;
        self.dialled = self.dialled.wrapping_add(1);
        // Above those of the stores and the servers.
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + source);
        let stream = match connect(self.options.to, source.into()) {
            Ok(stream) => stream,
            Err(_) => {
                self.told.failed += 1;
                return self.come_back(device, Outcome::Failed { code: None });
            }
        };
        let entry = self.conns.vacant_entry();
        let place = entry.key();
        let conn = entry.insert(Conn {
            device,
            step: Step::Connecting,
            session: None,
            silent: false,
            unanswered_us: None,
            pinged_us: None,
            stream,
            rest: Box::default(),
            unsent: Vec::new(),
        });
        self.devices[device as usize].place = Some(place);
        self.pending += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut conn.stream, Token(place), both).is_err() {
            self.broken(place, Broken::Ended(None));
        }
    }

    pub(super) fn on_event(&mut self, place: usize, event: &Event) {
        if let Err(broken) = self.converse(place, event) {
            self.broken(place, broken);
        }
    }

    fn converse(&mut self, place: usize, event: &Event) -> Result<(), Broken> {
        let Some(conn) = self.conns.get_mut(place) else { return Ok(()) };
        if conn.step == Step::Connecting {
            if let Some(e) = conn.stream.take_error()? {
                return Err(e.into());
            }
            // The event may be one of the connection that had this place before.
            if !event.is_writable() || conn.stream.peer_addr().is_err() {
                return Ok(());
            }
            conn.step = Step::Asked;
            let device = conn.device;
            let token = self.tokens.as_ref().map(|tokens| {
                let id = format!("{}-{device}", self.options.prefix);
                let id = id.parse().expect("a name and a number are a name");
                tokens.mint(&id, None, TOKEN_TTL)
            });
            let request =
                self.options.dialect.request(&self.host, token.as_ref().map(|minted| minted.token.expose()));
            conn.send(&request)?;
        } else if event.is_writable() && !conn.unsent.is_empty() {
            let unsent = std::mem::take(&mut conn.unsent);
            conn.send(&unsent)?;
        }
        let closed = event.is_read_closed() || event.is_error();
        match event.is_readable() || closed {
            true => self.read(place, closed),
            false => Ok(()),
        }
    }

    /// Reads and handles all there is. `closed` says that an end is behind it, which no further event tells.
    fn read(&mut self, place: usize, closed: bool) -> Result<(), Broken> {
        loop {
            let Some(conn) = self.conns.get_mut(place) else { return Ok(()) };
            let n = match conn.stream.read(&mut self.chunk) {
                Ok(0) => return Err(Broken::Ended(None)),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            self.inbox.clear();
            self.inbox.extend_from_slice(&std::mem::take(&mut conn.rest));
            self.inbox.extend_from_slice(&self.chunk[..n]);
            self.hear(place)?;
            if n < self.chunk.len() && !closed {
                return Ok(());
            }
        }
    }

    /// Handles what is in the inbox.
    fn hear(&mut self, place: usize) -> Result<(), Broken> {
        self.outbox.clear();
        if self.conns[place].step == Step::Asked && !self.on_answer(place)? {
            return Ok(());
        }
        let heard = self.options.dialect.hear(&mut self.inbox, &mut self.outbox);
        let heard = heard.map_err(|_| Broken::Ended(None))?;
        let conn = &mut self.conns[place];
        if !self.inbox.is_empty() {
            conn.rest = self.inbox[..].into();
        }
        if heard.pinged > 0 {
            let late = conn.pinged_us.map(|at| millis(at + self.options.interval_ms * 1_000, self.now));
            conn.pinged_us = Some(self.now);
            if conn.device < self.watched {
                self.late_ms.extend(late);
            }
        }
        if !conn.silent {
            self.told.round_trips += u64::from(heard.pinged + heard.ponged);
            conn.send(&self.outbox)?;
        } else if heard.pinged > 0 {
            conn.unanswered_us.get_or_insert(self.now);
        }
        if conn.step == Step::Upgraded && (heard.ready || self.options.dialect.is_ready_at_once()) {
            conn.session = heard.session;
            self.ready(place);
        }
        heard.closed.map_or(Ok(()), |code| Err(Broken::Ended(code)))
    }

    /// Whether the handshake is answered, and with 101.
    fn on_answer(&mut self, place: usize) -> Result<bool, Broken> {
        let conn = &mut self.conns[place];
        match wire::answer(&self.inbox, KEY) {
            Ok(wire::Answer::Unfinished) => {
                conn.rest = self.inbox[..].into();
                return Ok(false);
            }
            Ok(wire::Answer::Upgraded(length)) => self.inbox.advance(length),
            Ok(wire::Answer::Refused { status, retry_after }) => {
                return Err(Broken::Refused { status, retry_after });
            }
            Err(_) => return Err(Broken::Ended(None)),
        }
        conn.step = Step::Upgraded;
        let interval = Duration::from_millis(self.options.interval_ms);
        self.options.dialect.open(conn.device, interval, &mut self.outbox);
        Ok(true)
    }

    fn ready(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        conn.step = Step::Ready;
        let device = conn.device;
        self.devices[device as usize].failures = 0;
        self.pending -= 1;
        self.told.ready += 1;
        if self.options.dialect.pings_itself() {
            let phase = self.rng.random_range(0..self.options.interval_ms.max(1) * 1_000);
            self.timers.push(Reverse((self.now + phase, Due::Ping { place, device })));
        }
        self.arrived(place);
    }

    /// The device pings, and is to ping again an interval after `at`.
    pub(super) fn ping(&mut self, place: usize, device: u32, at: u64) {
        let Some(conn) = self.conns.get_mut(place).filter(|c| c.device == device) else { return };
        let mut ping = BytesMut::new();
        self.options.dialect.ping(&mut ping);
        let sent = if conn.silent { Ok(()) } else { conn.send(&ping) };
        let next = at + self.options.interval_ms * 1_000;
        self.timers.push(Reverse((next, Due::Ping { place, device })));
        if let Err(e) = sent {
            self.broken(place, e.into());
        }
    }
}

impl Conn {
    /// Sends after what waits already; what is not taken waits.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = bytes[sent..].to_vec();
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Begins to connect; it is connected, or not, once the socket is writable.
fn connect(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}
