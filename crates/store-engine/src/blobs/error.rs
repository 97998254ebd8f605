//! The errors that reads of a blob have in common.

use larder_store_api::{Error, Kind};

use crate::Hash;

/// Nothing of the blob, or not the part that was asked for, is here.
pub(crate) fn not_found(operation: &'static str, hash: Hash) -> Error {
    Error::new(Kind::NotFound, operation, "the blob is not here").with("hash", hash)
}

/// The stored bytes at `offset` do not have the hash that they must have.
pub(crate) fn corrupt(hash: Hash, offset: u64) -> Error {
    Error::new(
        Kind::Corrupt,
        "blobs.read",
        "the stored bytes are not those of the hash",
    )
    .with("hash", hash)
    .with("offset", offset)
}

/// The stored hash tree is not that of the blob.
pub(crate) fn damaged_tree(hash: Hash, offset: u64) -> Error {
    Error::new(Kind::Corrupt, "blobs.read", "the hash tree is damaged")
        .with("hash", hash)
        .with("offset", offset)
}
