//! The store as a caller sees it: what is put is found, now and after opening again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder_descriptors::Descriptors;
use larder_store_api::{
    Batch, BlobStore, Block, Change, CollectionId, CollectionStore, Durability, Edit, Expect, Kind,
    Order, Part, PayloadId, Scan,
};
use larder_store_redb::{Options, RedbStore};
use tempfile::TempDir;

const C: CollectionId = CollectionId::from_static("c");

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Edit {
    Edit::Put {
        collection: C,
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: impl Into<Bytes>) -> Edit {
    Edit::Delete {
        collection: C,
        key: key.into(),
    }
}

async fn open(dir: &TempDir) -> RedbStore {
    RedbStore::open(dir.path(), Options::default())
        .await
        .expect("it opens")
}

#[tokio::test]
async fn a_budget_that_is_too_small_is_refused_and_makes_no_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let few = || Options::default().descriptors(Arc::new(Descriptors::new(39)));
    for error in [
        RedbStore::open(&store, few()).await.expect_err("too few"),
        RedbStore::repair(&store, few()).await.expect_err("too few"),
    ] {
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.message().contains("raise its limit"), "{error}");
    }
    assert!(!store.exists());
}

async fn keys(store: &RedbStore, order: Order) -> Vec<Bytes> {
    let scan = Scan {
        order,
        ..Scan::all(C)
    };
    let entries: Vec<_> = store.scan(scan).try_collect().await.expect("it scans");
    entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_there_after_opening_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let large = vec![7; 5000];
    for round in 0..3 {
        let store = open(&dir).await;
        if round > 0 {
            let entry = store
                .get(C, "large".into())
                .await
                .expect("it reads")
                .expect("it is there");
            assert_eq!(entry.value, large);
            assert_eq!(store.get(C, "gone".into()).await.expect("it reads"), None);
            assert_eq!(keys(&store, Order::Ascending).await, ["large", "small"]);
            assert_eq!(keys(&store, Order::Descending).await, ["small", "large"]);
        }
        let edits = vec![
            put("small", "x"),
            put("large", large.clone()),
            put("gone", "y"),
        ];
        let first = store.commit(Batch::of(edits)).await.expect("it commits");
        let second = store
            .commit(Batch::of(vec![delete("gone")]))
            .await
            .expect("it commits");
        assert!(second > first);
        // The second round is dropped without closing: its end is replayed.
        if round != 1 {
            store.close().await.expect("it closes");
            let error = store
                .get(C, "small".into())
                .await
                .expect_err("it is closed");
            assert_eq!(error.kind(), Kind::Closed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_callers_one_creates() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir).await;
    let attempts = (0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let absent = Expect::Absent {
                collection: C,
                key: "k".into(),
            };
            store
                .commit(Batch::of(vec![put("k", format!("{n}"))]).expecting(absent))
                .await
        })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.kind(), Kind::Conflict),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_two_generations_stay_readable_and_in_order() {
    const COUNT: usize = 40_000;
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir).await;
    for chunk in 0..COUNT / 1000 {
        let edits = (0..1000).map(|n| put(format!("{:08}", chunk * 1000 + n), "v".repeat(n % 200)));
        let batch = Batch::of(edits.collect()).durability(Durability::OnSync);
        store.commit(batch).await.expect("it commits");
    }
    let expected: Vec<_> = (0..COUNT).map(|n| Bytes::from(format!("{n:08}"))).collect();
    assert_eq!(keys(&store, Order::Ascending).await, expected);
    store.close().await.expect("it closes");
    let store = open(&dir).await;
    let mut reversed = keys(&store, Order::Descending).await;
    reversed.reverse();
    assert_eq!(reversed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_of_commits_and_of_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir).await;
    let mut changes = store.watch().expect("it can tell");
    let revision = store
        .commit(Batch::of(vec![put("b", ""), put("a", "")]))
        .await
        .expect("it commits");
    let change = changes.next().await.expect("a change").expect("no error");
    let expected = Change::Keys {
        collection: C,
        keys: vec!["a".into(), "b".into()],
        revision,
    };
    assert_eq!(change, expected);
    store.close().await.expect("it closes");
    let end = tokio::time::timeout(Duration::from_secs(60), changes.next()).await;
    let error = end
        .expect("it ends")
        .expect("an end")
        .expect_err("it is closed");
    assert_eq!(error.kind(), Kind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_read_listed_and_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir).await;
    let ids: Vec<_> = (0..600u128)
        .map(|n| PayloadId((n * 97).to_be_bytes()))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        let block = Block {
            part: Part::Data,
            index: 0,
            bytes: vec![n as u8; 100].into(),
        };
        store.write(*id, vec![block]).await.expect("it writes");
    }
    BlobStore::sync(&store, ids.clone())
        .await
        .expect("it syncs");
    let all: Vec<_> = store.list(None).try_collect().await.expect("it lists");
    assert_eq!(all, ids);
    let rest: Vec<_> = store
        .list(Some(ids[400]))
        .try_collect()
        .await
        .expect("it lists");
    assert_eq!(rest, ids[401..]);
    assert_eq!(
        store
            .read(ids[7], Part::Data, 10..20)
            .await
            .expect("it reads"),
        vec![7; 10]
    );
    for (part, range) in [
        (Part::Data, 90..101),
        (Part::Outboard, 0..1),
        (Part::Data, 0..1 << 60),
    ] {
        let error = store
            .read(ids[7], part, range)
            .await
            .expect_err("it is not there");
        assert_eq!(error.kind(), Kind::NotFound);
    }
    store.delete(ids.clone()).await.expect("it deletes");
    assert_eq!(store.list(None).count().await, 0);
    let left = std::fs::read_dir(dir.path().join("payload")).expect("the folder is there");
    assert_eq!(left.count(), 0);
}
