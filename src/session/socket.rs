//! The socket of one session: frames in, frames out. All that knows the WebSocket library is here.
//!
//! - A frame's declared length is held against its limit before a byte of it is waited for, and a message's
//!   against the sum of its fragments.
//! - An idle socket holds no buffer. Reading goes through one scratch buffer a thread; a session keeps only what
//!   there is of an unfinished frame or message. Output is kept only while the kernel does not take it, and is
//!   bounded.
//! - [`Socket::send`] and [`Socket::shut`] work at once and from outside the session's task: the supervisor
//!   needs no reading task to ping a session or to end it.
//!
//! Frames are parsed and written by `actix_http::ws` (RFC 6455 section 5). What that leaves to its user is done
//! here: limits up front, the order of fragments, UTF-8 over fragments.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::ws::{OpCode, Parser};
use actix_web_actors::ws::{CloseReason, ProtocolError};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The most bytes taken from a socket in one go.
const SCRATCH: usize = 16 * 1024;
/// What the kernel may hold of a device's output, so that one that does not read is known soon and costs little.
const KERNEL_OUTPUT: usize = 32 * 1024;

thread_local! {
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(SCRATCH));
    static WRITE: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(1024));
}

/// What one frame may be, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    pub frame: u32,
    /// All fragments of a message together.
    pub message: u32,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Text(Bytes),
    Binary(Bytes),
    /// A part of a message that is not complete.
    Fragment,
    Ping(Bytes),
    Pong(Bytes),
    /// The code, where one was given.
    Close(Option<u16>),
    /// What RFC 6455 forbids. Only the end of the connection comes after it.
    Violation(Violation),
    /// The connection is gone. Nothing comes after it.
    Gone(Gone),
}

/// What RFC 6455, or the limits, forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    Protocol,
    Utf8,
    TooBig,
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
    fn on_read(error: &io::Error) -> Self {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        match error.kind() {
            TimedOut | HostUnreachable | NetworkUnreachable => Self::NoProgress,
            _ => Self::ByPeer,
        }
    }

    fn on_write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset => Self::ByPeer,
            _ => Self::NoProgress,
        }
    }
}

/// Why nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Over the bound on waiting output.
    Full,
    Gone(Gone),
}

/// A frame to send.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<u16>),
}

impl Frame<'_> {
    fn write(self, dst: &mut BytesMut) {
        match self {
            Frame::Text(text) => Parser::write_message(dst, text, OpCode::Text, true, false),
            Frame::Binary(data) => Parser::write_message(dst, data, OpCode::Binary, true, false),
            Frame::Ping(data) => Parser::write_message(dst, data, OpCode::Ping, true, false),
            Frame::Pong(data) => Parser::write_message(dst, data, OpCode::Pong, true, false),
            Frame::Close(code) => {
                let reason = code.map(|code| CloseReason { code: code.into(), description: None });
                Parser::write_close(dst, reason, false);
            }
        }
    }
}

/// A taken-over connection.
pub struct Socket {
    stream: TcpStream,
    waiting: RefCell<BytesMut>,
    bound: u32,
    /// The write side is to be shut when what waits is sent.
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
            finishing: Cell::new(false),
            task: Cell::new(None),
        })
    }

    /// Sends now what the kernel takes; the rest waits.
    ///
    /// # Errors
    /// [`SendError`], after which nothing of the frame, or all that will ever be, has been sent.
    pub fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.send_within(self.bound as usize, frame)
    }

    /// Sends a frame, usually a close, as the last, whatever waits before it; then no more output is taken.
    pub fn send_last(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let sent = self.send_within(usize::MAX, frame);
        self.finishing.set(true);
        if self.waiting.borrow().is_empty() {
            self.shut_writing();
        }
        sent
    }

    fn send_within(&self, bound: usize, frame: Frame<'_>) -> Result<(), SendError> {
        WRITE.with_borrow_mut(|encoded| {
            encoded.clear();
            frame.write(encoded);
            self.send_bytes(bound, encoded)
        })
    }

    fn send_bytes(&self, bound: usize, bytes: &[u8]) -> Result<(), SendError> {
        let mut waiting = self.waiting.borrow_mut();
        let mut rest = bytes;
        if waiting.is_empty() {
            match self.stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(SendError::Gone(Gone::on_write(&error))),
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        if waiting.len() + rest.len() > bound {
            return Err(SendError::Full);
        }
        waiting.extend_from_slice(rest);
        if let Some(task) = self.task.take() {
            task.wake();
        }
        Ok(())
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.borrow_mut();
        while !waiting.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(&waiting) {
                Ok(n) => waiting.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if waiting.capacity() > 0 {
            *waiting = BytesMut::new();
            if self.finishing.get() {
                self.shut_writing();
            }
        }
        Poll::Ready(Ok(()))
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
        if let Some(task) = self.task.take() {
            task.wake();
        }
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
        let decoder = Decoder { limits, unread: read, in_scratch: true, message: None };
        Self { owner, decoder, discarding: false, over: false }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let socket = self.owner.as_ref().as_ref();
        if let Poll::Ready(Err(error)) = socket.poll_flush(cx) {
            return Poll::Ready(Received::Gone(Gone::on_write(&error)));
        }
        loop {
            if self.discarding {
                self.decoder.unread.clear();
            }
            match self.decoder.next() {
                Ok(Some(received)) => return Poll::Ready(received),
                Ok(None) => {}
                Err(violation) => {
                    self.discarding = true;
                    return Poll::Ready(Received::Violation(violation));
                }
            }
            match socket.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Received::Gone(Gone::on_read(&error))),
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
                let read = socket.stream.try_read_buf(scratch)?;
                self.decoder.feed(scratch);
                Ok(read)
            });
            match read {
                Ok(0) => return Poll::Ready(Received::Gone(Gone::ByPeer)),
                Ok(_) => {}
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Received::Gone(Gone::on_read(&error))),
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

/// Bytes to messages.
struct Decoder {
    limits: FrameLimits,
    unread: BytesMut,
    /// What is unread lies in the thread's scratch buffer.
    in_scratch: bool,
    message: Option<Box<Message>>,
}

/// A message of which fragments are to come.
struct Message {
    text: bool,
    data: BytesMut,
    /// How much of the data is known to be UTF-8.
    valid: usize,
}

impl Decoder {
    /// Takes over what was read into the thread's scratch buffer.
    fn feed(&mut self, scratch: &mut BytesMut) {
        if self.unread.is_empty() {
            self.unread = scratch.split();
            self.in_scratch = true;
        } else {
            self.unread.extend_from_slice(scratch);
        }
    }

    /// Nothing to do for now: what is left must not pin the scratch buffer, nor nothing a buffer.
    fn settle(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        } else if self.in_scratch {
            self.unread = BytesMut::from(&self.unread[..]);
        }
        self.in_scratch = false;
    }

    fn next(&mut self) -> Result<Option<Received>, Violation> {
        if !self.has_frame()? {
            return Ok(None);
        }
        let limit = self.limits.frame.max(self.limits.message) as usize;
        let Some((last, opcode, payload)) =
            Parser::parse(&mut self.unread, true, limit).map_err(violation)?
        else {
            return Ok(None);
        };
        let payload = payload.unwrap_or_default();
        Ok(Some(match opcode {
            OpCode::Ping | OpCode::Pong | OpCode::Close if !last => return Err(Violation::Protocol),
            OpCode::Ping => Received::Ping(payload.freeze()),
            OpCode::Pong => Received::Pong(payload.freeze()),
            OpCode::Close => Received::Close(close_code(&payload)?),
            OpCode::Text | OpCode::Binary if self.message.is_some() => return Err(Violation::Protocol),
            OpCode::Text if last => {
                std::str::from_utf8(&payload).map_err(|_| Violation::Utf8)?;
                Received::Text(payload.freeze())
            }
            OpCode::Binary if last => Received::Binary(payload.freeze()),
            OpCode::Text | OpCode::Binary => {
                let data = BytesMut::from(&payload[..]);
                let mut message = Box::new(Message { text: opcode == OpCode::Text, data, valid: 0 });
                message.check(false)?;
                self.message = Some(message);
                Received::Fragment
            }
            OpCode::Continue => self.go_on(last, &payload)?,
            OpCode::Bad => return Err(Violation::Protocol),
        }))
    }

    fn go_on(&mut self, last: bool, payload: &[u8]) -> Result<Received, Violation> {
        let message = self.message.as_mut().ok_or(Violation::Protocol)?;
        message.data.extend_from_slice(payload);
        message.check(last)?;
        if !last {
            return Ok(Received::Fragment);
        }
        let Some(message) = self.message.take() else { return Err(Violation::Protocol) };
        let data = message.data.freeze();
        Ok(if message.text { Received::Text(data) } else { Received::Binary(data) })
    }

    /// Whether the next frame is here as a whole. The length that it declares is held against its limit as soon
    /// as it can be read.
    fn has_frame(&self) -> Result<bool, Violation> {
        let [first, second, rest @ ..] = &self.unread[..] else { return Ok(false) };
        let (head, declared) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            (126 | 127, _) => return Ok(false),
            (short, _) => (2, u64::from(short)),
        };
        let is_control = first & 0x08 != 0;
        // RFC 6455 section 5.5.
        if is_control && declared > 125 {
            return Err(Violation::Protocol);
        }
        let gathered = self.message.as_ref().map_or(0, |message| message.data.len() as u64);
        let limits = self.limits;
        if !is_control
            && (declared > limits.frame.into() || gathered.saturating_add(declared) > limits.message.into())
        {
            return Err(Violation::TooBig);
        }
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        Ok(self.unread.len() as u64 >= head + mask + declared)
    }
}

impl Message {
    /// Checks what came as far as characters are complete. A character may go on in the next fragment.
    fn check(&mut self, last: bool) -> Result<(), Violation> {
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() && !last => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

fn violation(error: ProtocolError) -> Violation {
    match error {
        ProtocolError::Overflow => Violation::TooBig,
        _ => Violation::Protocol,
    }
}

/// The code of a close frame, none where it is empty.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
        return Err(Violation::Utf8);
    }
    let reason = Parser::try_parse_close_payload(payload).map_err(violation)?;
    Ok(reason.map(|reason| reason.code.into()))
}
