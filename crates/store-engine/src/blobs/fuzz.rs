//! Entry points of the fuzzer for what is stored of blobs.

use bytes::Bytes;

use super::{
    TagName,
    entry::{BlobEntry, State},
    tags,
};
use crate::Hash;

/// An entry of the index: written and read again, it is the same one.
pub(crate) fn entry(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(entry) = BlobEntry::decode(Hash::EMPTY, &bytes) else {
        return;
    };
    let again = BlobEntry::decode(Hash::EMPTY, &entry.encode());
    assert_eq!(again.expect("it was written"), entry);
    let field = entry.bitfield();
    assert!(field.present_bytes() <= entry.size());
    if matches!(entry.state, State::Complete(_)) {
        assert!(field.is_complete() && entry.payload().is_some());
    }
}

/// A tag's name and value.
pub(crate) fn tag(bytes: &[u8]) {
    drop(TagName::new(Bytes::copy_from_slice(bytes)));
    if let Ok(root) = tags::decode(&Bytes::new(), bytes) {
        assert_eq!(root.hash.as_bytes()[..], bytes[bytes.len() - 32..]);
    }
}
