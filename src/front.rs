//! What stands before HTTP: a connection gets no further, and costs no buffer, until the whole head of its first request
//! lies in the kernel.
//!
//! - Until then nothing is read, only looked at: a connection that waits costs this process about a kilobyte, and the
//!   kernel what it has received.
//! - Connections that are not sessions are bounded, and by address. One too many takes the place of the one that has
//!   waited longest for its head; where none waits it is refused.
//! - A head has a time and a size. What is no HTTP/1.1, or could be understood in two ways, is refused here, so
//!   that whoever sends it is told why in one form.
//! - Where proxies say so, their connections begin with a PROXY header, and from there on its address is the peer's.
//! - A connection that is being served and was sent nothing for a while is closed: of later heads and of bodies HTTP
//!   keeps no time.
//!
//! Left out on purpose: later requests of a connection, beyond that. They are for HTTP's own bounds (128 KiB a head).

mod head;
mod places;
mod proxy_protocol;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::config::Settings;
use crate::metrics::{Limit, Metrics};
use crate::peer::Proxies;
use crate::problem::{CONTENT_TYPE, Problem};
use crate::session::tcp;

use places::Places;
pub use places::{Connections, Place};

/// How long a connection that is being served may be sent nothing, beyond the time for a head. Streams are sent
/// something every 15 s.
const QUIET: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Of what a refused peer has sent, so much is taken in, so that closing does not cut off the answer to it.
const TAKEN_IN: usize = 64 * 1024;
const RETRY_SECONDS: u64 = 2;

/// The front of one worker.
pub struct Front {
    /// For the head of a request.
    pub patience: Duration,
    head_bytes: usize,
    proxies: Proxies,
    proxy_protocol: bool,
    places: Rc<Places>,
    metrics: Arc<Metrics>,
}

/// A connection that HTTP may have.
pub struct Received {
    pub peer: SocketAddr,
    /// Held for as long as it is HTTP's.
    pub place: Place,
}

/// Why a connection gets no further.
#[derive(Debug)]
enum Refused {
    /// It is gone, or is not answered.
    Gone,
    Limit(Limit, Problem),
    Bad(Problem),
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Front {
    pub fn new(settings: &Settings, connections: Arc<Connections>, metrics: Arc<Metrics>) -> Self {
        Self {
            patience: settings.handshake_timeout,
            head_bytes: settings.max_header_bytes,
            proxies: Proxies::of(settings),
            proxy_protocol: settings.proxy_protocol,
            places: Places::new(connections, metrics.clone()),
            metrics,
        }
    }

    /// Waits for the head of the first request; none where there will be no request, and the peer was told why.
    pub async fn receive(&self, stream: &TcpStream) -> Option<Received> {
        match self.wait(stream).await {
            Ok(received) => Some(received),
            Err(Refused::Gone) => None,
            Err(Refused::Limit(limit, problem)) => {
                self.metrics.limited(limit);
                refuse(stream, &problem);
                None
            }
            Err(Refused::Bad(problem)) => {
                refuse(stream, &problem);
                None
            }
        }
    }

    async fn wait(&self, stream: &TcpStream) -> Result<Received, Refused> {
        let socket = stream.peer_addr()?;
        let trusted = self.proxies.trusts(socket.ip());
        let place = self.places.enter((!trusted).then(|| socket.ip())).map_err(|limit| {
            let detail = "too many connections that are not sessions: try again later";
            Refused::Limit(
                limit,
                Problem::unavailable(detail, RETRY_SECONDS + rand::random_range(0..=RETRY_SECONDS)),
            )
        })?;
        let waiting = self.places.wait();
        let head = async {
            let mut peer = socket;
            if self.proxy_protocol && trusted {
                peer = self.proxy_header(stream).await?.unwrap_or(socket);
            }
            self.head(stream).await.map(|()| peer)
        };
        tokio::select! {
            peer = head => Ok(Received { peer: peer?, place }),
            () = tokio::time::sleep(self.patience) => {
                let detail = format!("the head of a request has to be here within {} ms", self.patience.as_millis());
                let problem = Problem::new(actix_http::StatusCode::REQUEST_TIMEOUT, detail);
                Err(Refused::Limit(Limit::HeaderTime, problem))
            }
            () = waiting.overtaken() => {
                let detail = "too many connections are waiting with half a request: this one waited longest";
                let later = RETRY_SECONDS + rand::random_range(0..=RETRY_SECONDS);
                Err(Refused::Limit(Limit::Connections, Problem::unavailable(detail, later)))
            }
        }
    }

    async fn proxy_header(&self, stream: &TcpStream) -> Result<Option<SocketAddr>, Refused> {
        let mut found = None;
        let whole = until(stream, proxy_protocol::MOST, |bytes| {
            let parsed = proxy_protocol::parse(bytes);
            let done = !matches!(parsed, Ok(None));
            found = Some(parsed);
            done
        });
        whole.await?;
        match found {
            Some(Ok(Some(header))) => {
                take(stream, header.length)?;
                Ok(header.client)
            }
            _ => Err(Refused::Bad(Problem::bad_request(
                "this proxy's connections have to begin with a PROXY protocol header, version 2",
            ))),
        }
    }

    async fn head(&self, stream: &TcpStream) -> Result<(), Refused> {
        let (mut seen, mut verdict) = (0, Ok(()));
        let most = self.head_bytes;
        let whole = until(stream, most, |bytes| {
            let end = head::end(bytes, seen);
            seen = bytes.len();
            if let Some(end) = end {
                verdict = head::check(&bytes[..end]);
            }
            end.is_some()
        });
        match whole.await? {
            true => verdict.map_err(Refused::Bad),
            false => {
                let status = actix_http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                let detail = format!("the head of a request has at most {most} bytes");
                Err(Refused::Limit(Limit::HeaderBytes, Problem::new(status, detail)))
            }
        }
    }
}

/// Sees `served` through, for as long as its connection is sent something now and then: none where it was not.
pub async fn watched<T>(
    connection: io::Result<OwnedFd>,
    patience: Duration,
    served: impl Future<Output = T>,
) -> Option<T> {
    let Ok(connection) = connection else { return Some(served.await) };
    let mut served = std::pin::pin!(served);
    loop {
        match tokio::time::timeout(LOOK, &mut served).await {
            Ok(done) => return Some(done),
            Err(_) => {
                let most = patience + QUIET;
                if tcp::since_sent(&connection).unwrap_or(most) >= most {
                    return None;
                }
            }
        }
    }
}

/// Another handle on the connection, for [`watched`].
///
/// # Errors
/// Too many files are open.
pub fn handle(stream: &TcpStream) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Waits until `enough` says so of what lies unread, of at most `most` bytes; false where those are not enough.
async fn until(stream: &TcpStream, most: usize, mut enough: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let looked = stream.try_io(Interest::READABLE, || {
            let looked = head::peek(stream, most, |bytes| match bytes.len() {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ if enough(bytes) => Ok(true),
                n if n >= most => Ok(false),
                // Until there is more: the system tells of it again.
                _ => Err(io::ErrorKind::WouldBlock.into()),
            });
            looked.flatten()
        });
        match looked {
            // Nothing more will come.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => {}
            done => return done,
        }
    }
}

/// Takes these bytes, which are there.
fn take(stream: &TcpStream, mut length: usize) -> io::Result<()> {
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

/// Answers as far as the connection takes it at once: nobody waits for a peer that was refused.
fn refuse(stream: &TcpStream, problem: &Problem) {
    let body = problem.body();
    let mut answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n",
        problem.status,
        body.len()
    );
    for (name, value) in &problem.headers {
        answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    // Of the kernel itself: what Tokio knows of a socket that is this new is nothing yet, and so would be sent.
    let _ = send(stream, answer.as_bytes(), SendFlags::NOSIGNAL);
    let mut scratch = [0; 4096];
    let mut taken = 0;
    while let Ok((n @ 1.., _)) = recv(stream, &mut scratch[..], RecvFlags::empty()) {
        taken += n;
        if taken >= TAKEN_IN {
            break;
        }
    }
}
