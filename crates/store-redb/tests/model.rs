//! Random commits, reads, scans, closings, crashes and lost indexes, beside a plain map.

use std::{collections::BTreeMap, ops::Bound, path::Path};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Durability, Edit, Expect, Kind, Order, Revision, Scan,
};
use larder_store_redb::{Options, RedbStore};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Model = BTreeMap<(CollectionId, Bytes), (Bytes, Revision)>;

async fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir, Options::default())
        .await
        .expect("it opens")
}

fn collection(rng: &mut ChaCha8Rng) -> CollectionId {
    const NAMES: [&[u8]; 4] = [b"a", b"a\0", b"ab", b"\0"];
    CollectionId::new(NAMES[rng.random_range(0..4)]).expect("a short name")
}

fn key(rng: &mut ChaCha8Rng) -> Bytes {
    let n = rng.random_range(0..30_u8);
    // Among them the empty key, prefixes of others, and zeros.
    (0..n % 4).map(|i| n / 4 * (i % 2)).collect()
}

fn edit(rng: &mut ChaCha8Rng) -> Edit {
    let (collection, key) = (collection(rng), key(rng));
    if rng.random_ratio(1, 3) {
        return Edit::Delete { collection, key };
    }
    // Around the length up to which values are kept with their key.
    let len = [0, 1, 63, 64, 65, 500, 5000][rng.random_range(0..7)];
    Edit::Put {
        collection,
        key,
        value: vec![rng.random(); len].into(),
    }
}

fn bound(rng: &mut ChaCha8Rng) -> Bound<Bytes> {
    match rng.random_range(0..3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    }
}

fn within(key: &Bytes, keys: &(Bound<Bytes>, Bound<Bytes>)) -> bool {
    let low = match &keys.0 {
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
        Bound::Unbounded => true,
    };
    low && match &keys.1 {
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
        Bound::Unbounded => true,
    }
}

async fn commit(store: &RedbStore, model: &mut Model, rng: &mut ChaCha8Rng) {
    let edits: Vec<_> = (0..rng.random_range(0..6)).map(|_| edit(rng)).collect();
    let expect: Vec<_> = (0..rng.random_range(0..3))
        .map(|_| {
            let (collection, key) = (collection(rng), key(rng));
            let found = model.get(&(collection.clone(), key.clone()));
            // Mostly what holds.
            match (found, rng.random_ratio(1, 8)) {
                (Some((_, revision)), false) => Expect::At {
                    collection,
                    key,
                    revision: *revision,
                },
                (None, true) => Expect::At {
                    collection,
                    key,
                    revision: Revision(1),
                },
                _ => Expect::Absent { collection, key },
            }
        })
        .collect();
    let holds = expect.iter().all(|expect| match expect.clone() {
        Expect::Absent { collection, key } => !model.contains_key(&(collection, key)),
        Expect::At {
            collection,
            key,
            revision,
        } => model
            .get(&(collection, key))
            .is_some_and(|(_, found)| *found == revision),
    });
    let batch = {
        let mut batch = Batch::of(edits.clone());
        batch.expect = expect;
        batch.durability = Durability::OnSync;
        batch
    };
    let revision = match store.commit(batch).await {
        Ok(revision) => revision,
        Err(error) => {
            assert!(!holds && error.kind() == Kind::Conflict, "{error}");
            return;
        }
    };
    assert!(holds, "an expectation did not hold");
    for edit in edits {
        match edit {
            Edit::Put {
                collection,
                key,
                value,
            } => drop(model.insert((collection, key), (value, revision))),
            Edit::Delete { collection, key } => drop(model.remove(&(collection, key))),
        }
    }
}

async fn scan(store: &RedbStore, model: &Model, rng: &mut ChaCha8Rng) {
    let scan = Scan {
        collection: collection(rng),
        keys: (bound(rng), bound(rng)),
        order: if rng.random() {
            Order::Ascending
        } else {
            Order::Descending
        },
    };
    let of_scan = model
        .iter()
        .filter(|((collection, key), _)| *collection == scan.collection && within(key, &scan.keys));
    let mut expected: Vec<_> = of_scan
        .map(|((_, key), (value, revision))| (key.clone(), value.clone(), *revision))
        .collect();
    if scan.order == Order::Descending {
        expected.reverse();
    }
    let found: Vec<_> = store.scan(scan).try_collect().await.expect("it scans");
    let found: Vec<_> = found
        .into_iter()
        .map(|entry| (entry.key, entry.value, entry.revision))
        .collect();
    assert_eq!(found, expected);
}

async fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rng = &mut rng;
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = open(dir.path()).await;
    let mut model = Model::new();
    for _ in 0..600 {
        match rng.random_range(0..100) {
            0..60 => commit(&store, &mut model, rng).await,
            60..75 => {
                let (collection, key) = (collection(rng), key(rng));
                let found = store
                    .get(collection.clone(), key.clone())
                    .await
                    .expect("it reads");
                let found = found.map(|entry| (entry.value, entry.revision));
                assert_eq!(found.as_ref(), model.get(&(collection, key)));
            }
            75..90 => scan(&store, &model, rng).await,
            90..94 => {
                let found: Vec<_> = store.collections().try_collect().await.expect("it lists");
                let mut expected: Vec<_> = model.keys().map(|(name, _)| name.clone()).collect();
                expected.dedup();
                assert_eq!(found, expected);
            }
            94..97 => store.settle().await.expect("it settles"),
            ending => {
                if ending == 97 {
                    store.close().await.expect("it closes");
                }
                drop(store);
                if ending == 98 {
                    let index = dir.path().join("index.redb");
                    std::fs::remove_file(index).expect("there was an index");
                }
                store = open(dir.path()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn does_what_a_plain_map_does() {
    for seed in 0..8 {
        run(seed).await;
    }
}
