//! How often one may try: by address and by name, with the time passed in.
//!
//! Each key has a few attempts at once and then one now and then: see `rate::keyed`. An
//! attempt is counted when it begins, so that many at once find no more room than one after the other; one that
//! succeeds is given back. An address of IPv6 stands for its /64, which is what one subscriber has.
//!
//! Memory is bounded: a full table forgets the key that tried least. Left out on purpose: counting across nodes. With
//! `n` of them behind a balancer one may try up to `n` times as often.

use std::net::IpAddr;
use std::time::Duration;

use crate::ids::UserName;
use crate::peer::subscriber;
use crate::rate::keyed::{Allowance, Keyed};
use crate::time::Mono;

/// Keys in each of the two tables.
const MOST_KEYS: usize = 10_000;

const PER_ADDRESS: Allowance = Allowance { at_once: 20, every: Duration::from_secs(6) };
const PER_NAME: Allowance = Allowance { at_once: 10, every: Duration::from_secs(10) };

/// Who tried how often, on this node.
#[derive(Debug)]
pub struct Attempts {
    addresses: Keyed<IpAddr>,
    names: Keyed<UserName>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { addresses: Keyed::new(PER_ADDRESS, MOST_KEYS), names: Keyed::new(PER_NAME, MOST_KEYS) }
    }
}

impl Attempts {
    /// Counts an attempt; `name` is `None` where what was given is nobody's.
    ///
    /// # Errors
    /// After which time there is room for it. Then it was not counted.
    pub fn begin(&mut self, from: IpAddr, name: Option<&UserName>, now: Mono) -> Result<(), Duration> {
        let from = subscriber(from);
        self.addresses.take(&from, now)?;
        let Some(name) = name else { return Ok(()) };
        self.names.take(name, now).inspect_err(|_| self.addresses.give_back(&from))
    }

    /// It succeeded, or was not tried after all.
    pub fn give_back(&mut self, from: IpAddr, name: Option<&UserName>) {
        self.addresses.give_back(&subscriber(from));
        if let Some(name) = name {
            self.names.give_back(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(1_000_000_000);

    fn name(n: usize) -> UserName {
        format!("user-{n}").parse().unwrap()
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    /// How many of these are let through.
    fn through(attempts: &mut Attempts, of: impl Iterator<Item = (IpAddr, Option<UserName>)>) -> usize {
        of.filter(|(from, name)| attempts.begin(*from, name.as_ref(), NOW).is_ok()).count()
    }

    #[test]
    fn an_address_has_a_few_tries_and_then_one_now_and_then() {
        let mut attempts = Attempts::default();
        assert_eq!(through(&mut attempts, (0..100).map(|n| (address(1), Some(name(n))))), 20);
        assert_eq!(attempts.begin(address(1), None, NOW), Err(Duration::from_secs(6)));
        assert!(attempts.begin(address(2), None, NOW).is_ok(), "another address pays for it");
        let later = NOW + Duration::from_secs(6);
        assert!(attempts.begin(address(1), None, later).is_ok());
        assert!(attempts.begin(address(1), None, later).is_err());
    }

    #[test]
    fn a_name_has_a_few_tries_from_wherever() {
        let mut attempts = Attempts::default();
        assert_eq!(through(&mut attempts, (0..100).map(|n| (address(n), Some(name(1))))), 10);
        assert_eq!(attempts.begin(address(200), Some(&name(1)), NOW), Err(Duration::from_secs(10)));
        // What was refused for its name did not count for its address.
        assert_eq!(through(&mut attempts, (0..100).map(|n| (address(200), Some(name(2 + n))))), 20);
    }

    #[test]
    fn who_succeeds_is_never_held_up() {
        let mut attempts = Attempts::default();
        for _ in 0..1_000 {
            attempts.begin(address(1), Some(&name(1)), NOW).unwrap();
            attempts.give_back(address(1), Some(&name(1)));
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_subscriber() {
        let mut attempts = Attempts::default();
        let of = |net: &'static str| (0..100).map(move |n| (format!("{net}::{n:x}").parse().unwrap(), None));
        assert_eq!(through(&mut attempts, of("2001:db8:0:1")), 20);
        assert_eq!(through(&mut attempts, of("2001:db8:0:2")), 20);
        let mapped = (0..100).map(|n| (format!("::ffff:10.0.0.{n}").parse().unwrap(), None));
        assert_eq!(through(&mut attempts, mapped), 100, "these are as many addresses of IPv4");
    }

    #[test]
    fn memory_is_bounded_and_who_tries_most_is_remembered() {
        let mut attempts = Attempts::default();
        assert_eq!(through(&mut attempts, (0..100).map(|n| (address(n), Some(name(0))))), 10);
        for n in 0..3 * MOST_KEYS as u32 {
            attempts.begin(address(1_000 + n), Some(&name(1 + n as usize)), NOW).unwrap();
        }
        assert!(attempts.names.len() <= MOST_KEYS);
        assert!(attempts.addresses.len() <= MOST_KEYS);
        assert!(attempts.begin(address(7), Some(&name(0)), NOW).is_err(), "many names made it forget one");
        let later = NOW + Duration::from_secs(3_600);
        attempts.begin(address(1), Some(&name(1_000_000)), later).unwrap();
        assert_eq!(attempts.names.len(), 1, "what is over is not forgotten");
    }
}
