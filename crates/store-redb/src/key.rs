//! One ordered key for all collections: the collection's name, escaped and ended, then the key.
//!
//! A zero byte in the name becomes `00 01` and the name ends with `00 00`, so that composite keys
//! sort by name first and key second, and no name is a prefix of another.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::CollectionId;

/// Lower and upper bound of a range of composite keys.
pub(crate) type KeyRange = (Bound<Bytes>, Bound<Bytes>);

/// The composite key of `key` in `collection`.
pub(crate) fn encode(collection: &CollectionId, key: &[u8]) -> Bytes {
    let mut out = prefix(collection, key.len());
    out.put_slice(key);
    out.freeze()
}

/// Returns the prefix of all composite keys of `collection`.
fn prefix(collection: &CollectionId, room: usize) -> BytesMut {
    let name = collection.as_bytes();
    let mut out = BytesMut::with_capacity(name.len() + 2 + room);
    for &byte in name {
        out.put_u8(byte);
        if byte == 0 {
            out.put_u8(1);
        }
    }
    out.put_slice(&[0, 0]);
    out
}

/// The least composite key that is after all of `collection`'s.
pub(crate) fn after(collection: &CollectionId) -> Bytes {
    let mut out = prefix(collection, 0);
    let last = out.len() - 1;
    out[last] = 1;
    out.freeze()
}

/// The composite keys of those of `collection`'s keys that are within `keys`.
pub(crate) fn range(collection: &CollectionId, keys: &(Bound<Bytes>, Bound<Bytes>)) -> KeyRange {
    let low = match &keys.0 {
        Bound::Included(key) => Bound::Included(encode(collection, key)),
        Bound::Excluded(key) => Bound::Excluded(encode(collection, key)),
        Bound::Unbounded => Bound::Included(encode(collection, &[])),
    };
    let high = match &keys.1 {
        Bound::Included(key) => Bound::Included(encode(collection, key)),
        Bound::Excluded(key) => Bound::Excluded(encode(collection, key)),
        Bound::Unbounded => Bound::Excluded(after(collection)),
    };
    (low, high)
}

/// Returns true if no key can be within `range`. (The standard library's maps panic on such
/// ranges.)
pub(crate) fn is_empty(range: &KeyRange) -> bool {
    match (&range.0, &range.1) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
    }
}

/// The collection and the key of a composite key, or `None` if it is not one.
pub(crate) fn decode(composite: &Bytes) -> Option<(CollectionId, Bytes)> {
    let mut name = Vec::new();
    let mut at = 0;
    loop {
        match composite.get(at..)? {
            [0, 0, ..] => break,
            [0, 1, ..] => {
                name.push(0);
                at += 2;
            }
            [0, ..] | [] => return None,
            [byte, ..] => {
                name.push(*byte);
                at += 1;
            }
        }
    }
    let collection = CollectionId::new(name).ok()?;
    Some((collection, composite.slice(at + 2..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &'static [u8]) -> CollectionId {
        CollectionId::new(name).expect("a short name")
    }

    #[test]
    fn composite_keys_decode_and_keep_the_order_of_names_then_keys() {
        let names: [&[u8]; 7] = [b"\0", b"\0\0", b"\0\x01", b"a", b"a\0", b"a\0b", b"ab"];
        let keys: [&[u8]; 5] = [b"", b"\0", b"\0\0", b"k", b"\xff"];
        let mut pairs: Vec<_> = names
            .iter()
            .flat_map(|n| keys.iter().map(|k| (*n, *k)))
            .collect();
        pairs.sort();
        let encoded: Vec<_> = pairs.iter().map(|(n, k)| encode(&id(n), k)).collect();
        assert!(encoded.is_sorted());
        for ((name, key), composite) in pairs.iter().zip(&encoded) {
            let (n, k) = decode(composite).expect("was encoded");
            assert_eq!((n.as_bytes(), &k[..]), (*name, *key));
            assert!(composite < &after(&n));
        }
    }

    #[test]
    fn what_is_not_a_composite_key_decodes_to_none() {
        for bad in [&b""[..], b"abc", b"abc\0", b"abc\0\x02", b"\0\0key"] {
            assert_eq!(decode(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
