//! A rate for each of many keys, in bounded memory: the generic cell rate algorithm, as for one.
//!
//! Each key has some arrivals at once and then one now and then. A full table forgets the key that came least: who
//! comes most is remembered, however many others come in between.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::time::Mono;

/// What each key may.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// At least 1.
    pub at_once: u32,
    /// From one arrival to the next, once those are used up.
    pub every: Duration,
}

/// Who keeps to it.
#[derive(Debug)]
pub struct Keyed<K> {
    allowance: Allowance,
    most: usize,
    /// When the next arrival would be exactly on schedule, in microseconds; past, the key is as good as unknown.
    on_schedule: HashMap<K, u64>,
}

impl Allowance {
    /// So many a second, and a second's worth at once; at least 1.
    pub fn per_sec(n: u32) -> Self {
        Self { at_once: n.max(1), every: Duration::from_secs(1) / n.max(1) }
    }
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// `most`: keys remembered.
    pub fn new(allowance: Allowance, most: usize) -> Self {
        Self { allowance, most, on_schedule: HashMap::new() }
    }

    fn every(&self) -> u64 {
        self.allowance.every.as_micros() as u64
    }

    /// Counts one arrival, or says after which time there is room for it.
    ///
    /// # Errors
    /// It is too early by so much, and was not counted.
    pub fn take(&mut self, key: &K, now: Mono) -> Result<(), Duration> {
        let next = self.on_schedule.get(key).map_or(now.0, |at| now.0.max(*at)) + self.every();
        let early = next.saturating_sub(now.0 + self.every() * u64::from(self.allowance.at_once));
        if early > 0 {
            return Err(Duration::from_micros(early));
        }
        if !self.on_schedule.contains_key(key) {
            self.make_room(now);
        }
        self.on_schedule.insert(key.clone(), next);
        Ok(())
    }

    /// One arrival counts no more.
    pub fn give_back(&mut self, key: &K) {
        let every = self.every();
        if let Some(at) = self.on_schedule.get_mut(key) {
            *at = at.saturating_sub(every);
        }
    }

    /// Keys remembered.
    pub fn len(&self) -> usize {
        self.on_schedule.len()
    }

    pub fn is_empty(&self) -> bool {
        self.on_schedule.is_empty()
    }

    fn make_room(&mut self, now: Mono) {
        if self.on_schedule.len() < self.most {
            return;
        }
        self.on_schedule.retain(|_, at| *at > now.0);
        if self.on_schedule.len() >= self.most
            && let Some(least) =
                self.on_schedule.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            self.on_schedule.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let mut keyed = Keyed::new(Allowance::per_sec(3), 10);
        let now = Mono(1_000_000);
        assert_eq!((0..9).filter(|_| keyed.take(&"a", now).is_ok()).count(), 3);
        assert!(keyed.take(&"b", now).is_ok());
        let early = keyed.take(&"a", now).unwrap_err();
        assert!(keyed.take(&"a", now + early).is_ok());
    }

    #[test]
    fn a_full_table_forgets_who_came_least() {
        let mut keyed = Keyed::new(Allowance::per_sec(2), 3);
        let now = Mono(1_000_000);
        keyed.take(&0, now).unwrap();
        keyed.take(&0, now).unwrap();
        for other in 1..100 {
            keyed.take(&other, now).unwrap();
        }
        assert_eq!(keyed.len(), 3);
        assert!(keyed.take(&0, now).is_err());
    }
}
