//! The socket of one session: bytes in, bytes out.
//!
//! - An idle socket holds no buffer. Reading goes through one scratch buffer a thread; a session keeps only what
//!   there is of an unfinished frame or message. Output is kept only while the kernel does not take it, and is
//!   bounded.
//! - [`Socket::send`] and [`Socket::shut`] work at once and from outside the session's task: the supervisor
//!   needs no reading task to ping a session or to end it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::Stream;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::frames::{Decoder, Frame, FrameLimits, Inbound, Violation};

/// The most bytes taken from a socket in one go.
const SCRATCH: usize = 16 * 1024;
/// What the kernel may hold of a device's output, so that one that does not read is known soon and costs little.
const KERNEL_OUTPUT: usize = 32 * 1024;

thread_local! {
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(SCRATCH));
    static WRITE: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(1024));
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Frame(Inbound),
    /// What RFC 6455 forbids. Only the end of the connection comes after it.
    Violation(Violation),
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
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe => Self::ByPeer,
            _ => Self::NoProgress,
        }
    }
}

/// More output waits for the peer than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBound;

/// A taken-over connection.
pub struct Socket {
    stream: TcpStream,
    waiting: RefCell<BytesMut>,
    bound: u32,
    /// A write failed so.
    broken: Cell<Option<Gone>>,
    /// The last frame was given; the write side is shut when what waits is sent.
    finishing: Cell<bool>,
    task: Cell<Option<Waker>>,
}

impl Socket {
    /// `bound` is the most output, in bytes, that may wait for the kernel; `no_progress` the longest that
    /// written data may stay unacknowledged.
    pub fn new(stream: TcpStream, bound: u32, no_progress: Duration) -> io::Result<Self> {
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(KERNEL_OUTPUT)?;
        socket.set_tcp_user_timeout(Some(no_progress))?;
        Ok(Self {
            stream,
            waiting: RefCell::default(),
            bound,
            broken: Cell::new(None),
            finishing: Cell::new(false),
            task: Cell::new(None),
        })
    }

    /// Sends now what the kernel takes; the rest waits. A connection that turns out to be broken takes everything
    /// and says so to its reader, once that has read what the peer had sent before.
    ///
    /// # Errors
    /// More would wait than may. The peer gets the frame as a whole or, where a part of it was sent, still the rest.
    pub fn send(&self, frame: Frame<'_>) -> Result<(), OverBound> {
        self.send_within(self.bound as usize, frame)
    }

    /// Sends a frame, usually a close, as the last, whatever waits before it; then no more output is taken.
    pub fn send_last(&self, frame: Frame<'_>) {
        let _ = self.send_within(usize::MAX, frame);
        self.finishing.set(true);
        if self.waiting.borrow().is_empty() {
            self.shut_writing();
        }
    }

    fn send_within(&self, bound: usize, frame: Frame<'_>) -> Result<(), OverBound> {
        WRITE.with_borrow_mut(|encoded| {
            encoded.clear();
            frame.write(encoded);
            self.send_bytes(bound, encoded)
        })
    }

    fn send_bytes(&self, bound: usize, bytes: &[u8]) -> Result<(), OverBound> {
        if self.finishing.get() || self.broken.get().is_some() {
            return Ok(());
        }
        let mut waiting = self.waiting.borrow_mut();
        let mut sent = 0;
        if waiting.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(n) => sent = n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.broken.set(Some(Gone::by(&error)));
                    self.wake();
                    return Ok(());
                }
            }
        }
        let rest = &bytes[sent..];
        if rest.is_empty() {
            return Ok(());
        }
        let over = waiting.len() + rest.len() > bound;
        if !over || sent > 0 {
            waiting.extend_from_slice(rest);
            self.wake();
        }
        if over { Err(OverBound) } else { Ok(()) }
    }

    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Moves waiting output on.
    fn poll_flush(&self, cx: &mut Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        while !waiting.is_empty() {
            let Poll::Ready(ready) = self.stream.poll_write_ready(cx) else { return };
            match ready.and_then(|()| self.stream.try_write(&waiting)) {
                Ok(n) => waiting.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.broken.set(Some(Gone::by(&error)));
                    waiting.clear();
                }
            }
        }
        if waiting.capacity() > 0 {
            *waiting = BytesMut::new();
            if self.finishing.get() {
                self.shut_writing();
            }
        }
    }

    /// A read that was not filled has taken all there was: the next is to wait for news, in place of asking the
    /// kernel once more to be told of nothing. News that came meanwhile is not lost, for tokio clears its readiness
    /// only as far as it has seen.
    fn is_drained(&self) {
        let nothing = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
        let _ = self.stream.try_io(Interest::READABLE, nothing);
    }

    /// Output that waits for the kernel, in bytes.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether the kernel holds something from the peer that was not read yet.
    pub fn has_unread(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(SockRef::from(&self.stream).peek(&mut byte), Ok(n) if n > 0)
    }

    /// The peer sees the end of the stream once it has read what was sent.
    fn shut_writing(&self) {
        // Fails only where the connection is gone, which is what was asked for.
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
    }

    /// Ends the connection now, whatever its task is doing.
    pub fn shut(&self) {
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Both);
        self.wake();
    }
}

impl AsRef<Socket> for Socket {
    fn as_ref(&self) -> &Socket {
        self
    }
}

/// What comes in on the socket of `T`; also moves its waiting output on.
pub struct Incoming<T> {
    owner: Rc<T>,
    decoder: Decoder,
    /// What comes is no longer looked at, only taken, so that closing does not reset what the peer is to read.
    discarding: bool,
    over: bool,
}

impl<T: AsRef<Socket>> Incoming<T> {
    /// `read` is what came after the handshake and was read with it.
    pub fn new(owner: Rc<T>, limits: FrameLimits, read: BytesMut) -> Self {
        Self { owner, decoder: Decoder::new(limits, read), discarding: false, over: false }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let socket = self.owner.as_ref().as_ref();
        socket.poll_flush(cx);
        loop {
            if self.discarding {
                self.decoder.discard();
            }
            match self.decoder.next() {
                Ok(Some(frame)) => return Poll::Ready(Received::Frame(frame)),
                Ok(None) => {}
                Err(violation) => {
                    self.discarding = true;
                    return Poll::Ready(Received::Violation(violation));
                }
            }
            // What a write has learned tells more than the end of the stream, which is all that reading sees then.
            let gone = |by_read| Poll::Ready(Received::Gone(socket.broken.get().unwrap_or(by_read)));
            match socket.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return gone(Gone::by(&error)),
                Poll::Pending if socket.broken.get().is_some() => return gone(Gone::ByPeer),
                Poll::Pending => {
                    self.decoder.settle();
                    match socket.task.take() {
                        Some(task) if task.will_wake(cx.waker()) => socket.task.set(Some(task)),
                        _ => socket.task.set(Some(cx.waker().clone())),
                    }
                    return Poll::Pending;
                }
            }
            let read = READ.with_borrow_mut(|scratch| {
                scratch.clear();
                scratch.reserve(SCRATCH);
                let room = scratch.capacity();
                let read = socket.stream.try_read_buf(scratch)?;
                if read < room {
                    socket.is_drained();
                }
                self.decoder.feed(scratch);
                io::Result::Ok(read)
            });
            match read {
                Ok(0) => return gone(Gone::ByPeer),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return gone(Gone::by(&error)),
            }
        }
    }
}

impl<T: AsRef<Socket>> Stream for Incoming<T> {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        if self.over {
            return Poll::Ready(None);
        }
        let received = ready!(self.poll_received(cx));
        self.over = matches!(received, Received::Gone(_));
        Poll::Ready(Some(received))
    }
}
