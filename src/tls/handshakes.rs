//! The TLS handshakes of one worker: each within a time, all within a number.
//!
//! - Some places are for the first of each address, and of the others one address has half at most: who sends many is
//!   waited for by himself.
//! - Where no place is free, the next one waits for it in the order of arrival, without buffers. A client that means it
//!   is done within a few round trips: who holds a place for longer than [`GRACE`] gives it up as soon as another waits.
//! - Who waits here has said what he came to say, so none makes room for him among the node's connections. Therefore
//!   there are no more than can have a turn ([`TURNS`]), but for the first of each address.

mod addresses;
mod places;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::reload::Tls;
use super::stream::Stream;
use crate::metrics::{Metrics, TlsHandshake};
use crate::peer::subscriber;
pub use addresses::Addresses;
use addresses::OneMore;
use places::Places;

/// How long a place is kept by who got it, whoever waits: TLS 1.2 and the first head in round trips of a third of it.
const GRACE: Duration = Duration::from_secs(1);

/// How many wait for each place: so many seconds, where all dawdle.
const TURNS: usize = 8;
/// A worker has places for the first of an address, and for one that has more, and leaves one to others.
const AT_LEAST: usize = 4;

/// One worker's.
pub struct Handshakes {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    patience: Duration,
    /// For those from whose address there is no other.
    firsts: Places,
    /// For all others.
    places: Places,
    /// Of those one address may have so many.
    share: usize,
    by_address: RefCell<HashMap<IpAddr, Rc<Places>>>,
    addresses: Arc<Addresses>,
}

/// The places of one address, for as long as anyone from there is here.
struct Share<'a> {
    of: &'a Handshakes,
    address: IpAddr,
    places: Rc<Places>,
}

impl Deref for Share<'_> {
    type Target = Places;

    fn deref(&self) -> &Places {
        &self.places
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        // The other one is the map's own.
        if Rc::strong_count(&self.places) == 2 {
            self.of.by_address.borrow_mut().remove(&self.address);
        }
    }
}

impl Handshakes {
    /// `bound`: as many may be under way, and some always. `addresses` are those of all workers.
    pub fn new(
        tls: Arc<Tls>,
        addresses: Arc<Addresses>,
        metrics: Arc<Metrics>,
        patience: Duration,
        bound: usize,
    ) -> Self {
        let bound = bound.max(AT_LEAST);
        let firsts = bound.div_ceil(4);
        let others = bound - firsts;
        let (share, by_address) = (others.div_ceil(2), RefCell::default());
        let places = Places::new(others).with_most_waiting(others * TURNS);
        let firsts = Places::new(firsts);
        Self { tls, metrics, patience, firsts, places, share, by_address, addresses }
    }

    /// What is `then` done with the connection after its handshake, which is under way until that is over. Its ClientHello is
    /// there already. `from` is whose it is; none is one of many behind a proxy.
    ///
    /// # Errors
    /// The peer speaks no TLS that is allowed here, was too slow, or made room for others.
    pub async fn accept<T>(
        &self,
        stream: TcpStream,
        from: Option<IpAddr>,
        then: impl AsyncFnOnce(Stream) -> T,
    ) -> io::Result<T> {
        let done = self.see_through(stream, from, then).await;
        let outcome = done.as_ref().map_or_else(|(outcome, _)| *outcome, |_| TlsHandshake::Done);
        self.metrics.tls.handshakes.with_label_values(&[outcome.as_str()]).inc();
        done.map_err(|(_, error)| {
            log::debug!(address:? = from, error:% = error; "no TLS: {}", outcome.as_str());
            error
        })
    }

    async fn see_through<T>(
        &self,
        stream: TcpStream,
        from: Option<IpAddr>,
        then: impl AsyncFnOnce(Stream) -> T,
    ) -> Result<T, (TlsHandshake, io::Error)> {
        let late = |outcome| move |_| (outcome, io::ErrorKind::TimedOut.into());
        let too_slow = late(TlsHandshake::TimedOut);
        let failed = |error| (TlsHandshake::Failed, error);
        let refused = |kind: io::ErrorKind| (TlsHandshake::Refused, kind.into());
        let from = from.map(subscriber);
        let more = from.map(|address| self.addresses.enter(address));
        let first = more.as_ref().is_some_and(|more: &OneMore| more.first);
        let share = from.filter(|_| !first).map(|address| self.share(address));
        let of_address = share.as_deref();
        let all = if first { &self.firsts } else { &self.places };
        let entered = async {
            let of_address = match of_address {
                Some(share) => share.enter().await,
                None => None,
            };
            Some((of_address, all.enter().await?))
        };
        let entered = timeout(self.patience, entered).await.map_err(late(TlsHandshake::Refused))?;
        let _places = entered.ok_or_else(|| refused(io::ErrorKind::ConnectionRefused))?;
        // Room for it is made with the place.
        let shaken = Box::pin(async {
            let accepted = TlsAcceptor::from(self.tls.config()).accept(stream);
            let stream = timeout(self.patience, accepted).await.map_err(too_slow)?.map_err(failed)?;
            Ok(then(stream.into()).await)
        });
        tokio::select! {
            // What came while this node was busy is looked at before its peer is called late.
            biased;
            done = shaken => done,
            () = outstayed(all, of_address) => {
                Err(refused(io::ErrorKind::ConnectionAborted))
            }
        }
    }

    fn share(&self, address: IpAddr) -> Share<'_> {
        let mut by_address = self.by_address.borrow_mut();
        let places = by_address.entry(address).or_insert_with(|| Rc::new(Places::new(self.share)));
        Share { of: self, address, places: places.clone() }
    }
}

/// Returns once somebody else needs the place, and it was kept for as long as it has to be.
async fn outstayed(all: &Places, of_address: Option<&Places>) {
    sleep(GRACE).await;
    match of_address {
        Some(of_address) => tokio::select! {
            () = of_address.needed() => {}
            () = all.needed() => {}
        },
        None => all.needed().await,
    }
}

/// Whether a connection failed by what its peer sent, and nobody sends who means well. To be slow, to end the connection, or
/// to say that the certificate here is not good enough, is no such thing.
pub fn is_foul(error: &io::Error) -> bool {
    let of_tls = || error.get_ref()?.downcast_ref::<rustls::Error>();
    let alert = || matches!(of_tls(), Some(rustls::Error::AlertReceived(_)));
    error.kind() == io::ErrorKind::InvalidData && !alert()
}
