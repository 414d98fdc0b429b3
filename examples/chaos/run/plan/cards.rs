//! What comes next: kinds of faults and their targets are dealt like packs of cards, one within the other.
//!
//! The first hand has all that a schedule owes ([`moves::owed`]) and a card of every other kind, shuffled. From then on
//! each kind comes once before any comes again, and so do the targets within a kind; and of faults whose length
//! matters, one is short and the next one long.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::moves::{self, Move};
use super::{Fault, Kind, Part, Planned, Scene};

/// From the begin of an outage of Postgres to the end of a node in it, in milliseconds.
const AMID_MS: std::ops::RangeInclusive<u64> = 200..=1_500;

/// Faults that begin as one, each with the time from the begin of the first.
pub type Row = Vec<Planned>;

/// A fault before chance has decided the rest.
pub struct Card {
    pub kind: Kind,
    pub target: Move,
    /// Longer than a lease, or shorter; by turns where it does not say.
    pub long: Option<bool>,
}

/// What is still to come.
pub struct Cards {
    scene: Scene,
    hand: VecDeque<Card>,
    kinds: Pack<Kind>,
    moves: BTreeMap<Kind, Pack<Move>>,
    /// Of each kind, on nodes and on others, whether the next is long.
    turns: BTreeMap<(Kind, bool), bool>,
}

impl Cards {
    pub fn new(rng: &mut StdRng, scene: Scene, kinds: &[Kind]) -> Self {
        let with_moves = kinds.iter().map(|kind| (*kind, moves::of(*kind, scene, kinds)));
        let possible: Vec<_> = with_moves.filter(|(_, moves)| !moves.is_empty()).collect();
        let mut hand = moves::owed(rng, scene, kinds);
        let mut cards = Self {
            scene,
            hand: VecDeque::new(),
            kinds: Pack::new(possible.iter().map(|(kind, _)| *kind).collect()),
            moves: possible.into_iter().map(|(kind, moves)| (kind, Pack::new(moves))).collect(),
            turns: BTreeMap::new(),
        };
        for (kind, pack) in &mut cards.moves {
            if !hand.iter().any(|card| card.kind == *kind) {
                hand.extend(pack.next(rng).map(|target| Card { kind: *kind, target, long: None }));
            }
        }
        hand.shuffle(rng);
        cards.hand = hand.into();
        cards
    }

    /// The next one: mostly one fault, sometimes several rows of them, one after the other.
    pub fn deal(&mut self, rng: &mut StdRng) -> Option<Vec<Row>> {
        let card = self.hand.pop_front().or_else(|| self.draw(rng))?;
        let begin_as_one = matches!(card.target, Move::Amid { .. });
        let faults = card.target.faults(card.kind, rng);
        let timed = faults.into_iter().map(|fault| {
            let long = card.long.unwrap_or_else(|| self.turn(rng, &fault));
            let lasts = moves::lasts(rng, &fault, self.scene.lease, long);
            Planned { number: 0, at: Duration::ZERO, lasts, fault }
        });
        let mut rows: Vec<Row> = timed.map(|planned| vec![planned]).collect();
        if begin_as_one {
            let mut row: Row = rows.drain(..).flatten().collect();
            row.iter_mut().skip(1).for_each(|one| one.at = Duration::from_millis(rng.random_range(AMID_MS)));
            rows.push(row);
        }
        Some(rows)
    }

    fn draw(&mut self, rng: &mut StdRng) -> Option<Card> {
        let kind = self.kinds.next(rng)?;
        let target = self.moves.get_mut(&kind)?.next(rng)?;
        let long = matches!(target, Move::Amid { .. }).then_some(true);
        Some(Card { kind, target, long })
    }

    /// Alternates between short and long.
    fn turn(&mut self, rng: &mut StdRng, fault: &Fault) -> bool {
        let on_nodes = fault.whom.iter().copied().any(Part::is_node);
        let next = self.turns.entry((fault.kind, on_nodes)).or_insert_with(|| rng.random());
        *next = !*next;
        *next
    }
}

struct Pack<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Pack<T> {
    fn new(all: Vec<T>) -> Self {
        Self { all, left: Vec::new() }
    }

    fn next(&mut self, rng: &mut StdRng) -> Option<T> {
        if self.left.is_empty() {
            self.left = self.all.clone();
            self.left.shuffle(rng);
        }
        self.left.pop()
    }
}
