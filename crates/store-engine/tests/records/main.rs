//! Tests of what `Records` promises to its callers, over a full store and over the most limited one.
#![allow(missing_docs)]

mod damage;
mod forget;
mod format;
mod limits;
mod put;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod values;
mod watch;

use std::sync::Arc;

use larder_store_api::{
    Batch, Bytes, CollectionId, CollectionStore, Edit, Freshness, Kind, Put, PutRecord,
    RecordDescriptor, RecordId, RecordMember, RecordStore, SecretKey, SeqExpect, Signed, Slot,
    SlotSeq,
};
use larder_store_engine::{Collections, Records, generate_key, public_key, record_id};
use larder_store_testkit::MemoryStore;
use support::BareStore;

pub const RECORDS: CollectionId = CollectionId::from_static("larder/records");
pub const SLOTS: CollectionId = CollectionId::from_static("larder/slots");

pub fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// Returns a descriptor: slots 0 and 1 belong to the owner (key 1), 2 to key 2, 3 and 4 to key 3.
pub fn descriptor() -> RecordDescriptor {
    let member = |n, slots| RecordMember {
        key: public_key(&secret(n)),
        slots,
    };
    RecordDescriptor {
        owner: public_key(&secret(1)),
        owner_slots: 2,
        members: vec![member(2, 1), member(3, 2)],
    }
}

/// Returns the descriptor of a record that belongs to key 1 alone.
pub fn owned(slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner: public_key(&secret(1)),
        owner_slots: slots,
        members: Vec::new(),
    }
}

pub fn over(store: impl CollectionStore) -> Records {
    Records::new(Collections::new(Arc::new(store)))
}

pub fn each() -> [Records; 2] {
    [over(MemoryStore::new()), over(BareStore::new())]
}

pub fn write(value: impl Into<Bytes>, writer: u8, expect: SeqExpect) -> PutRecord {
    PutRecord::Write {
        value: value.into(),
        writer: secret(writer),
        expect,
    }
}

pub async fn read(records: &Records, id: RecordId, slot: Slot) -> Option<Signed> {
    let got = records.get(id, slot, Freshness::Local).await;
    got.expect("a slot that can be read")
}

pub async fn seqs(records: &Records, id: RecordId) -> Vec<(Slot, u64)> {
    let found = records.inspect(id, 0..Slot::MAX, Freshness::Local).await;
    let pair = |found: SlotSeq| (found.slot, found.seq);
    found
        .expect("an inspection")
        .into_iter()
        .map(pair)
        .collect()
}

/// Writes directly into the store, as damage or another program would.
pub async fn overwrite(
    store: &impl CollectionStore,
    collection: CollectionId,
    key: impl Into<Bytes>,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let key = key.into();
    let entry = store.get(collection.clone(), key.clone()).await.unwrap();
    let mut value = entry.expect("an entry to damage").value.to_vec();
    change(&mut value);
    let edit = Edit::Put {
        collection,
        key,
        value: value.into(),
    };
    store.commit(Batch::of(vec![edit])).await.unwrap();
}

pub fn slot_key(id: RecordId, slot: Slot) -> Vec<u8> {
    [&id.0[..], &slot.to_be_bytes()].concat()
}

#[tokio::test]
async fn what_is_put_is_read_with_its_proof() {
    for records in each() {
        let id = records.create(descriptor()).await.unwrap();
        assert_eq!(id, record_id(&descriptor()).unwrap());
        assert_eq!(read(&records, id, 3).await, None);
        let put = records
            .put(id, 3, write("hello", 3, SeqExpect::Absent))
            .await;
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
        for fresh in [
            Freshness::Local,
            Freshness::LocalThenNetwork,
            Freshness::Network,
        ] {
            let signed = records.get(id, 3, fresh).await.unwrap().expect("was put");
            assert_eq!((&signed.value[..], signed.seq), (&b"hello"[..], 1));
            assert_eq!(signed.writer, public_key(&secret(3)));
            larder_store_engine::verify(id, 3, &signed).unwrap();
        }
        assert_eq!(read(&records, id, 4).await, None);
    }
}

#[tokio::test]
async fn creating_again_changes_nothing() {
    for records in each() {
        let id = records.create(descriptor()).await.unwrap();
        let put = write("hello", 1, SeqExpect::Any);
        records.put(id, 0, put).await.unwrap();
        assert_eq!(records.create(descriptor()).await.unwrap(), id);
        assert_eq!(read(&records, id, 0).await.expect("still there").seq, 1);
        assert_eq!(records.descriptor(id).await.unwrap(), Some(descriptor()));
        let other = records.create(owned(1)).await.unwrap();
        assert_ne!(other, id);
        assert_eq!(read(&records, other, 0).await, None);
    }
}

#[tokio::test]
async fn an_unknown_record_is_not_found_and_an_unknown_slot_invalid() {
    for records in each() {
        let unknown = record_id(&owned(7)).unwrap();
        let errors = [
            records.get(unknown, 0, Freshness::Local).await.unwrap_err(),
            records
                .put(unknown, 0, write("a", 1, SeqExpect::Any))
                .await
                .unwrap_err(),
            records
                .inspect(unknown, 0..1, Freshness::Local)
                .await
                .unwrap_err(),
        ];
        for (error, verb) in errors.iter().zip(["get", "put", "inspect"]) {
            assert_eq!(error.kind(), Kind::NotFound);
            assert_eq!(
                error.to_string(),
                format!(
                    "records.{verb}: not found: the record is not known to this store \
                     (record={unknown})"
                )
            );
        }
        assert_eq!(records.descriptor(unknown).await.unwrap(), None);

        let id = records.create(descriptor()).await.unwrap();
        let errors = [
            records.get(id, 5, Freshness::Local).await.unwrap_err(),
            records
                .put(id, 5, write("a", 1, SeqExpect::Any))
                .await
                .unwrap_err(),
        ];
        for (error, verb) in errors.iter().zip(["get", "put"]) {
            assert_eq!(error.kind(), Kind::Invalid);
            assert_eq!(
                error.to_string(),
                format!("records.{verb}: invalid: the record has 5 slots (record={id}, slot=5)")
            );
        }
    }
}

#[tokio::test]
async fn inspect_lists_the_slots_that_have_values_in_order() {
    for records in each() {
        let id = records.create(owned(1024)).await.unwrap();
        let other = records.create(descriptor()).await.unwrap();
        let any = |value: &'static str| write(value, 1, SeqExpect::Any);
        records
            .put(other, 1, any("another record's"))
            .await
            .unwrap();
        for slot in [1023, 256, 2, 0, 2, 255] {
            records.put(id, slot, any("value")).await.unwrap();
        }
        let all = [(0, 1), (2, 2), (255, 1), (256, 1), (1023, 1)];
        assert_eq!(seqs(&records, id).await, all);
        let some = records
            .inspect(id, 2..256, Freshness::Network)
            .await
            .unwrap();
        let some: Vec<_> = some.into_iter().map(|s| (s.slot, s.seq)).collect();
        assert_eq!(some, all[1..3]);
        for (start, end) in [(3, 255), (7, 7), (9, 2)] {
            let none = records.inspect(id, start..end, Freshness::Local).await;
            assert_eq!(none.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn records_are_a_record_store_behind_a_pointer() {
    let records: Arc<dyn RecordStore> = Arc::new(over(MemoryStore::new()));
    assert_eq!(records.name(), "memory");
    let key = generate_key().unwrap();
    let descriptor = RecordDescriptor {
        owner: public_key(&key),
        ..owned(1)
    };
    let id = records.create(descriptor).await.unwrap();
    let put = PutRecord::Write {
        value: Bytes::from_static(b"mine"),
        writer: key,
        expect: SeqExpect::Absent,
    };
    let put = records.put(id, 0, put).await.unwrap();
    assert_eq!(put, Put::Published { seq: 1 });
    assert_ne!(
        generate_key().unwrap().expose(),
        generate_key().unwrap().expose()
    );
}
