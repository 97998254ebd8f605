//! Tests of each limit: at the limit, and one beyond it.

use larder_store_api::{
    Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordMember, RecordStore, SeqExpect, Signed,
};
use larder_store_engine::{
    MAX_RECORD_LEN, MAX_SLOTS, MAX_VALUE_LEN, MAX_WRITERS, Records, public_key, sign,
};

use super::{each, owned, read, secret, seqs, write};

#[tokio::test]
async fn a_value_has_at_most_32_kib() {
    for records in each() {
        assert_eq!(records.capabilities().max_value_len, 32 * 1024);
        let id = records.create(owned(1)).await.unwrap();
        let longest = vec![7; 32 * 1024];
        let put = write(longest.clone(), 1, SeqExpect::Any);
        records.put(id, 0, put).await.unwrap();
        let over = vec![7; 32 * 1024 + 1];
        let imported = Signed {
            value: over.clone().into(),
            ..read(&records, id, 0).await.unwrap()
        };
        for put in [
            write(over.clone(), 1, SeqExpect::Any),
            PutRecord::Import(imported),
        ] {
            let error = records.put(id, 0, put).await.unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge);
            assert_eq!(
                error.to_string(),
                "records.put: too large: a slot's value has at most 32768 bytes (slot=0, len=32769)"
            );
        }
        assert_eq!(read(&records, id, 0).await.unwrap().value, longest);
        assert!(sign(id, 0, 1, over.into(), &secret(1)).is_err());
    }
}

async fn fill(records: &Records) -> larder_store_api::RecordId {
    let id = records.create(owned(34)).await.unwrap();
    for slot in 0..32 {
        let put = write(
            vec![slot as u8; MAX_VALUE_LEN as usize],
            1,
            SeqExpect::Absent,
        );
        records.put(id, slot, put).await.unwrap();
    }
    id
}

#[tokio::test]
async fn a_records_values_have_at_most_1_mib_together() {
    for records in each() {
        assert_eq!(records.capabilities().max_record_len, 1024 * 1024);
        assert_eq!(MAX_RECORD_LEN, 32 * MAX_VALUE_LEN);
        let id = fill(&records).await;
        let put = async |slot, len: u32| {
            let value = vec![9; len as usize];
            records.put(id, slot, write(value, 1, SeqExpect::Any)).await
        };
        let imported = sign(id, 32, 1, "1".into(), &secret(1)).unwrap();
        let imported = records.put(id, 32, PutRecord::Import(imported)).await;
        for error in [put(32, 1).await.unwrap_err(), imported.unwrap_err()] {
            assert_eq!(error.kind(), Kind::TooLarge);
            assert_eq!(
                error.to_string(),
                format!(
                    "records.put: too large: a record's values have at most 1048576 bytes together \
                     (record={id}, slot=32, len=1048577)"
                )
            );
        }
        assert_eq!(seqs(&records, id).await.len(), 32);
        // Edits that do not increase the sum are always possible.
        put(32, 0).await.unwrap();
        put(0, MAX_VALUE_LEN).await.unwrap();
        // Room that one slot frees is available to others, to the byte.
        put(0, MAX_VALUE_LEN - 10).await.unwrap();
        put(32, 9).await.unwrap();
        put(33, 1).await.unwrap();
        put(33, 2).await.unwrap_err();
        put(32, 0).await.unwrap();
        put(33, 10).await.unwrap();
        put(33, 11).await.unwrap_err();
        // Another record has its own sum.
        let other = records.create(owned(1)).await.unwrap();
        let put = records.put(other, 0, write("a", 1, SeqExpect::Any)).await;
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
    }
}

#[tokio::test]
async fn a_record_has_at_most_1024_slots() {
    for records in each() {
        assert_eq!(records.capabilities().max_slots, 1024);
        let id = records.create(owned(MAX_SLOTS)).await.unwrap();
        let put = records.put(id, 1023, write("a", 1, SeqExpect::Any)).await;
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
        let text = "record.describe: too large: a record has at most 1024 slots (slots=1025)";
        let mut shared = owned(MAX_SLOTS);
        shared.members.push(RecordMember {
            key: PublicKey([2; 32]),
            slots: 1,
        });
        for descriptor in [owned(MAX_SLOTS + 1), shared] {
            let error = records.create(descriptor).await.unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge);
            assert_eq!(error.to_string(), text);
        }
    }
}

fn with_members(count: u32, slots: u16) -> RecordDescriptor {
    let member = |n: u32| {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        RecordMember {
            key: PublicKey(key),
            slots,
        }
    };
    RecordDescriptor {
        members: (0..count).map(member).collect(),
        ..owned(1)
    }
}

#[tokio::test]
async fn a_record_has_at_most_256_writers() {
    for records in each() {
        assert_eq!(records.capabilities().max_writers, 256);
        let most = u32::from(MAX_WRITERS) - 1;
        records.create(with_members(most, 1)).await.unwrap();
        let error = records.create(with_members(most + 1, 1)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(
            error.to_string(),
            "record.describe: too large: a record has at most 256 writers, its owner among them \
             (writers=257)"
        );
        let error = records.create(with_members(70_000, u16::MAX)).await;
        assert_eq!(error.unwrap_err().kind(), Kind::TooLarge);
    }
}

#[tokio::test]
async fn a_descriptor_that_makes_no_sense_is_invalid() {
    let owner = public_key(&secret(1));
    let member = |n: u8, slots| RecordMember {
        key: public_key(&secret(n)),
        slots,
    };
    let with = |owner_slots, members| RecordDescriptor {
        owner,
        owner_slots,
        members,
    };
    let two = public_key(&secret(2));
    let cases = [
        (with(0, vec![]), "a record has at least one slot".to_owned()),
        (
            with(1, vec![member(2, 0)]),
            format!("a member has at least one slot (writer={two})"),
        ),
        (
            with(1, vec![member(2, 1), member(2, 1)]),
            format!("a writer appears twice (writer={two})"),
        ),
        (
            with(1, vec![member(1, 1)]),
            format!("a writer appears twice (writer={owner})"),
        ),
    ];
    for records in each() {
        for (descriptor, text) in &cases {
            let error = records.create(descriptor.clone()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert_eq!(
                error.to_string(),
                format!("record.describe: invalid: {text}")
            );
        }
        // An owner without slots is valid if there are members.
        let id = records.create(with(0, vec![member(2, 1)])).await.unwrap();
        let put = records.put(id, 0, write("a", 2, SeqExpect::Any)).await;
        assert_eq!(put.unwrap(), Put::Published { seq: 1 });
    }
}
