//! Tests of the stored, hashed and signed bytes: they are pinned, and decoding accepts any bytes
//! without a panic.

use larder_store_api::{
    Bytes, CollectionStore, Kind, PublicKey, RecordDescriptor, RecordId, RecordMember, RecordStore,
    SeqExpect, Signed,
};
use larder_store_engine::{
    ID_CONTEXT, MAX_VALUE_LEN, SIGNATURE_CONTEXT, public_key, record_format as format, record_id,
    sign, verify,
};
use larder_store_testkit::MemoryStore;
use proptest::{collection::vec, prelude::*};

use super::{RECORDS, SLOTS, descriptor, over, secret, slot_key, write};

// Changing one of these invalidates stored and signed data: make a new version instead.
const KEYS: [&str; 3] = [
    "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
    "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
    "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
];
const RECORD_ID: &str = "45ca005bee16e1816739be132fee3343f634fe6d52a7a8ca8155eedf37844c63";
const SIGNATURE: &str = "e077f85d4ce39ab80e5d097b3a8519859eba95e70f885240723c69c70b7478ea87f30f3cf07ba92e23f50bd7cd4cfef3160b5ee72bf0a9f0f95cba0fd4a88501";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor_hex() -> String {
    let [owner, second, third] = KEYS;
    format!("01{owner}000202{second}0001{third}0002")
}

fn signed_hex() -> String {
    let [owner, ..] = KEYS;
    format!("010000000000000001{owner}{SIGNATURE}68656c6c6f")
}

#[test]
fn contexts_are_pinned() {
    assert_eq!(ID_CONTEXT, "larder 2025-11-21 record id v1");
    assert_eq!(SIGNATURE_CONTEXT, b"larder 2025-11-21 slot v1 sign");
}

#[test]
fn a_descriptors_bytes_and_id_are_pinned() {
    let keys = [1, 2, 3].map(|n| hex(&public_key(&secret(n)).0));
    assert_eq!(keys, KEYS);
    let bytes = format::encode_descriptor(&descriptor()).unwrap();
    assert_eq!(hex(&bytes), descriptor_hex());
    assert_eq!(record_id(&descriptor()).unwrap().to_string(), RECORD_ID);
    assert_eq!(
        record_id(&descriptor()).unwrap().0,
        blake3::derive_key(ID_CONTEXT, &bytes)
    );
}

#[test]
fn a_signed_values_bytes_are_pinned() {
    let id = record_id(&descriptor()).unwrap();
    let signed = sign(id, 1, 1, Bytes::from("hello"), &secret(1)).unwrap();
    assert_eq!(hex(&signed.signature), SIGNATURE);
    let bytes = format::encode_signed(&signed).unwrap();
    assert_eq!(hex(&bytes), signed_hex());
    assert_eq!(bytes.len(), format::SIGNED_OVERHEAD + 5);
}

#[test]
fn the_signed_message_is_as_written_down() {
    use ed25519_dalek::{Signer, SigningKey};
    let id = record_id(&descriptor()).unwrap();
    let message = [
        &SIGNATURE_CONTEXT[..],
        &id.0,
        &[0x01, 0x02],
        &[0, 0, 0, 0, 0, 0, 0x03, 0x04],
        &[0, 0, 0, 5],
        blake3::hash(b"hello").as_bytes(),
    ]
    .concat();
    let expected = SigningKey::from_bytes(&[1; 32]).sign(&message);
    let signed = sign(id, 0x0102, 0x0304, Bytes::from("hello"), &secret(1)).unwrap();
    assert_eq!(signed.signature, expected.to_bytes()[..]);
}

#[tokio::test]
async fn what_is_stored_is_pinned() {
    let store = MemoryStore::new();
    let records = over(store.clone());
    let id = records.create(descriptor()).await.unwrap();
    let stored = async |collection, key: Vec<u8>| {
        let entry = store.get(collection, key.into()).await.unwrap();
        hex(&entry.expect("is stored").value)
    };
    let descriptor = descriptor_hex();
    let record = stored(RECORDS, id.0.to_vec()).await;
    assert_eq!(record, format!("010000000000{descriptor}"));
    let put = write("hello", 1, SeqExpect::Absent);
    records.put(id, 1, put).await.unwrap();
    let record = stored(RECORDS, id.0.to_vec()).await;
    assert_eq!(record, format!("010000000005{descriptor}"));
    assert_eq!(stored(SLOTS, slot_key(id, 1)).await, signed_hex());
}

#[test]
fn the_texts_of_refusals_are_pinned() {
    let good = format::encode_descriptor(&descriptor()).unwrap();
    let text = |bytes: &[u8]| format::decode_descriptor(bytes).unwrap_err().to_string();
    let op = "record.describe: invalid:";
    assert_eq!(text(&[]), format!("{op} the bytes end too early"));
    assert_eq!(
        text(&good[..good.len() - 1]),
        format!("{op} the bytes end too early")
    );
    assert_eq!(
        text(&[&good[..], &[0, 0]].concat()),
        format!("{op} there are bytes after the end (len=2)")
    );
    assert_eq!(
        text(&[&[9], &good[1..]].concat()),
        format!("{op} the bytes have a version that is not known here (version=9)")
    );

    let signed = sign(RecordId([0; 32]), 0, 1, Bytes::new(), &secret(1)).unwrap();
    let with_seq = Signed {
        seq: 0,
        ..signed.clone()
    };
    let short = Signed {
        signature: Bytes::from("short"),
        ..signed.clone()
    };
    let long = Signed {
        value: vec![0; MAX_VALUE_LEN as usize + 1].into(),
        ..signed.clone()
    };
    let text = |signed: &Signed| format::encode_signed(signed).unwrap_err().to_string();
    let op = "record.encode:";
    assert_eq!(
        text(&with_seq),
        format!("{op} invalid: sequence numbers begin at 1")
    );
    assert_eq!(
        text(&short),
        format!("{op} invalid: a signature has 64 bytes (len=5)")
    );
    assert_eq!(
        text(&long),
        format!("{op} too large: a slot's value has at most 32768 bytes (len=32769)")
    );
    let mut bytes = format::encode_signed(&signed).unwrap().to_vec();
    bytes.resize(format::SIGNED_OVERHEAD + MAX_VALUE_LEN as usize, 7);
    let longest = format::decode_signed(&bytes.clone().into()).unwrap();
    assert_eq!(longest.value.len(), MAX_VALUE_LEN as usize);
    bytes.push(7);
    let error = format::decode_signed(&bytes.into()).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
}

fn any_key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey)
}

fn any_descriptor() -> impl Strategy<Value = RecordDescriptor> {
    let member = (any_key(), 1..6u16).prop_map(|(key, slots)| RecordMember { key, slots });
    (any_key(), 1..6u16, vec(member, 0..40)).prop_map(|(owner, owner_slots, members)| {
        RecordDescriptor {
            owner,
            owner_slots,
            members,
        }
    })
}

proptest! {
    #[test]
    fn descriptors_come_back(descriptor in any_descriptor()) {
        let bytes = format::encode_descriptor(&descriptor).unwrap();
        prop_assert_eq!(format::decode_descriptor(&bytes).unwrap(), descriptor);
    }

    #[test]
    fn signed_values_come_back_and_verify(
        seed in any::<[u8; 32]>(),
        id in any::<[u8; 32]>(),
        slot in any::<u16>(),
        seq in 1..=u64::MAX,
        value in vec(any::<u8>(), 0..300),
    ) {
        let key = larder_store_api::SecretKey::from_bytes(seed);
        let id = RecordId(id);
        let signed = sign(id, slot, seq, value.into(), &key).unwrap();
        let bytes = format::encode_signed(&signed).unwrap();
        let decoded = format::decode_signed(&bytes).unwrap();
        verify(id, slot, &decoded).unwrap();
        prop_assert_eq!(decoded, signed);
    }

    /// Bytes that decode are exactly those that encoding gives: there is one form only, and no bytes
    /// panic.
    #[test]
    fn any_bytes_decode_or_are_refused(mut bytes in vec(any::<u8>(), 0..400), version in any::<bool>()) {
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = format::VERSION;
        }
        if let Ok(descriptor) = format::decode_descriptor(&bytes) {
            prop_assert_eq!(format::encode_descriptor(&descriptor).unwrap(), bytes.clone());
        }
        let bytes = Bytes::from(bytes);
        if let Ok(signed) = format::decode_signed(&bytes) {
            prop_assert_eq!(format::encode_signed(&signed).unwrap(), bytes);
            prop_assert!(verify(RecordId([0; 32]), 0, &signed).is_err());
        }
    }

    /// Bytes close to valid ones reach more of the decoder.
    #[test]
    fn a_changed_descriptor_decodes_as_what_it_says(
        descriptor in any_descriptor(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = format::encode_descriptor(&descriptor).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = format::decode_descriptor(&bytes) {
            prop_assert_eq!(format::encode_descriptor(&decoded).unwrap(), bytes);
        }
    }
}
