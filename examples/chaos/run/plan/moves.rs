//! Every fault that a scene allows, kind by kind, which of them a schedule owes, and how long each lasts.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::cards::Card;
use super::{Detail, Fault, FloodOf, Kind, Part, Scene, secs};

/// A target of a kind, before chance has decided the rest.
#[derive(Debug, Clone)]
pub enum Move {
    /// This part.
    On(Part),
    /// Each of these, one after another.
    Rolling(Vec<Part>),
    /// All packets between one and these, one way or the other or both.
    Between(Part, Vec<Part>),
    Flood(Part, FloodOf),
    /// A clock further ahead than events are kept.
    PastRetention(Vec<Part>),
    /// One of these nodes is killed just after an outage of Postgres of one of these kinds began.
    Amid {
        nodes: Vec<Part>,
        outages: Vec<Kind>,
    },
}

/// Lastpong keeps events for seven days where nothing else is set.
const PAST_RETENTION_S: i64 = 8 * 86_400;

/// The outages of Postgres that a node may be killed in.
const OUTAGES: [Kind; 3] = [Kind::Stop, Kind::Kill, Kind::Cut];

/// What every schedule that is long enough has, besides each kind.
pub fn owed(rng: &mut StdRng, scene: Scene, kinds: &[Kind]) -> Vec<Card> {
    let mut node = || Part::Node(rng.random_range(1..=scene.nodes));
    let mut owed = vec![
        Card { kind: Kind::Kill, target: Move::On(node()), long: Some(true) },
        Card { kind: Kind::Kill, target: Move::On(node()), long: Some(false) },
        Card { kind: Kind::Stop, target: Move::On(node()), long: Some(true) },
        Card { kind: Kind::Stop, target: Move::On(node()), long: Some(false) },
        Card { kind: Kind::Full, target: Move::On(node()), long: None },
        Card { kind: Kind::Drop, target: Move::On(Part::Swarm('c')), long: None },
    ];
    if scene.has_stores {
        let mut between = || Move::Between(node(), vec![Part::Postgres]);
        owed.push(Card { kind: Kind::Cut, target: between(), long: Some(true) });
        owed.push(Card { kind: Kind::Cut, target: between(), long: Some(false) });
        owed.extend(amid(scene, kinds).map(|target| Card { kind: Kind::Kill, target, long: Some(true) }));
    }
    owed.retain(|card| kinds.contains(&card.kind));
    owed
}

fn amid(scene: Scene, kinds: &[Kind]) -> Option<Move> {
    let nodes = (1..=scene.nodes).map(Part::Node).collect();
    let outages: Vec<_> = OUTAGES.into_iter().filter(|kind| kinds.contains(kind)).collect();
    (scene.has_stores && !outages.is_empty()).then_some(Move::Amid { nodes, outages })
}

/// All moves of a kind, beside these others; none where the scene has nothing for it.
pub fn of(kind: Kind, scene: Scene, kinds: &[Kind]) -> Vec<Move> {
    let nodes: Vec<Part> = (1..=scene.nodes).map(Part::Node).collect();
    let stores: &[Part] = if scene.has_stores { &[Part::Postgres, Part::Redis] } else { &[] };
    let on = |parts: &[Part]| parts.iter().copied().map(Move::On).collect::<Vec<_>>();
    match kind {
        Kind::Kill => on(&[&nodes[..], stores].concat()).into_iter().chain(amid(scene, kinds)).collect(),
        Kind::Stop => {
            let swarms = [Part::Swarm('a'), Part::Swarm('b')];
            on(&[&nodes[..], stores, &swarms].concat())
        }
        Kind::Drain => {
            let rolling = (nodes.len() > 1).then(|| Move::Rolling(nodes.clone()));
            on(&nodes).into_iter().chain(rolling).collect()
        }
        Kind::Cut | Kind::Slow | Kind::Lossy => between(&nodes, stores),
        Kind::ReadOnly => on(stores),
        Kind::Emptied if scene.has_stores => on(&[Part::Redis]),
        Kind::Emptied => Vec::new(),
        Kind::Full => on(&[&nodes[..], stores].concat()),
        Kind::Clock => {
            let postgres = if scene.has_stores { &[Part::Postgres][..] } else { &[] };
            let mut all = on(&[&nodes[..], postgres].concat());
            all.push(Move::PastRetention(nodes));
            all
        }
        Kind::Flood => {
            let floods = [FloodOf::Handshakes, FloodOf::HalfOpen, FloodOf::BadTokens];
            nodes.iter().flat_map(|node| floods.map(|what| Move::Flood(*node, what))).collect()
        }
        Kind::Drop => on(&[Part::Swarm('c'), Part::Swarm('b')]),
        Kind::Load => vec![Move::Rolling(vec![Part::Runner])],
    }
}

/// Each node with each that it speaks to, and the larger partitions.
fn between(nodes: &[Part], stores: &[Part]) -> Vec<Move> {
    let mut all = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let all_else = stores.iter().chain(&[Part::Devices, Part::Runner]);
        all.extend(all_else.map(|other| Move::Between(*node, vec![*other])));
        all.extend(nodes.get(n + 1).map(|peer| Move::Between(*node, vec![*peer])));
        if !stores.is_empty() {
            all.push(Move::Between(*node, stores.to_vec()));
        }
    }
    if !stores.is_empty() && nodes.len() > 1 {
        all.extend(stores.iter().map(|store| Move::Between(*store, nodes.to_vec())));
    }
    all
}

impl Move {
    /// What it comes to, with what is left to chance.
    pub fn faults(self, kind: Kind, rng: &mut StdRng) -> Vec<Fault> {
        let plain = |whom: Vec<Part>| Fault { kind, whom, ways: Vec::new(), detail: Detail::None };
        match self {
            Self::Rolling(_) if kind == Kind::Load => vec![plain(Vec::new())],
            Self::Rolling(parts) => parts.into_iter().map(|part| plain(vec![part])).collect(),
            Self::On(part) if kind == Kind::Clock => {
                vec![Fault { detail: Detail::Jump { by_s: jump(rng) }, ..plain(vec![part]) }]
            }
            Self::On(part) => vec![plain(vec![part])],
            Self::PastRetention(nodes) => {
                let detail = Detail::Jump { by_s: PAST_RETENTION_S };
                vec![Fault { detail, ..plain(nodes.choose(rng).copied().into_iter().collect()) }]
            }
            Self::Amid { nodes, outages } => {
                let of = outages.choose(rng).copied().unwrap_or(Kind::Kill);
                let outage = match of {
                    Kind::Cut => Self::Between(Part::Postgres, nodes.clone()),
                    _ => Self::On(Part::Postgres),
                };
                let mut row = outage.faults(of, rng);
                row.push(plain(nodes.choose(rng).copied().into_iter().collect()));
                row
            }
            Self::Flood(node, what) => vec![Fault { detail: Detail::Flood { what }, ..plain(vec![node]) }],
            Self::Between(one, others) => {
                let (there, back) =
                    *[(true, false), (false, true), (true, true)].choose(rng).unwrap_or(&(true, true));
                let pairs = others.iter().flat_map(|other| {
                    [there.then_some((one, *other)), back.then_some((*other, one))].into_iter().flatten()
                });
                let detail = match kind {
                    Kind::Slow => Detail::Rate { kbit: *[128, 256, 512].choose(rng).unwrap_or(&256) },
                    Kind::Lossy => {
                        Detail::Share { share: *[0.05, 0.1, 0.2, 0.3].choose(rng).unwrap_or(&0.1) }
                    }
                    _ => Detail::None,
                };
                let ways = pairs.collect();
                vec![Fault { ways, detail, ..plain([&[one][..], &others].concat()) }]
            }
        }
    }
}

/// From half a minute to a day, forward or back.
fn jump(rng: &mut StdRng) -> i64 {
    let by = [30, 300, 3_600, 86_400].choose(rng).copied().unwrap_or(30);
    if rng.random() { by } else { -by }
}

/// How long it lasts; `long` says on which side of a lease, where that matters.
pub fn lasts(rng: &mut StdRng, fault: &Fault, lease: Duration, long: bool) -> Duration {
    let mut between = |low: u64, high: u64| Duration::from_millis(rng.random_range(low..=high));
    match fault.kind {
        Kind::Kill if fault.whom.iter().any(|part| part.is_store()) => {
            between(if long { 3_000 } else { 500 }, 12_000)
        }
        Kind::Kill if long => lease + between(1_000, 10_000),
        // A swarm that stands still for longer than a few pings makes all of its devices silent: that is "drop".
        Kind::Stop if fault.whom.iter().any(|part| matches!(part, Part::Swarm(_))) => between(1_000, 8_000),
        Kind::Stop | Kind::Cut if long => lease + between(1_000, 15_000),
        Kind::Kill | Kind::Stop | Kind::Cut => between(500, (lease.as_millis() as u64 * 4 / 5).max(500)),
        Kind::Drain => between(0, 3_000),
        Kind::Emptied => secs(1),
        Kind::Flood => between(3_000, 6_000),
        Kind::Drop => between(500, 5_000),
        Kind::ReadOnly => between(2_000, 15_000),
        Kind::Slow | Kind::Lossy | Kind::Full | Kind::Clock | Kind::Load => between(5_000, 20_000),
    }
}
