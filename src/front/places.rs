//! How many connections there are that are not sessions, and which of those that wait makes room.
//!
//! - They are counted over the node; who waits is known by worker, and makes room for newcomers of the same.
//! - One address has no more than there are left for all others, whatever else is allowed: who holds many is the first
//!   to be told no, and there is always room for who holds none (dynamic thresholds, as in the shared buffers of switches).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::metrics::{Limit, Metrics};
use crate::peer::subscriber;

/// Whoever has no more than this part of all, or than this number, does not have too many.
const FEW: usize = 64;
const AT_LEAST: usize = 4;

/// Those of the whole node.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_ip: usize,
    open: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// How one more of an address stands to the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Limits,
    /// It has as many as are left for all others.
    NoShare,
}

impl Connections {
    /// `most_per_ip`: zero is no limit but the share that each has.
    pub fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        let most_per_ip = if most_per_ip == 0 { most } else { most_per_ip };
        Arc::new(Self { most, most_per_ip, open: AtomicUsize::new(0), per_ip: Mutex::default() })
    }

    /// Counts one more of the address, which is among the open ones.
    fn enter_from(&self, ip: IpAddr) -> Result<Within, Limit> {
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let of_ip = per_ip.entry(ip).or_default();
        if *of_ip >= self.most_per_ip {
            return Err(Limit::ConnectionsPerIp);
        }
        let left = self.most.saturating_sub(self.open.load(Relaxed));
        let within =
            if *of_ip > left.max(self.most / FEW).max(AT_LEAST) { Within::NoShare } else { Within::Limits };
        *of_ip += 1;
        Ok(within)
    }

    fn leave_from(&self, ip: &IpAddr) {
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = per_ip.get_mut(ip) {
            *open -= 1;
            if *open == 0 {
                per_ip.remove(ip);
            }
        }
    }
}

/// Those of one worker.
pub struct Places {
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    next: Cell<u64>,
    waiting: RefCell<Queue>,
}

/// Who waits, the longest first: all, and by address.
#[derive(Default)]
struct Queue {
    all: BTreeMap<u64, (Option<IpAddr>, Waker)>,
    by_ip: BTreeSet<(IpAddr, u64)>,
}

impl Queue {
    fn add(&mut self, number: u64, ip: Option<IpAddr>) {
        self.all.insert(number, (ip, Waker::noop().clone()));
        self.by_ip.extend(ip.map(|ip| (ip, number)));
    }

    fn take(&mut self, number: u64) -> Option<Waker> {
        let (ip, waker) = self.all.remove(&number)?;
        if let Some(ip) = ip {
            self.by_ip.remove(&(ip, number));
        }
        Some(waker)
    }

    /// Who has waited longest, of this address where there is one.
    fn longest(&mut self, of: Option<IpAddr>) -> Option<Waker> {
        let number = match of {
            Some(ip) => self.by_ip.range((ip, 0)..=(ip, u64::MAX)).next().map(|(_, number)| *number),
            None => self.all.keys().next().copied(),
        };
        self.take(number?)
    }
}

/// One connection's place.
pub struct Place {
    places: Rc<Places>,
    ip: Option<IpAddr>,
}

/// A connection of which it is not known yet whose it is.
pub struct Arrived(Place);

/// A connection that may be overtaken, until this is dropped: ready when another needs its place.
pub struct Waiting {
    places: Rc<Places>,
    number: u64,
}

impl Places {
    pub fn new(connections: Arc<Connections>, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self { connections, metrics, next: Cell::new(0), waiting: RefCell::default() })
    }

    /// Counts one more connection.
    pub fn enter(self: &Rc<Self>) -> Arrived {
        self.connections.open.fetch_add(1, Relaxed);
        self.metrics.http_connections.inc();
        Arrived(Place { places: self.clone(), ip: None })
    }

    fn is_beyond(&self) -> bool {
        self.connections.open.load(Relaxed) > self.connections.most
    }

    /// Whether one that waits, of this address where there is one, was told to give up its place.
    fn make_room(&self, of: Option<IpAddr>) -> bool {
        let longest = self.waiting.borrow_mut().longest(of);
        longest.map(Waker::wake).is_some()
    }
}

impl Arrived {
    /// The place of a connection of this address; none is that of a proxy.
    ///
    /// # Errors
    /// The limit that was reached.
    pub fn of(self, ip: Option<IpAddr>) -> Result<Place, Limit> {
        let Self(mut place) = self;
        let mut within = Within::Limits;
        if let Some(ip) = ip.map(subscriber) {
            within = place.places.connections.enter_from(ip)?;
            place.ip = Some(ip);
        }
        // Dropped on refusal, which gives it all back.
        match within {
            Within::NoShare if !place.places.make_room(place.ip) => Err(Limit::ConnectionsPerIp),
            Within::Limits if place.places.is_beyond() && !place.places.make_room(None) => {
                Err(Limit::Connections)
            }
            _ => Ok(place),
        }
    }
}

impl Place {
    pub fn wait(&self) -> Waiting {
        let places = &self.places;
        let number = places.next.replace(places.next.get() + 1);
        places.waiting.borrow_mut().add(number, self.ip);
        Waiting { places: places.clone(), number }
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waker = cx.waker().clone();
        match self.places.waiting.borrow_mut().all.get_mut(&self.number) {
            Some((_, known)) => std::mem::swap(known, &mut waker),
            None => return Poll::Ready(()),
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waker = self.places.waiting.borrow_mut().take(self.number);
        // A waker may be the last to hold its task, with all that is in there: not while the queue is borrowed.
        drop(waker);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.connections.open.fetch_sub(1, Relaxed);
        self.places.metrics.http_connections.dec();
        if let Some(ip) = &self.ip {
            self.places.connections.leave_from(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn proxied(places: &Rc<Places>) -> Result<Place, Limit> {
        places.enter().of(None)
    }

    fn places(most: usize, per_ip: usize) -> Rc<Places> {
        Places::new(Connections::new(most, per_ip), Arc::new(Metrics::new()))
    }

    fn from(places: &Rc<Places>, ip: u8) -> Result<Place, Limit> {
        places.enter().of(Some([192, 0, 2, ip].into()))
    }

    #[test]
    fn who_waited_longest_makes_room() {
        let places = places(2, 0);
        let served = proxied(&places).unwrap();
        let first = proxied(&places).unwrap();
        let mut first = (first.wait(), first);
        let second = proxied(&places).unwrap();
        let mut second = (second.wait(), second);
        assert!((&mut first.0).now_or_never().is_some());
        assert!((&mut second.0).now_or_never().is_none());
        drop((first, second, served));
        let _third = (proxied(&places), proxied(&places));
        assert_eq!(proxied(&places).err(), Some(Limit::Connections), "none waits");
    }

    #[test]
    fn an_address_has_so_many_and_gives_them_back() {
        let places = places(100, 2);
        let held = [from(&places, 1).unwrap(), from(&places, 1).unwrap()];
        assert_eq!(from(&places, 1).err(), Some(Limit::ConnectionsPerIp));
        assert!(from(&places, 2).is_ok() && proxied(&places).is_ok());
        drop(held);
        assert!(from(&places, 1).is_ok());
        assert_eq!(
            (places.connections.open.load(Relaxed), places.connections.per_ip.lock().unwrap().len()),
            (0, 0)
        );
        assert_eq!(places.metrics.http_connections.get(), 0);
    }

    #[test]
    fn who_holds_many_leaves_room_for_who_holds_none() {
        let places = places(100, 0);
        let mut held = Vec::new();
        for greedy in 1..=4 {
            while let Ok(place) = from(&places, greedy) {
                held.push(place);
            }
        }
        assert!((50..100).contains(&held.len()), "{}", held.len());
        assert!((5..10).all(|modest| from(&places, modest).is_ok()));
        // Who is over his share can have what his own give up, and nobody else's.
        let modest = from(&places, 5).unwrap();
        let modest = (modest.wait(), modest);
        assert_eq!(from(&places, 1).err(), Some(Limit::ConnectionsPerIp));
        let waits = held[0].wait();
        assert!(from(&places, 1).is_ok());
        assert!(waits.now_or_never().is_some() && modest.0.now_or_never().is_none());
    }
}
