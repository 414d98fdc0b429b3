//! The list of revoked tokens, as a pure core: changes go in, what is new or gone comes out.

use std::collections::{HashMap, HashSet};

use crate::ids::{DeviceId, RevocationId};
use crate::store::revocations::{Revocation, Tokens};
use crate::time::Timestamp;
use crate::token::Proof;

#[derive(Debug, Default)]
pub(super) struct List {
    tokens: HashMap<u64, Term>,
    /// Each with the last second whose tokens are meant.
    devices: HashMap<DeviceId, (u32, Term)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    id: RevocationId,
    until: Option<Timestamp>,
}

/// A revocation that was not there before, as those see it who hold sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// The token whose `jti` has this hash.
    Token(u64),
    Device(DeviceId),
}

/// What a change of the list came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Revocations that were not there before.
    pub fresh: Vec<Revocation>,
    /// The same, for those who hold sessions.
    pub whom: Vec<Fresh>,
    /// Which hold no more.
    pub gone: Vec<RevocationId>,
}

impl Term {
    fn of(revocation: &Revocation) -> Self {
        Self { id: revocation.id, until: revocation.until }
    }

    fn holds(self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl List {
    pub fn refuses(&self, device: &DeviceId, proof: Proof, now: Timestamp) -> bool {
        let of_token = self.tokens.get(&proof.jti).is_some_and(|term| term.holds(now));
        let of_device =
            || self.devices.get(device).is_some_and(|(last, term)| proof.issued <= *last && term.holds(now));
        of_token || of_device()
    }

    pub fn apply(&mut self, changes: Vec<Revocation>, hash: impl Fn(&str) -> u64, now: Timestamp) -> Changed {
        let mut changed = Changed::default();
        for revocation in changes.into_iter().filter(|revocation| revocation.holds(now)) {
            let (before, whom) = self.put(&revocation, &hash);
            if before == Some(Term::of(&revocation)) {
                continue;
            }
            changed.gone.extend(before.map(|term| term.id).filter(|id| *id != revocation.id));
            changed.whom.push(whom);
            changed.fresh.push(revocation);
        }
        changed
    }

    /// The list that has these and no others.
    pub fn replaced_by(
        &self,
        all: Vec<Revocation>,
        hash: impl Fn(&str) -> u64,
        now: Timestamp,
    ) -> (List, Changed) {
        let mut list = List::default();
        let mut changed = list.apply(all, hash, now);
        let known: HashSet<RevocationId> = self.terms().map(|term| term.id).collect();
        let stay: HashSet<RevocationId> = list.terms().map(|term| term.id).collect();
        let is_new: Vec<bool> = changed.fresh.iter().map(|fresh| !known.contains(&fresh.id)).collect();
        let (mut fresh, mut whom) = (is_new.iter(), is_new.iter());
        changed.fresh.retain(|_| fresh.next() == Some(&true));
        changed.whom.retain(|_| whom.next() == Some(&true));
        changed.gone = known.difference(&stay).copied().collect();
        (list, changed)
    }

    pub fn sweep(&mut self, now: Timestamp) -> Changed {
        let over = |term: &Term| !term.holds(now);
        let gone: Vec<_> = self.terms().filter(over).map(|term| term.id).collect();
        if !gone.is_empty() {
            self.tokens.retain(|_, term| term.holds(now));
            self.devices.retain(|_, (_, term)| term.holds(now));
        }
        Changed { gone, ..Changed::default() }
    }

    fn terms(&self) -> impl Iterator<Item = Term> {
        self.tokens.values().copied().chain(self.devices.values().map(|(_, term)| *term))
    }

    /// Returns what was in its place, and whom it is about.
    fn put(&mut self, revocation: &Revocation, hash: impl Fn(&str) -> u64) -> (Option<Term>, Fresh) {
        let term = Term::of(revocation);
        match &revocation.tokens {
            Tokens::Jti(jti) => {
                let hash = hash(jti);
                (self.tokens.insert(hash, term), Fresh::Token(hash))
            }
            Tokens::Device(device) => {
                let last = (revocation.at.0 / 1_000_000).clamp(0, u32::MAX.into()) as u32;
                let before = self.devices.insert(device.clone(), (last, term));
                (before.map(|(_, term)| term), Fresh::Device(device.clone()))
            }
        }
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
