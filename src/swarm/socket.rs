//! The kernel's side of a device: its socket, and what was not taken of its output.
//!
//! Sockets are non-blocking from their beginning and registered once, edge-triggered; nothing is registered anew for a
//! device that waits.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::time::{Mono, Timestamp};

/// The receive buffer of a device that does not read, in bytes: the kernel makes of it the least that it allows.
const DEAF_BUFFER: usize = 1;

/// More output than this waiting for a server that does not read ends the connection, in bytes.
const MAX_PENDING: usize = 64 << 10;

/// A dribble's bytes: a handshake then takes some ten of them.
const DRIBBLE: usize = 48;

/// Begins to connect; it is connected, or not, once the socket is writable.
///
/// # Errors
/// What the kernel refuses at once: no file left, no such source address, no route.
pub fn dial(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(ip) = from {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Has the socket send a reset when it is closed.
pub fn linger_not(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Has the kernel take as little as it can for a device that does not read.
pub fn deafen(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_recv_buffer_size(DEAF_BUFFER)
}

/// Reads some bytes; `None` when there are none for now.
pub fn read(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(into) {
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes what is taken at once, and gives its length.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}

/// Pongs among some output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pongs {
    pub count: u32,
    /// When the first of their pings was readable.
    pub since: Mono,
    pub since_wall: Timestamp,
}

/// Output that the kernel did not take.
#[derive(Debug)]
pub struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    pongs: Option<Pongs>,
    /// For output in dribbles: when the next is due.
    dribble_at: Option<Mono>,
}

/// A socket's output: nothing is kept while nothing waits.
#[derive(Debug, Default)]
pub struct Output(Option<Box<Pending>>);

impl Output {
    /// Sends `bytes` after what waits already; gives the pongs that left by that.
    ///
    /// # Errors
    /// A broken connection, or one that takes nothing for too long.
    pub fn send(
        &mut self,
        stream: &mut TcpStream,
        bytes: &[u8],
        pongs: Option<Pongs>,
    ) -> io::Result<Option<Pongs>> {
        if let Some(pending) = &mut self.0 {
            pending.bytes.extend_from_slice(bytes);
            pending.pongs = join(pending.pongs, pongs);
            if pending.bytes.len() - pending.sent > MAX_PENDING {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not read"));
            }
            return self.resume(stream);
        }
        let sent = write(stream, bytes)?;
        if sent == bytes.len() {
            return Ok(pongs);
        }
        self.0 = Some(Box::new(Pending { bytes: bytes[sent..].to_vec(), sent: 0, pongs, dribble_at: None }));
        Ok(None)
    }

    /// Has `bytes` sent in dribbles from now on.
    pub fn dribble(&mut self, bytes: Vec<u8>, now: Mono) {
        self.0 = Some(Box::new(Pending { bytes, sent: 0, pongs: None, dribble_at: Some(now) }));
    }

    /// When the next dribble is due.
    pub fn dribble_due(&self) -> Option<Mono> {
        self.0.as_ref()?.dribble_at
    }

    /// Sends a dribble, and the next after `pause`.
    ///
    /// # Errors
    /// A broken connection.
    pub fn next_dribble(&mut self, stream: &mut TcpStream, now: Mono, pause: Duration) -> io::Result<()> {
        let Some(pending) = &mut self.0 else { return Ok(()) };
        let end = pending.bytes.len().min(pending.sent + DRIBBLE);
        pending.sent += write(stream, &pending.bytes[pending.sent..end])?;
        pending.dribble_at = Some(now + pause);
        if pending.sent == pending.bytes.len() {
            self.0 = None;
        }
        Ok(())
    }

    /// The socket takes output again; gives the pongs that left by that.
    ///
    /// # Errors
    /// A broken connection.
    pub fn resume(&mut self, stream: &mut TcpStream) -> io::Result<Option<Pongs>> {
        let Some(pending) = &mut self.0 else { return Ok(None) };
        if pending.dribble_at.is_some() {
            return Ok(None);
        }
        pending.sent += write(stream, &pending.bytes[pending.sent..])?;
        if pending.sent < pending.bytes.len() {
            return Ok(None);
        }
        let pongs = pending.pongs;
        self.0 = None;
        Ok(pongs)
    }

    /// When the oldest ping came whose pong still waits here.
    pub fn owed_since(&self) -> Option<Timestamp> {
        Some(self.0.as_ref()?.pongs?.since_wall)
    }
}

fn join(first: Option<Pongs>, more: Option<Pongs>) -> Option<Pongs> {
    match (first, more) {
        (Some(first), Some(more)) => Some(Pongs { count: first.count + more.count, ..first }),
        (first, more) => first.or(more),
    }
}
