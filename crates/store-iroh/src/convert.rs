//! Conversions between the engine's and iroh-blobs' types: hashes, roots, bitfields and errors.

use std::io;

use bao_tree::io::EncodeError;
use iroh_blobs::{
    BlobFormat, HashAndFormat,
    api::{Tag as IrohTag, blobs::Bitfield as IrohBitfield},
};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Bitfield, Format, Hash, Root, TagName};

/// Converts a hash to the type of iroh-blobs.
pub fn to_iroh_hash(hash: Hash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(*hash.as_bytes())
}

/// Converts a hash to the type of the engine.
pub fn to_engine_hash(hash: iroh_blobs::Hash) -> Hash {
    Hash::from(*hash.as_bytes())
}

/// Converts a root to the type of iroh-blobs.
pub fn to_iroh_root(root: Root) -> HashAndFormat {
    HashAndFormat {
        hash: to_iroh_hash(root.hash),
        format: match root.format {
            Format::Raw => BlobFormat::Raw,
            // iroh-blobs knows no trees; of one it sees the topmost sequence.
            Format::HashSeq | Format::Tree { .. } => BlobFormat::HashSeq,
        },
    }
}

/// Converts a root to the type of the engine.
pub fn to_engine_root(root: HashAndFormat) -> Root {
    Root {
        hash: to_engine_hash(root.hash),
        format: to_engine_format(root.format),
    }
}

pub(crate) fn to_engine_format(format: BlobFormat) -> Format {
    match format {
        BlobFormat::Raw => Format::Raw,
        BlobFormat::HashSeq => Format::HashSeq,
    }
}

pub(crate) fn to_iroh_bitfield(bitfield: Bitfield) -> IrohBitfield {
    IrohBitfield::new(bitfield.ranges, bitfield.size)
}

pub(crate) fn to_tag_name(tag: IrohTag) -> Result<TagName> {
    TagName::try_from(tag.0)
}

/// Returns true if the error says that bytes are not here, and not that they are others. A payload that is
/// missing is damage to the engine, whose index claims it; to a client of iroh-blobs it is something to fetch.
fn is_missing(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<Error>()
            .is_some_and(|error| error.kind() == Kind::NotFound)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The engine's error as iroh-blobs understands it: the kind decides how it goes on, and the text
/// stays ours.
pub(crate) fn to_io_error(error: Error) -> io::Error {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Kind::Corrupt if is_missing(&error) => Io::NotFound,
        Kind::NotFound => Io::NotFound,
        Kind::Conflict => Io::ResourceBusy,
        Kind::Corrupt => Io::InvalidData,
        Kind::Invalid => Io::InvalidInput,
        Kind::TooLarge => Io::FileTooLarge,
        Kind::Full => Io::StorageFull,
        Kind::Denied => Io::PermissionDenied,
        Kind::Unsupported => Io::Unsupported,
        Kind::Unavailable => Io::TimedOut,
        Kind::Closed => Io::NotConnected,
        _ => Io::Other,
    };
    io::Error::new(kind, error)
}

pub(crate) fn to_api_error(error: Error) -> iroh_blobs::api::Error {
    iroh_blobs::api::Error::Io(to_io_error(error))
}

/// A provider takes `NotFound` here as "this peer does not have it", and anything else as trouble
/// of its own.
pub(crate) fn to_encode_error(error: Error) -> EncodeError {
    EncodeError::Io(to_io_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_roots_survive_the_round_trip() {
        let hash = Hash::of(b"larder");
        assert_eq!(to_iroh_hash(hash), iroh_blobs::Hash::new(b"larder"));
        assert_eq!(to_engine_hash(to_iroh_hash(hash)), hash);
        for root in [Root::raw(hash), Root::hash_seq(hash)] {
            assert_eq!(to_engine_root(to_iroh_root(root)), root);
        }
        assert_eq!(to_iroh_hash(Hash::EMPTY), iroh_blobs::Hash::EMPTY);
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_text() {
        let missing = to_io_error(Error::new(Kind::NotFound, "blobs.read", "no such blob"));
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(missing.to_string(), "blobs.read: not found: no such blob");
        let damaged = to_io_error(Error::new(Kind::Corrupt, "blobs.read", ""));
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_payload_that_is_missing_is_not_found_and_a_damaged_one_is_damaged() {
        let claimed = || Error::new(Kind::Corrupt, "blobs.read", "the payload is missing");
        let gone = Error::new(
            Kind::NotFound,
            "blobs.read",
            "the payload has no such bytes",
        );
        let missing = to_io_error(claimed().because(gone));
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("the payload is missing"));
        let failed = io::Error::from(io::ErrorKind::UnexpectedEof);
        let damaged = to_io_error(claimed().because(failed));
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
        // Only a claim that turns out to be wrong becomes absence.
        let gone = Error::new(Kind::NotFound, "node.read", "no such table");
        let closed = Error::new(Kind::Closed, "blobs.read", "").because(gone);
        assert_eq!(to_io_error(closed).kind(), io::ErrorKind::NotConnected);
    }
}
