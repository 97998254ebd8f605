//! Tests of reading the values of many slots at once: the same as one by one, and the intact ones after
//! damage.

use larder_store_api::{
    Batch, CollectionStore, Edit, Freshness, Kind, PutRecord, RecordStore, SeqExpect,
};
use larder_store_engine::MAX_SLOTS;
use larder_store_testkit::MemoryStore;

use super::{SLOTS, descriptor, each, over, overwrite, owned, read, slot_key, write};

#[tokio::test]
async fn all_values_are_those_that_each_slot_gives() {
    for records in each() {
        let id = records.create(descriptor()).await.unwrap();
        assert_eq!(records.values(id, 0..MAX_SLOTS).await.unwrap(), []);
        for (slot, writer) in [(0, 1), (2, 2), (3, 3)] {
            for n in 0..=slot {
                let put = write(format!("{slot} {n}"), writer, SeqExpect::Any);
                records.put(id, slot, put).await.unwrap();
            }
        }
        for slots in [0..MAX_SLOTS, 0..5, 0..0, 1..3, 2..3, 3..u16::MAX] {
            let mut expected = Vec::new();
            for slot in slots.clone().filter(|slot| *slot < 5) {
                expected.extend(read(&records, id, slot).await.map(|signed| (slot, signed)));
            }
            let values = records.values(id, slots.clone()).await.unwrap();
            assert_eq!(values, expected, "{slots:?}");
            let intact = records.intact(id, slots.clone()).await.unwrap();
            assert_eq!(intact.values, expected, "{slots:?}");
            assert!(intact.damaged.is_empty());
        }
        // Values of another record are not included.
        let other = records.create(owned(5)).await.unwrap();
        assert_eq!(records.values(other, 0..MAX_SLOTS).await.unwrap(), []);
        records.forget(id).await.unwrap();
        let error = records.values(id, 0..MAX_SLOTS).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
}

#[tokio::test]
async fn a_damaged_value_hides_no_other_and_is_told() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(owned(9)).await.unwrap();
    for slot in 0..9 {
        let put = write(format!("{slot}"), 1, SeqExpect::Any);
        records.put(id, slot, put).await.unwrap();
    }
    let before = records.values(id, 0..9).await.unwrap();
    overwrite(&store, SLOTS, slot_key(id, 2), |bytes| bytes.truncate(9)).await;
    overwrite(&store, SLOTS, slot_key(id, 7), |bytes| bytes[60] ^= 1).await;
    let intact = records.intact(id, 0..9).await.unwrap();
    let whole = before.iter().filter(|(slot, _)| ![2, 7].contains(slot));
    let whole: Vec<_> = whole.collect();
    assert_eq!(intact.values.iter().collect::<Vec<_>>(), whole);
    let damaged: Vec<_> = intact.damaged.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(damaged, [2, 7]);
    for (slot, error) in intact.damaged {
        assert_eq!(error.kind(), Kind::Corrupt);
        let got = records.get(id, slot, Freshness::Local).await.unwrap_err();
        assert_eq!(got.message(), error.message());
    }
    let error = records.values(id, 0..9).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    // Importing the same values repairs them.
    for slot in [2, 7] {
        let import = PutRecord::Import(before[usize::from(slot)].1.clone());
        records.put(id, slot, import).await.unwrap();
    }
    assert_eq!(records.values(id, 0..9).await.unwrap(), before);
    assert!(records.intact(id, 0..9).await.unwrap().damaged.is_empty());

    // An entry that is not a slot's value at all cannot be repaired by an import.
    let stray = Edit::Put {
        collection: SLOTS,
        key: slot_key(id, 9).into(),
        value: "stray".into(),
    };
    store.commit(Batch::of(vec![stray])).await.unwrap();
    let error = records.intact(id, 0..16).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}
