//! One reading of the changes of bans, page by page, as a pure core.
//!
//! - While it goes on the record changes: what was told on one page may be told again on a later one, as another ban or as
//!   lifted. The later word holds, of each target.
//!
//! Left out on purpose: asking for the pages.

use std::collections::HashMap;

use crate::store::bans::{Ban, BanChange, BanChanges, Target};

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    is_whole: bool,
    rev: i64,
    changes: Vec<BanChange>,
}

/// What follows from a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is another page.
    More,
    Done,
    /// The record ends before the place that it was read from.
    Shorter,
}

impl Reading {
    pub fn whole() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// Of what came after this change.
    pub fn after(rev: i64) -> Self {
        Self { rev, ..Self::default() }
    }

    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How far it has come.
    pub fn rev(&self) -> i64 {
        self.rev
    }

    /// Takes the page that begins after [`Reading::rev`]; a full one has this many changes.
    pub fn take(&mut self, page: BanChanges, full: usize) -> Step {
        if page.newest < self.rev {
            return Step::Shorter;
        }
        let is_last = page.changes.len() < full;
        self.rev = page.changes.last().map_or(self.rev, |change| change.rev);
        self.changes.extend(page.changes);
        if !is_last {
            return Step::More;
        }
        self.rev = self.rev.max(page.newest);
        Step::Done
    }

    /// The last change of each target, in their order.
    pub fn changes(self) -> Vec<BanChange> {
        let mut last = HashMap::<Target, BanChange>::with_capacity(self.changes.len());
        for change in self.changes {
            last.insert(change.ban.target.clone(), change);
        }
        let mut changes: Vec<BanChange> = last.into_values().collect();
        changes.sort_unstable_by_key(|change| change.rev);
        changes
    }

    /// The bans that were not lifted.
    pub fn standing(self) -> Vec<Ban> {
        self.changes().into_iter().filter(|change| !change.lifted).map(|change| change.ban).collect()
    }
}
