//! Models collections as one map that has the number of the commit that put each entry.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Durability, Edit, Entry, Expect, Kind, Order, Revision,
    Scan,
};
use proptest::{prelude::*, sample::select};
use proptest_state_machine::ReferenceStateMachine;

use super::{Driven, Steps};
use crate::suite::{
    Fixture, Need,
    support::{all, sample},
};

/// Names and keys that collide often, and of which some are prefixes of others.
const NAMES: [&str; 3] = ["a", "ab", "b"];
const KEYS: [&[u8]; 9] = [
    b"",
    b"\0",
    b"a",
    b"a\0",
    b"b",
    b"bb",
    b"c",
    b"\xff",
    b"\xff\xff",
];

/// The place of a name in [`NAMES`] and of a key in [`KEYS`].
type Place = (usize, usize);

/// The content that the store should hold, and the number of commits that made it.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    entries: BTreeMap<(CollectionId, Bytes), Held>,
    commits: usize,
}

#[derive(Debug, Clone)]
struct Held {
    value: Bytes,
    commit: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Commit {
        expect: Vec<(Place, Belief)>,
        edits: Vec<(Place, Option<(u64, usize)>)>,
        durability: Durability,
    },
    Get(Place),
    Scan {
        name: usize,
        keys: (Bound<usize>, Bound<usize>),
        order: Order,
    },
    Collections,
    Sync,
    Reopen,
}

/// The expected state of a key in a commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Belief {
    Absent,
    /// Put by this commit.
    At(usize),
}

impl State {
    fn held(&self, place: Place) -> Option<&Held> {
        self.entries.get(&named(place))
    }

    fn holds(&self, place: Place, belief: Belief) -> bool {
        match (self.held(place), belief) {
            (None, Belief::Absent) => true,
            (Some(held), Belief::At(commit)) => held.commit == commit,
            _ => false,
        }
    }

    fn is_taken(&self, expect: &[(Place, Belief)]) -> bool {
        expect
            .iter()
            .all(|(place, belief)| self.holds(*place, *belief))
    }
}

fn name(n: usize) -> CollectionId {
    CollectionId::from_static(NAMES[n])
}

fn key(n: usize) -> Bytes {
    Bytes::from_static(KEYS[n])
}

fn named((n, k): Place) -> (CollectionId, Bytes) {
    (name(n), key(k))
}

pub(super) struct Model;

impl ReferenceStateMachine for Model {
    type State = State;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<State> {
        Just(State::default()).boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Step> {
        let place = (0..NAMES.len(), 0..KEYS.len());
        // True in most cases, so that most commits succeed.
        let held = |place| state.held(place).map(|held| held.commit);
        let truths: Vec<_> = (0..NAMES.len())
            .flat_map(|n| (0..KEYS.len()).map(move |k| (n, k)))
            .map(|place| (place, held(place).map_or(Belief::Absent, Belief::At)))
            .collect();
        let guess = prop_oneof![
            Just(Belief::Absent),
            (0..=state.commits).prop_map(Belief::At),
        ];
        let expect = prop_oneof![9 => select(truths), 1 => (place.clone(), guess)];
        let value = prop_oneof![
            3 => (any::<u32>(), 0..2000_usize),
            1 => Just((0, 0)),
            1 => (any::<u32>(), Just(60_000_usize)),
        ];
        let value = prop::option::weighted(0.7, value);
        let value = value.prop_map(|value| value.map(|(seed, len)| (u64::from(seed), len)));
        let commit = (
            prop::collection::vec(expect, 0..3),
            prop::collection::vec((place.clone(), value), 0..6),
            select(vec![
                Durability::Memory,
                Durability::OnSync,
                Durability::OnWrite,
            ]),
        );
        let bound = prop_oneof![
            Just(Bound::Unbounded),
            (0..KEYS.len()).prop_map(Bound::Included),
            (0..KEYS.len()).prop_map(Bound::Excluded),
        ];
        let order = select(vec![Order::Ascending, Order::Descending]);
        let scan = (0..NAMES.len(), bound.clone(), bound, order);
        prop_oneof![
            8 => commit.prop_map(|(expect, edits, durability)| Step::Commit {
                expect,
                edits,
                durability,
            }),
            4 => place.prop_map(Step::Get),
            4 => scan.prop_map(|(name, start, end, order)| Step::Scan {
                name,
                keys: (start, end),
                order,
            }),
            1 => Just(Step::Collections),
            1 => Just(Step::Sync),
            1 => Just(Step::Reopen),
        ]
        .boxed()
    }

    fn preconditions(_: &State, _: &Step) -> bool {
        true
    }

    fn apply(mut state: State, step: &Step) -> State {
        if let Step::Commit { expect, edits, .. } = step
            && state.is_taken(expect)
        {
            for (place, value) in edits {
                match value {
                    Some((seed, len)) => {
                        let held = Held {
                            value: sample(*seed, *len),
                            commit: state.commits,
                        };
                        state.entries.insert(named(*place), held);
                    }
                    None => drop(state.entries.remove(&named(*place))),
                }
            }
            state.commits += 1;
        }
        state
    }
}

impl Driven<dyn CollectionStore> for Model {
    const RUNS: u32 = 60;
    const STEPS: usize = 60;

    fn follow(
        fixture: Fixture<dyn CollectionStore>,
        initial: State,
        steps: Steps<Step>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(follow(fixture, initial, steps))
    }
}

async fn follow(mut fixture: Fixture<dyn CollectionStore>, mut state: State, steps: Steps<Step>) {
    // The store's revisions, by number of the commit.
    let mut revisions: Vec<Revision> = Vec::new();
    for step in steps {
        let before = state.clone();
        state = Model::apply(state, &step);
        let store = fixture.store();
        match step {
            Step::Commit {
                expect,
                edits,
                durability,
            } => {
                let taken = before.is_taken(&expect);
                let batch = batch(&expect, edits, durability, &revisions);
                match store.commit(batch).await {
                    Ok(revision) if taken => {
                        let newer = revisions.last().is_none_or(|last| revision > *last);
                        assert!(newer, "{revision:?} follows {:?}", revisions.last());
                        revisions.push(revision);
                    }
                    Ok(_) => panic!("an expectation that is false was taken"),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Conflict, "{error}");
                        assert!(!taken, "expectations that are true were not taken");
                    }
                }
            }
            Step::Get(place) => {
                let (name, key) = named(place);
                let found = store.get(name, key.clone()).await.expect("a get succeeds");
                let held = state.held(place);
                assert_eq!(found, held.map(|held| entry(key, held, &revisions)));
            }
            Step::Scan {
                name: n,
                keys,
                order,
            } => {
                let scan = Scan {
                    collection: name(n),
                    keys: (keys.0.map(key), keys.1.map(key)),
                    order,
                };
                compare(store, &state, scan, &revisions).await;
            }
            Step::Collections => {
                let listed = all(store.collections()).await.expect("a list");
                let mut names: Vec<_> =
                    state.entries.keys().map(|(name, _)| name.clone()).collect();
                names.dedup();
                assert_eq!(listed, names);
            }
            Step::Sync => store.sync().await.expect("a sync succeeds"),
            Step::Reopen if fixture.has(Need::Reopen) => {
                store.sync().await.expect("a sync succeeds");
                fixture.reopen().await;
            }
            Step::Reopen => {}
        }
    }
    for n in 0..NAMES.len() {
        compare(fixture.store(), &state, Scan::all(name(n)), &revisions).await;
    }
}

fn batch(
    expect: &[(Place, Belief)],
    edits: Vec<(Place, Option<(u64, usize)>)>,
    durability: Durability,
    revisions: &[Revision],
) -> Batch {
    let expect = expect.iter().map(|(place, belief)| {
        let (collection, key) = named(*place);
        match belief {
            Belief::Absent => Expect::Absent { collection, key },
            Belief::At(commit) => Expect::At {
                collection,
                key,
                // A commit of the future has no revision yet.
                revision: revisions
                    .get(*commit)
                    .copied()
                    .unwrap_or(Revision(u64::MAX)),
            },
        }
    });
    let edits = edits.into_iter().map(|(place, value)| {
        let (collection, key) = named(place);
        match value {
            Some((seed, len)) => Edit::Put {
                collection,
                key,
                value: sample(seed, len),
            },
            None => Edit::Delete { collection, key },
        }
    });
    {
        let mut batch = Batch::of(edits.collect());
        batch.expect = expect.collect();
        batch.durability = durability;
        batch
    }
}

fn entry(key: Bytes, held: &Held, revisions: &[Revision]) -> Entry {
    Entry {
        key,
        value: held.value.clone(),
        revision: revisions[held.commit],
    }
}

/// Panics unless a scan returns what the model holds.
async fn compare(store: &dyn CollectionStore, state: &State, scan: Scan, revisions: &[Revision]) {
    let within = |key: &Bytes| {
        let after = match &scan.keys.0 {
            Bound::Included(start) => key >= start,
            Bound::Excluded(start) => key > start,
            Bound::Unbounded => true,
        };
        let before = match &scan.keys.1 {
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
            Bound::Unbounded => true,
        };
        after && before
    };
    let mut expected: Vec<_> = state
        .entries
        .iter()
        .filter(|((name, key), _)| *name == scan.collection && within(key))
        .map(|((_, key), held)| entry(key.clone(), held, revisions))
        .collect();
    let order = scan.order;
    let found = all(store.scan(scan.clone()))
        .await
        .expect("a scan succeeds");
    if order == Order::Descending {
        expected.reverse();
    }
    assert!(found == expected, "{scan:?} gives other entries");
}
