//! Tests that stored values are checked each time they are read: damage is never served, and can be
//! repaired.

use larder_store_api::{
    Batch, Bytes, CollectionStore, Edit, Error, Freshness, Kind, Put, PutRecord, RecordId,
    RecordStore, SeqExpect, Signed,
};
use larder_store_engine::{MAX_RECORD_LEN, MAX_VALUE_LEN, Records, record_format as format, sign};
use larder_store_testkit::MemoryStore;

use super::{RECORDS, SLOTS, descriptor, over, overwrite, owned, read, secret, slot_key, write};

/// Checks that every way to read slot 0 fails, and that writing to it fails too.
async fn refused(records: &Records, id: RecordId) -> Error {
    let get = records.get(id, 0, Freshness::Local).await.unwrap_err();
    let inspect = records.inspect(id, 0..1, Freshness::Local).await;
    let put = records.put(id, 0, write("new", 1, SeqExpect::Any)).await;
    for error in [&get, &inspect.unwrap_err(), &put.unwrap_err()] {
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    }
    get
}

#[tokio::test]
async fn every_bit_of_a_stored_value_matters() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(owned(1)).await.unwrap();
    records
        .put(id, 0, write("value", 1, SeqExpect::Any))
        .await
        .unwrap();
    let good = read(&records, id, 0).await.unwrap();
    let len = format::SIGNED_OVERHEAD + 5;
    for byte in 0..len {
        let flip = |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << (byte % 8);
        overwrite(&store, SLOTS, slot_key(id, 0), flip).await;
        refused(&records, id).await;
        overwrite(&store, SLOTS, slot_key(id, 0), flip).await;
    }
    for cut in 0..len {
        overwrite(&store, SLOTS, slot_key(id, 0), |bytes| bytes.truncate(cut)).await;
        refused(&records, id).await;
        overwrite(&store, SLOTS, slot_key(id, 0), |bytes| {
            *bytes = format::encode_signed(&good).unwrap().to_vec();
        })
        .await;
    }
    assert_eq!(read(&records, id, 0).await, Some(good));
}

#[tokio::test]
async fn the_texts_say_what_is_damaged() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(descriptor()).await.unwrap();
    records
        .put(id, 0, write("value", 1, SeqExpect::Any))
        .await
        .unwrap();
    let key = || slot_key(id, 0);

    overwrite(&store, SLOTS, key(), |bytes| bytes[0] = 2).await;
    assert_eq!(
        format!("{:?}", refused(&records, id).await),
        format!(
            "records.get: damaged: the slot's stored value does not decode (record={id}, slot=0): \
             record.decode: invalid: the bytes have a version that is not known here (version=2)"
        )
    );
    overwrite(&store, SLOTS, key(), |bytes| bytes[0] = 1).await;
    overwrite(&store, SLOTS, key(), |bytes| bytes.push(0)).await;
    let error = format!("{:?}", refused(&records, id).await);
    let text = format!(
        "records.get: damaged: the slot's stored value does not verify (record={id}, slot=0): \
         record.verify: denied: the signature does not hold (record={id}, slot=0): "
    );
    assert!(error.starts_with(&text), "{error}");
    let by_another = sign(id, 0, 1, Bytes::new(), &secret(2)).unwrap();
    let by_another = format::encode_signed(&by_another).unwrap();
    overwrite(&store, SLOTS, key(), |bytes| *bytes = by_another.to_vec()).await;
    assert_eq!(
        refused(&records, id).await.to_string(),
        format!(
            "records.get: damaged: the slot's stored value is by another writer (record={id}, \
             slot=0)"
        )
    );
    let stray = Edit::Put {
        collection: SLOTS,
        key: slot_key(id, 5).into(),
        value: by_another,
    };
    store.commit(Batch::of(vec![stray])).await.unwrap();
    let error = records
        .inspect(id, 1..9, Freshness::Local)
        .await
        .unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        format!(
            "records.inspect: damaged: a value is stored for a slot that the record does not have: \
             records.inspect: invalid: the record has 5 slots (record={id}, slot=5)"
        )
    );
}

#[tokio::test]
async fn a_damaged_record_is_not_read_as_another() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(descriptor()).await.unwrap();
    records
        .put(id, 0, write("value", 1, SeqExpect::Any))
        .await
        .unwrap();
    let key = || id.0.to_vec();
    let entry = store.get(RECORDS, key().into()).await.unwrap().unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damage: [(Damage, &str); 5] = [
        (|bytes| bytes[0] = 0, "entry does not decode"),
        (|bytes| bytes[1] = 2, "state is unknown"),
        (|bytes| bytes[2] = 0xff, "length is over the limit"),
        (|bytes| bytes[10] ^= 1, "descriptor is another's"),
        (|bytes| bytes.push(0), "entry does not decode"),
    ];
    for (damage, text) in damage {
        overwrite(&store, RECORDS, key(), damage).await;
        let error = refused(&records, id).await;
        assert_eq!(
            error.to_string(),
            format!("records.get: damaged: the record's stored {text} (record={id})")
        );
        let created = records.create(descriptor()).await;
        assert_eq!(created.unwrap_err().kind(), Kind::Corrupt);
        overwrite(&store, RECORDS, key(), |bytes| {
            *bytes = entry.value.to_vec()
        })
        .await;
    }
    assert_eq!(read(&records, id, 0).await.unwrap().value, "value");
}

#[tokio::test]
async fn an_import_heals_a_damaged_slot_and_the_records_sum() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(owned(34)).await.unwrap();
    let full = |slot: u16| write(vec![slot as u8; MAX_VALUE_LEN as usize], 1, SeqExpect::Any);
    for slot in 0..31 {
        records.put(id, slot, full(slot)).await.unwrap();
    }
    let kept = read(&records, id, 0).await.unwrap();
    // Truncated, so that its old length is unknown.
    overwrite(&store, SLOTS, slot_key(id, 0), |bytes| bytes.truncate(2000)).await;
    refused(&records, id).await;
    let bad = Signed {
        seq: 9,
        ..kept.clone()
    };
    let put = records.put(id, 0, PutRecord::Import(bad)).await;
    assert_eq!(put.unwrap_err().kind(), Kind::Denied);
    let put = records.put(id, 0, PutRecord::Import(kept.clone())).await;
    assert_eq!(put.unwrap(), Put::Published { seq: 1 });
    assert_eq!(read(&records, id, 0).await, Some(kept));
    // The sum is correct again: exactly one more value fits.
    assert_eq!(MAX_RECORD_LEN, 32 * MAX_VALUE_LEN);
    records.put(id, 31, full(31)).await.unwrap();
    let put = records.put(id, 32, write("1", 1, SeqExpect::Any)).await;
    assert_eq!(put.unwrap_err().kind(), Kind::TooLarge);
}
