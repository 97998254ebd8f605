//! Values that belong to the app, in the last slots of a group's record.

use bytes::Bytes;
use larder_store_api::{Error, Kind, RecordId, Result, Slot};
use larder_store_engine::MAX_RECORD_LEN;

use super::{MAX_LABEL_LEN, VERSION, check_slot};
use crate::{
    codec::Fields,
    ids::{APP_SLOTS, FIRST_APP, FIRST_MEMBER, GROUP_SLOTS},
    keys::ReadKey,
    seal::value::{OVERHEAD, open_value, seal_value},
};

/// The longest value of the app, in bytes.
pub const MAX_APP_VALUE_LEN: usize = 8 * 1024;

const VALUE: &str = "sync.group.value";

/// Even if the app uses all its room, the name and all members fit.
const _: () = {
    let app = APP_SLOTS as usize * (1 + MAX_APP_VALUE_LEN + OVERHEAD);
    let members = (FIRST_APP - FIRST_MEMBER) as usize * (1 + 32 + OVERHEAD);
    let name = 1 + MAX_LABEL_LEN + OVERHEAD;
    assert!(app + members + name <= MAX_RECORD_LEN as usize);
};

/// Seals a value of the app for a slot of the group's record; an empty one means that there is no
/// value.
pub fn seal_app_value(key: &ReadKey, group: RecordId, slot: Slot, value: &[u8]) -> Result<Bytes> {
    check_slot(VALUE, slot, FIRST_APP, GROUP_SLOTS)?;
    check_len(value)?;
    seal_value(key, group, slot, &[&[VERSION], value].concat())
}

/// Opens a value of the app.
pub fn open_app_value(key: &ReadKey, group: RecordId, slot: Slot, sealed: &[u8]) -> Result<Bytes> {
    check_slot(VALUE, slot, FIRST_APP, GROUP_SLOTS)?;
    decode_app_value(&open_value(key, group, slot, sealed)?)
}

pub(crate) fn decode_app_value(plain: &[u8]) -> Result<Bytes> {
    let value = Fields::versioned(VALUE, VERSION, plain)?.rest();
    check_len(value)?;
    Ok(Bytes::copy_from_slice(value))
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
        keys::LocateKey,
        records::{open_member, seal_member},
        seal::value::{NONCE_LEN, seal_with},
    };

    const GROUP: RecordId = RecordId([3; 32]);

    fn read() -> ReadKey {
        ReadKey::from_bytes([2; 32], 0)
    }

    #[test]
    fn the_layout_is_pinned() {
        let plain = [&[VERSION], &b"a value"[..]].concat();
        let sealed = seal_with(&read(), GROUP, FIRST_APP, &plain, [4; NONCE_LEN]).unwrap();
        crate::golden::check_hex("app_values.hex", &[&plain, &sealed]);
        let opened = open_app_value(&read(), GROUP, FIRST_APP, &sealed);
        assert_eq!(opened.unwrap(), "a value");
    }

    #[test]
    fn a_value_is_no_member_and_a_member_no_value() {
        // The length tells them apart even if both keys were the same, which they never are.
        let locate = LocateKey::from_bytes([2; 32], 0);
        let other = LocateKey::from_bytes([1; 32], 0);
        for len in [0, 31, 32, 33, MAX_APP_VALUE_LEN] {
            let sealed = seal_app_value(&read(), GROUP, 1000, &vec![1; len]).unwrap();
            assert_eq!(
                open_member(&locate, GROUP, 1000, &sealed).is_ok(),
                len == 32
            );
            let error = open_member(&other, GROUP, 1000, &sealed).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{len}");
        }
        let repo = larder_store_api::PublicKey([9; 32]);
        let sealed = seal_member(&other, GROUP, 1000, repo).unwrap();
        let error = open_app_value(&read(), GROUP, 1000, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let seal = |slot, value: &[u8]| seal_app_value(&read(), GROUP, slot, value);
        let kind = |result: Result<Bytes>| result.unwrap_err().kind();
        assert_eq!(kind(seal(FIRST_APP - 1, b"")), Kind::Invalid);
        assert_eq!(kind(seal(GROUP_SLOTS, b"")), Kind::Invalid);
        let sealed = seal(GROUP_SLOTS - 1, &[7; MAX_APP_VALUE_LEN]).unwrap();
        let opened = open_app_value(&read(), GROUP, GROUP_SLOTS - 1, &sealed);
        assert_eq!(opened.unwrap(), [7; MAX_APP_VALUE_LEN][..]);
        let error = open_app_value(&read(), GROUP, FIRST_APP, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert_eq!(
            kind(seal(FIRST_APP, &[7; MAX_APP_VALUE_LEN + 1])),
            Kind::TooLarge
        );
        let long = vec![VERSION; 2 + MAX_APP_VALUE_LEN];
        assert_eq!(kind(decode_app_value(&long)), Kind::TooLarge);
        assert_eq!(kind(decode_app_value(b"")), Kind::Invalid);
        assert_eq!(kind(decode_app_value(&[VERSION + 1])), Kind::Invalid);
    }

    proptest! {
        #[test]
        fn decoding_anything_is_safe(bytes: Vec<u8>, slot: u16) {
            prop_assert!(open_app_value(&read(), GROUP, slot, &bytes).is_err());
            if let Ok(value) = decode_app_value(&bytes) {
                prop_assert_eq!(&value, &bytes[1..]);
            }
        }
    }
}
