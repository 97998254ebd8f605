//! Tests of errors while a collection reads: it aborts, and blobs that it had not judged stay.

use std::{collections::BTreeSet, sync::Arc, time::Duration, time::SystemTime};

use futures_util::TryStreamExt;
use larder::{AddOptions, Blobs, Format, Hash, Kind, Pin, Root, TagName};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, When},
};
use rand::Rng as _;
use tests::data::{KIB, Rng, Seed, bytes, rng};

const SEEDS: u64 = 100;

/// A store, and the blobs that nothing may delete from it.
struct Populated {
    blobs: Blobs,
    faults: Faults,
    reachable: BTreeSet<Hash>,
    _pins: Vec<Pin>,
}

impl Populated {
    /// Makes a store; equal seeds give equal stores.
    async fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let faults = Faults::seeded(seed);
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
        let blobs = Blobs::open(store.clone(), store).await.unwrap();
        let mut populated = Self {
            blobs,
            faults,
            reachable: BTreeSet::new(),
            _pins: Vec::new(),
        };
        let count = rng.random_range(10..60);
        let mut all = Vec::new();
        for blob in 0..count {
            let len = *[100, 20 * KIB].get(rng.random_range(0..2)).unwrap();
            let pin = populated.blobs.add(bytes(seed ^ (blob << 32), len)).await;
            all.push(pin.unwrap().hash());
        }
        for n in 0..rng.random_range(1..4) {
            populated.add_sequence(n, &all, &mut rng).await;
        }
        for n in 0..rng.random_range(1..12) {
            let hash = all[rng.random_range(0..all.len())];
            populated.reachable.insert(hash);
            if rng.random() {
                let name = format!("tag {n}");
                let tag = name.as_str();
                let tags = populated.blobs.tags();
                tags.set(tag, Root::raw(hash)).await.unwrap();
            } else {
                let pin = populated.blobs.pin(Root::raw(hash)).await;
                populated._pins.push(pin);
            }
        }
        // Blobs that were added in the same millisecond are spared.
        tokio::time::sleep(Duration::from_millis(2)).await;
        populated
    }

    /// Adds a tagged hash sequence, of one commit or with a payload that must be read.
    async fn add_sequence(&mut self, n: u32, all: &[Hash], rng: &mut Rng) {
        let count = *[5, 600].get(rng.random_range(0..2)).unwrap();
        let children: Vec<Hash> = (0..count)
            .map(|_| all[rng.random_range(0..all.len() / 2)])
            .collect();
        let data: Vec<u8> = children.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let options = AddOptions::default()
            .format(Format::HashSeq)
            .tag(TagName::try_from(format!("sequence {n}")).unwrap());
        let pin = self.blobs.add_with(data, options).await.unwrap();
        self.reachable.insert(pin.hash());
        self.reachable.extend(children);
    }

    async fn here(&self) -> BTreeSet<Hash> {
        let all: Vec<_> = self.blobs.list().try_collect().await.unwrap();
        all.into_iter().map(|(hash, _)| hash).collect()
    }

    fn calls(&self) -> [u64; 3] {
        [Operation::Get, Operation::Scan, Operation::Read].map(|on| self.faults.calls(on))
    }
}

#[tokio::test]
async fn at_every_call_of_many_collections() {
    let first = Seed::or(51);
    let (mut failed, mut before_any) = (0, 0);
    for seed in first.number()..first.number() + SEEDS {
        let mut rng = rng(!seed);
        // The reads of a collection without failures.
        let populated = Populated::new(seed).await;
        let before = populated.calls();
        populated.blobs.collect(SystemTime::now()).await.unwrap();
        let after = populated.calls();
        assert_eq!(populated.here().await, populated.reachable, "seed {seed}");

        let [reads, gets, scans] = [2, 0, 1].map(|i| after[i] - before[i]);
        // The last scan is that of the sweep, whose steps each know all that is reachable: blobs that
        // were deleted before the failure may be gone.
        let calls = (1..=reads)
            .map(|n| (Operation::Read, n))
            .chain((1..=gets).map(|n| (Operation::Get, n)))
            .chain((1..=scans).map(|n| (Operation::Scan, n)));
        for (on, n) in calls {
            let kinds = [
                Kind::Unavailable,
                Kind::Internal,
                Kind::Corrupt,
                Kind::NotFound,
            ];
            let fault = match on {
                Operation::Read if rng.random() => Fault::FlippedBit,
                _ => Fault::Error(kinds[rng.random_range(0..kinds.len())]),
            };
            let context = format!("seed {seed}, {on:?} {n}, {fault:?}");
            let populated = Populated::new(seed).await;
            let all = populated.here().await;
            assert!(
                all.len() > populated.reachable.len(),
                "{context}: nothing to collect"
            );
            populated.faults.inject(on, When::Nth(n), fault);
            let collected = populated.blobs.collect(SystemTime::now()).await;
            populated.faults.clear();
            assert_eq!(populated.faults.struck(), 1, "{context}");
            assert!(collected.is_err(), "{context}: not noticed");
            let here = populated.here().await;
            assert!(here.is_superset(&populated.reachable), "{context}");
            failed += 1;
            if here == all {
                before_any += 1;
            } else {
                assert_eq!(
                    (on, n),
                    (Operation::Scan, scans),
                    "{context}: deleted all the same"
                );
            }
            // The failure has no lasting effect.
            populated.blobs.collect(SystemTime::now()).await.unwrap();
            assert_eq!(populated.here().await, populated.reachable, "{context}");
        }
    }
    assert!(
        failed >= 3 * SEEDS && before_any >= 2 * SEEDS,
        "{failed}, {before_any}"
    );
}
