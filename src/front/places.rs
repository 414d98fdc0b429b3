//! How many connections there are that are not sessions, and which of those that wait makes room.
//!
//! They are counted over the node; who waits is known by worker, and makes room for newcomers of the same.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::metrics::{Limit, Metrics};
use crate::peer::subscriber;

/// Those of the whole node.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    /// Zero is no limit.
    most_per_ip: usize,
    open: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    pub fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_ip, open: AtomicUsize::new(0), per_ip: Mutex::default() })
    }

    fn enter_from(&self, ip: IpAddr) -> Result<(), Limit> {
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let open = per_ip.entry(ip).or_default();
        if *open >= self.most_per_ip {
            return Err(Limit::ConnectionsPerIp);
        }
        *open += 1;
        Ok(())
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
    /// Who waits, the longest first.
    waiting: RefCell<BTreeMap<u64, Rc<Notify>>>,
}

/// One connection's place.
pub struct Place {
    places: Rc<Places>,
    ip: Option<IpAddr>,
}

/// A connection that may be overtaken, until it is dropped.
pub struct Waiting {
    places: Rc<Places>,
    number: u64,
    told: Rc<Notify>,
}

impl Places {
    pub fn new(connections: Arc<Connections>, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self { connections, metrics, next: Cell::new(0), waiting: RefCell::default() })
    }

    /// A place for one more; without an address it counts for none.
    ///
    /// # Errors
    /// The limit that was reached.
    pub fn enter(self: &Rc<Self>, ip: Option<IpAddr>) -> Result<Place, Limit> {
        let connections = &self.connections;
        let ip = ip.filter(|_| connections.most_per_ip > 0).map(subscriber);
        if let Some(ip) = ip {
            connections.enter_from(ip)?;
        }
        let before = connections.open.fetch_add(1, Relaxed);
        self.metrics.http_connections.inc();
        // Dropped on refusal, which gives it all back.
        let place = Place { places: self.clone(), ip };
        if before < connections.most {
            return Ok(place);
        }
        match self.waiting.borrow_mut().pop_first() {
            Some((_, longest)) => {
                longest.notify_one();
                Ok(place)
            }
            None => Err(Limit::Connections),
        }
    }

    pub fn wait(self: &Rc<Self>) -> Waiting {
        let number = self.next.replace(self.next.get() + 1);
        let told = Rc::new(Notify::new());
        self.waiting.borrow_mut().insert(number, told.clone());
        Waiting { places: self.clone(), number, told }
    }
}

impl Waiting {
    /// Returns when another connection needs the place.
    pub async fn overtaken(&self) {
        self.told.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.waiting.borrow_mut().remove(&self.number);
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

    #[test]
    fn who_waited_longest_makes_room() {
        let places = Places::new(Connections::new(2, 0), Arc::new(Metrics::new()));
        let served = places.enter(None).unwrap();
        let (_first, first) = (places.enter(None).unwrap(), places.wait());
        let (_second, second) = (places.enter(None).unwrap(), places.wait());
        assert!(first.overtaken().now_or_never().is_some());
        assert!(second.overtaken().now_or_never().is_none());
        drop((first, second, served));
        let _third = places.enter(None);
        assert_eq!(places.enter(None).err(), Some(Limit::Connections), "none waits");
    }

    #[test]
    fn an_address_has_so_many_and_gives_them_back() {
        let places = Places::new(Connections::new(100, 2), Arc::new(Metrics::new()));
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|ip| Some(ip.parse().unwrap()));
        let held = [places.enter(a).unwrap(), places.enter(a).unwrap()];
        assert_eq!(places.enter(a).err(), Some(Limit::ConnectionsPerIp));
        assert!(places.enter(b).is_ok() && places.enter(None).is_ok());
        drop(held);
        assert!(places.enter(a).is_ok());
        assert_eq!(
            (places.connections.open.load(Relaxed), places.connections.per_ip.lock().unwrap().len()),
            (0, 0)
        );
        assert_eq!(places.metrics.http_connections.get(), 0);
    }
}
