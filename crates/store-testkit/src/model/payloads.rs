//! Models payloads as lists of blocks, each represented by the seed of its bytes.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_store_api::{BlobStore, Block, Kind, Part, PayloadId};
use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use super::{Driven, Steps};
use crate::suite::{
    Fixture, Need,
    support::{all, sample},
};

/// The last block of a part ends at an eighth of a block, so that the model does not depend on the
/// length of blocks.
const EIGHTHS: u8 = 8;
/// The number of payloads; small, so that steps affect the same ones.
const PAYLOADS: u8 = 4;
/// The most blocks of one write.
const BLOCKS: u64 = 3;

/// The content that every payload should have.
pub(super) type State = BTreeMap<(PayloadId, Part), Vec<Piece>>;

/// One block: the seed of its bytes, and how many eighths of a block it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    seed: u64,
    eighths: u8,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Write {
        id: PayloadId,
        part: Part,
        first: usize,
        pieces: Vec<Piece>,
    },
    /// Reads between two eighths of the part, one byte more or less.
    Read {
        id: PayloadId,
        part: Part,
        eighths: Range<u64>,
        more: i64,
    },
    Delete(Vec<PayloadId>),
    List(Option<PayloadId>),
    Sync(Vec<PayloadId>),
    Reopen,
}

pub(super) struct Model;

impl ReferenceStateMachine for Model {
    type State = State;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<State> {
        Just(State::new()).boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Step> {
        let places = Union::new((0..PAYLOADS).flat_map(|n| {
            [Part::Data, Part::Outboard].map(|part| {
                let id = PayloadId([n; 16]);
                let len = state.get(&(id, part)).map_or(0, Vec::len);
                Just((id, part, len))
            })
        }));
        let write = places.clone().prop_flat_map(|(id, part, len)| {
            let pieces = prop::collection::vec(any::<u32>(), 1..=BLOCKS as usize);
            (0..=len, pieces, 1..=EIGHTHS).prop_map(move |(first, seeds, last)| {
                let end = seeds.len() - 1;
                let pieces = seeds.into_iter().enumerate().map(|(n, seed)| Piece {
                    seed: seed.into(),
                    eighths: if n == end { last } else { EIGHTHS },
                });
                let pieces = pieces.collect();
                Step::Write {
                    id,
                    part,
                    first,
                    pieces,
                }
            })
        });
        let read = places.prop_flat_map(|(id, part, len)| {
            let beyond = (len as u64 + 1) * u64::from(EIGHTHS);
            (0..beyond, 0..=beyond, -1_i64..=1).prop_map(move |(a, b, more)| {
                let eighths = a.min(b)..a.max(b);
                Step::Read {
                    id,
                    part,
                    eighths,
                    more,
                }
            })
        });
        let id = (0..PAYLOADS).prop_map(|n| PayloadId([n; 16])).boxed();
        let ids = prop::collection::vec(id.clone(), 0..3);
        prop_oneof![
            8 => write,
            8 => read,
            1 => ids.clone().prop_map(Step::Delete),
            2 => prop::option::of(id).prop_map(Step::List),
            1 => ids.prop_map(Step::Sync),
            1 => Just(Step::Reopen),
        ]
        .boxed()
    }

    fn preconditions(state: &State, step: &Step) -> bool {
        let Step::Write {
            id,
            part,
            first,
            pieces,
        } = step
        else {
            return true;
        };
        let there = state.get(&(*id, *part)).map_or(&[][..], Vec::as_slice);
        // There are no holes. An existing block is replaced by a full or longer one, as the contract
        // leaves open what remains behind a shorter last block.
        let behind = there.get(..*first);
        let gapless = behind.is_some_and(|behind| behind.iter().all(|p| p.eighths == EIGHTHS));
        let (last, replaced) = (pieces.last(), there.get(first + pieces.len() - 1));
        let reaches = first + pieces.len() >= there.len();
        let last = last.map_or(0, |piece| piece.eighths);
        gapless && replaced.is_none_or(|old| old.eighths <= last) && (reaches || last == EIGHTHS)
    }

    fn apply(mut state: State, step: &Step) -> State {
        match step {
            Step::Write {
                id,
                part,
                first,
                pieces,
            } => {
                let blocks = state.entry((*id, *part)).or_default();
                for (piece, index) in pieces.iter().zip(*first..) {
                    match blocks.get_mut(index) {
                        Some(block) => *block = *piece,
                        None => blocks.push(*piece),
                    }
                }
            }
            Step::Delete(ids) => state.retain(|(id, _), _| !ids.contains(id)),
            Step::Read { .. } | Step::List(_) | Step::Sync(_) | Step::Reopen => {}
        }
        state
    }
}

impl Driven<dyn BlobStore> for Model {
    const RUNS: u32 = 40;
    const STEPS: usize = 40;

    fn follow(
        fixture: Fixture<dyn BlobStore>,
        initial: State,
        steps: Steps<Step>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(follow(fixture, initial, steps))
    }
}

async fn follow(mut fixture: Fixture<dyn BlobStore>, mut state: State, steps: Steps<Step>) {
    let block_len = fixture.store().capabilities().block_len as usize;
    for step in steps {
        state = Model::apply(state, &step);
        let store = fixture.store();
        match step {
            Step::Write {
                id,
                part,
                first,
                pieces,
            } => {
                let bytes = content(&pieces, block_len);
                let index = first as u64;
                let written = store.write(id, vec![Block { part, index, bytes }]).await;
                written.expect("a write succeeds");
            }
            Step::Read {
                id,
                part,
                eighths,
                more,
            } => {
                let eighth = (block_len / usize::from(EIGHTHS)) as u64;
                let start = eighths.start * eighth;
                let end = (eighths.end * eighth)
                    .saturating_add_signed(more)
                    .max(start);
                compare(store, &state, (id, part), start..end, block_len).await;
            }
            Step::Delete(ids) => store.delete(ids).await.expect("a delete succeeds"),
            Step::List(after) => {
                let listed = all(store.list(after)).await.expect("a list");
                let mut ids: Vec<_> = state.keys().map(|(id, _)| *id).collect();
                ids.dedup();
                ids.retain(|id| after.is_none_or(|after| *id > after));
                assert_eq!(listed, ids, "after {after:?}");
            }
            Step::Sync(ids) => store.sync(ids).await.expect("a sync succeeds"),
            Step::Reopen if fixture.has(Need::Reopen) => {
                // This includes deleted payloads, which could otherwise come back.
                let ids = (0..PAYLOADS).map(|n| PayloadId([n; 16])).collect();
                store.sync(ids).await.expect("a sync succeeds");
                fixture.reopen().await;
            }
            Step::Reopen => {}
        }
    }
    for (place, pieces) in &state {
        let len = content(pieces, block_len).len() as u64;
        compare(fixture.store(), &state, *place, 0..len, block_len).await;
        compare(fixture.store(), &state, *place, len - 1..len + 1, block_len).await;
    }
}

/// Panics unless a read returns what the model holds.
async fn compare(
    store: &dyn BlobStore,
    state: &State,
    place: (PayloadId, Part),
    range: Range<u64>,
    block_len: usize,
) {
    let (id, part) = place;
    let pieces = state.get(&place).map_or(&[][..], Vec::as_slice);
    let whole = content(pieces, block_len);
    let (start, end) = (range.start as usize, range.end as usize);
    let expected = match start == end {
        true => Some(&[][..]),
        false => whole.get(start..end),
    };
    match (store.read(id, part, range.clone()).await, expected) {
        (Ok(read), Some(expected)) => assert!(read == expected, "other bytes at {range:?}"),
        (Err(error), None) => assert_eq!(error.kind(), Kind::NotFound, "{range:?}: {error}"),
        (Ok(read), None) => panic!("{} bytes at {range:?}, where there are none", read.len()),
        (Err(error), Some(_)) => panic!("{range:?} is there: {error}"),
    }
}

fn content(pieces: &[Piece], block_len: usize) -> Bytes {
    let block = |piece: &Piece| {
        let len = block_len / usize::from(EIGHTHS) * usize::from(piece.eighths);
        sample(piece.seed, len)
    };
    pieces.iter().flat_map(block).collect()
}
