//! The names of blobs: hashes, and roots that keep blobs alive.

use std::{fmt, str::FromStr};

use larder_store_api::{Error, Kind};

/// The BLAKE3 hash of a whole blob, its name. Prints as 64 hexadecimal digits and parses from them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of no bytes. The empty blob is always there.
    pub const EMPTY: Hash = Hash([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9,
        0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f,
        0x32, 0x62,
    ]);

    /// The hash of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(*blake3::hash(bytes.as_ref()).as_bytes())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten digits, for logs.
    pub fn fmt_short(&self) -> String {
        self.0[..5].iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        blake3::Hash::from_hex(text).map(Into::into).map_err(|_| {
            Error::new(
                Kind::Invalid,
                "hash.parse",
                "a hash has 64 hexadecimal digits",
            )
            .with("text", text.escape_debug())
        })
    }
}

/// Says if a blob stands alone or names others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Just bytes.
    Raw,
    /// A sequence of hashes, 32 bytes each: whatever keeps it alive keeps them alive.
    HashSeq,
    /// A sequence of hashes whose first names a blob, and whose others name trees that are one less
    /// deep: whatever keeps it alive keeps all of them alive, to the bottom. A tree of depth 1 is a
    /// [`HashSeq`](Format::HashSeq) of a bounded length: a sequence of more than [`MAX_TREE_SEQUENCE_LEN`] bytes names
    /// nothing.
    Tree {
        /// The number of levels of sequences, 1 to [`MAX_TREE_DEPTH`].
        depth: u8,
    },
}

/// The greatest depth of a tree of hash sequences.
pub const MAX_TREE_DEPTH: u8 = 16;

/// The longest sequence of a tree, in bytes. A longer blob in the place of one names nothing, so that marking what a
/// tree keeps takes memory for its sequences, and not for any long blob that somebody names as one.
pub const MAX_TREE_SEQUENCE_LEN: u64 = 64 * 1024;

impl Format {
    /// Returns the number of levels of hash sequences that a blob of this format begins; 0 if it
    /// stands alone. Never more than [`MAX_TREE_DEPTH`].
    pub fn depth(self) -> u8 {
        match self {
            Format::Raw => 0,
            Format::HashSeq => 1,
            Format::Tree { depth } => depth.min(MAX_TREE_DEPTH),
        }
    }
}

/// The blobs that a tag or a pin keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root {
    /// The blob.
    pub hash: Hash,
    /// The format, which says if the blobs that it names are kept alive too.
    pub format: Format,
}

impl Root {
    /// The blob alone.
    pub fn raw(hash: Hash) -> Self {
        let format = Format::Raw;
        Self { hash, format }
    }

    /// The blob, a hash sequence, and all that it names.
    pub fn hash_seq(hash: Hash) -> Self {
        let format = Format::HashSeq;
        Self { hash, format }
    }

    /// A tree of hash sequences, `depth` of them above one another, and all that they name.
    pub fn tree(hash: Hash, depth: u8) -> Self {
        let format = Format::Tree { depth };
        Self { hash, format }
    }
}

/// The blob alone.
impl From<Hash> for Root {
    fn from(hash: Hash) -> Self {
        Self::raw(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let hash = Hash::of(b"larder");
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        assert_eq!(Hash::of(b""), Hash::EMPTY);
        let error = "xy".parse::<Hash>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "hash.parse: invalid: a hash has 64 hexadecimal digits (text=xy)"
        );
    }
}
