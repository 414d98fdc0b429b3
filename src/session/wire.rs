//! The bytes under a session's frames: as they are, or within TLS.
//!
//! - A plain connection is its descriptor and one empty pointer. What waits for the kernel, and all that TLS needs, is
//!   behind that pointer, and there only while there is some: a plain session pays nothing for those with TLS.
//! - TLS goes on where the handshake left it: with its keys, and with what it had taken off the connection already.
//! - Nothing here waits. After a call the kernel has taken what it takes, or has given all that it has (or the caller is
//!   told that there may be more): both are what an edge-triggered poller asks of those it tells.
//!
//! Renegotiation is not there to be left out: rustls has none. Early data is not taken.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::Buf;
use rustls::ServerConnection;
use socket2::SockRef;

use super::output::{self, SHARE, Waiting};

/// The most of a frame that goes into one record of TLS: so much more than its bound may wait for a slow reader.
const RECORD: usize = 4 * 1024;
/// The most reads for one look, so that records without content do not hold up the others of the thread.
const READS: usize = 16;

/// A connection.
pub struct Wire {
    stream: TcpStream,
    behind: RefCell<Option<Box<Behind>>>,
}

#[derive(Default)]
struct Behind {
    /// Output that neither the kernel nor TLS took yet.
    waiting: Waiting,
    tls: Option<Box<ServerConnection>>,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes; and whether there may be more without further news of it.
    Bytes(usize, bool),
    /// The peer sends no more.
    End,
}

/// The most output that may wait for the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub own: usize,
    /// Of all sockets of this thread together, in memory taken for it.
    pub of_all: usize,
}

impl Bounds {
    pub const NONE: Self = Self { own: usize::MAX, of_all: usize::MAX };
}

/// More output waits for the peer than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverBound {
    /// For this one.
    Own,
    /// For all together, and this one has its share of that.
    Total,
}

/// Why output was not taken.
#[derive(Debug)]
pub enum NotSent {
    OverBound(OverBound),
    Broken(io::Error),
}

impl Wire {
    /// On a connection that does not block.
    pub fn new(stream: TcpStream, tls: Option<ServerConnection>) -> Self {
        let behind = tls.map(|tls| Box::new(Behind { tls: Some(Box::new(tls)), ..Behind::default() }));
        Self { stream, behind: RefCell::new(behind) }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How much output waits.
    pub fn waiting(&self) -> usize {
        self.behind.borrow().as_ref().map_or(0, |behind| behind.waiting.bytes.len())
    }

    /// Sends what is taken now; the rest waits.
    ///
    /// # Errors
    /// More would wait than may: nothing was taken, or, where a part was sent, the rest waits all the same. Or the
    /// connection is broken.
    pub fn send(&self, bytes: &[u8], bounds: Bounds) -> Result<(), NotSent> {
        let mut held = self.behind.borrow_mut();
        let mut sent = 0;
        if held.as_ref().is_none_or(|behind| behind.waiting.bytes.is_empty()) {
            let tls = held.as_mut().and_then(|behind| behind.tls.as_deref_mut());
            sent = write(&self.stream, tls, bytes).map_err(NotSent::Broken)?;
        }
        let rest = &bytes[sent..];
        if rest.is_empty() {
            return Ok(());
        }
        let waits = held.as_ref().map_or(0, |behind| behind.waiting.bytes.len()) + rest.len();
        let over = if waits > bounds.own {
            Some(OverBound::Own)
        } else if waits > SHARE && output::held() > bounds.of_all {
            Some(OverBound::Total)
        } else {
            None
        };
        if over.is_none() || sent > 0 {
            held.get_or_insert_default().waiting.push(rest);
        }
        over.map_or(Ok(()), |over| Err(NotSent::OverBound(over)))
    }

    /// Moves waiting output on. After an error none waits.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&self) -> io::Result<()> {
        let mut held = self.behind.borrow_mut();
        let Some(Behind { waiting, tls }) = held.as_deref_mut() else { return Ok(()) };
        let written = write(&self.stream, tls.as_deref_mut(), &waiting.bytes);
        match &written {
            Ok(sent) => waiting.bytes.advance(*sent),
            Err(_) => waiting.bytes.clear(),
        }
        if waiting.bytes.is_empty() {
            *waiting = Waiting::default();
            if tls.is_none() {
                *held = None;
            }
        }
        written.map(drop)
    }

    /// What the peer sent, as far as `into` has room, which it must have some of.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing now; `InvalidData` for what is no TLS; or the connection is broken.
    pub fn read(&self, into: &mut [u8]) -> io::Result<Taken> {
        let mut held = self.behind.borrow_mut();
        match held.as_mut().and_then(|behind| behind.tls.as_deref_mut()) {
            Some(tls) => read_tls(&self.stream, tls, into),
            None => match uninterrupted(|| (&self.stream).read(into))? {
                0 => Ok(Taken::End),
                read => Ok(Taken::Bytes(read, read == into.len())),
            },
        }
    }

    /// Has the peer see the end of the stream once it has read what was sent, if that is flushed. With TLS it is said
    /// within that first. False where something waits yet: it is to be called again, and never once it was done.
    pub fn finish(&self) -> bool {
        if self.waiting() > 0 {
            return false;
        }
        if let Some(tls) = self.behind.borrow_mut().as_mut().and_then(|behind| behind.tls.as_deref_mut()) {
            tls.send_close_notify();
            if write(&self.stream, Some(&mut *tls), &[]).is_ok() && tls.wants_write() {
                return false;
            }
        }
        self.shutdown(Shutdown::Write);
        true
    }

    /// Fails only where the connection is gone, which is what was asked for.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = SockRef::from(&self.stream).shutdown(how);
    }
}

/// How much of it was taken; what is only in records of TLS counts as taken.
fn write(mut stream: &TcpStream, tls: Option<&mut ServerConnection>, bytes: &[u8]) -> io::Result<usize> {
    let Some(tls) = tls else { return later(uninterrupted(|| stream.write(bytes))) };
    let mut taken = 0;
    loop {
        while tls.wants_write() {
            if later(uninterrupted(|| tls.write_tls(&mut stream)))? == 0 {
                return Ok(taken);
            }
        }
        let record = &bytes[taken..bytes.len().min(taken + RECORD)];
        if record.is_empty() {
            return Ok(taken);
        }
        match tls.writer().write(record)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => taken += n,
        }
    }
}

fn read_tls(mut stream: &TcpStream, tls: &mut ServerConnection, into: &mut [u8]) -> io::Result<Taken> {
    let mut bytes = 0;
    for _ in 0..READS {
        let failed = match tls.reader().read(&mut into[bytes..]) {
            Ok(0) => return Ok(if bytes > 0 { Taken::Bytes(bytes, true) } else { Taken::End }),
            Ok(read) => {
                bytes += read;
                if bytes == into.len() {
                    return Ok(Taken::Bytes(bytes, true));
                }
                continue;
            }
            // The end of the stream, without a word of it within TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(if bytes > 0 { Taken::Bytes(bytes, true) } else { Taken::End });
            }
            Err(error) if is_for_later(&error) => match uninterrupted(|| tls.read_tls(&mut stream)) {
                Ok(_) => match tls.process_new_packets() {
                    Ok(_) => None,
                    Err(error) => Some(io::Error::new(io::ErrorKind::InvalidData, error)),
                },
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        // What it answers by itself: alerts, and keys where the peer asks for new ones. A failure is the next write's.
        let _ = write(stream, Some(&mut *tls), &[]);
        match failed {
            None => {}
            Some(error) if bytes == 0 => return Err(error),
            Some(error) => return Ok(Taken::Bytes(bytes, !is_for_later(&error))),
        }
    }
    Ok(Taken::Bytes(bytes, true))
}

pub(super) fn is_for_later(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Nothing was taken where nothing is taken now.
fn later(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if is_for_later(&error) => Ok(0),
        written => written,
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
