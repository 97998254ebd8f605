//! The collections in which the engine keeps what it knows of blobs, and their keys.
//!
//! * `larder/blobs`: hash → [entry](super::entry).
//! * `larder/payloads`: payload → hash of the blob that claims it.
//! * `larder/garbage`: payloads that nothing claims any more, to be deleted.

use bytes::Bytes;
use larder_store_api::{CollectionId, Edit, Error, Kind, PayloadId, Result};

use crate::Hash;

pub(crate) const BLOBS: CollectionId = CollectionId::from_static("larder/blobs");
pub(crate) const PAYLOADS: CollectionId = CollectionId::from_static("larder/payloads");
pub(crate) const GARBAGE: CollectionId = CollectionId::from_static("larder/garbage");

pub(crate) fn key(hash: Hash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

pub(crate) fn payload_key(payload: PayloadId) -> Bytes {
    Bytes::copy_from_slice(&payload.0)
}

pub(crate) fn hash_of_key(key: &Bytes) -> Result<Hash> {
    let bytes: [u8; 32] = key[..].try_into().map_err(|_| {
        Error::new(Kind::Corrupt, "blobs.list", "a key is not a hash")
            .with("key", key.escape_ascii())
    })?;
    Ok(Hash::from(bytes))
}

/// The edit by which a blob claims a payload.
pub(crate) fn claim(payload: PayloadId, hash: Hash) -> Edit {
    Edit::Put {
        collection: PAYLOADS,
        key: payload_key(payload),
        value: key(hash),
    }
}

/// The edits that turn a claimed payload into garbage.
pub(crate) fn discard(payload: PayloadId) -> [Edit; 2] {
    [
        Edit::Delete {
            collection: PAYLOADS,
            key: payload_key(payload),
        },
        Edit::Put {
            collection: GARBAGE,
            key: payload_key(payload),
            value: Bytes::new(),
        },
    ]
}
