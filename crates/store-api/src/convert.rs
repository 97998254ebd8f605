//! Conversions of arguments: bytes from text and slices, and ranges of keys.

use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use bytes::{Bytes, BytesMut};

/// A conversion into [`Bytes`], for keys, values and names: owned buffers are taken over, borrowed ones copied.
///
/// [`Bytes`] itself converts only from borrowed data that live as long as the program.
///
/// ```
/// use larder_store_api::IntoBytes;
/// fn bytes(from: impl IntoBytes) -> larder_store_api::Bytes {
///     from.into_bytes()
/// }
/// let title = String::from("milk");
/// assert_eq!(bytes(&title), bytes(b"milk"));
/// assert_eq!(bytes(title), "milk");
/// ```
pub trait IntoBytes {
    /// Returns the bytes.
    fn into_bytes(self) -> Bytes;
}

macro_rules! taken_over {
    ($($owned:ty),*) => {$(
        impl IntoBytes for $owned {
            fn into_bytes(self) -> Bytes {
                Bytes::from(self)
            }
        }
    )*};
}

macro_rules! copied {
    ($($borrowed:ty),*) => {$(
        impl IntoBytes for &$borrowed {
            fn into_bytes(self) -> Bytes {
                Bytes::copy_from_slice(self.as_ref())
            }
        }
    )*};
}

taken_over!(Bytes, BytesMut, Vec<u8>, Box<[u8]>, String);
copied!([u8], str, Vec<u8>, String);

impl IntoBytes for &Bytes {
    fn into_bytes(self) -> Bytes {
        self.clone()
    }
}

impl<const N: usize> IntoBytes for [u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

impl<const N: usize> IntoBytes for &[u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

/// A range of keys: `..`, `"a".."b"`, `"a"..`, or two [bounds](Bound), of anything that is [`IntoBytes`].
///
/// ```
/// use larder_store_api::KeyRange;
/// assert_eq!(("a".."b").into_bounds(), ("a".to_owned()..String::from("b")).into_bounds());
/// ```
pub trait KeyRange {
    /// Returns its lower and its upper bound.
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>);
}

impl KeyRange for RangeFull {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K: IntoBytes> KeyRange for Range<K> {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        (included(self.start), excluded(self.end))
    }
}

impl<K: IntoBytes> KeyRange for RangeInclusive<K> {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        let (start, end) = self.into_inner();
        (included(start), included(end))
    }
}

impl<K: IntoBytes> KeyRange for RangeFrom<K> {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        (included(self.start), Bound::Unbounded)
    }
}

impl<K: IntoBytes> KeyRange for RangeTo<K> {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Unbounded, excluded(self.end))
    }
}

impl<K: IntoBytes> KeyRange for RangeToInclusive<K> {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Unbounded, included(self.end))
    }
}

impl<K: IntoBytes> KeyRange for (Bound<K>, Bound<K>) {
    fn into_bounds(self) -> (Bound<Bytes>, Bound<Bytes>) {
        let bytes = |bound: Bound<K>| bound.map(IntoBytes::into_bytes);
        (bytes(self.0), bytes(self.1))
    }
}

fn included(key: impl IntoBytes) -> Bound<Bytes> {
    Bound::Included(key.into_bytes())
}

fn excluded(key: impl IntoBytes) -> Bound<Bytes> {
    Bound::Excluded(key.into_bytes())
}

/// Returns the range of positions that has these bounds: `..` is everything, and an end beyond the end means up to
/// the end.
pub fn positions(range: impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_an_end_goes_to_the_end() {
        assert_eq!(positions(..), 0..u64::MAX);
        assert_eq!(positions(3..), 3..u64::MAX);
        assert_eq!(positions(..=3), 0..4);
        assert_eq!(positions(2..=u64::MAX), 2..u64::MAX);
        assert_eq!(positions((Bound::Excluded(1), Bound::Excluded(3))), 2..3);
    }

    #[test]
    fn bounds_of_keys_are_kept() {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!((..).into_bounds(), (Bound::Unbounded, Bound::Unbounded));
        assert_eq!(
            ("a"..="b").into_bounds(),
            (Bound::Included(key("a")), Bound::Included(key("b")))
        );
        assert_eq!(
            (..b"b").into_bounds(),
            (Bound::Unbounded, Bound::Excluded(key("b")))
        );
        assert_eq!(
            (Bound::Excluded(vec![b'a']), Bound::Unbounded).into_bounds(),
            (Bound::Excluded(key("a")), Bound::Unbounded)
        );
    }
}
