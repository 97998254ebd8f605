//! Tests that faults take effect as defined, and that power fails as documented.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use larder_store_api::{
    Batch, BlobStore, Block, Bytes, CollectionId, CollectionStore, Durability, Edit, Kind, Part,
    PayloadId, Result, Scan,
};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, PowerStore, StrictStore, When},
};

const NAMES: CollectionId = CollectionId::from_static("names");
const LEN: usize = 16 * 1024;

fn id(n: u8) -> PayloadId {
    PayloadId([n; 16])
}

fn block(index: u64, fill: u8, len: usize) -> Block {
    Block {
        part: Part::Data,
        index,
        bytes: vec![fill; len].into(),
    }
}

fn put(key: u8, len: usize) -> Batch {
    Batch::of(vec![Edit::Put {
        collection: NAMES,
        key: Bytes::copy_from_slice(&[key]),
        value: vec![0; len].into(),
    }])
}

fn delete(key: u8) -> Batch {
    Batch::of(vec![Edit::Delete {
        collection: NAMES,
        key: Bytes::copy_from_slice(&[key]),
    }])
}

fn faulty(seed: u64) -> (FaultyStore<MemoryStore>, Faults) {
    let faults = Faults::seeded(seed);
    (FaultyStore::new(MemoryStore::new(), faults.clone()), faults)
}

async fn byte(store: &dyn BlobStore, index: u64, at: usize) -> Option<u8> {
    let start = index * LEN as u64 + at as u64;
    match store.read(id(1), Part::Data, start..start + 1).await {
        Ok(bytes) => Some(bytes[0]),
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

async fn keys(store: &dyn CollectionStore) -> Vec<u8> {
    let entries = store.scan(Scan::all(NAMES)).map_ok(|entry| entry.key[0]);
    entries.try_collect().await.expect("a scan succeeds")
}

#[tokio::test]
async fn errors_strike_the_calls_that_they_name() {
    let (store, faults) = faulty(1);
    faults.inject(
        Operation::Get,
        When::Nth(2),
        Fault::Error(Kind::Unavailable),
    );
    faults.inject(Operation::Commit, When::From(2), Fault::Error(Kind::Full));
    let get = || store.get(NAMES, Bytes::new());
    assert!(get().await.is_ok());
    assert_eq!(
        get().await.expect_err("the second").kind(),
        Kind::Unavailable
    );
    assert!(get().await.is_ok());
    store.commit(put(1, 1)).await.expect("the first");
    for _ in 0..3 {
        let error = store.commit(put(2, 1)).await.expect_err("all after it");
        assert_eq!(
            error.to_string(),
            "collection.commit: no space left: injected by a test"
        );
    }
    assert_eq!(keys(&store).await, [1], "nothing of it was done");
    assert_eq!((faults.calls(Operation::Get), faults.struck()), (3, 4));
    faults.clear();
    store
        .commit(put(2, 1))
        .await
        .expect("nothing is wrong any more");
}

#[tokio::test]
async fn chance_is_the_same_for_the_same_seed() {
    async fn outcomes(seed: u64) -> Vec<bool> {
        let (store, faults) = faulty(seed);
        faults.inject(
            Operation::Delete,
            When::Chance(0.3),
            Fault::Error(Kind::Internal),
        );
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            outcomes.push(store.delete(vec![id(1)]).await.is_ok());
        }
        outcomes
    }
    let first = outcomes(1).await;
    assert_eq!(first, outcomes(1).await);
    assert_ne!(first, outcomes(2).await);
    let failed = first.iter().filter(|ok| !**ok).count();
    assert!((30..90).contains(&failed), "{failed} of 200 failed");
}

#[tokio::test]
async fn listings_fail_after_a_few_items_and_end() {
    let (store, faults) = faulty(1);
    for n in 0..20 {
        store.commit(put(n, 1)).await.expect("a commit succeeds");
    }
    faults.inject(Operation::Scan, When::Always, Fault::Error(Kind::Corrupt));
    let mut lengths = BTreeSet::new();
    for _ in 0..50 {
        let items: Vec<_> = store.scan(Scan::all(NAMES)).collect().await;
        let (last, before) = items.split_last().expect("there is an error");
        assert_eq!(last.as_ref().expect_err("it is last").kind(), Kind::Corrupt);
        assert!(before.iter().all(Result::is_ok));
        lengths.insert(before.len());
    }
    assert!(lengths.len() > 3, "it fails at various places: {lengths:?}");
}

#[tokio::test]
async fn torn_writes_leave_some_and_tear_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let (store, faults) = faulty(seed);
        let old = (0..3).map(|n| block(n, 1, LEN)).collect();
        store.write(id(1), old).await.expect("a write succeeds");
        faults.inject(
            Operation::Write,
            When::Always,
            Fault::Torn(Kind::Unavailable),
        );
        let new = (0..3).map(|n| block(n, 2, LEN)).collect();
        let error = store.write(id(1), new).await.expect_err("it is torn");
        assert_eq!(error.kind(), Kind::Unavailable);
        let whole = store.read(id(1), Part::Data, 0..3 * LEN as u64).await;
        let whole = whole.expect("a read succeeds");
        let new = whole.iter().take_while(|byte| **byte == 2).count();
        assert!(whole[new..].iter().all(|byte| *byte == 1), "old after new");
        seen.insert(new / LEN);
    }
    assert_eq!(
        seen,
        BTreeSet::from([0, 1, 2]),
        "it tears any of the blocks"
    );
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_breaks_the_store_until_it_is_opened_again() {
    let (store, faults) = faulty(1);
    faults.inject(
        Operation::Commit,
        When::Nth(1),
        Fault::LostAnswer(Kind::Unavailable),
    );
    let error = store
        .commit(put(1, 1))
        .await
        .expect_err("the answer is lost");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(keys(&store).await, [1], "it was done");
    let error = store.commit(put(2, 1)).await.expect_err("it cannot know");
    assert_eq!(error.kind(), Kind::Internal);
    faults.reopen();
    store.commit(put(2, 1)).await.expect("it knows again");
}

#[tokio::test]
async fn a_flipped_bit_is_one_bit() {
    let (store, faults) = faulty(1);
    let written = store.write(id(1), vec![block(0, 0, LEN)]).await;
    written.expect("a write succeeds");
    faults.inject(Operation::Read, When::Always, Fault::FlippedBit);
    let read = store.read(id(1), Part::Data, 0..LEN as u64).await;
    let read = read.expect("a read succeeds");
    assert_eq!(read.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[tokio::test(start_paused = true)]
async fn delays_and_hangs_follow_the_clock_of_the_test() {
    let (store, faults) = faulty(1);
    let hour = Duration::from_secs(3600);
    faults.inject(Operation::Get, When::Nth(1), Fault::Delay(hour));
    faults.inject(
        Operation::Get,
        When::Nth(1),
        Fault::Error(Kind::Unavailable),
    );
    faults.inject(Operation::Get, When::Nth(2), Fault::Hang);
    let start = tokio::time::Instant::now();
    let slow = store.get(NAMES, Bytes::new()).await;
    assert_eq!(slow.expect_err("after the delay").kind(), Kind::Unavailable);
    assert_eq!(start.elapsed(), hour);
    let hung = tokio::time::timeout(hour, store.get(NAMES, Bytes::new())).await;
    assert!(hung.is_err());
    assert!(store.get(NAMES, Bytes::new()).now_or_never().is_some());
}

#[tokio::test]
async fn a_full_disk_takes_what_fits_and_goes_on_once_freed() {
    let (store, faults) = faulty(1);
    faults.limit_space(Some(3 * LEN as u64));
    store
        .write(id(2), vec![block(0, 1, LEN)])
        .await
        .expect("it fits");
    let three = (0..3).map(|n| block(n, 1, LEN)).collect();
    let error = store
        .write(id(1), three)
        .await
        .expect_err("it does not fit");
    assert_eq!(error.kind(), Kind::Full);
    assert_eq!(byte(&store, 1, 0).await, Some(1), "two of three fit");
    assert_eq!(byte(&store, 2, 0).await, None);
    assert_eq!(faults.used_space(), 3 * LEN as u64);

    let error = store.commit(put(1, 100)).await.expect_err("nothing fits");
    assert_eq!(error.kind(), Kind::Full);
    assert_eq!(keys(&store).await, [] as [u8; 0]);
    store
        .write(id(2), vec![block(0, 9, LEN)])
        .await
        .expect("replacing takes no space");
    store.delete(vec![id(1)]).await.expect("a delete succeeds");
    store
        .commit(put(1, 100))
        .await
        .expect("there is space again");
    store
        .commit(delete(1))
        .await
        .expect("deleting takes no space");
    assert_eq!(faults.used_space(), LEN as u64);
    faults.limit_space(Some(0));
    store
        .commit(put(1, 0))
        .await
        .expect_err("a key takes space");
    faults.limit_space(None);
    store.commit(put(1, 0)).await.expect("no limit");
}

#[tokio::test]
async fn power_loss_keeps_loses_and_tears_what_was_not_synced() {
    let store = PowerStore::new();
    store
        .write(id(1), vec![block(0, 1, LEN)])
        .await
        .expect("a write succeeds");
    BlobStore::sync(&store, vec![id(1)])
        .await
        .expect("a sync succeeds");
    let blocks = vec![block(0, 2, LEN), block(1, 2, LEN)];
    store.write(id(1), blocks).await.expect("a write succeeds");
    assert_eq!(byte(&store, 0, 0).await, Some(2), "visible at once");

    let mut fates = BTreeSet::new();
    for seed in 0..60 {
        let store = store.lose_power(seed);
        let again = byte(&store, 0, 0).await.expect("synced data stays");
        let torn = byte(&store, 0, LEN - 1).await.expect("synced data stays");
        let second = byte(&store, 1, LEN - 1).await;
        fates.insert((again, torn, second));
        let all_known = [again, torn].iter().all(|byte| [1, 2].contains(byte));
        assert!(all_known && [None, Some(0), Some(2)].contains(&second));
    }
    for fate in [
        (1, 1, None),
        (2, 2, Some(2)),
        (2, 1, Some(0)),
        (1, 1, Some(2)),
    ] {
        assert!(fates.contains(&fate), "{fate:?} among {fates:?}");
    }
    let closed = store.read(id(1), Part::Data, 0..1).await;
    assert_eq!(closed.expect_err("the power is off").kind(), Kind::Closed);
}

#[tokio::test]
async fn power_loss_drops_a_suffix_of_weak_commits() {
    let mut kept = BTreeSet::new();
    for seed in 0..60 {
        let store = PowerStore::new();
        for n in 0..8 {
            let mut batch = put(n, 1);
            if n != 3 {
                batch.durability = Durability::OnSync;
            }
            store.commit(batch).await.expect("a commit succeeds");
            if n == 4 {
                CollectionStore::sync(&store)
                    .await
                    .expect("a sync succeeds");
            }
        }
        let keys = keys(&store.lose_power(seed)).await;
        assert!(keys.starts_with(&[0, 1, 2, 3, 4]), "{keys:?}");
        assert!(
            keys.iter().copied().eq(0..keys.len() as u8),
            "{keys:?} has a gap"
        );
        kept.insert(keys.len());
    }
    assert_eq!(kept, BTreeSet::from([5, 6, 7, 8]));
}

#[tokio::test]
async fn power_can_fail_during_any_call() {
    async fn run(store: &PowerStore) -> Result<()> {
        store.write(id(1), vec![block(0, 1, LEN)]).await?;
        BlobStore::sync(store, vec![id(1)]).await?;
        store.commit(put(1, 1)).await?;
        store.delete(vec![id(1)]).await
    }
    let whole = PowerStore::new();
    run(&whole).await.expect("the power stays");
    assert_eq!(whole.calls(), 4);
    for call in 1..=4 {
        let store = PowerStore::new();
        store.cut_during(call);
        let error = run(&store).await.expect_err("the power fails");
        assert_eq!((error.kind(), store.calls()), (Kind::Closed, call));
        let mut claims = BTreeSet::new();
        for seed in 0..40 {
            let store = store.restore(seed);
            let claimed = keys(&store).await == [1];
            let there = byte(&store, 0, LEN - 1).await == Some(1);
            claims.insert((claimed, there));
        }
        let expected: &[(bool, bool)] = match call {
            1 | 2 => &[(false, false), (false, true)],
            3 => &[(false, true), (true, true)],
            _ => &[(true, false), (true, true)],
        };
        assert_eq!(claims, expected.iter().copied().collect(), "call {call}");
    }
}

#[tokio::test]
async fn a_lying_disk_loses_what_it_said_was_synced() {
    let faults = Faults::seeded(1);
    let power = PowerStore::new();
    let store = FaultyStore::new(power.clone(), faults.clone());
    faults.inject(Operation::SyncBlobs, When::Always, Fault::LostSync);
    store
        .write(id(1), vec![block(0, 1, LEN)])
        .await
        .expect("a write succeeds");
    BlobStore::sync(&store, vec![id(1)])
        .await
        .expect("it says so");
    let mut lost = 0;
    for seed in 0..20 {
        lost += usize::from(byte(&power.lose_power(seed), 0, 0).await.is_none());
    }
    assert!(lost > 0);
}

#[tokio::test]
async fn a_strict_store_catches_wrong_use() {
    let store = StrictStore::new();
    let len = BlobStore::capabilities(&store).block_len as usize;
    let write = |index| store.write(id(1), vec![block(index, 1, len)]);
    let (first, second) = tokio::join!(write(0), write(0));
    assert!(first.is_ok() && second.is_err(), "one block, two calls");
    let (first, second) = tokio::join!(write(0), write(1));
    assert!(first.is_ok() && second.is_ok(), "two blocks");
    let (written, deleted) = tokio::join!(write(0), store.delete(vec![id(1)]));
    assert!(written.is_ok() && deleted.is_err(), "deleted while written");
    // A cancelled write is over.
    drop(write(0).now_or_never());
    let (deleted, written) = tokio::join!(store.delete(vec![id(1)]), write(0));
    assert!(deleted.is_ok() && written.is_err(), "written while deleted");
    assert!(write(0).await.is_err(), "written after it was deleted");
    assert_eq!(
        store.violations(),
        [
            "blobs.write: internal error: a block is written by two calls at once",
            "blobs.delete: internal error: a payload is deleted while it is written",
            "blobs.write: internal error: a payload is written while it is deleted",
            "blobs.write: internal error: a payload is written after it was deleted",
        ]
        .map(|text| format!("{text} (payload={})", id(1)))
    );
}
