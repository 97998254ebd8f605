//! Values of records, sealed under a group's read key or locate key.
//!
//! ```text
//! sealed value     version u8 = 1 | epoch u32 | nonce [24] | XChaCha20-Poly1305(value)
//! associated data  record id [32] | slot u16 | version u8
//! key              BLAKE3 derive_key("larder 2026 record value key v1", read or locate key)
//! ```
//!
//! The nonce is random, so that sealing the same value twice gives different bytes. The associated data
//! binds the value to its slot, so that nobody can move it to another.

use bytes::Bytes;
use larder_store_api::{Error, Kind, RecordId, Result, Slot};
use larder_store_engine::MAX_VALUE_LEN;

use super::envelope::{self, Envelope};
use crate::keys::EpochKey;

/// The version of the layout.
pub const VERSION: u8 = envelope::VERSION;

/// The number of bytes that sealing a value adds.
pub const OVERHEAD: usize = envelope::OVERHEAD;

/// The longest value that fits into a slot once sealed.
pub const MAX_PLAIN_LEN: usize = MAX_VALUE_LEN as usize - OVERHEAD;

const VALUE: Envelope = Envelope {
    context: "larder 2026 record value key v1",
    seal: "sync.value.seal",
    open: "sync.value.open",
    max_plain_len: MAX_PLAIN_LEN,
};

/// Seals the value of a slot. One longer than [`MAX_PLAIN_LEN`] is [`Kind::TooLarge`].
pub fn seal_value(
    key: &impl EpochKey,
    record: RecordId,
    slot: Slot,
    plain: &[u8],
) -> Result<Bytes> {
    VALUE.seal(key, &associated(record, slot), plain)
}

/// Opens the value of a slot.
///
/// Malformed bytes are [`Kind::Invalid`], a value of another epoch is [`Kind::Denied`], and a value
/// that was sealed with another key or for another slot, or modified, is [`Kind::Corrupt`].
pub fn open_value(
    key: &impl EpochKey,
    record: RecordId,
    slot: Slot,
    sealed: &[u8],
) -> Result<Bytes> {
    let opened = VALUE.open(key, &associated(record, slot), sealed)?;
    opened.ok_or_else(|| {
        let message = "the value was not sealed with this key for this slot";
        Error::new(Kind::Corrupt, VALUE.open, message)
            .with("record", record)
            .with("slot", slot)
    })
}

fn associated(record: RecordId, slot: Slot) -> [u8; 35] {
    let mut bytes = [VERSION; 35];
    bytes[..32].copy_from_slice(&record.0);
    bytes[32..34].copy_from_slice(&slot.to_be_bytes());
    bytes
}

/// Seals a value with a nonce that a test chooses.
#[cfg(test)]
pub(crate) fn seal_with(
    key: &impl EpochKey,
    record: RecordId,
    slot: Slot,
    plain: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Result<Bytes> {
    VALUE.seal_with(key, &associated(record, slot), plain, nonce)
}

#[cfg(test)]
pub(crate) use envelope::NONCE_LEN;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{LocateKey, ReadKey};

    const RECORD: RecordId = RecordId([9; 32]);

    fn key() -> ReadKey {
        ReadKey::from_bytes([1; 32], 2)
    }

    #[test]
    fn the_layout_is_pinned() {
        let sealed = seal_with(&key(), RECORD, 3, b"a value", [4; NONCE_LEN]).unwrap();
        crate::golden::check_hex("value.hex", &[&sealed]);
        assert_eq!(open_value(&key(), RECORD, 3, &sealed).unwrap(), "a value");
    }

    #[test]
    fn a_value_opens_only_with_its_key_in_its_slot() {
        let sealed = seal_value(&key(), RECORD, 3, b"a value").unwrap();
        let kind = |result: Result<Bytes>| result.unwrap_err().kind();
        assert_eq!(kind(open_value(&key(), RECORD, 4, &sealed)), Kind::Corrupt);
        let other = RecordId([8; 32]);
        assert_eq!(kind(open_value(&key(), other, 3, &sealed)), Kind::Corrupt);
        let locate = LocateKey::from_bytes([2; 32], 2);
        assert_eq!(kind(open_value(&locate, RECORD, 3, &sealed)), Kind::Corrupt);
        let later = ReadKey::from_bytes([1; 32], 3);
        assert_eq!(kind(open_value(&later, RECORD, 3, &sealed)), Kind::Denied);
        let newer = [&[2], &sealed[1..]].concat();
        assert_eq!(kind(open_value(&key(), RECORD, 3, &newer)), Kind::Invalid);
        assert_eq!(kind(open_value(&key(), RECORD, 3, &[])), Kind::Invalid);
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused() {
        let most = vec![0; MAX_PLAIN_LEN];
        let sealed = seal_value(&key(), RECORD, 0, &most).unwrap();
        assert_eq!(sealed.len(), MAX_VALUE_LEN as usize);
        let error = seal_value(&key(), RECORD, 0, &[most, vec![0]].concat()).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }

    proptest! {
        #[test]
        fn opening_anything_is_safe(bytes: Vec<u8>, slot: u16) {
            prop_assert!(open_value(&key(), RECORD, slot, &bytes).is_err());
        }

        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, slot: u16, flip: usize) {
            let sealed = seal_value(&key(), RECORD, slot, &plain).unwrap();
            prop_assert_eq!(&open_value(&key(), RECORD, slot, &sealed).unwrap(), &plain);
            let mut bad = sealed.to_vec();
            let at = flip % bad.len();
            bad[at] ^= 1;
            prop_assert!(open_value(&key(), RECORD, slot, &bad).is_err());
        }
    }
}
