//! Tests of what a transaction commits, and of what it leaves if it is not committed.

mod common;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use common::{bytes, engine};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use larder_store_api::{
    BlobStore, Bytes, Change, CollectionId, CollectionStore, Durability, Edit, Expect, Kind, Put,
    PutRecord, RecordDescriptor, RecordId, RecordStore, SecretKey, SeqExpect, Signed,
};
use larder_store_engine::{
    Blobs, Collections, Finding, Hash, Hashed, MAX_STAGED_BYTES, Records, Repair, Root, TagName,
    Transaction, Trust, generate_key, public_key, sign,
};
use larder_store_testkit::{
    MemoryStore,
    stores::{
        Fault, Faults, FaultyStore, Gate, GatedStore, Operation, PowerStore, StrictStore, When,
    },
};

const NOTES: CollectionId = CollectionId::from_static("notes");

fn name(name: &str) -> TagName {
    TagName::try_from(name).unwrap()
}

fn edit(key: &'static str) -> Edit {
    Edit::Put {
        collection: NOTES,
        key: key.into(),
        value: "value".into(),
    }
}

async fn record(blobs: &Blobs, slots: u16) -> (Records, RecordId, SecretKey) {
    let records = Records::new(blobs.collections().clone());
    let writer = generate_key().unwrap();
    let descriptor = RecordDescriptor {
        owner: public_key(&writer),
        owner_slots: slots,
        members: Vec::new(),
    };
    let id = records.create(descriptor).await.unwrap();
    (records, id, writer)
}

fn write(value: &str, writer: &SecretKey) -> PutRecord {
    PutRecord::Write {
        value: Bytes::copy_from_slice(value.as_bytes()),
        writer: writer.clone(),
        expect: SeqExpect::Any,
    }
}

/// Returns everything that one commit changed, and checks that there was no other.
fn only_commit(changes: &mut larder_store_api::Listing<Change>) -> Vec<(String, usize)> {
    let mut revisions = Vec::new();
    let mut changed = Vec::new();
    while let Some(Some(change)) = changes.next().now_or_never() {
        let Change::Keys {
            collection,
            keys,
            revision,
        } = change.unwrap()
        else {
            panic!("the watcher is not behind");
        };
        revisions.push(revision);
        changed.push((collection.to_string(), keys.len()));
    }
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "{changed:?}");
    changed.sort();
    changed
}

async fn assert_has(blobs: &Blobs, data: &[u8]) {
    let read = blobs.read_to_bytes(Hash::of(data), 0..u64::MAX).await;
    assert!(read.unwrap() == data);
}

async fn assert_sound(blobs: &Blobs) {
    let found = blobs.scrub(Repair::No);
    let found: Vec<_> = found.try_collect().await.unwrap();
    for scrubbed in found {
        assert_eq!(scrubbed.finding, Finding::Sound);
    }
}

#[tokio::test]
async fn all_of_it_is_one_commit() {
    let (blobs, store) = engine().await;
    let (records, id, writer) = record(&blobs, 3).await;
    blobs
        .tags()
        .set(name("old"), Root::raw(Hash::EMPTY))
        .await
        .unwrap();
    // A session begins with a commit of its own.
    blobs.add(bytes(9, 20_000)).await.unwrap();
    let mut changes = store.watch().unwrap();

    let transaction = blobs.transaction().unwrap();
    let large = transaction.add(bytes(1, 100_000)).await.unwrap();
    assert_eq!(large.size(), Some(100_000));
    let small = (2..10).map(|seed| Hashed::new(bytes(seed, 100))).collect();
    let small = transaction.add_all(small).await.unwrap();
    transaction.add("").await.unwrap();
    transaction
        .set_tag(name("new"), Root::raw(large.hash()))
        .await
        .unwrap();
    transaction.delete_tag(name("old")).unwrap();
    for slot in [0, 2, 2] {
        let state = records.slot(id, slot).await.unwrap();
        let put = transaction.put_slot(&records, &state, write("value", &writer));
        assert!(matches!(put.await.unwrap(), Put::Published { .. }));
    }
    transaction.edit(edit("key")).unwrap();
    // Nothing has taken effect yet.
    assert_eq!(blobs.status(large.hash()).await.unwrap(), None);
    assert_eq!(blobs.tags().get(&name("new")).await.unwrap(), None);
    assert!(transaction.status(small[0].hash()).await.unwrap().is_some());
    let revision = transaction.commit().await.unwrap().unwrap();
    assert_eq!(transaction.commit().await.unwrap(), Some(revision));
    assert_eq!(
        only_commit(&mut changes),
        [
            ("larder/blobs", 9),
            ("larder/payloads", 1),
            ("larder/records", 1),
            ("larder/slots", 2),
            ("larder/tags", 2),
            ("notes", 1),
        ]
        .map(|(collection, keys)| (collection.to_owned(), keys))
    );
    assert_has(&blobs, &bytes(1, 100_000)).await;
    assert_has(&blobs, &bytes(9, 100)).await;
    assert_eq!(blobs.tags().get(&name("old")).await.unwrap(), None);
    let values = records.values(id, 0..3).await.unwrap();
    let seqs: Vec<_> = values.iter().map(|(slot, s)| (*slot, s.seq)).collect();
    assert_eq!(seqs, [(0, 1), (2, 2)]);
    assert!(transaction.add("more").await.is_err());
}

#[tokio::test]
async fn what_is_staged_can_be_read() {
    let (blobs, _) = engine().await;
    blobs.add("committed").await.unwrap();
    let transaction = blobs.transaction().unwrap();
    for len in [100, 16 * 1024, 100_000, 3 << 20] {
        let data = bytes(len as u64, len);
        let pin = transaction.add(data.clone()).await.unwrap();
        let read = transaction.read_to_bytes(pin.hash(), 5..50_000).await;
        assert!(read.unwrap() == data[5..len.min(50_000)]);
    }
    let committed = Hash::of("committed");
    let read = transaction.read_to_bytes(committed, 0..9).await.unwrap();
    assert_eq!(read, "committed");
    let missing = transaction.read_to_bytes(Hash::of("missing"), 0..9).await;
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let (blobs, store) = engine().await;
    let transaction = blobs.transaction().unwrap();
    transaction.add(bytes(1, 100_000)).await.unwrap();
    transaction.add(bytes(2, 100)).await.unwrap();
    let tag = transaction.set_tag(name("tag"), Root::raw(Hash::EMPTY));
    tag.await.unwrap();
    drop(transaction);
    blobs.close().await.unwrap();
    assert_eq!(BlobStore::list(&*store, None).count().await, 0);
    let blobs = Blobs::open(store.clone(), store).await.unwrap();
    assert_eq!(blobs.list().count().await, 0);
    assert_eq!(blobs.tags().list(..).count().await, 0);
}

#[tokio::test]
async fn what_is_there_costs_nothing() {
    let (blobs, store) = engine().await;
    for len in [0, 100, 100_000] {
        blobs.add(bytes(1, len)).await.unwrap();
    }
    let before = BlobStore::list(&*store, None).count().await;
    let transaction = blobs.transaction().unwrap();
    for len in [0, 100, 100_000] {
        transaction.add(bytes(1, len)).await.unwrap();
    }
    assert_eq!(transaction.commit().await.unwrap(), None);
    assert_eq!(BlobStore::list(&*store, None).count().await, before);
    // It is not staged twice either.
    let transaction = blobs.transaction().unwrap();
    for _ in 0..2 {
        transaction.add(bytes(2, 100_000)).await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(BlobStore::list(&*store, None).count().await, before + 1);
}

/// If somebody adds the same blobs, that is not a conflict; if somebody changes what was read, it is.
#[tokio::test]
async fn a_conflict_is_told_and_can_be_tried_again() {
    let (blobs, store) = engine().await;
    let (records, id, writer) = record(&blobs, 1).await;
    let transaction = blobs.transaction().unwrap();
    for len in [100, 200, 100_000, 200_000] {
        transaction.add(bytes(1, len)).await.unwrap();
    }
    for len in [200, 200_000] {
        blobs.add(bytes(1, len)).await.unwrap();
    }
    let state = records.slot(id, 0).await.unwrap();
    let put = transaction.put_slot(&records, &state, write("mine", &writer));
    put.await.unwrap();
    let tag = transaction.set_tag(name("tag"), Root::raw(Hash::EMPTY));
    tag.await.unwrap();
    records.put(id, 0, write("theirs", &writer)).await.unwrap();
    for _ in 0..2 {
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().contains("read it again"), "{error}");
    }
    assert_eq!(blobs.tags().get(&name("tag")).await.unwrap(), None);
    assert_eq!(
        transaction.add("x").await.unwrap_err().kind(),
        Kind::Conflict
    );

    transaction.begin_again().unwrap();
    let state = records.slot(id, 0).await.unwrap();
    assert_eq!(state.value().unwrap().unwrap().value, "theirs");
    let put = transaction.put_slot(&records, &state, write("mine", &writer));
    assert_eq!(put.await.unwrap(), Put::Published { seq: 2 });
    transaction.commit().await.unwrap().unwrap();
    assert_eq!(blobs.tags().get(&name("tag")).await.unwrap(), None);
    for len in [100, 200, 100_000, 200_000] {
        assert_has(&blobs, &bytes(1, len)).await;
    }
    drop(transaction);
    blobs.close().await.unwrap();
    let blobs = Blobs::open(store.clone(), store).await.unwrap();
    assert_sound(&blobs).await;
}

#[tokio::test]
async fn entries_and_expectations_of_apps() {
    let (blobs, _) = engine().await;
    let collections = blobs.collections().clone();
    let absent = Expect::Absent {
        collection: NOTES,
        key: "key".into(),
    };
    for attempt in 0..2 {
        let transaction = blobs.transaction().unwrap();
        let pin = transaction.add(bytes(attempt, 100)).await.unwrap();
        transaction.edit(edit("key")).unwrap();
        transaction.expect(absent.clone()).unwrap();
        let committed = transaction.commit().await;
        if attempt == 0 {
            let revision = committed.unwrap().unwrap();
            let entry = collections.get(NOTES, "key").await.unwrap().unwrap();
            assert_eq!(entry.revision, revision);
        } else {
            assert_eq!(committed.unwrap_err().kind(), Kind::Conflict);
            assert_eq!(blobs.status(pin.hash()).await.unwrap(), None);
        }
    }
    let transaction = blobs.transaction().unwrap();
    let reserved = Edit::Delete {
        collection: CollectionId::from_static("larder/tags"),
        key: "tag".into(),
    };
    assert_eq!(transaction.edit(reserved).unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn records_of_another_store_are_refused() {
    let (blobs, store) = engine().await;
    let (_, id, writer) = record(&blobs, 1).await;
    let others = Records::new(Collections::new(store));
    let state = others.slot(id, 0).await.unwrap();
    let transaction = blobs.transaction().unwrap();
    let put = transaction.put_slot(&others, &state, write("value", &writer));
    assert_eq!(put.await.unwrap_err().kind(), Kind::Invalid);
}

/// In a store that accepts 128 expectations and edits, the blobs are committed first, and everything
/// that refers to them last.
#[tokio::test]
async fn what_is_too_much_for_one_commit_is_said_last() {
    let store = Arc::new(StrictStore::new());
    let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
    let most = CollectionStore::capabilities(&*store).max_batch_len;
    assert!(most < 300, "the store takes all of it in one commit");
    let mut changes = store.watch().unwrap();
    let transaction = blobs.transaction().unwrap();
    let all: Vec<_> = (0..200).map(|seed| bytes(seed, 100)).collect();
    let hashed = all.iter().cloned().map(Hashed::new).collect();
    transaction.add_all(hashed).await.unwrap();
    transaction.add(bytes(0, 100_000)).await.unwrap();
    for n in 0..50 {
        let name = TagName::new(format!("tag {n:02}")).unwrap();
        let root = Root::raw(Hash::EMPTY);
        transaction.set_tag(name, root).await.unwrap();
    }
    let last = transaction.commit().await.unwrap().unwrap();
    let mut commits = Vec::new();
    while let Some(Some(Ok(change))) = changes.next().now_or_never() {
        let Change::Keys {
            collection,
            revision,
            ..
        } = change
        else {
            panic!("the watcher is not behind");
        };
        if collection.to_string() == "larder/tags" {
            assert_eq!(revision, last);
        }
        commits.push(revision);
    }
    assert!(commits.iter().all(|revision| *revision <= last));
    commits.dedup();
    assert!(commits.len() > 3);
    assert_eq!(blobs.tags().list(..).count().await, 50);
    for data in &all {
        assert_has(&blobs, data).await;
    }
    let transaction = blobs.transaction().unwrap();
    for n in 0..most {
        let name = TagName::new(format!("tag {n:02}")).unwrap();
        let root = Root::raw(Hash::EMPTY);
        transaction.set_tag(name, root).await.unwrap();
    }
    let refused = transaction.commit().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::TooLarge);
    assert_eq!(store.violations(), [""; 0]);
}

/// Memory is bounded: the first of many blobs are committed before the rest, and can be read all the
/// time.
#[tokio::test]
async fn what_is_too_much_for_memory_is_committed_first() {
    let (blobs, _) = engine().await;
    let transaction = blobs.transaction().unwrap();
    let count = (MAX_STAGED_BYTES / 16_000 + 100) as u64;
    for seed in 0..count {
        transaction.add(bytes(seed, 16_000)).await.unwrap();
    }
    assert!(blobs.list().count().await > 0);
    for seed in 0..count {
        let hash = Hash::of(bytes(seed, 16_000));
        let read = transaction.read_to_bytes(hash, 0..16_000).await;
        assert!(read.unwrap() == bytes(seed, 16_000));
    }
    // The transaction keeps them.
    std::thread::sleep(Duration::from_millis(2));
    let collected = blobs.collect(SystemTime::now()).await.unwrap();
    assert_eq!(collected.deleted, 0);
    transaction.commit().await.unwrap();
    assert_eq!(blobs.list().count().await as u64, count);
}

#[tokio::test]
async fn after_a_failure_it_is_over() {
    let faults = Faults::seeded(1);
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
    let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
    let transaction = blobs.transaction().unwrap();
    transaction.add(bytes(1, 100_000)).await.unwrap();
    let full = Fault::Error(Kind::Full);
    faults.inject(Operation::Commit, When::Always, full);
    for _ in 0..2 {
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Full);
    }
    assert_eq!(transaction.begin_again().unwrap_err().kind(), Kind::Full);
    drop(transaction);
    faults.clear();
    blobs.close().await.unwrap();
    assert_eq!(BlobStore::list(&*store, None).count().await, 0);
}

/// Tests that a blob is kept if a transaction that tags it commits while a collection runs.
#[tokio::test]
async fn what_is_tagged_while_collecting_stays() {
    let (blobs, _) = engine().await;
    let kept = blobs.add(bytes(1, 100)).await.unwrap().hash();
    std::thread::sleep(Duration::from_millis(2));
    let transaction = blobs.transaction().unwrap();
    let tag = transaction.set_tag(name("tag"), Root::raw(kept));
    tag.await.unwrap();
    let collected = blobs.collect(SystemTime::now()).await.unwrap();
    assert_eq!(collected.deleted, 0);
    transaction.commit().await.unwrap();
    drop(transaction);
    let collected = blobs.collect(SystemTime::now()).await.unwrap();
    assert_eq!(collected.deleted, 0);
}

/// In a store without a watch of its own, watchers of its collections receive every commit.
#[tokio::test]
async fn watchers_hear_of_every_commit() {
    let store = Arc::new(StrictStore::new().without_watch());
    let collections = Collections::new(store.clone());
    let blobs = Blobs::open(store, collections.clone()).await.unwrap();
    let mut changes = collections.watch();
    let mut heard = async || match changes.next().await {
        Some(Ok(Change::Keys { collection, .. })) => collection.to_string(),
        other => panic!("{other:?}"),
    };
    let pin = blobs.add("hello").await.unwrap();
    assert_eq!(heard().await, "larder/blobs");
    blobs.tags().set(name("tag"), pin.root()).await.unwrap();
    assert_eq!(heard().await, "larder/tags");
    let transaction: Transaction = blobs.transaction().unwrap();
    transaction.edit(edit("key")).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(heard().await, "notes");
}

/// A slot that is put while the transaction is being committed comes too late, and its caller gets an
/// error.
#[tokio::test]
async fn a_slot_that_comes_while_it_is_committed_is_refused() {
    let gate = Gate::new();
    let store = Arc::new(GatedStore::new(MemoryStore::new(), gate.clone()));
    let blobs = Blobs::open(store.clone(), store).await.unwrap();
    let (records, id, writer) = record(&blobs, 2).await;
    let transaction = blobs.transaction().unwrap();
    transaction.edit(edit("a")).unwrap();
    let slots = [0, 1].map(|slot| records.slot(id, slot));
    let [first, second] = slots.map(|slot| slot.now_or_never().unwrap().unwrap());
    gate.close();
    let mut first = Box::pin(transaction.put_slot(&records, &first, write("1", &writer)));
    assert!(first.as_mut().now_or_never().is_none());
    let mut committing = Box::pin(transaction.commit());
    assert!(committing.as_mut().now_or_never().is_none());
    let mut second = Box::pin(transaction.put_slot(&records, &second, write("2", &writer)));
    assert!(second.as_mut().now_or_never().is_none());
    gate.open();
    let (first, committed, second) = tokio::join!(first, committing, second);
    first.unwrap();
    committed.unwrap();
    let refused = second.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
}

/// Data exists because of a commit that is not durable yet. A call that then acknowledges it makes that
/// commit durable first.
#[tokio::test]
async fn what_is_there_without_being_durable_is_made_so_by_who_acknowledges_it() {
    /// Commits without a sync, then runs `then`, and returns true if the blob is there after a loss of
    /// power.
    async fn stays(then: impl AsyncFnOnce(&Blobs, &Records, RecordId, Signed)) -> bool {
        let store = PowerStore::new();
        let blobs = Blobs::open(Arc::new(store.clone()), Arc::new(store.clone()));
        let blobs = blobs.await.unwrap();
        let (records, id, writer) = record(&blobs, 1).await;
        let transaction = blobs.transaction().unwrap();
        let pin = transaction.add("a blob").await.unwrap();
        let slot = records.slot(id, 0).await.unwrap();
        let signed = sign(id, 0, 1, "value".into(), &writer).unwrap();
        let import = PutRecord::Import(signed.clone());
        transaction.put_slot(&records, &slot, import).await.unwrap();
        transaction.commit_with(Durability::OnSync).await.unwrap();
        then(&blobs, &records, id, signed).await;
        // Any of them may be gone.
        let mut stays = true;
        for seed in 0..32 {
            let store = Arc::new(store.lose_power(seed));
            let blobs = Blobs::open(store.clone(), store).await.unwrap();
            stays &= blobs.status(pin.hash()).await.unwrap().is_some();
        }
        stays
    }

    assert!(!stays(async |_, _, _, _| {}).await, "it was durable");
    assert!(
        stays(async |blobs, _, _, _| blobs.make_durable().await.unwrap()).await,
        "made durable"
    );
    assert!(
        stays(async |blobs, _, _, _| drop(blobs.add("a blob").await.unwrap())).await,
        "added"
    );
    assert!(
        stays(async |blobs, _, _, _| {
            let transaction = blobs.transaction().unwrap();
            transaction.add("a blob").await.unwrap();
            assert_eq!(transaction.commit().await.unwrap(), None);
        })
        .await,
        "in a transaction"
    );
    assert!(
        stays(async |blobs, _, _, _| {
            let import = blobs.import(Hash::of(b"a blob"), 6, Trust::Untrusted).await;
            let here = import.unwrap().finish().await.unwrap();
            assert!(here.is_complete());
        })
        .await,
        "imported"
    );
    assert!(
        stays(async |_, records, id, signed| {
            let put = records.put(id, 0, PutRecord::Import(signed)).await.unwrap();
            assert!(matches!(put, Put::Published { .. }));
        })
        .await,
        "put"
    );
}
