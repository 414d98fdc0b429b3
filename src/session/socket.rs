//! The socket of one session: bytes in, bytes out.
//!
//! - An idle socket holds no buffer. Reading goes through one scratch buffer a thread; a session keeps only what
//!   there is of an unfinished frame or message. Output is kept only while the kernel does not take it, and is
//!   bounded.
//! - [`Socket::send`] and [`Socket::shut`] work at once, whoever calls: the supervisor needs no task of the session
//!   to ping it or to end it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;

use super::frames::{self, Decoder, Frame, FrameLimits, Inbound, Violation};
use super::poller::{Owner, Place, Poller};
use super::tcp;
pub use super::wire::OverBound;
use super::wire::{Bounds, NotSent, Taken, Wire, is_for_later};
use crate::supervisor::closeup::SocketStats;
use crate::time::Mono;
use crate::tls::Stream;

/// The most bytes taken from a socket in one go.
const SCRATCH: usize = 16 * 1024;
/// What the kernel may hold of a device's output, so that one that does not read is known soon and costs little.
const KERNEL_OUTPUT: usize = 32 * 1024;

thread_local! {
    /// Room to read into; what was read is split off its front.
    static READ: RefCell<BytesMut> = RefCell::default();
    static WRITE: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(1024));
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Frame(Inbound),
    /// A pong with a token as pings of ours have it.
    Answer(u64),
    /// What RFC 6455 forbids. Only the end of the connection comes after it.
    Violation(Violation),
    /// So many bytes were read; what they are comes after it.
    Bytes(usize),
    /// The connection is gone. Nothing comes after it.
    Gone(Gone),
}

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The end of the stream, or a reset.
    ByPeer,
    /// What was written is not getting through.
    NoProgress,
}

impl Gone {
    fn by(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData};
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | InvalidData => Self::ByPeer,
            _ => Self::NoProgress,
        }
    }
}

/// A taken-over connection.
pub struct Socket {
    wire: Wire,
    poller: Rc<Poller>,
    /// Where its owner is told of what comes in.
    place: Cell<Option<Place>>,
    incoming: RefCell<Incoming>,
    bound: u32,
    bound_of_all: usize,
    /// A write failed so.
    broken: Cell<Option<Gone>>,
    last: Cell<Last>,
}

/// Whether the last frame was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Open,
    /// The write side is shut when what waits is sent.
    Given,
    Sent,
}

/// What comes in.
struct Incoming {
    decoder: Decoder,
    /// What comes is no longer looked at, only taken, so that closing does not reset what the peer is to read.
    discarding: bool,
}

/// What a socket is held to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub frames: FrameLimits,
    /// The most output, in bytes, that may wait for the kernel.
    pub output: u32,
    /// The same for all sockets of this thread together, in memory taken for it.
    pub output_of_all: usize,
    /// The longest that written data may stay unacknowledged.
    pub no_progress: Duration,
}

impl Socket {
    /// `read` is what came after the handshake and was read with it. Nothing is read before [`listen`](Self::listen).
    pub fn new(
        stream: impl Into<Stream>,
        mut read: BytesMut,
        limits: Limits,
        poller: Rc<Poller>,
    ) -> io::Result<Self> {
        let (stream, tls, ahead) = stream.into().into_parts();
        read.extend_from_slice(&ahead);
        let stream = stream.into_std()?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(KERNEL_OUTPUT)?;
        socket.set_tcp_user_timeout(Some(limits.no_progress))?;
        let incoming = Incoming { decoder: Decoder::new(limits.frames, read), discarding: false };
        Ok(Self {
            wire: Wire::new(stream, tls),
            poller,
            place: Cell::new(None),
            incoming: RefCell::new(incoming),
            bound: limits.output,
            bound_of_all: limits.output_of_all,
            broken: Cell::new(None),
            last: Cell::new(Last::Open),
        })
    }

    /// Has its owner told of what comes in, beginning with what came with the handshake.
    ///
    /// # Errors
    /// The system can watch no more sockets.
    pub fn listen(&self, owner: Rc<dyn Owner>) -> io::Result<()> {
        self.place.set(Some(self.poller.watch(self.wire.stream(), owner.clone())?));
        owner.on_ready();
        Ok(())
    }

    /// Sends now what the kernel takes; the rest waits. A connection that turns out to be broken takes everything
    /// and says so to its reader, once that has read what the peer had sent before.
    ///
    /// # Errors
    /// More would wait than may. The peer gets the frame as a whole or, where a part of it was sent, still the rest.
    pub fn send(&self, frame: Frame<'_>) -> Result<(), OverBound> {
        self.send_within(Bounds { own: self.bound as usize, of_all: self.bound_of_all }, frame)
    }

    /// Sends a frame, usually a close, as the last, whatever waits before it; then no more output is taken.
    pub fn send_last(&self, frame: Frame<'_>) {
        let _ = self.send_within(Bounds::NONE, frame);
        if self.last.get() == Last::Open {
            self.last.set(Last::Given);
        }
        self.finish();
    }

    fn send_within(&self, bounds: Bounds, frame: Frame<'_>) -> Result<(), OverBound> {
        WRITE.with_borrow_mut(|encoded| {
            encoded.clear();
            frame.write(encoded);
            self.send_bytes(bounds, encoded)
        })
    }

    fn send_bytes(&self, bounds: Bounds, bytes: &[u8]) -> Result<(), OverBound> {
        if self.last.get() != Last::Open || self.broken.get().is_some() {
            return Ok(());
        }
        match self.wire.send(bytes, bounds) {
            Ok(()) => Ok(()),
            Err(NotSent::OverBound(over)) => Err(over),
            Err(NotSent::Broken(error)) => {
                self.broken.set(Some(Gone::by(&error)));
                self.remind();
                Ok(())
            }
        }
    }

    /// Has its owner told again of what there is: something that it left unread, or that the connection broke.
    pub fn remind(&self) {
        if let Some(place) = self.place.get() {
            self.poller.remind(self.wire.stream(), place);
        }
    }

    /// Moves waiting output on.
    fn flush(&self) {
        if let Err(error) = self.wire.flush() {
            self.broken.set(Some(Gone::by(&error)));
        }
        self.finish();
    }

    fn finish(&self) {
        if self.last.get() == Last::Given && self.wire.finish() {
            self.last.set(Last::Sent);
        }
    }

    /// What its owner does when told of it: moves output on, and hands each thing that came in to `see`. True where
    /// something may be left to read.
    pub fn on_ready(&self, mut see: impl FnMut(Received)) -> bool {
        self.flush();
        let mut incoming = self.incoming.borrow_mut();
        incoming.decode(&mut see);
        let read = READ.with_borrow_mut(|scratch| {
            if scratch.len() < SCRATCH / 2 {
                scratch.resize(SCRATCH, 0);
            }
            let Taken::Bytes(read, more) = self.wire.read(scratch)? else { return Ok(None) };
            see(Received::Bytes(read));
            let answer = if more { None } else { incoming.answer(&scratch[..read]) };
            if answer.is_none() && !incoming.discarding {
                incoming.decoder.feed(scratch.split_to(read));
            }
            io::Result::Ok(Some((more, answer)))
        });
        // What a write has learned tells more than the end of the stream, which is all that reading sees then.
        let gone = |by_read| Received::Gone(self.broken.get().unwrap_or(by_read));
        match read {
            Ok(None) => see(gone(Gone::ByPeer)),
            Ok(Some((_, Some(token)))) => see(Received::Answer(token)),
            Ok(Some((more, None))) => {
                incoming.decode(&mut see);
                return more || self.broken.get().is_some();
            }
            Err(error) if is_for_later(&error) && self.broken.get().is_none() => {}
            Err(error) if is_for_later(&error) => see(gone(Gone::ByPeer)),
            Err(error) => see(gone(Gone::by(&error))),
        }
        false
    }

    /// Since when a message has been waiting for its last fragment.
    pub fn unfinished_since(&self) -> Option<Mono> {
        self.incoming.borrow().decoder.unfinished_since()
    }

    /// From here on what comes in is only taken, not looked at.
    pub fn discard(&self) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.discarding = true;
        incoming.decoder.discard();
    }

    /// What is known of the connection.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn stats(&self) -> io::Result<SocketStats> {
        tcp::stats(self.wire.stream(), self.wire.waiting())
    }

    /// Whether its owner is told of what comes in.
    pub fn is_heard(&self) -> bool {
        self.place.get().is_some()
    }

    /// Ends the connection now. Nothing is told of it any more.
    pub fn shut(&self) {
        self.wire.shutdown(Shutdown::Both);
        if let Some(place) = self.place.take() {
            self.poller.forget(self.wire.stream(), place);
        }
    }
}

impl Incoming {
    /// What nearly always comes, and then alone: it needs no buffer of its own.
    fn answer(&self, read: &[u8]) -> Option<u64> {
        if self.discarding || !self.decoder.is_between_frames() { None } else { frames::lone_answer(read) }
    }

    fn decode(&mut self, see: &mut impl FnMut(Received)) {
        while !self.discarding {
            match self.decoder.next() {
                Ok(Some(frame)) => see(Received::Frame(frame)),
                Ok(None) => break,
                Err(violation) => {
                    self.discarding = true;
                    self.decoder.discard();
                    see(Received::Violation(violation));
                }
            }
        }
        self.decoder.settle();
    }
}
