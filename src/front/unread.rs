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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_ended(stream) {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, there)
    }

    /// What comes of a connection that begins with "ab", and how often it was looked at. What is waited for is "abcd".
    async fn after(next: impl AsyncFnOnce(&mut TcpStream)) -> (io::Result<Option<usize>>, usize) {
        let (here, mut there) = pair().await;
        let looks = Cell::new(0);
        let found = until(&here, 6, |bytes| {
            looks.set(looks.get() + 1);
            bytes.starts_with(b"abcd").then_some(bytes.len())
        });
        let mut found = Box::pin(found);
        there.write_all(b"ab").await.unwrap();
        // Until it has seen that.
        while looks.get() == 0 {
            assert!(found.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        next(&mut there).await;
        let found = tokio::time::timeout(PATIENCE, found).await.expect("an end of waiting");
        (found, looks.get())
    }

    #[tokio::test]
    async fn it_is_found_when_it_is_there_and_left_where_it_is() {
        let (found, looks) = after(async |there| there.write_all(b"cd").await.unwrap()).await;
        assert!(matches!(found, Ok(Some(4))), "{found:?}");
        assert!((2..=3).contains(&looks), "{looks}");
        let (here, mut there) = pair().await;
        there.write_all(b"abcd").await.unwrap();
        there.shutdown().await.unwrap();
        let found = until(&here, 6, |bytes| (bytes == b"abcd").then_some(())).await;
        assert!(matches!(found, Ok(Some(()))), "what is whole counts, whatever ends behind it");
        take(&here, 4).unwrap();
        assert!(take(&here, 1).is_err());
    }

    #[tokio::test]
    async fn who_goes_with_half_of_it_is_not_waited_for_nor_looked_at_over_and_over() {
        let (found, looks) = after(async |there| there.shutdown().await.unwrap()).await;
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(looks <= 4, "{looks}");
        let reset = async |there: &mut TcpStream| {
            SockRef::from(&*there).set_linger(Some(Duration::ZERO)).unwrap();
            // Closed as it is dropped, which is a reset.
            drop(std::mem::replace(there, pair().await.0));
        };
        let (found, looks) = after(reset).await;
        assert!(found.is_err(), "{found:?}");
        assert!(looks <= 4, "{looks}");
    }

    #[tokio::test]
    async fn no_more_is_waited_for_than_may_be() {
        let (found, _) = after(async |there| there.write_all(b"xxxxxx").await.unwrap()).await;
        assert!(matches!(found, Ok(None)), "{found:?}");
    }
}
