//! The TLS handshakes of one worker: each within a time, all within a number.
//!
//! Where one more begins than may be under way, the oldest of them is given up. A client that means it is done within a
//! few round trips; who only opens connections and dawdles is always the oldest, and so cannot keep others out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::reload::Tls;
use super::stream::Stream;
use crate::metrics::{Metrics, TlsHandshake};

/// One worker's.
pub struct Handshakes {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    patience: Duration,
    bound: usize,
    /// Those under way, the oldest first, each by its number; who is dropped here is given up.
    underway: RefCell<VecDeque<(u64, oneshot::Sender<()>)>>,
    next: Cell<u64>,
}

/// A place among them, as long as it is held.
struct Place<'a> {
    of: &'a Handshakes,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut underway = self.of.underway.borrow_mut();
        if let Ok(at) = underway.binary_search_by_key(&self.number, |(number, _)| *number) {
            underway.remove(at);
        }
    }
}

impl Handshakes {
    pub fn new(tls: Arc<Tls>, metrics: Arc<Metrics>, patience: Duration, bound: usize) -> Self {
        Self { tls, metrics, patience, bound: bound.max(1), underway: RefCell::default(), next: Cell::new(0) }
    }

    /// The connection after its handshake.
    ///
    /// # Errors
    /// The peer speaks no TLS that is allowed here, was too slow, or made room for others.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let peer = stream.peer_addr().ok();
        let (outcome, accepted) = match timeout(self.patience, self.shake(stream)).await {
            Ok(Ok(stream)) => (TlsHandshake::Done, Ok(stream)),
            Ok(Err(outcome)) => outcome,
            Err(_) => (TlsHandshake::TimedOut, Err(io::ErrorKind::TimedOut.into())),
        };
        self.metrics.tls.handshakes.with_label_values(&[outcome.as_str()]).inc();
        if let Err(error) = &accepted {
            log::debug!(peer:? = peer, error:% = error; "no TLS: {}", outcome.as_str());
        }
        accepted
    }

    async fn shake(&self, stream: TcpStream) -> Result<Stream, (TlsHandshake, io::Result<Stream>)> {
        let failed = |error| (TlsHandshake::Failed, Err(error));
        // Whoever says nothing has no buffers here, and no place.
        stream.readable().await.map_err(failed)?;
        let (_place, given_up) = self.enter();
        let acceptor = TlsAcceptor::from(self.tls.config());
        tokio::select! {
            accepted = acceptor.accept(stream) => match accepted {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                Err(error) => Err(failed(error)),
            },
            _ = given_up => Err((TlsHandshake::Refused, Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let number = self.next.replace(self.next.get() + 1);
        let (keep, given_up) = oneshot::channel();
        let mut underway = self.underway.borrow_mut();
        while underway.len() >= self.bound {
            underway.pop_front();
        }
        underway.push_back((number, keep));
        (Place { of: self, number }, given_up)
    }
}
