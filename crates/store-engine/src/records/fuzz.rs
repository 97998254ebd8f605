//! Entry points of the fuzzer for records. Encoding is canonical: decoded bytes must encode to the same
//! bytes.

use bytes::Bytes;
use larder_store_api::{Entry, PublicKey, RecordId, Revision};

use super::{
    format::{decode_descriptor, decode_signed, encode_descriptor, encode_signed},
    proof,
    stored::{self, Record},
    verified::Verified,
    verify,
};

const ID: RecordId = RecordId([3; 32]);

pub(crate) fn descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = decode_descriptor(bytes) {
        assert_eq!(encode_descriptor(&descriptor).expect("it was read"), bytes);
    }
}

pub(crate) fn signed(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(signed) = decode_signed(&bytes) {
        assert_eq!(encode_signed(&signed).expect("it was read"), bytes);
        assert!(verify(ID, 1, &signed).is_err());
        assert!(
            stored::decode_slot("fuzz", ID, 1, signed.writer, &bytes, &Verified::new()).is_err()
        );
    }
    drop(stored::decode_slot(
        "fuzz",
        ID,
        1,
        PublicKey([0; 32]),
        &bytes,
        &Verified::new(),
    ));
    drop(stored::decode_slot_key("fuzz", ID, &bytes));
}

/// Decodes a record's entry, under the id of its descriptor.
pub(crate) fn record(bytes: &[u8]) {
    let id = bytes.get(6..).and_then(|rest| decode_descriptor(rest).ok());
    let id = id.and_then(|descriptor| proof::record_id(&descriptor).ok());
    let entry = Entry {
        key: Bytes::new(),
        value: Bytes::copy_from_slice(bytes),
        revision: Revision(1),
    };
    let id = id.unwrap_or(ID);
    if let Ok(record) = Record::decode("fuzz", id, &entry) {
        let again = stored::encode_record(record.state, record.len, &record.descriptor);
        assert_eq!(again.expect("it was read"), bytes);
    }
}
