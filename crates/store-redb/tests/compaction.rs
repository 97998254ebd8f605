//! Space of what was deleted or overwritten is freed, and nothing else is.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{Batch, CollectionId, CollectionStore, Durability, Edit, Scan};
use larder_store_redb::{Options, RedbStore, Stats};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const C: CollectionId = CollectionId::from_static("c");

fn put(key: String, value: Vec<u8>) -> Edit {
    Edit::Put {
        collection: C,
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: String) -> Edit {
    Edit::Delete {
        collection: C,
        key: key.into(),
    }
}

/// Durable only with the next sync: these tests are not about crashes.
fn quick(edits: Vec<Edit>) -> Batch {
    Batch::of(edits).durability(Durability::OnSync)
}

async fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir, Options::default())
        .await
        .expect("it opens")
}

/// The space that the files take; the log's last one has a hole at its end to write into.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("the folder is there");
    entries
        .map(|entry| {
            let entry = entry.expect("the folder can be read");
            // A file that is removed meanwhile takes no space.
            let len = entry.metadata().map_or(0, |data| data.blocks() * 512);
            if entry.path().is_dir() {
                size(&entry.path())
            } else {
                len
            }
        })
        .sum()
}

async fn all(store: &RedbStore) -> BTreeMap<Bytes, Bytes> {
    let entries: Vec<_> = store
        .scan(Scan::all(C))
        .try_collect()
        .await
        .expect("it scans");
    entries
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect()
}

/// Removes the index of a closed store, so that opening it makes it again from the log.
fn forget_index(dir: &Path) {
    std::fs::remove_file(dir.join("index.redb")).expect("there was an index");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_frees_the_space() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    store.settle().await.expect("it settles");
    for n in 0..6400 {
        let edits = vec![put(format!("{n}"), vec![n as u8; 16 << 10])];
        store.commit(quick(edits)).await.expect("it commits");
    }
    store.settle().await.expect("it settles");
    assert!(size(dir.path()) > 100 << 20);
    for n in 0..6400 {
        store
            .commit(quick(vec![delete(format!("{n}"))]))
            .await
            .expect("it commits");
    }
    store.settle().await.expect("it settles");
    assert!(
        size(&dir.path().join("log")) < 64 << 10,
        "{}",
        size(&dir.path().join("log"))
    );
    store.close().await.expect("it closes");
    assert!(size(dir.path()) < 3 << 20, "{}", size(dir.path()));
    forget_index(dir.path());
    let store = open(dir.path()).await;
    assert_eq!(all(&store).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_store_brings_its_index_up_to_date_and_frees_space_by_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    for n in 0..400 {
        let edits = vec![put(format!("{n}"), vec![n as u8; 200 << 10])];
        store.commit(quick(edits)).await.expect("it commits");
    }
    let live = 400 * (200 << 10);
    until(&store, |stats| stats.live > live && stats.log > live).await;
    for n in 0..400 {
        store
            .commit(quick(vec![delete(format!("{n}"))]))
            .await
            .expect("it commits");
    }
    until(&store, |stats| stats.live == 0 && stats.log < 1 << 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_gives_the_space_of_deleted_keys_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    for chunk in 0..150 {
        let edits = (0..1000).map(|n| put(format!("{n:03}{chunk:061}"), Vec::new()));
        store
            .commit(quick(edits.collect()))
            .await
            .expect("it commits");
    }
    for chunk in 1..150 {
        let edits = (0..1000).map(|n| delete(format!("{n:03}{chunk:061}")));
        store
            .commit(quick(edits.collect()))
            .await
            .expect("it commits");
    }
    let before = all(&store).await;
    assert_eq!(before.len(), 1000);
    store.close().await.expect("it closes");
    let index = std::fs::metadata(dir.path().join("index.redb")).expect("there is an index");
    assert!(index.len() < 4 << 20, "{}", index.len());
}

/// Waits until the store's space is as it must become.
async fn until(store: &RedbStore, wanted: impl Fn(Stats) -> bool) {
    let waiting = async {
        while !wanted(store.stats().await.expect("it tells")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it settles by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_made_again_brings_nothing_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    // A segment that stays: most of it is live, and one of its keys is deleted.
    let long = |n: u32| vec![n as u8; 200 << 10];
    for n in 0..400 {
        store
            .commit(quick(vec![put(format!("stays{n}"), long(n))]))
            .await
            .expect("it commits");
    }
    store
        .commit(quick(vec![delete("stays7".to_owned())]))
        .await
        .expect("it commits");
    // Later segments are compacted, and with them the record that deletes.
    for round in 0..3 {
        for n in 0..400 {
            let edits = vec![put(format!("goes{n}"), long(round))];
            store.commit(quick(edits)).await.expect("it commits");
        }
        store.settle().await.expect("it settles");
    }
    let before = all(&store).await;
    assert_eq!(before.len(), 799);
    assert!(!before.contains_key(&b"stays7"[..]));
    store.close().await.expect("it closes");
    assert!(size(dir.path()) < 260 << 20, "{}", size(dir.path()));
    forget_index(dir.path());
    let store = open(dir.path()).await;
    assert!(all(&store).await == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_under_load_loses_nothing() {
    const TASKS: u64 = 4;
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    let model = Arc::new(Mutex::new(BTreeMap::new()));
    let tasks = (0..TASKS).map(|task| {
        let (store, model) = (store.clone(), Arc::clone(&model));
        tokio::spawn(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(task);
            for step in 0..1500 {
                // Every task has its own keys, so that it knows what must be there.
                let key = format!("{task}/{}", rng.random_range(0..60));
                if rng.random_ratio(1, 4) {
                    store
                        .commit(quick(vec![delete(key.clone())]))
                        .await
                        .expect("it commits");
                    model.lock().expect("no panic").remove(&Bytes::from(key));
                } else {
                    let value = vec![step as u8; rng.random_range(0..100_000)];
                    let edits = vec![put(key.clone(), value.clone())];
                    store.commit(quick(edits)).await.expect("it commits");
                    model
                        .lock()
                        .expect("no panic")
                        .insert(key.into(), Bytes::from(value));
                }
                let key = Bytes::from(format!("{task}/{}", rng.random_range(0..60)));
                let expected = model.lock().expect("no panic").get(&key).cloned();
                let found = store
                    .get(C, key)
                    .await
                    .expect("it reads")
                    .map(|entry| entry.value);
                assert!(found == expected);
                if step % 500 == 0 {
                    store.settle().await.expect("it settles");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    store.settle().await.expect("it settles");
    let model = std::mem::take(&mut *model.lock().expect("no panic"));
    assert!(all(&store).await == model);
    let live: u64 = model.values().map(|value| value.len() as u64).sum();
    let log = size(&dir.path().join("log"));
    assert!(log < live * 5 / 2 + (2 << 20), "{log} bytes for {live}");
    store.close().await.expect("it closes");
    forget_index(dir.path());
    let store = open(dir.path()).await;
    assert!(all(&store).await == model);
}
