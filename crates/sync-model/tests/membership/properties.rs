//! Properties of every history, however it is told.

use std::{
    collections::{HashMap, HashSet},
    env,
};

use larder_sync_model::membership::{Body, Log, Op, State};
use rand::seq::SliceRandom;

use crate::{
    model::World,
    secrecy::{came_back, claim_of, story},
};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    match number("LARDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LARDER_SEEDS").unwrap_or(default),
    }
}

fn history(seed: u64, careless: bool) -> World {
    let mut world = World::new(seed, careless);
    for _ in 0..350 {
        world.step();
    }
    world
}

#[test]
fn nobody_who_was_removed_opens_what_is_sealed_from_then_on() {
    let (mut writes, mut with_removed) = (0, 0);
    for seed in seeds(100) {
        let world = history(seed, false);
        writes += world.writes.len();
        with_removed += world
            .writes
            .iter()
            .filter(|write| !write.out.is_empty())
            .count();
        if let Err(error) = world.check_secrecy() {
            panic!("seed {seed}: {error}");
        }
    }
    let counted = format!("{writes} writes, {with_removed} of them with somebody out");
    // One history alone may have none.
    assert!(with_removed * 10 > writes || writes < 100, "{counted}");
}

#[test]
fn the_model_notices_who_seals_under_the_newest_epoch() {
    let broken = (0..60).filter(|seed| history(*seed, true).check_secrecy().is_err());
    let broken = broken.count();
    assert!(broken > 2, "{broken} of 60 histories");
}

#[test]
fn any_order_gives_one_state() {
    for seed in seeds(30) {
        let mut world = history(seed, false);
        let union = world.union();
        let (state, usable) = (union.state(), union.usable(world.now));
        let mut ops: Vec<_> = union.ops().cloned().collect();
        for _ in 0..3 {
            ops[1..].shuffle(&mut world.random);
            let mut log = Log::new(ops[0].clone()).unwrap();
            for op in &ops {
                log.add(op.clone());
            }
            assert_eq!(log.len(), ops.len());
            assert_eq!(log.state(), state, "seed {seed}");
            assert_eq!(log.usable(world.now), usable, "seed {seed}");
            assert_eq!(log.forks(), union.forks());
            assert_eq!(log.heads(), union.heads());
            for op in &ops {
                assert_eq!(log.set_aside(op.id()), union.set_aside(op.id()));
            }
        }
    }
}

#[test]
fn one_more_operation_gives_what_all_at_once_give() {
    for seed in seeds(5) {
        let world = history(seed, false);
        let union = world.union();
        let ops: Vec<_> = union.ops().cloned().collect();
        let mut log = Log::new(ops[0].clone()).unwrap();
        for count in 1..ops.len() {
            log.add(ops[count].clone());
            let mut fresh = Log::new(ops[0].clone()).unwrap();
            for op in ops[..=count].iter().rev() {
                fresh.add(op.clone());
            }
            assert_eq!(log.state(), fresh.state(), "seed {seed}");
            assert_eq!(log.usable(world.now), fresh.usable(world.now));
        }
    }
}

#[test]
fn a_denial_is_never_undone() {
    for seed in seeds(40) {
        let world = history(seed, false);
        let union = world.union();
        let all = union.state();
        let hard: HashSet<_> = union.ops().filter(|op| is_hard(op)).map(Op::id).collect();
        for actor in &world.actors {
            let before = actor.log.state();
            let new_hard = hard.iter().any(|id| actor.log.get(*id).is_none());
            if new_hard {
                continue;
            }
            assert!(before.removals.is_subset(&all.removals), "seed {seed}");
            for (key, gone) in &before.gone {
                let known: HashSet<_> = actor.log.ops().map(Op::id).collect();
                if all.members.contains_key(key) {
                    assert!(
                        came_back(&union, &all, *key, &gone.by, &known),
                        "seed {seed}: {key} {}",
                        story(&union, *key, gone, &all, &known)
                    );
                }
            }
        }
    }
}

fn is_hard(op: &Op) -> bool {
    matches!(op.body(), Body::Remove(remove) if remove.hard)
}

#[test]
fn rights_never_grow_along_a_chain() {
    for seed in seeds(40) {
        let union = history(seed, false).union();
        let state: State = union.state();
        for (key, member) in &state.members {
            for (id, held) in &member.held {
                let mut rights = held.rights;
                let mut at = union.get(*id).unwrap();
                while !matches!(at.body(), Body::Genesis { .. }) {
                    let proof = || union.get(at.content().proof);
                    let before = claim_of(&union, at).or_else(proof).unwrap();
                    if let Body::Cap(cap) = before.body() {
                        assert!(cap.rights.covers(rights), "seed {seed}: {key}");
                        rights = cap.rights;
                    }
                    at = before;
                }
            }
        }
        let granted = state
            .members
            .values()
            .filter(|member| !member.held.is_empty());
        assert_eq!(granted.count(), state.members.len());
    }
}

#[test]
fn histories_are_worth_something() {
    let (mut members, mut gone, mut void, mut overused, mut forked) = (0, 0, 0, 0, 0);
    let mut asides: HashMap<_, usize> = HashMap::new();
    let mut given = HashSet::new();
    for seed in 0..40 {
        let world = history(seed, false);
        let log = world.union();
        let state = log.state();
        members += state.members.len();
        gone += state.gone.len();
        void += state.void.len();
        overused += state
            .invites
            .values()
            .filter(|invite| invite.is_overused())
            .count();
        forked += log.forks().len();
        for reason in log.ops().filter_map(|op| log.set_aside(op.id())) {
            *asides.entry(reason).or_default() += 1;
        }
        given.extend(world.invitations.iter().map(|invitation| invitation.gives));
    }
    let seen = [members, gone, void, overused, forked];
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?} {asides:?}");
    assert!(asides.len() > 3, "{asides:?}");
    assert_eq!(given.len(), 5, "{given:?}");
}
