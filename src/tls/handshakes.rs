//! The TLS handshakes of one worker: each within a time, all within a number.
//!
//! Where one more begins than may be under way, the oldest of them is given up. A client that means it is done within a
//! few round trips, and who only opens connections and dawdles is always the oldest. Where more than that number begin within a
//! round trip, all of that distance are given up: this bounds what a flood costs, and does not serve others through it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
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

    /// What is `then` done with the connection after its handshake, which is under way until that is over.
    ///
    /// # Errors
    /// The peer speaks no TLS that is allowed here, was too slow, or made room for others.
    pub async fn accept<T>(&self, stream: TcpStream, then: impl AsyncFnOnce(Stream) -> T) -> io::Result<T> {
        let peer = stream.peer_addr().ok();
        let done = self.see_through(stream, then).await;
        let outcome = done.as_ref().map_or_else(|(outcome, _)| *outcome, |_| TlsHandshake::Done);
        self.metrics.tls.handshakes.with_label_values(&[outcome.as_str()]).inc();
        done.map_err(|(_, error)| {
            log::debug!(peer:? = peer, error:% = error; "no TLS: {}", outcome.as_str());
            error
        })
    }

    async fn see_through<T>(
        &self,
        stream: TcpStream,
        then: impl AsyncFnOnce(Stream) -> T,
    ) -> Result<T, (TlsHandshake, io::Error)> {
        let too_slow = |_| (TlsHandshake::TimedOut, io::ErrorKind::TimedOut.into());
        let failed = |error| (TlsHandshake::Failed, error);
        let begun = Instant::now();
        // Whoever says nothing has no buffers here, and no place.
        timeout(self.patience, stream.readable()).await.map_err(too_slow)?.map_err(failed)?;
        let (_place, given_up) = self.enter();
        let shaken = async {
            let accepted = TlsAcceptor::from(self.tls.config()).accept(stream);
            let stream =
                timeout_at(begun + self.patience, accepted).await.map_err(too_slow)?.map_err(failed)?;
            Ok(then(stream.into()).await)
        };
        tokio::select! {
            done = shaken => done,
            _ = given_up => Err((TlsHandshake::Refused, io::ErrorKind::ConnectionAborted.into())),
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
