//! Of which addresses there are handshakes, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many each has.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One more of an address, until it is dropped.
pub struct OneMore {
    addresses: Arc<Addresses>,
    address: IpAddr,
    /// There was no other.
    pub first: bool,
}

impl Addresses {
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> OneMore {
        let mut by_address = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = by_address.entry(address).or_default();
        *there += 1;
        OneMore { first: *there == 1, addresses: self.clone(), address }
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        let mut by_address = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = by_address.get_mut(&self.address) {
            *there -= 1;
            if *there == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_first_again_when_all_have_left() {
        let addresses = Arc::<Addresses>::default();
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let first = addresses.enter(one);
        let second = addresses.enter(one);
        assert!(first.first && !second.first && addresses.enter(other).first);
        drop(first);
        assert!(!addresses.enter(one).first, "the second is there yet");
        drop(second);
        assert!(addresses.enter(one).first);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
