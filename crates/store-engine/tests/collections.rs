//! Tests of what `Collections` promises to an app, over a full store and over the most limited one.
#![allow(missing_docs)]

mod support;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{
    Batch, Bytes, Change, CollectionId, CollectionStore, Edit, Entry, Expect, Kind, Listing, Order,
    Revision, Scan,
};
use larder_store_engine::{Collections, MAX_ANNOUNCED_KEYS, Swap, WATCH_BACKLOG};
use larder_store_testkit::MemoryStore;
use support::{BareStore, now};

const NOTES: CollectionId = CollectionId::from_static("notes");
const TODOS: CollectionId = CollectionId::from_static("todos");
const ENGINE: CollectionId = CollectionId::from_static("larder/tags");

fn over(store: impl CollectionStore) -> Collections {
    Collections::new(Arc::new(store))
}

/// Returns handles over every kind of store that `Collections` treats differently.
fn each() -> [Collections; 2] {
    [over(MemoryStore::new()), over(BareStore::new())]
}

fn put(collection: CollectionId, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Edit {
    Edit::Put {
        collection,
        key: key.into(),
        value: value.into(),
    }
}

async fn keys(listing: Listing<Entry>) -> Vec<Bytes> {
    let keys = listing.map_ok(|entry| entry.key).try_collect();
    keys.await.expect("a complete listing")
}

#[tokio::test]
async fn what_is_put_is_there_until_it_is_deleted() {
    for collections in each() {
        assert_eq!(collections.get(NOTES, "a").await.unwrap(), None);
        let revision = collections.put(NOTES, "a", "one").await.unwrap();
        let entry = collections.get(NOTES, "a").await.unwrap().expect("was put");
        assert_eq!((&entry.value[..], entry.revision), (&b"one"[..], revision));
        assert_eq!(collections.get(TODOS, "a").await.unwrap(), None);
        let deleted = collections.delete(NOTES, "a").await.unwrap();
        assert!(deleted > revision);
        assert_eq!(collections.get(NOTES, "a").await.unwrap(), None);
        collections.delete(NOTES, "a").await.unwrap();
        collections.sync().await.unwrap();
    }
}

#[tokio::test]
async fn compare_and_swap_tells_what_is_there_instead() {
    for collections in each() {
        let swap = |expected, value: Option<&'static str>| {
            let value = value.map(Bytes::from);
            collections.compare_and_swap(NOTES, "a", expected, value)
        };
        let Swap::Done(first) = swap(None, Some("one")).await.unwrap() else {
            panic!("there was no entry");
        };
        let Swap::Superseded { current } = swap(None, Some("two")).await.unwrap() else {
            panic!("there was an entry");
        };
        assert_eq!(current.expect("there is one").value, "one");
        let Swap::Done(second) = swap(Some(first), Some("two")).await.unwrap() else {
            panic!("nobody changed it");
        };
        let stale = swap(Some(first), None).await.unwrap();
        let current = collections.get(NOTES, "a").await.unwrap();
        assert_eq!(stale, Swap::Superseded { current });
        let removed = swap(Some(second), None).await.unwrap();
        assert!(matches!(removed, Swap::Done(_)));
        let gone = swap(Some(second), Some("three")).await.unwrap();
        assert_eq!(gone, Swap::Superseded { current: None });
    }
}

#[tokio::test]
async fn swaps_by_many_lose_none() {
    for collections in each() {
        let workers = (0..8).map(|_| {
            let collections = collections.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let mut current = collections.get(NOTES, "n").await.unwrap();
                    loop {
                        let count = current.as_ref().map_or(0, |entry| entry.value[0]);
                        let next = Bytes::from(vec![count + 1]);
                        let expected = current.map(|entry| entry.revision);
                        match collections
                            .compare_and_swap(NOTES, "n", expected, Some(next))
                            .await
                            .unwrap()
                        {
                            Swap::Done(_) => break,
                            Swap::Superseded { current: now } => current = now,
                        }
                    }
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        let entry = collections.get(NOTES, "n").await.unwrap().unwrap();
        assert_eq!(entry.value[0], 200);
    }
}

#[tokio::test]
async fn a_failed_expectation_changes_nothing() {
    for collections in each() {
        collections.put(NOTES, "a", "one").await.unwrap();
        let batch = Batch::of(vec![put(TODOS, "b", "two")]).expecting(Expect::Absent {
            collection: NOTES,
            key: Bytes::from("a"),
        });
        let error = collections.commit(batch).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(collections.get(TODOS, "b").await.unwrap(), None);
    }
}

#[tokio::test]
async fn one_over_a_limit_is_refused_before_the_store_sees_it() {
    let store = BareStore::new();
    let collections = over(store.clone());
    let limits = collections.capabilities();
    let key = |over: u32| vec![b'k'; (limits.max_key_len + over) as usize];
    let value = vec![b'v'; limits.max_value_len as usize];
    let batch = |over: u32| {
        let edits = (0..limits.max_batch_len - 1 + over).map(|n| put(TODOS, n.to_string(), ""));
        Batch::of(edits.collect()).expecting(Expect::Absent {
            collection: NOTES,
            key: Bytes::from("none"),
        })
    };
    collections.put(NOTES, key(0), value.clone()).await.unwrap();
    collections.commit(batch(0)).await.unwrap();
    assert!(collections.get(NOTES, key(0)).await.unwrap().is_some());
    let before = store.commits();

    let long_value = [&value[..], b"v"].concat();
    let long_key = Expect::Absent {
        collection: NOTES,
        key: Bytes::from(key(1)),
    };
    let expecting = Batch::of(vec![put(TODOS, "b", "")]).expecting(long_key);
    let errors = [
        collections.put(NOTES, key(1), "").await.unwrap_err(),
        collections.delete(NOTES, key(1)).await.unwrap_err(),
        collections.commit(expecting).await.unwrap_err(),
        collections.get(NOTES, key(1)).await.unwrap_err(),
        collections.put(NOTES, "b", long_value).await.unwrap_err(),
        collections.commit(batch(1)).await.unwrap_err(),
    ];
    let key_text =
        "collections.commit: too large: a key has at most 256 bytes (collection=notes, len=257)";
    let texts = [
        key_text,
        key_text,
        key_text,
        "collections.get: too large: a key has at most 256 bytes (collection=notes, len=257)",
        "collections.commit: too large: a value has at most 65536 bytes (collection=notes, len=65537)",
        "collections.commit: too large: a batch has at most 128 expectations and edits (len=129)",
    ];
    for (error, text) in errors.iter().zip(texts) {
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(store.commits(), before);
}

#[tokio::test]
async fn the_engines_collections_can_be_read_but_not_written() {
    let store = MemoryStore::new();
    let inside = put(ENGINE, "tag", "kept");
    store.commit(Batch::of(vec![inside])).await.unwrap();
    let collections = over(store);
    let entry = collections.get(ENGINE, "tag").await.unwrap().unwrap();
    assert_eq!(entry.value, "kept");
    assert_eq!(keys(collections.scan_prefix(ENGINE, "t")).await, ["tag"]);
    let expect = Expect::At {
        collection: ENGINE,
        key: Bytes::from("tag"),
        revision: entry.revision,
    };
    let guarded = Batch::of(vec![put(NOTES, "a", "one")]).expecting(expect);
    collections.commit(guarded).await.unwrap();

    let edits = vec![put(NOTES, "b", "two"), put(ENGINE, "tag", "taken")];
    let errors = [
        collections.put(ENGINE, "tag", "taken").await.unwrap_err(),
        collections.delete(ENGINE, "tag").await.unwrap_err(),
        collections.commit(Batch::of(edits)).await.unwrap_err(),
        collections
            .compare_and_swap(ENGINE, "tag", Some(entry.revision), None)
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(
            error.to_string(),
            "collections.commit: denied: collections whose name begins with \"larder/\" belong to \
             the engine (collection=larder/tags)"
        );
    }
    assert_eq!(collections.get(ENGINE, "tag").await.unwrap(), Some(entry));
    assert_eq!(collections.get(NOTES, "b").await.unwrap(), None);
    let near = CollectionId::new("larder").unwrap();
    collections.put(near, "a", "allowed").await.unwrap();
}

#[tokio::test]
async fn ranges_and_prefixes_are_in_order() {
    for collections in each() {
        for key in ["b", "ab", "c", "a", "aa", ""] {
            collections.put(NOTES, key, key).await.unwrap();
        }
        let all = keys(collections.scan_range(NOTES, ..)).await;
        assert_eq!(all, ["", "a", "aa", "ab", "b", "c"]);
        let prefix = keys(collections.scan_prefix(NOTES, "a")).await;
        assert_eq!(prefix, ["a", "aa", "ab"]);
        let range = Bytes::from("aa")..Bytes::from("c");
        let range = keys(collections.scan_range(NOTES, range)).await;
        assert_eq!(range, ["aa", "ab", "b"]);
        let mut scan = Scan::all(NOTES);
        scan.order = Order::Descending;
        scan.keys.0 = Bound::Excluded(Bytes::from("a"));
        assert_eq!(keys(collections.scan(scan)).await, ["c", "b", "ab", "aa"]);
        let names: Vec<CollectionId> = collections.list().try_collect().await.unwrap();
        assert_eq!(names, [NOTES]);
    }
}

/// Fills a store, and returns its content.
async fn filled(store: &BareStore, entries: usize, value_len: usize) -> BTreeMap<Bytes, Bytes> {
    let entry = |n: usize| (Bytes::from(format!("{n:06}")), vec![n as u8; value_len]);
    let entries = (0..entries).map(entry);
    let model: BTreeMap<Bytes, Bytes> = entries.map(|(k, v)| (k, v.into())).collect();
    let edits: Vec<Edit> = model
        .iter()
        .map(|(key, value)| put(NOTES, key.clone(), value.clone()))
        .collect();
    for edits in edits.chunks(1024) {
        store.commit(Batch::of(edits.to_vec())).await.unwrap();
    }
    model
}

#[tokio::test]
async fn a_failing_scan_is_an_error_and_not_a_shorter_list() {
    let store = BareStore::new();
    filled(&store, 3, 1).await;
    let collections = over(store.clone());
    store.fail_scans();
    let entries: Vec<_> = collections.scan_range(NOTES, ..).collect().await;
    // The entries before the error are incomplete.
    let [Ok(_), Err(error)] = &entries[..] else {
        panic!("an entry and an error, not {entries:?}");
    };
    assert_eq!(error.to_string(), "bare.scan: unavailable: as told");
}

fn changed(collection: CollectionId, keys: &[&'static str], revision: Revision) -> Change {
    Change::Keys {
        collection,
        keys: keys.iter().map(|key| Bytes::from(*key)).collect(),
        revision,
    }
}

#[tokio::test]
async fn a_watcher_hears_of_commits_through_any_clone() {
    for collections in each() {
        collections.put(NOTES, "before", "").await.unwrap();
        let mut all = collections.watch();
        let mut todos = collections.watch_collection(TODOS);
        assert!(now(&mut all).await.is_none());
        let edits = vec![
            put(TODOS, "b", "1"),
            put(NOTES, "a", "1"),
            put(TODOS, "b", "2"),
            put(TODOS, "a", "3"),
        ];
        let revision = collections.clone().commit(Batch::of(edits)).await.unwrap();
        let notes_change = changed(NOTES, &["a"], revision);
        let todos_change = changed(TODOS, &["a", "b"], revision);
        assert_eq!(all.next().await.unwrap().unwrap(), notes_change);
        assert_eq!(all.next().await.unwrap().unwrap(), todos_change);
        assert_eq!(todos.next().await.unwrap().unwrap(), todos_change);
        let conflict = Batch::of(vec![put(NOTES, "a", "")]).expecting(Expect::Absent {
            collection: NOTES,
            key: Bytes::from("a"),
        });
        collections.commit(conflict).await.unwrap_err();
        assert!(now(&mut all).await.is_none());
    }
}

#[tokio::test]
async fn a_watcher_that_lags_is_told_to_resync() {
    let collections = over(BareStore::new());
    let mut changes = collections.watch_collection(TODOS);
    for _ in 0..=WATCH_BACKLOG {
        collections.put(NOTES, "a", "").await.unwrap();
    }
    let last = collections.put(TODOS, "b", "").await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap(), Change::Resync);
    let change = changes.next().await.unwrap().unwrap();
    assert_eq!(change, changed(TODOS, &["b"], last));
    assert!(now(&mut changes).await.is_none());
}

#[tokio::test]
async fn a_commit_of_very_many_keys_is_announced_as_a_resync() {
    let collections = over(BareStore::with_limits(|limits| limits.max_batch_len = 4096));
    let mut changes = collections.watch();
    for (many, resync) in [(MAX_ANNOUNCED_KEYS, false), (MAX_ANNOUNCED_KEYS + 1, true)] {
        let edits = (0..many).map(|n| put(NOTES, n.to_string(), ""));
        collections
            .commit(Batch::of(edits.collect()))
            .await
            .unwrap();
        let change = changes.next().await.unwrap().unwrap();
        assert_eq!(change == Change::Resync, resync);
        assert!(now(&mut changes).await.is_none());
    }
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_is_announced_too() {
    let store = BareStore::new();
    let collections = over(store.clone());
    let mut changes = collections.watch();
    store.close_gate();
    let cancelled = tokio::select! {
        biased;
        _ = collections.put(NOTES, "a", "one") => false,
        () = tokio::task::yield_now() => true,
    };
    assert!(cancelled);
    assert!(now(&mut changes).await.is_none());
    store.open_gate();
    let Change::Keys { keys, .. } = changes.next().await.unwrap().unwrap() else {
        panic!("one commit must not cause a resync");
    };
    assert_eq!(keys, ["a"]);
    assert!(collections.get(NOTES, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_watch_ends_with_its_handle() {
    let collections = over(BareStore::new());
    let mut changes = collections.watch();
    drop(collections);
    assert!(changes.next().await.is_none());
}
