//! The format of the rows in the table of entries. All numbers are little-endian.
//!
//! | row | key | value |
//! |---|---|---|
//! | head | `larder` in column 0 | `LV01`, revision `u64`, number of entries `u64`, fold `u64`, checksum `u64` |
//! | entry | in column 1: length of the collection's name `u8`, name, key | revision `u64`, checksum `u64`, value |
//!
//! Veilid encrypts keys and values, but does not authenticate them: a flipped bit on the disk is
//! returned as data. The checksum (XXH3, 64 bits) also covers the key, and the fold, the exclusive or
//! of all entries' hashed keys, reveals missing entries.

use larder_store_api::{Bytes, Error, Kind, MAX_COLLECTION_ID_LEN, Result};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The format and its version.
const MAGIC: [u8; 4] = *b"LV01";
/// The part of the magic bytes before the version.
const MAGIC_NAME: [u8; 2] = *b"LV";
/// The key of the head.
pub(crate) const HEAD_KEY: &[u8] = b"larder";
/// The column of the head.
pub(crate) const HEADS: u32 = 0;
/// The column of the entries.
pub(crate) const ENTRIES: u32 = 1;

const HEAD_LEN: usize = 4 + 8 + 8 + 8 + 8;
/// The length of the header before an entry's value.
pub(crate) const ENTRY_HEADER_LEN: usize = 16;

/// A summary of all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The revision of the last commit.
    pub(crate) revision: u64,
    /// The number of entries.
    pub(crate) entries: u64,
    /// The fold of their keys.
    pub(crate) fold: u64,
}

impl Head {
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        bytes.extend_from_slice(&MAGIC);
        for number in [self.revision, self.entries, self.fold] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        const OPERATION: &str = "store.open";
        let damaged = || Error::new(Kind::Corrupt, OPERATION, "the store's head is damaged");
        if bytes.len() >= 4 && bytes[..2] == MAGIC_NAME && bytes[..4] > MAGIC[..] {
            let message = "the store was written by a newer version; use that one";
            return Err(Error::new(Kind::Unsupported, OPERATION, message)
                .with("format", bytes[..4].escape_ascii()));
        }
        let Some((content, sum)) = bytes.split_last_chunk::<8>() else {
            return Err(damaged());
        };
        if bytes.len() != HEAD_LEN
            || content[..4] != MAGIC
            || *sum != xxh3_64(content).to_le_bytes()
        {
            return Err(damaged());
        }
        let number = |n: usize| u64::from_le_bytes(chunk(&content[4 + 8 * n..]));
        Ok(Self {
            revision: number(0),
            entries: number(1),
            fold: number(2),
        })
    }

    /// Updates the head for a new entry at `key`.
    pub(crate) fn add(&mut self, key: &[u8]) {
        self.entries += 1;
        self.fold ^= xxh3_64(key);
    }

    /// Updates the head for a removed entry at `key`.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.entries = self.entries.saturating_sub(1);
        self.fold ^= xxh3_64(key);
    }
}

fn chunk(bytes: &[u8]) -> [u8; 8] {
    *bytes.first_chunk().expect("the length was checked")
}

/// Returns an entry's key in the table. The name is empty for entries of the store itself.
pub(crate) fn entry_key(collection: &[u8], key: &[u8]) -> Bytes {
    let name_len = u8::try_from(collection.len()).expect("a collection's name is short");
    let mut bytes = Vec::with_capacity(1 + collection.len() + key.len());
    bytes.push(name_len);
    bytes.extend_from_slice(collection);
    bytes.extend_from_slice(key);
    bytes.into()
}

/// Returns the collection's name and the key in it; `None` if it is not an entry's key.
pub(crate) fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name_len, rest) = bytes.split_first()?;
    let name_len = usize::from(*name_len);
    (name_len <= MAX_COLLECTION_ID_LEN && name_len <= rest.len()).then(|| rest.split_at(name_len))
}

/// Returns an entry's value with its header.
pub(crate) fn encode_entry(row_key: &[u8], revision: u64, value: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(ENTRY_HEADER_LEN + value.len());
    bytes.extend_from_slice(&revision.to_le_bytes());
    bytes.extend_from_slice(&checksum(row_key, revision, value).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.into()
}

/// Returns the revision and the value; `None` if they are damaged.
pub(crate) fn decode_entry(row_key: &[u8], bytes: &Bytes) -> Option<(u64, Bytes)> {
    let (header, _) = bytes.split_first_chunk::<ENTRY_HEADER_LEN>()?;
    let (revision, sum) = (chunk(header), chunk(&header[8..]));
    let revision = u64::from_le_bytes(revision);
    let value = bytes.slice(ENTRY_HEADER_LEN..);
    (sum == checksum(row_key, revision, &value).to_le_bytes()).then_some((revision, value))
}

fn checksum(row_key: &[u8], revision: u64, value: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&(row_key.len() as u64).to_le_bytes());
    hasher.update(row_key);
    hasher.update(&revision.to_le_bytes());
    hasher.update(value);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_pinned() {
        let head = Head {
            revision: 2,
            entries: 3,
            fold: 0x1122_3344_5566_7788,
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&head.encode()), include_str!("golden/head.hex").trim());
        let key = entry_key(b"tags", b"photo");
        assert_eq!(hex(&key), "047461677370686f746f");
        let entry = encode_entry(&key, 7, b"value");
        assert_eq!(hex(&entry), include_str!("golden/entry.hex").trim());
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let key = entry_key(b"a", b"b");
        let entry = encode_entry(&key, 1, b"some value");
        assert_eq!(decode_entry(&key, &entry), Some((1, "some value".into())));
        for bit in 0..entry.len() * 8 {
            let mut damaged = entry.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_entry(&key, &damaged.into()), None, "bit {bit}");
        }
        assert_eq!(decode_entry(&entry_key(b"a", b"c"), &entry), None);
        let head = Head::default().encode();
        for bit in 0..head.len() * 8 {
            let mut damaged = head.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut head = Head::default().encode().to_vec();
        head[..4].copy_from_slice(b"LV02");
        let error = Head::decode(&head).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn keys_split_where_they_were_joined() {
        for (name, key) in [
            (&b""[..], &b""[..]),
            (b"", b"x"),
            (b"name", b""),
            (b"n", b"\0\xff"),
        ] {
            assert_eq!(split_key(&entry_key(name, key)), Some((name, key)));
        }
        assert_eq!(split_key(b""), None);
        assert_eq!(split_key(b"\x05abcd"), None);
        assert_eq!(split_key(&[65; 100]), None);
    }
}
