//! Tests of permissions, of which value wins, and that concurrent writers lose nothing.

use std::sync::Arc;

use larder_store_api::{
    Bytes, CollectionStore, Error, Kind, Put, PutRecord, RecordId, RecordStore, SeqExpect, Signed,
    Slot,
};
use larder_store_engine::{Collections, Records, public_key, sign};
use larder_store_testkit::MemoryStore;

use super::{
    RECORDS, descriptor, each, over, owned, read, secret, seqs, support::BareStore, write,
};

fn signed(id: RecordId, slot: Slot, seq: u64, value: &'static str, writer: u8) -> Signed {
    let value = Bytes::from_static(value.as_bytes());
    sign(id, slot, seq, value, &secret(writer)).unwrap()
}

async fn import(
    records: &Records,
    id: RecordId,
    slot: Slot,
    signed: &Signed,
) -> Result<Put, Error> {
    records
        .put(id, slot, PutRecord::Import(signed.clone()))
        .await
}

#[tokio::test]
async fn an_expectation_that_does_not_hold_writes_nothing() {
    for records in each() {
        let id = records.create(owned(1)).await.unwrap();
        let put = async |value: &'static str, expect| {
            records.put(id, 0, write(value, 1, expect)).await.unwrap()
        };
        let absent = Put::Superseded { current: None };
        assert_eq!(put("early", SeqExpect::At(1)).await, absent);
        assert_eq!(put("early", SeqExpect::At(0)).await, absent);
        let published = |seq| Put::Published { seq };
        assert_eq!(put("one", SeqExpect::Absent).await, published(1));
        assert_eq!(put("two", SeqExpect::At(1)).await, published(2));
        assert_eq!(put("three", SeqExpect::Any).await, published(3));
        let current = read(&records, id, 0).await;
        assert_eq!(current.as_ref().unwrap().value, "three");
        for expect in [SeqExpect::Absent, SeqExpect::At(2), SeqExpect::At(4)] {
            let Put::Superseded { current: found } = put("late", expect).await else {
                panic!("{expect:?} does not hold");
            };
            assert_eq!(found, current);
        }
        assert_eq!(read(&records, id, 0).await, current);
    }
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    for records in each() {
        let id = records.create(owned(2)).await.unwrap();
        let put = write("", 1, SeqExpect::Absent);
        records.put(id, 1, put).await.unwrap();
        assert_eq!(read(&records, id, 1).await.unwrap().value, "");
        let again = records.put(id, 1, write("", 1, SeqExpect::Absent)).await;
        assert!(matches!(
            again.unwrap(),
            Put::Superseded { current: Some(_) }
        ));
        assert_eq!(seqs(&records, id).await, [(1, 1)]);
    }
}

#[tokio::test]
async fn only_its_writer_writes_a_slot() {
    for records in each() {
        let id = records.create(descriptor()).await.unwrap();
        let owners = [1, 1, 2, 3, 3];
        for (slot, owner) in (0..).zip(owners) {
            for writer in 1..=4 {
                let write = records
                    .put(id, slot, write("a", writer, SeqExpect::Any))
                    .await;
                let imported = signed(id, slot, 9, "a", writer);
                let imported = import(&records, id, slot, &imported).await;
                for put in [write, imported] {
                    if writer == owner {
                        assert!(matches!(put.unwrap(), Put::Published { .. }));
                        continue;
                    }
                    let error = put.unwrap_err();
                    assert_eq!(error.kind(), Kind::Denied);
                    assert_eq!(
                        error.to_string(),
                        format!(
                            "records.put: denied: the slot belongs to another writer (record={id}, \
                             slot={slot}, writer={})",
                            public_key(&secret(writer))
                        )
                    );
                }
            }
        }
        assert_eq!(
            seqs(&records, id).await,
            [0, 1, 2, 3, 4].map(|slot| (slot, 9))
        );
    }
}

#[tokio::test]
async fn a_signature_holds_for_its_record_slot_number_and_value_alone() {
    for records in each() {
        let id = records.create(owned(2)).await.unwrap();
        let other = records.create(owned(3)).await.unwrap();
        let good = signed(id, 0, 5, "value", 1);
        let mut flipped = good.signature.to_vec();
        flipped[10] ^= 1;
        let with = |change: fn(&mut Signed)| {
            let mut signed = good.clone();
            change(&mut signed);
            signed
        };
        let bad = [
            (id, 1, good.clone()),
            (other, 0, good.clone()),
            (id, 0, with(|signed| signed.seq = 6)),
            (id, 0, with(|signed| signed.value = Bytes::from("valuE"))),
            (id, 0, with(|signed| signed.value = Bytes::from("value\0"))),
            (
                id,
                0,
                Signed {
                    signature: flipped.into(),
                    ..good.clone()
                },
            ),
            (
                id,
                0,
                with(|signed| signed.signature = Bytes::from(vec![0; 64])),
            ),
        ];
        for (id, slot, signed) in bad {
            let error = import(&records, id, slot, &signed).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
            assert_eq!(
                error.to_string(),
                format!(
                    "record.verify: denied: the signature does not hold (record={id}, slot={slot})"
                )
            );
            assert_eq!(read(&records, id, slot).await, None);
        }
        for len in [0, 63, 65] {
            let signature = Bytes::from(vec![1; len]);
            let signed = Signed {
                signature,
                ..good.clone()
            };
            let error = import(&records, id, 0, &signed).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "record.verify: denied: the signature is not a valid ed25519 signature (record={id}, \
                     slot=0)"
                )
            );
        }
        import(&records, id, 0, &good).await.unwrap();
        assert_eq!(read(&records, id, 0).await, Some(good));
    }
}

#[tokio::test]
async fn a_weak_key_signs_nothing() {
    // With the neutral point as the key, this signature would be valid for every message if
    // verification were not strict.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let signature = [neutral, [0; 32]].concat();
    let key = larder_store_api::PublicKey(neutral);
    let descriptor = larder_store_api::RecordDescriptor {
        owner: key,
        ..owned(1)
    };
    for records in each() {
        let id = records.create(descriptor.clone()).await.unwrap();
        let forged = Signed {
            value: Bytes::from_static(b"forged"),
            seq: 1,
            writer: key,
            signature: signature.clone().into(),
        };
        let error = import(&records, id, 0, &forged).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
    }
}

#[tokio::test]
async fn the_greater_number_wins_an_import() {
    for records in each() {
        let id = records.create(owned(1)).await.unwrap();
        let fifth = signed(id, 0, 5, "fifth", 1);
        let published = |seq| Put::Published { seq };
        assert_eq!(import(&records, id, 0, &fifth).await.unwrap(), published(5));
        assert_eq!(import(&records, id, 0, &fifth).await.unwrap(), published(5));
        let superseded = Put::Superseded {
            current: Some(fifth.clone()),
        };
        let older = signed(id, 0, 4, "newer?", 1);
        assert_eq!(import(&records, id, 0, &older).await.unwrap(), superseded);
        assert_eq!(read(&records, id, 0).await, Some(fifth));
        let ninth = signed(id, 0, 9, "ninth", 1);
        assert_eq!(import(&records, id, 0, &ninth).await.unwrap(), published(9));
        let next = records
            .put(id, 0, write("tenth", 1, SeqExpect::At(9)))
            .await;
        assert_eq!(next.unwrap(), published(10));
    }
}

#[tokio::test]
async fn of_two_values_with_one_number_the_greater_stays() {
    for records in each() {
        let id = records.create(owned(1)).await.unwrap();
        let values = ["bb", "ba", "b", "c", "bb", ""];
        let mut greatest = "";
        for value in values {
            let twin = signed(id, 0, 5, value, 1);
            let put = import(&records, id, 0, &twin).await.unwrap();
            let stays = value >= greatest;
            assert_eq!(matches!(put, Put::Published { seq: 5 }), stays, "{value}");
            greatest = greatest.max(value);
            let current = read(&records, id, 0).await.unwrap();
            assert_eq!(current.value, greatest);
            if let Put::Superseded { current: found } = put {
                assert_eq!(found, Some(current));
            }
        }
        // The sum of the values is that of the value that stays.
        assert_eq!(seqs(&records, id).await, [(0, 5)]);
        let next = write("next", 1, SeqExpect::At(5));
        let next = records.put(id, 0, next).await.unwrap();
        assert_eq!(next, Put::Published { seq: 6 });
    }
}

#[tokio::test]
async fn values_are_what_inspect_tells_of() {
    for records in each() {
        let id = records.create(owned(40)).await.unwrap();
        for slot in (0..40).rev().step_by(2) {
            let put = write(format!("{slot}"), 1, SeqExpect::Absent);
            records.put(id, slot, put).await.unwrap();
        }
        let values = records.values(id, 3..30).await.unwrap();
        let slots: Vec<_> = values.iter().map(|(slot, _)| *slot).collect();
        assert_eq!(slots, (3..30).step_by(2).collect::<Vec<_>>());
        for (slot, signed) in values {
            assert_eq!(Some(signed), read(&records, id, slot).await);
        }
    }
}

#[tokio::test]
async fn numbers_begin_at_one_and_do_not_wrap() {
    for records in each() {
        let id = records.create(owned(1)).await.unwrap();
        let zeroth = Signed {
            seq: 0,
            ..signed(id, 0, 1, "a", 1)
        };
        let error = import(&records, id, 0, &zeroth).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "record.verify: invalid: sequence numbers begin at 1 (slot=0)"
        );
        let last = signed(id, 0, u64::MAX, "last", 1);
        import(&records, id, 0, &last).await.unwrap();
        let put = records
            .put(id, 0, write("one more", 1, SeqExpect::Any))
            .await;
        assert_eq!(
            put.unwrap_err().to_string(),
            format!(
                "records.put: too large: the slot has the greatest sequence number, \
                 18446744073709551615 (record={id}, slot=0)"
            )
        );
        assert_eq!(read(&records, id, 0).await, Some(last));
    }
}

/// Increments the number in the slot `times` times. Its length changes on the way if it `grows`.
async fn count(records: Records, id: RecordId, slot: Slot, times: u64, grows: bool) {
    for _ in 0..times {
        let mut current = read(&records, id, slot).await;
        loop {
            let (count, expect) = match &current {
                Some(old) => (counted(&old.value) + 1, SeqExpect::At(old.seq)),
                None => (1, SeqExpect::Absent),
            };
            let mut value = u64::to_be_bytes(count).to_vec();
            value.resize(if grows { 8 + count as usize } else { 8 }, 0);
            let put = records.put(id, slot, write(value, 1, expect)).await;
            match put.unwrap() {
                Put::Superseded { current: now } => current = now,
                Put::Published { .. } | Put::Queued { .. } => break,
            }
        }
    }
}

fn counted(value: &[u8]) -> u64 {
    let (count, _) = value.split_first_chunk().expect("a count");
    u64::from_be_bytes(*count)
}

/// Returns several handles without shared state, so that only the batches coordinate them.
fn handles(store: &(impl CollectionStore + Clone)) -> Vec<Records> {
    let store: Arc<dyn CollectionStore> = Arc::new(store.clone());
    let handle = || Records::new(Collections::new(Arc::clone(&store)));
    (0..4).map(|_| handle()).collect()
}

async fn counters_lose_none(store: &impl CollectionStore, handles: Vec<Records>, grows: bool) {
    let id = handles[0].create(owned(3)).await.unwrap();
    let tasks: Vec<_> = handles
        .iter()
        .flat_map(|records| [0, 0, 1, 2].map(|slot| (records.clone(), slot)))
        .map(|(records, slot)| tokio::spawn(count(records, id, slot, 10, grows)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let records = &handles[0];
    let each = handles.len() as u64 * 10;
    let expected = [(0, 2 * each), (1, each), (2, each)];
    assert_eq!(seqs(records, id).await, expected);
    let mut sum = 0;
    for (slot, count) in expected {
        let value = read(records, id, slot).await.unwrap().value;
        assert_eq!(counted(&value), count);
        sum += value.len() as u32;
    }
    let key = Bytes::copy_from_slice(&id.0);
    let record = store.get(RECORDS, key).await.unwrap().unwrap();
    assert_eq!(record.value[2..6], sum.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_lose_none() {
    for grows in [false, true] {
        let store = MemoryStore::new();
        counters_lose_none(&store, vec![over(store.clone()); 4], grows).await;
        let store = MemoryStore::new();
        counters_lose_none(&store, handles(&store), grows).await;
    }
}

#[tokio::test]
async fn increments_through_strangers_lose_none() {
    for grows in [false, true] {
        let store = BareStore::new();
        counters_lose_none(&store, handles(&store), grows).await;
    }
}

#[tokio::test]
async fn a_put_retries_when_another_slot_came_first() {
    // Neither has an expectation about the other's slot, so neither may get a conflict.
    let store = BareStore::new();
    let handles = handles(&store);
    let id = handles[0].create(owned(4)).await.unwrap();
    let puts = (0..).zip(&handles).map(|(slot, records)| {
        let put = write(vec![0; usize::from(slot) + 1], 1, SeqExpect::Absent);
        records.put(id, slot, put)
    });
    let puts = futures_util::future::join_all(puts).await;
    for put in puts {
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
    }
    assert_eq!(
        seqs(&handles[0], id).await,
        [0, 1, 2, 3].map(|slot| (slot, 1))
    );
}
