//! What stands before HTTP: a connection gets no further, and costs no buffer, until the whole head of its first request
//! lies in the kernel.
//!
//! - Until then nothing is read, only looked at: a connection that waits costs this process little more than a kilobyte,
//!   and the kernel what it has received. With TLS that holds for the ClientHello; the head behind it has to be read, and
//!   until it is there the connection is one of the few that may have a handshake under way.
//! - Connections that are not sessions are bounded, and by address. One too many takes the place of the one that has
//!   been waited for longest; where none is, it is refused.
//! - Of an address that is held off nothing is looked at, and what cannot be understood is held against it.
//! - A head has a time and a size. What is no HTTP/1.1, or could be understood in two ways, is refused here, so
//!   that whoever sends it is told why in one form.
//! - Where proxies say so, their connections begin with a PROXY header, and from there on its address is the peer's.
//! - A connection that is being served and was sent nothing for a while is closed: of later heads and of bodies HTTP
//!   keeps no time.
//!
//! Left out on purpose: later requests of a connection, beyond that. They are for HTTP's own bounds (128 KiB a head).

mod answer;
pub(crate) mod head;
mod places;
pub(crate) mod proxy_protocol;
mod unread;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::StatusCode;
use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use futures_util::future::Either;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Settings;
use crate::metrics::{Limit, Metrics, TlsHandshake};
use crate::peer::Proxies;
use crate::problem::Problem;
use crate::session::tcp;
use crate::supervisor::admission::Admission;
use crate::time::Mono;
use crate::tls::hello::{self, NoHello};
use crate::tls::{Handshakes, Stream, is_foul};

use answer::{TAKEN_IN, answer, refuse};
use places::Places;
pub use places::{Connections, Place};
use unread::{take, until};

/// How long a connection that is being served may be sent nothing, beyond the time for a head. Streams are sent
/// something every 15 s.
const QUIET: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a peer that was refused within TLS has to take the answer.
const LAST_WORD: Duration = Duration::from_secs(1);
const RETRY_SECONDS: u64 = 2;

/// The front of one worker.
pub struct Front {
    /// For the head of a request.
    pub patience: Duration,
    /// None where connections are plain.
    tls: Option<Handshakes>,
    head_bytes: usize,
    proxies: Proxies,
    proxy_protocol: bool,
    places: Rc<Places>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
}

/// A connection that HTTP may have.
pub struct Received {
    pub stream: Stream,
    pub peer: SocketAddr,
    /// Held for as long as it is HTTP's.
    pub place: Place,
}

/// A connection of which it is known whose it is.
pub struct Known {
    peer: SocketAddr,
    /// Where limits and bans look; none is a proxy, of whose clients nothing is known yet.
    from: Option<IpAddr>,
    place: Place,
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
    pub fn new(
        settings: &Settings,
        connections: Arc<Connections>,
        admission: Arc<Admission>,
        tls: Option<Handshakes>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            patience: settings.handshake_timeout,
            tls,
            head_bytes: settings.max_header_bytes,
            proxies: Proxies::of(settings),
            proxy_protocol: settings.proxy_protocol,
            places: Places::new(connections, metrics.clone()),
            admission,
            metrics,
        }
    }

    /// Waits for what a peer says first: the head of a request, or the beginning of TLS. None where there will be no
    /// request, and the peer was told why.
    pub async fn receive(&self, stream: &TcpStream) -> Option<Known> {
        let known = match self.know(stream).await {
            Ok(known) => known,
            Err(refused) => {
                self.turn_away(stream, refused);
                return None;
            }
        };
        let refused = tokio::select! {
            // Whoever was told to go has lost his place.
            biased;
            () = known.place.wait() => {
                let detail = "too many connections are waiting with half a request: this one waited longest";
                Refused::Limit(Limit::Connections, Problem::unavailable(detail, later()))
            }
            said = self.in_time(self.first_words(stream)) => match said {
                Ok(()) => return Some(known),
                Err(refused) => refused,
            },
        };
        self.blame(known.from, &refused);
        self.turn_away(stream, refused);
        None
    }

    /// Takes a connection that was received to where HTTP may have it: within TLS past its handshake and its first head.
    pub async fn open(&self, stream: TcpStream, known: Known) -> Option<Received> {
        let Known { peer, from, place } = known;
        let stream = match &self.tls {
            // What waits without TLS has no room for it.
            Some(handshakes) => Box::pin(self.within(handshakes, stream, from)).await?,
            None => stream.into(),
        };
        Some(Received { stream, peer, place })
    }

    fn first_words(&self, stream: &TcpStream) -> impl Future<Output = Result<(), Refused>> {
        match &self.tls {
            Some(_) => Either::Left(self.hello(stream)),
            None => Either::Right(self.head(stream)),
        }
    }

    /// Whose the connection is, and its place.
    async fn know(&self, stream: &TcpStream) -> Result<Known, Refused> {
        let socket = stream.peer_addr()?;
        let arrived = self.places.enter();
        let mut peer = socket;
        let mut from = Some(socket.ip());
        if self.proxies.trusts(socket.ip()) {
            // Boxed: most connections never come by here.
            let said = match self.proxy_protocol {
                true => Box::pin(self.in_time(self.proxy_header(stream))).await?,
                false => None,
            };
            peer = said.unwrap_or(socket);
            from = said.map(|client| client.ip()).filter(|ip| !self.proxies.trusts(*ip));
        }
        if let Some(held_off) = from.and_then(|ip| self.admission.held_off(ip, Mono::now())) {
            return Err(Refused::Limit(Limit::AddressHeldOff, held_off.problem()));
        }
        let place = arrived.of(from).map_err(|limit| {
            let detail = "too many connections that are not sessions: try again later";
            Refused::Limit(limit, Problem::unavailable(detail, later()))
        })?;
        Ok(Known { peer, from, place })
    }

    /// The connection once the head of a request has come within TLS, of which there is no looking without taking it.
    async fn within(
        &self,
        handshakes: &Handshakes,
        stream: TcpStream,
        from: Option<IpAddr>,
    ) -> Option<Stream> {
        let first = async |mut stream: Stream| {
            let refused = match self.in_time(self.head_within(&mut stream)).await {
                Ok(head) => {
                    stream.unread(head);
                    return Some(stream);
                }
                Err(refused) => refused,
            };
            self.blame(from, &refused);
            let answer = self.counted(refused).map(|problem| answer(&problem))?;
            let told = async {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                tokio::io::copy(&mut stream.take(TAKEN_IN), &mut tokio::io::sink()).await
            };
            // Gone, or too slow: nothing to be done about either.
            let _ = tokio::time::timeout(LAST_WORD, told).await;
            None
        };
        let accepted = handshakes.accept(stream, from, first).await;
        accepted
            .inspect_err(|error| {
                if is_foul(error) {
                    self.strike(from)
                }
            })
            .ok()
            .flatten()
    }

    /// Not an async function: that would hold it twice.
    fn in_time<T>(
        &self,
        what: impl Future<Output = Result<T, Refused>>,
    ) -> impl Future<Output = Result<T, Refused>> {
        tokio::time::timeout(self.patience, what).map(|done| done.unwrap_or_else(|_| Err(self.too_slow())))
    }

    /// To send nothing, or slowly, is no offence: browsers connect ahead of need.
    fn blame(&self, from: Option<IpAddr>, refused: &Refused) {
        if matches!(refused, Refused::Bad(_) | Refused::Limit(Limit::HeaderBytes, _)) {
            self.strike(from);
        }
    }

    fn strike(&self, from: Option<IpAddr>) {
        if let Some(ip) = from {
            self.admission.strike(ip, Mono::now());
        }
    }

    /// How a refusal is told, where it is.
    fn counted(&self, refused: Refused) -> Option<Problem> {
        match refused {
            Refused::Gone => None,
            Refused::Bad(problem) => Some(problem),
            Refused::Limit(limit, problem) => {
                self.metrics.limited(limit);
                Some(problem)
            }
        }
    }

    /// Refuses a connection on which nothing was said yet. What speaks TLS would not understand it; what is bad does not.
    fn turn_away(&self, stream: &TcpStream, refused: Refused) {
        let understands = self.tls.is_none() || matches!(refused, Refused::Bad(_));
        if let Some(problem) = self.counted(refused).filter(|_| understands) {
            refuse(stream, &problem);
        }
    }

    fn too_slow(&self) -> Refused {
        let detail = format!("the head of a request has to be here within {} ms", self.patience.as_millis());
        let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, detail);
        Refused::Limit(Limit::HeaderTime, problem)
    }

    fn too_long(&self) -> Refused {
        let detail = format!("the head of a request has at most {} bytes", self.head_bytes);
        let problem = Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail);
        Refused::Limit(Limit::HeaderBytes, problem)
    }

    async fn proxy_header(&self, stream: &TcpStream) -> Result<Option<SocketAddr>, Refused> {
        let header = until(stream, proxy_protocol::MOST, |bytes| proxy_protocol::parse(bytes).transpose());
        let Some(Ok(header)) = header.await? else {
            return Err(Refused::Bad(Problem::bad_request(
                "this proxy's connections have to begin with a PROXY protocol header, version 2",
            )));
        };
        take(stream, header.length)?;
        Ok(header.client)
    }

    fn head(&self, stream: &TcpStream) -> impl Future<Output = Result<(), Refused>> {
        let mut seen = 0;
        let checked = until(stream, self.head_bytes, move |bytes| {
            let end = head::end(bytes, seen);
            seen = bytes.len();
            end.map(|end| head::check(&bytes[..end]))
        });
        checked.map(|checked| match checked? {
            Some(checked) => checked.map_err(Refused::Bad),
            None => Err(self.too_long()),
        })
    }

    fn hello(&self, stream: &TcpStream) -> impl Future<Output = Result<(), Refused>> {
        let whole = until(stream, hello::LOOKED_AT, |bytes| match hello::is_whole(bytes) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(no_hello) => Some(Err(no_hello)),
        });
        whole.map(|whole| match whole? {
            // What is longer than is looked at is for TLS to see.
            Some(Ok(())) | None => Ok(()),
            Some(Err(NoHello)) => {
                self.metrics.tls.handshakes.with_label_values(&[TlsHandshake::Failed.as_str()]).inc();
                Err(Refused::Bad(Problem::bad_request("this speaks TLS: ask by https:// or wss://")))
            }
        })
    }

    /// What has come of a stream once the head of a request is among it.
    async fn head_within(&self, stream: &mut Stream) -> Result<BytesMut, Refused> {
        let (mut read, mut seen) = (BytesMut::with_capacity(1024), 0);
        loop {
            let room = self.head_bytes - read.len();
            if stream.read_buf(&mut (&mut read).limit(room)).await? == 0 {
                return Err(Refused::Gone);
            }
            if let Some(end) = head::end(&read, seen) {
                return head::check(&read[..end]).map(|()| read).map_err(Refused::Bad);
            }
            if read.len() >= self.head_bytes {
                return Err(self.too_long());
            }
            seen = read.len();
        }
    }
}

/// When to come back, in seconds: spread, so that those who were refused together do not return together.
fn later() -> u64 {
    RETRY_SECONDS + rand::random_range(0..=RETRY_SECONDS)
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
