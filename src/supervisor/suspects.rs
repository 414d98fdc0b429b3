//! Addresses that send what does not open, over and over, as a pure core: what happened goes in, with the time.
//!
//! - Each bad token, malformed handshake and protocol error counts, and is forgotten at an even pace: `after` of them a
//!   minute. From an address with more than `after` only so many tries are looked at as bring it, where all of them are
//!   bad, to twice as many within a minute, and one a second at least; with twice as many, none for a while.
//! - What is not looked at does not count: who goes on trying is not held off for longer than was said.
//! - An address of IPv6 stands for its /64.
//!
//! Memory is bounded: a full table forgets who did least, of some. Left out on purpose: telling other nodes, and lasting over a
//! restart. It is no verdict on who somebody is, but keeps him from costing more than he should.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::peer::subscriber;
use crate::rate::Schedule;
use crate::time::Mono;

/// Addresses remembered.
const MOST: usize = 10_000;
const MINUTE: f64 = 60.0;
/// How often a full table is gone through.
const SWEEP: Duration = Duration::from_secs(1);
/// Of so many, whichever they are, the one that did least makes room.
const SAMPLE: usize = 64;

/// What is done to whom.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// So many a minute; zero is never.
    pub after: u32,
    pub ban: Duration,
    pub exempt: Vec<IpNet>,
}

#[derive(Debug)]
pub struct Suspects {
    policy: Policy,
    known: HashMap<IpAddr, Suspect>,
    /// When it was last gone through for those who are forgiven.
    swept: Mono,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// How many are not forgotten yet, at the time of `seen`.
    strikes: f64,
    seen: Mono,
    tries: Schedule,
    /// Held off until then.
    until: Option<Mono>,
}

/// Why a try is not looked at, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Slowed(Duration),
    Off(Duration),
}

impl Suspects {
    pub fn new(policy: Policy) -> Self {
        Self { policy, known: HashMap::new(), swept: Mono(0) }
    }

    fn watches(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.policy.after > 0 && !self.policy.exempt.iter().any(|net| net.contains(&address))
    }

    /// Whether a try from there is looked at.
    ///
    /// # Errors
    /// It is not.
    pub fn look(&mut self, from: IpAddr, now: Mono) -> Result<(), Hold> {
        let after = f64::from(self.policy.after);
        let Some(suspect) = self.known.get_mut(&subscriber(from)) else { return Ok(()) };
        if let Some(until) = suspect.until {
            if until > now {
                return Err(Hold::Off(until.since(now)));
            }
            suspect.until = None;
        }
        if suspect.strikes_at(now, after) <= after {
            return Ok(());
        }
        suspect.tries.take(pace(self.policy.after), now).map_err(Hold::Slowed)
    }

    /// For how long yet nothing from there is looked at.
    pub fn held_off(&self, from: IpAddr, now: Mono) -> Option<Duration> {
        let until = self.known.get(&subscriber(from))?.until?;
        (until > now).then(|| until.since(now))
    }

    /// Something bad came from there. Says for how long nothing more is looked at, where that begins now.
    pub fn strike(&mut self, from: IpAddr, now: Mono) -> Option<Duration> {
        if !self.watches(from) {
            return None;
        }
        let (from, after, ban) = (subscriber(from), f64::from(self.policy.after), self.policy.ban);
        if !self.known.contains_key(&from) {
            self.make_room(now);
        }
        let new = Suspect { strikes: 0.0, seen: now, tries: Schedule::default(), until: None };
        let suspect = self.known.entry(from).or_insert(new);
        if suspect.until.is_some_and(|until| until > now) {
            return None;
        }
        suspect.until = None;
        suspect.strikes = suspect.strikes_at(now, after) + 1.0;
        suspect.seen = now;
        if suspect.strikes < after * 2.0 {
            return None;
        }
        suspect.until = Some(now + ban);
        // When it is over, a little is left to be forgiven.
        suspect.strikes = after;
        suspect.seen = now + ban;
        Some(ban)
    }

    fn make_room(&mut self, now: Mono) {
        if self.known.len() < MOST {
            return;
        }
        let after = f64::from(self.policy.after);
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.known
                .retain(|_, s| s.until.is_some_and(|until| until > now) || s.strikes_at(now, after) > 0.0);
            if self.known.len() < MOST {
                return;
            }
        }
        let weight = |s: &Suspect| (s.until.is_some(), s.strikes_at(now, after));
        let least = self.known.iter().take(SAMPLE).min_by(|(_, a), (_, b)| {
            let (a, b) = (weight(a), weight(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        if let Some(least) = least.map(|(address, _)| *address) {
            self.known.remove(&least);
        }
    }
}

/// Tries a second that are looked at of one who has more than `after` a minute: twice as many as are forgotten.
fn pace(after: u32) -> u32 {
    after.div_ceil(30)
}

impl Suspect {
    fn strikes_at(&self, now: Mono, after: f64) -> f64 {
        (self.strikes - now.since(self.seen).as_secs_f64() * after / MINUTE).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(1_000_000_000);

    fn suspects(after: u32) -> Suspects {
        let exempt = vec!["127.0.0.0/8".parse().unwrap()];
        Suspects::new(Policy { after, ban: Duration::from_secs(300), exempt })
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn first_it_is_slowed_then_held_off_then_forgiven() {
        let mut s = suspects(10);
        let bad = address(1);
        for _ in 0..10 {
            assert_eq!((s.look(bad, NOW), s.strike(bad, NOW)), (Ok(()), None));
        }
        assert_eq!(s.look(bad, NOW), Ok(()), "ten are allowed");
        s.strike(bad, NOW);
        assert_eq!(s.look(bad, NOW), Ok(()));
        let Err(Hold::Slowed(wait)) = s.look(bad, NOW) else { panic!("it was not slowed") };
        assert!(wait <= Duration::from_secs(1));
        assert_eq!(s.look(address(2), NOW), Ok(()), "another pays for it");
        let began = (0..100).find_map(|n| {
            let now = NOW + Duration::from_secs(n);
            s.look(bad, now).ok().and_then(|()| s.strike(bad, now)).map(|ban| (now, ban))
        });
        let (now, ban) = began.expect("a ban");
        assert_eq!(s.look(bad, now), Err(Hold::Off(ban)));
        assert_eq!(s.look(bad, now + ban), Ok(()));
        assert_eq!(s.strike(bad, now + ban), None, "one more is no ban");
    }

    #[test]
    fn whoever_goes_on_is_held_off_whatever_the_number() {
        for after in [1, 2, 30, 59, 60, 61, 1_000, 100_000] {
            let mut s = suspects(after);
            for _ in 0..after {
                s.strike(address(1), NOW);
            }
            // As often as it is let.
            let mut now = NOW;
            let held = std::iter::from_fn(|| {
                match s.look(address(1), now) {
                    Ok(()) => _ = s.strike(address(1), now),
                    Err(Hold::Slowed(wait)) => now = now + wait,
                    Err(Hold::Off(_)) => return None,
                }
                Some(())
            });
            assert!(held.take(5_000_000).count() < 5_000_000, "{after}");
            assert!(now.since(NOW) <= Duration::from_secs(70), "{after}: {:?}", now.since(NOW));
            assert!(s.held_off(address(1), now).is_some() && s.held_off(address(2), now).is_none());
        }
    }

    #[test]
    fn whoever_begins_again_is_held_off_again() {
        let mut s = suspects(2);
        let mut now = NOW;
        for _ in 0..3 {
            let ban = (0..10).find_map(|_| s.strike(address(1), now)).expect("held off");
            assert_eq!(s.strike(address(1), now), None, "what comes meanwhile changes nothing");
            assert_eq!(s.held_off(address(1), now), Some(ban));
            now = now + ban;
            assert_eq!(s.held_off(address(1), now), None);
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut s = suspects(10);
        for n in 0..1_000 {
            assert_eq!(s.strike(address(1), NOW + Duration::from_secs(6 * n)), None);
            assert_eq!(s.look(address(1), NOW + Duration::from_secs(6 * n)), Ok(()));
        }
    }

    #[test]
    fn who_is_exempt_is_never_suspect_and_zero_is_never() {
        for (mut s, from) in
            [(suspects(1), "127.0.0.1"), (suspects(1), "::ffff:127.0.0.9"), (suspects(0), "10.0.0.1")]
        {
            let from = from.parse().unwrap();
            assert!((0..100).all(|_| s.strike(from, NOW).is_none() && s.look(from, NOW).is_ok()), "{from}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_worst_is_remembered() {
        let mut s = suspects(2);
        while s.strike(address(1), NOW).is_none() {}
        for n in 0..2 * MOST as u32 {
            s.strike(address(100 + n), NOW);
        }
        assert!(s.known.len() <= MOST);
        assert!(s.look(address(1), NOW).is_err());
    }
}
