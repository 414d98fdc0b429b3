//! The list of bans, as a pure core: changes go in, what is new or gone comes out.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::Banned;
use crate::ids::{BanId, DeviceId};
use crate::store::bans::{Ban, BanChange, Target};
use crate::time::Timestamp;

/// Who is banned, and until when.
#[derive(Debug, Default)]
pub(super) struct List {
    devices: HashMap<DeviceId, Term>,
    networks: JointPrefixMap<IpNet, Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    id: BanId,
    until: Option<Timestamp>,
}

/// What a change of the list came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Bans that were not there before.
    pub fresh: Vec<Ban>,
    /// Who is banned no more.
    pub gone: Vec<Target>,
}

impl Term {
    fn of(ban: &Ban) -> Self {
        Self { id: ban.id, until: ban.until }
    }

    fn holds(self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl List {
    pub fn device(&self, device: &DeviceId, now: Timestamp) -> Option<Banned> {
        let term = self.devices.get(device).filter(|term| term.holds(now))?;
        Some(Banned::Device { until: term.until })
    }

    pub fn address(&self, from: IpAddr, now: Timestamp) -> Option<Banned> {
        let from = IpNet::from(from.to_canonical());
        // A narrow ban that is over leaves a wide one that is not.
        let term = self.networks.cover(&from).map(|(_, term)| *term).find(|term| term.holds(now))?;
        Some(Banned::Address { until: term.until })
    }

    pub fn outlasts(&self, ban: &Ban) -> bool {
        self.term(&ban.target)
            .is_some_and(|term| term.until.is_none_or(|held| ban.until.is_some_and(|until| held >= until)))
    }

    pub fn apply(&mut self, changes: Vec<BanChange>, now: Timestamp) -> Changed {
        let mut changed = Changed::default();
        for BanChange { ban, lifted, .. } in changes {
            if lifted || !ban.holds(now) {
                self.forget(&ban.target);
                changed.gone.push(ban.target);
            } else if self.put(&ban) != Some(Term::of(&ban)) {
                changed.fresh.push(ban);
            }
        }
        changed
    }

    /// The list that has these and no others.
    pub fn replaced_by(&self, bans: Vec<Ban>, now: Timestamp) -> (List, Changed) {
        let (mut list, mut changed) = (List::default(), Changed::default());
        let mut stay = HashSet::new();
        for ban in bans.into_iter().filter(|ban| ban.holds(now)) {
            list.put(&ban);
            stay.insert(ban.id);
            if self.term(&ban.target) != Some(Term::of(&ban)) {
                changed.fresh.push(ban);
            }
        }
        changed.gone = self.targets(|_, term| !stay.contains(&term.id));
        // Of a target that is banned anew, the fresh ban takes the place of the old one.
        changed.gone.retain(|target| list.term(target).is_none());
        (list, changed)
    }

    /// Whose bans are over.
    pub fn over(&self, now: Timestamp) -> Vec<Target> {
        self.targets(|_, term| !term.holds(now))
    }

    pub fn remove(&mut self, targets: &[Target]) {
        targets.iter().for_each(|target| self.forget(target));
    }

    fn targets(&self, wanted: impl Fn(&Self, &Term) -> bool) -> Vec<Target> {
        let devices = self.devices.iter().filter(|(_, term)| wanted(self, term));
        let networks = self.networks.iter().filter(|(_, term)| wanted(self, term));
        let devices = devices.map(|(device, _)| Target::Device(device.clone()));
        devices.chain(networks.map(|(net, _)| Target::Network(net))).collect()
    }

    fn term(&self, target: &Target) -> Option<Term> {
        match target {
            Target::Device(device) => self.devices.get(device).copied(),
            Target::Network(net) => self.networks.get(net).copied(),
        }
    }

    /// Returns what was in its place.
    fn put(&mut self, ban: &Ban) -> Option<Term> {
        match &ban.target {
            Target::Device(device) => self.devices.insert(device.clone(), Term::of(ban)),
            Target::Network(net) => self.networks.insert(*net, Term::of(ban)),
        }
    }

    fn forget(&mut self, target: &Target) {
        match target {
            Target::Device(device) => _ = self.devices.remove(device),
            Target::Network(net) => _ = self.networks.remove(net),
        }
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
