//! What lies unread of a connection: looked at where it is, in the kernel.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use futures_util::FutureExt;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

thread_local! {
    static SEEN: RefCell<Vec<u8>> = RefCell::default();
}

/// What `found` makes of what lies unread, as soon as it makes something of it; none where it does not of `most` bytes.
///
/// # Errors
/// The connection is gone, or ends before that.
pub fn until<T>(
    stream: &TcpStream,
    most: usize,
    mut found: impl FnMut(&[u8]) -> Option<T>,
) -> impl Future<Output = io::Result<Option<T>>> {
    let mut look = move |bytes: &[u8]| match bytes.len() {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => match found(bytes) {
            // Until there is more: the system tells of it again.
            None if n < most => Err(io::ErrorKind::WouldBlock.into()),
            found => Ok(found),
        },
    };
    // Not an async function, nor `ready()`: these take up a multiple, and it is for as long as a peer likes.
    poll_fn(move |cx| {
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let looked = stream.try_io(Interest::READABLE, || peek(stream, most, &mut look).flatten());
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_ended(stream) => {}
                done => return Poll::Ready(done),
            }
        }
    })
}

/// Nothing more will come.
fn is_ended(stream: &TcpStream) -> bool {
    matches!(stream.ready(Interest::READABLE).now_or_never(), Some(Ok(ready)) if ready.is_read_closed())
}

/// Shows `see` what lies unread, of at most `most` bytes, and leaves it there.
fn peek<T>(stream: &TcpStream, most: usize, see: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    SEEN.with_borrow_mut(|seen| {
        if seen.len() < most {
            seen.resize(most, 0);
        }
        let (_, there) = recv(stream, &mut seen[..most], RecvFlags::PEEK)?;
        Ok(see(&seen[..there]))
    })
}

/// Takes these bytes, which are there.
///
/// # Errors
/// They are not.
pub fn take(stream: &TcpStream, mut length: usize) -> io::Result<()> {
    let mut scratch = [0; 1024];
    while length > 0 {
        let most = length.min(scratch.len());
        match stream.try_read(&mut scratch[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => length -= n,
        }
    }
    Ok(())
}
