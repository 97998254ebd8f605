//! Tests of forgetting: it removes everything of a record and nothing else, and continues after an
//! interruption.

use futures_util::TryStreamExt;
use larder_store_api::{
    CollectionStore, Entry, Freshness, Kind, Put, RecordId, RecordStore, Scan, SeqExpect,
};
use larder_store_engine::Records;

use super::{
    RECORDS, SLOTS, descriptor, each, over, overwrite, owned, read, seqs, slot_key,
    support::BareStore, write,
};

const MANY: u16 = 1000;

/// Creates a record with a value in each of many slots: more than the most limited store deletes at
/// once.
async fn fill(records: &Records) -> RecordId {
    let id = records.create(owned(MANY)).await.unwrap();
    for slot in 0..MANY {
        let put = write("value", 1, SeqExpect::Absent);
        records.put(id, slot, put).await.unwrap();
    }
    id
}

/// Returns the numbers of entries in the records' collections.
async fn left(store: &impl CollectionStore) -> [usize; 2] {
    let count = async |collection| {
        let entries = store.scan(Scan::all(collection));
        let entries: Vec<Entry> = entries.try_collect().await.unwrap();
        entries.len()
    };
    [count(RECORDS).await, count(SLOTS).await]
}

#[tokio::test]
async fn nothing_is_left_and_others_are_spared() {
    for records in each() {
        let id = fill(&records).await;
        let other = records.create(descriptor()).await.unwrap();
        let put = write("other", 1, SeqExpect::Any);
        records.put(other, 0, put).await.unwrap();
        records.forget(id).await.unwrap();
        let error = records.get(id, 0, Freshness::Local).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(records.descriptor(id).await.unwrap(), None);
        records.forget(id).await.unwrap();
        assert_eq!(read(&records, other, 0).await.unwrap().value, "other");

        // The record can be created again, and starts empty.
        assert_eq!(records.create(owned(MANY)).await.unwrap(), id);
        assert_eq!(seqs(&records, id).await, []);
        let put = records.put(id, 0, write("a", 1, SeqExpect::Absent)).await;
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
    }
}

#[tokio::test]
async fn what_fits_in_one_batch_goes_in_one() {
    let store = BareStore::new();
    let records = over(store.clone());
    let id = records.create(owned(MANY)).await.unwrap();
    for slot in 0..126 {
        let put = write("value", 1, SeqExpect::Absent);
        records.put(id, slot, put).await.unwrap();
    }
    let before = store.commits();
    records.forget(id).await.unwrap();
    assert_eq!(store.commits() - before, 1);
    assert_eq!(left(&store).await, [0, 0]);
}

#[tokio::test]
async fn an_interrupted_forget_is_finished_by_the_next_one() {
    let store = BareStore::new();
    let records = over(store.clone());
    let id = fill(&records).await;
    for done in 1..=3 {
        store.fail_commits_after(done);
        let error = records.forget(id).await.unwrap_err();
        assert_eq!(error.to_string(), "bare.commit: unavailable: as told");
        // It is gone for everybody already, as a whole.
        let known = records.get(id, 999, Freshness::Local).await;
        assert_eq!(known.unwrap_err().kind(), Kind::NotFound);
        let put = records.put(id, 0, write("a", 1, SeqExpect::Any)).await;
        assert_eq!(put.unwrap_err().kind(), Kind::NotFound);
        let seen = records.inspect(id, 0..9, Freshness::Local).await;
        assert_eq!(seen.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(left(&store).await[0], 1);
    }
    store.fail_commits_after(usize::MAX);
    records.forget(id).await.unwrap();
    assert_eq!(left(&store).await, [0, 0]);
}

#[tokio::test]
async fn creating_after_an_interrupted_forget_brings_nothing_back() {
    let store = BareStore::new();
    let records = over(store.clone());
    let id = fill(&records).await;
    store.fail_commits_after(2);
    records.forget(id).await.unwrap_err();
    assert!(left(&store).await[1] > 0);
    store.fail_commits_after(usize::MAX);
    assert_eq!(records.create(owned(MANY)).await.unwrap(), id);
    assert_eq!(seqs(&records, id).await, []);
    assert_eq!(left(&store).await, [1, 0]);
}

#[tokio::test]
async fn a_damaged_record_can_be_forgotten() {
    let store = BareStore::new();
    let records = over(store.clone());
    let id = fill(&records).await;
    overwrite(&store, RECORDS, id.0.to_vec(), |bytes| bytes.clear()).await;
    overwrite(&store, SLOTS, slot_key(id, 3), |bytes| bytes.clear()).await;
    let error = records.get(id, 0, Freshness::Local).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    records.forget(id).await.unwrap();
    assert_eq!(left(&store).await, [0, 0]);
}

#[tokio::test]
async fn puts_and_forgets_at_once_leave_no_stray_value() {
    for seed in 0..40 {
        let store = BareStore::new();
        let (here, there) = (over(store.clone()), over(store.clone()));
        let id = here.create(owned(64)).await.unwrap();
        let puts = (0..64).map(|slot| {
            let records = [&here, &there][usize::from(slot % 2)].clone();
            tokio::spawn(async move {
                for _ in 0..(slot + seed) % 7 {
                    tokio::task::yield_now().await;
                }
                // Empty values do not change the sum, and must be noticed nevertheless.
                let value = vec![0; usize::from(seed % 2 * (slot % 3))];
                records.put(id, slot, write(value, 1, SeqExpect::Any)).await
            })
        });
        let puts: Vec<_> = puts.collect();
        for _ in 0..seed % 5 {
            tokio::task::yield_now().await;
        }
        there.forget(id).await.unwrap();
        for put in puts {
            match put.await.unwrap() {
                Ok(put) => assert_eq!(put, Put::Published { seq: 1 }),
                Err(error) => assert_eq!(error.kind(), Kind::NotFound),
            }
        }
        assert_eq!(left(&store).await, [0, 0]);
    }
}
