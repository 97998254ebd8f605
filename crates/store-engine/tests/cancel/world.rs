//! An engine over late stores, and its invariants.

use std::sync::Arc;

use futures_util::TryStreamExt;
use larder_store_api::{CollectionStore, Result, Scan};
use larder_store_engine::{AddOptions, Blobs, Finding, Hash, Repair, Scrubbed, TagName};
use larder_store_testkit::{MemoryStore, cancel, stores::LateStore};

use crate::common::bytes;

/// The event between the drop of a call and the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The call is repeated at once.
    Again,
    /// The call is repeated when everything that it began has ended.
    Settled,
    /// The engine is dropped and another is opened; then the call is repeated.
    Reopened,
    /// The call is not repeated.
    GivenUp,
}

pub struct World {
    pub store: Arc<LateStore<MemoryStore>>,
    pub blobs: Blobs,
    known: Vec<(Hash, Vec<u8>)>,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let store = Arc::new(LateStore::new(MemoryStore::new(), seed));
        let mut world = Self {
            blobs: open(&store).await,
            store,
            known: Vec::new(),
        };
        world.know("small", bytes(90, 100)).await;
        world.know("large", bytes(91, 40_000)).await;
        world
    }

    /// Adds a blob, which must stay from now on.
    pub async fn know(&mut self, name: &str, data: Vec<u8>) -> Hash {
        let options = AddOptions::default().tag(TagName::try_from(name).unwrap());
        let pin = self.blobs.add_with(data.clone(), options).await.unwrap();
        self.known.push((pin.hash(), data));
        pin.hash()
    }

    pub async fn assert_has(&self, hash: Hash, data: &[u8]) {
        let read = self.blobs.read_to_bytes(hash, 0..u64::MAX).await;
        assert!(read.unwrap() == data, "other bytes than those of {hash}");
    }

    /// Checks that all stored data is what it claims to be, and that no unclaimed data is stored.
    pub async fn assert_sound(&self) {
        for (hash, data) in &self.known {
            self.assert_has(*hash, data).await;
        }
        let found = self.blobs.scrub(Repair::No);
        let found: Vec<Scrubbed> = found.try_collect().await.unwrap();
        for scrubbed in found {
            assert_eq!(scrubbed.finding, Finding::Sound, "{:?}", scrubbed.hash);
        }
        let garbage = larder_store_api::CollectionId::from_static("larder/garbage");
        let garbage = self.store.inner().scan(Scan::all(garbage));
        let garbage: Vec<_> = garbage.try_collect().await.unwrap();
        assert_eq!(garbage, [], "garbage is still noted");
    }

    /// Simulates a crash: the engine is not told that it ends.
    async fn crash(&mut self) {
        self.drop_engine().await;
        self.blobs = open(&self.store).await;
    }

    /// Replaces this engine by one over another store.
    pub async fn drop_engine(&mut self) {
        let other = Arc::new(LateStore::new(MemoryStore::new(), 0));
        drop(std::mem::replace(&mut self.blobs, open(&other).await));
        self.store.settle().await;
    }

    pub async fn close_and_open(&mut self) {
        self.blobs.close().await.unwrap();
        self.store.settle().await;
        self.blobs = open(&self.store).await;
    }
}

async fn open(store: &Arc<LateStore<MemoryStore>>) -> Blobs {
    Blobs::open(store.clone(), store.clone()).await.unwrap()
}

/// Everything that can happen after a drop.
pub const ALL: [After; 4] = [
    After::Again,
    After::Settled,
    After::Reopened,
    After::GivenUp,
];

/// The number of times that each is done, with different delays.
const ROUNDS: u64 = 3;

/// Makes `call` in a prepared world, drops it at every await, and checks that it then succeeds, that
/// `holds` is satisfied, and that the store is sound, both now and when it is opened again.
pub async fn at_every_await<P, T>(
    then: &[After],
    prepare: impl AsyncFn(&mut World) -> P,
    call: impl AsyncFn(&World, &P) -> Result<T>,
    holds: impl AsyncFn(&World, &P),
) {
    for after in then {
        for round in 0..ROUNDS {
            let cuts = cancel::at_every_await(async |mut cut| {
                let seed = round * 1_000 + cut.polls() as u64;
                let mut world = World::new(seed).await;
                let prepared = prepare(&mut world).await;
                let answer = cut.call(call(&world, &prepared)).await;
                if let Some(answer) = answer {
                    answer.unwrap();
                }
                match after {
                    After::Again => {}
                    After::Settled | After::GivenUp => world.store.settle().await,
                    After::Reopened => world.crash().await,
                }
                if *after != After::GivenUp {
                    if cut.was_cut() {
                        call(&world, &prepared).await.unwrap();
                    }
                    holds(&world, &prepared).await;
                }
                world.close_and_open().await;
                world.assert_sound().await;
                if *after != After::GivenUp {
                    holds(&world, &prepared).await;
                }
                cut
            })
            .await;
            assert!(cuts > 1, "the call was hardly ever cut off");
        }
    }
}
