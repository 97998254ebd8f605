//! Values that belong to the app, in the last slots of a record of values.

use bytes::Bytes;
use larder_store_api::{Error, Kind, RecordId, Result, Slot};

use super::{VERSION, check_slot, take_number};
use crate::{
    codec::Fields,
    ids::{FIRST_APP, VALUE_SLOTS},
    keys::ReadKey,
    seal::value::{open_value, seal_value},
};

/// The longest value of the app, in bytes.
pub const MAX_APP_VALUE_LEN: usize = 8 * 1024;

const VALUE: &str = "sync.group.value";

/// Seals a value of the app for a slot, with its number; an empty one means that there is no value.
pub fn seal_app_value(
    key: &ReadKey,
    record: RecordId,
    slot: Slot,
    number: u64,
    value: &[u8],
) -> Result<Bytes> {
    check_slot(VALUE, slot, FIRST_APP, VALUE_SLOTS)?;
    check_len(value)?;
    let plain = [&[VERSION], &number.to_be_bytes()[..], value].concat();
    seal_value(key, record, slot, &plain)
}

/// Opens a value of the app, and its number.
pub fn open_app_value(
    key: &ReadKey,
    record: RecordId,
    slot: Slot,
    sealed: &[u8],
) -> Result<(u64, Bytes)> {
    check_slot(VALUE, slot, FIRST_APP, VALUE_SLOTS)?;
    decode_app_value(&open_value(key, record, slot, sealed)?)
}

pub(crate) fn decode_app_value(plain: &[u8]) -> Result<(u64, Bytes)> {
    let mut fields = Fields::versioned(VALUE, VERSION, plain)?;
    let number = take_number(&mut fields)?;
    let value = fields.rest();
    check_len(value)?;
    Ok((number, Bytes::copy_from_slice(value)))
}

fn check_len(value: &[u8]) -> Result<()> {
    if value.len() <= MAX_APP_VALUE_LEN {
        return Ok(());
    }
    let message = format!("a value of the group's record has at most {MAX_APP_VALUE_LEN} bytes");
    Err(Error::new(Kind::TooLarge, VALUE, message).with("len", value.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        records::{MAX_NUMBER, decode_name},
        seal::value::{NONCE_LEN, seal_with},
    };

    const RECORD: RecordId = RecordId([3; 32]);

    fn read() -> ReadKey {
        ReadKey::from_bytes([2; 32], 0)
    }

    fn plain(number: u64, value: &[u8]) -> Vec<u8> {
        [&[VERSION], &number.to_be_bytes()[..], value].concat()
    }

    #[test]
    fn the_layout_is_pinned() {
        let plain = plain(7, b"a value");
        let sealed = seal_with(&read(), RECORD, FIRST_APP, &plain, [4; NONCE_LEN]).unwrap();
        crate::golden::check_hex("app_values.hex", &[&plain, &sealed]);
        let opened = open_app_value(&read(), RECORD, FIRST_APP, &sealed);
        assert_eq!(opened.unwrap(), (7, "a value".into()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let seal = |slot, value: &[u8]| seal_app_value(&read(), RECORD, slot, 1, value);
        let kind = |result: Result<Bytes>| result.unwrap_err().kind();
        assert_eq!(kind(seal(FIRST_APP - 1, b"")), Kind::Invalid);
        assert_eq!(kind(seal(VALUE_SLOTS, b"")), Kind::Invalid);
        let sealed = seal(VALUE_SLOTS - 1, &[7; MAX_APP_VALUE_LEN]).unwrap();
        let opened = open_app_value(&read(), RECORD, VALUE_SLOTS - 1, &sealed);
        assert_eq!(opened.unwrap().1, [7; MAX_APP_VALUE_LEN][..]);
        let error = open_app_value(&read(), RECORD, FIRST_APP, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        let long = [7; MAX_APP_VALUE_LEN + 1];
        assert_eq!(kind(seal(FIRST_APP, &long)), Kind::TooLarge);
        let kind = |plain: &[u8]| decode_app_value(plain).unwrap_err().kind();
        assert_eq!(kind(&plain(1, &long)), Kind::TooLarge);
        assert_eq!(kind(b""), Kind::Invalid);
        assert_eq!(kind(&[VERSION + 1]), Kind::Invalid);
        assert_eq!(kind(&plain(MAX_NUMBER + 1, b"")), Kind::Invalid);
        assert!(decode_name(&plain(MAX_NUMBER + 1, b"")).is_err());
        assert!(decode_app_value(&plain(MAX_NUMBER, b"")).is_ok());
    }

    proptest! {
        #[test]
        fn decoding_anything_is_safe(bytes: Vec<u8>, slot: u16) {
            prop_assert!(open_app_value(&read(), RECORD, slot, &bytes).is_err());
            if let Ok((_, value)) = decode_app_value(&bytes) {
                prop_assert_eq!(&value, &bytes[9..]);
            }
        }
    }
}
