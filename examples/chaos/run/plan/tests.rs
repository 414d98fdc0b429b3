//! The promises of a schedule, over many seeds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const TEN_MINUTES: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(5);
const CLUSTER: Scene = Scene { nodes: 3, has_stores: true, lease: LEASE };
const EMBEDDED: Scene = Scene { nodes: 1, has_stores: false, lease: LEASE };

fn plans(scene: Scene) -> impl Iterator<Item = (u64, Vec<Planned>)> {
    (0..200).map(move |seed| (seed, plan(seed, scene, Kind::value_variants(), TEN_MINUTES)))
}

/// Every moment at which the set of running faults changes.
fn moments(plan: &[Planned]) -> impl Iterator<Item = Vec<&Planned>> {
    plan.iter().map(|begun| plan.iter().filter(|p| p.at <= begun.at && begun.at < p.end()).collect())
}

#[test]
fn a_seed_repeats_its_schedule_and_another_does_not() {
    let again = plan(7, CLUSTER, Kind::value_variants(), TEN_MINUTES);
    assert_eq!(plan(7, CLUSTER, Kind::value_variants(), TEN_MINUTES), again);
    assert_ne!(plan(8, CLUSTER, Kind::value_variants(), TEN_MINUTES), again);
}

#[test]
fn ten_minutes_have_every_kind_that_the_scene_allows() {
    for (seed, plan) in plans(CLUSTER) {
        let kinds: BTreeSet<_> = plan.iter().map(|p| p.fault.kind).collect();
        assert_eq!(kinds.len(), Kind::value_variants().len(), "seed {seed}: only {kinds:?}");
    }
    for (seed, plan) in plans(EMBEDDED) {
        let kinds: BTreeSet<_> = plan.iter().map(|p| p.fault.kind).collect();
        assert_eq!(kinds.len(), Kind::value_variants().len() - 2, "seed {seed}: only {kinds:?}");
        let hit: BTreeSet<_> = plan.iter().flat_map(|p| p.fault.whom.clone()).collect();
        assert!(!hit.iter().any(|part| part.is_store()), "seed {seed}: {hit:?}");
    }
}

#[test]
fn a_long_run_hits_every_part_and_every_pair_both_ways() {
    let plan = plan(1, CLUSTER, Kind::value_variants(), TEN_MINUTES * 12);
    let ways: BTreeSet<_> =
        plan.iter().filter(|p| p.fault.kind == Kind::Cut).flat_map(|p| p.fault.ways.clone()).collect();
    let killed: BTreeSet<_> =
        plan.iter().filter(|p| p.fault.kind == Kind::Kill).flat_map(|p| p.fault.whom.clone()).collect();
    for n in 1..=3 {
        for other in [Part::Postgres, Part::Redis, Part::Devices] {
            assert!(ways.contains(&(Part::Node(n), other)), "node-{n} to {other} was never cut");
            assert!(ways.contains(&(other, Part::Node(n))), "{other} to node-{n} was never cut");
        }
        assert!(killed.contains(&Part::Node(n)));
    }
    assert!(killed.contains(&Part::Postgres) && killed.contains(&Part::Redis));
}

#[test]
fn never_too_much_at_once_and_one_node_is_left() {
    for (seed, plan) in plans(CLUSTER) {
        for open in moments(&plan) {
            assert!(open.len() <= AT_ONCE, "seed {seed}: {open:#?}");
            let disabled: BTreeSet<_> = open.iter().flat_map(|p| p.fault.disables()).collect();
            assert!(disabled.len() < 3, "seed {seed}: {open:#?}");
            let mut claims = BTreeMap::new();
            for part in open.iter().flat_map(|p| p.fault.claims()) {
                *claims.entry(part).or_insert(0) += 1;
            }
            assert!(claims.values().all(|times| *times == 1), "seed {seed}: {open:#?}");
        }
    }
}

#[test]
fn there_is_calm_and_all_ends_in_time() {
    for (seed, plan) in plans(CLUSTER).chain(plans(EMBEDDED)) {
        let mut calm = Duration::ZERO;
        let mut until = Duration::ZERO;
        for planned in &plan {
            calm += planned.at.saturating_sub(until);
            until = until.max(planned.end());
        }
        assert!(until <= TEN_MINUTES, "seed {seed}: the last fault ends at {until:?}");
        assert!(calm >= TEN_MINUTES / 6, "seed {seed}: calm for {calm:?} only");
        assert!(plan.iter().all(|p| p.lasts <= Duration::from_secs(25)), "seed {seed}");
    }
}

#[test]
fn stops_and_cuts_fall_on_both_sides_of_a_lease() {
    let (mut short, mut long) = (0, 0);
    for (_, plan) in plans(CLUSTER) {
        let of_nodes = plan.iter().filter(|p| matches!(p.fault.kind, Kind::Stop | Kind::Cut));
        for planned in of_nodes.filter(|p| p.fault.whom.iter().any(|part| part.is_node())) {
            *(if planned.lasts > LEASE { &mut long } else { &mut short }) += 1;
        }
    }
    let share = f64::from(long) / f64::from(short + long);
    assert!((0.35..0.65).contains(&share), "{long} of {} are longer than a lease", short + long);
}

#[test]
fn only_what_was_asked_for() {
    let plan = plan(3, CLUSTER, &[Kind::Kill, Kind::Load], TEN_MINUTES);
    let kinds: BTreeSet<_> = plan.iter().map(|p| p.fault.kind).collect();
    assert_eq!(kinds, BTreeSet::from([Kind::Kill, Kind::Load]));
}
