//! Small data of the app, sealed under a group's read key: for data that the app stores or sends
//! outside of the group, and that only the group's readers may open.
//!
//! ```text
//! sealed data      version u8 = 1 | epoch u32 | nonce [24] | XChaCha20-Poly1305(data)
//! associated data  group id [32] | version u8 | the app's context
//! key              BLAKE3 derive_key("larder 2026 app data key v1", read key)
//! ```
//!
//! It does not show who sealed it: every reader can.

use bytes::Bytes;
use larder_store_api::{Error, Kind, RecordId, Result};

use super::envelope::{self, Envelope};
use crate::keys::ReadKey;

/// The version of the layout.
pub const VERSION: u8 = envelope::VERSION;

/// The number of bytes that sealing adds.
pub const OVERHEAD: usize = envelope::OVERHEAD;

/// The most bytes that are sealed at once; larger data belongs in a file.
pub const MAX_APP_LEN: usize = 1 << 20;

const APP: Envelope = Envelope {
    context: "larder 2026 app data key v1",
    seal: "sync.app.seal",
    open: "sync.app.open",
    max_plain_len: MAX_APP_LEN,
};

/// Seals data. More than [`MAX_APP_LEN`] bytes are [`Kind::TooLarge`].
pub fn seal_app(key: &ReadKey, group: RecordId, context: &[u8], plain: &[u8]) -> Result<Bytes> {
    APP.seal(key, &associated(group, context), plain)
}

/// Opens data that was sealed with the same context.
///
/// Malformed bytes are [`Kind::Invalid`], too many are [`Kind::TooLarge`], data of another epoch is
/// [`Kind::Denied`], and data of another group or context, or modified data, is [`Kind::Corrupt`].
pub fn open_app(key: &ReadKey, group: RecordId, context: &[u8], sealed: &[u8]) -> Result<Bytes> {
    let opened = APP.open(key, &associated(group, context), sealed)?;
    opened.ok_or_else(|| {
        let message = "the data was not sealed by this group for this context";
        Error::new(Kind::Corrupt, APP.open, message).with("group", group)
    })
}

/// The app's part comes last, so that no two contexts give the same result.
fn associated(group: RecordId, context: &[u8]) -> Vec<u8> {
    [&group.0, &[VERSION][..], context].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::value::{open_value, seal_value};

    const GROUP: RecordId = RecordId([9; 32]);

    fn key() -> ReadKey {
        ReadKey::from_bytes([1; 32], 2)
    }

    #[test]
    fn the_layout_is_pinned() {
        let associated = associated(GROUP, b"notes");
        let nonce = [4; envelope::NONCE_LEN];
        let sealed = APP.seal_with(&key(), &associated, b"data", nonce);
        let sealed = sealed.unwrap();
        crate::golden::check_hex("app.hex", &[&sealed]);
        assert_eq!(open_app(&key(), GROUP, b"notes", &sealed).unwrap(), "data");
    }

    #[test]
    fn data_open_only_as_they_were_sealed() {
        let sealed = seal_app(&key(), GROUP, b"notes", b"data").unwrap();
        let open = |key: &ReadKey, group, context: &[u8], sealed: &[u8]| {
            open_app(key, group, context, sealed).unwrap_err().kind()
        };
        for context in [&b"note"[..], b"notes ", b""] {
            assert_eq!(open(&key(), GROUP, context, &sealed), Kind::Corrupt);
        }
        let other = RecordId([8; 32]);
        assert_eq!(open(&key(), other, b"notes", &sealed), Kind::Corrupt);
        let strange = ReadKey::from_bytes([2; 32], 2);
        assert_eq!(open(&strange, GROUP, b"notes", &sealed), Kind::Corrupt);
        let later = ReadKey::from_bytes([1; 32], 3);
        assert_eq!(open(&later, GROUP, b"notes", &sealed), Kind::Denied);
        let newer = [&[VERSION + 1], &sealed[1..]].concat();
        assert_eq!(open(&key(), GROUP, b"notes", &newer), Kind::Invalid);
        for len in 0..OVERHEAD {
            assert_eq!(open(&key(), GROUP, b"notes", &sealed[..len]), Kind::Invalid);
        }
    }

    #[test]
    fn data_and_values_of_records_are_told_apart() {
        // The associated data has the same bytes, so that only the key's context differs.
        let slot = u16::from_be_bytes([VERSION, 7]);
        let context = [7, VERSION];
        let sealed = seal_app(&key(), GROUP, &context, b"data").unwrap();
        let error = open_value(&key(), GROUP, slot, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        let sealed = seal_value(&key(), GROUP, slot, b"value").unwrap();
        let error = open_app(&key(), GROUP, &context, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn the_most_data_fit_and_more_are_refused() {
        let most = vec![7; MAX_APP_LEN];
        let sealed = seal_app(&key(), GROUP, b"", &most).unwrap();
        assert_eq!(sealed.len(), MAX_APP_LEN + OVERHEAD);
        assert_eq!(open_app(&key(), GROUP, b"", &sealed).unwrap(), most);
        let error = seal_app(&key(), GROUP, b"", &[most, vec![7]].concat());
        assert_eq!(error.unwrap_err().kind(), Kind::TooLarge);
        let longer = [&sealed[..], &[0]].concat();
        let error = open_app(&key(), GROUP, b"", &longer);
        assert_eq!(error.unwrap_err().kind(), Kind::TooLarge);
    }

    proptest! {
        #[test]
        fn opening_anything_is_safe(bytes: Vec<u8>, context: Vec<u8>) {
            prop_assert!(open_app(&key(), GROUP, &context, &bytes).is_err());
            let ours = [&[VERSION, 0, 0, 0, 2], &bytes[..]].concat();
            prop_assert!(open_app(&key(), GROUP, &context, &ours).is_err());
        }

        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, context: Vec<u8>, flip: usize) {
            let sealed = seal_app(&key(), GROUP, &context, &plain).unwrap();
            let again = seal_app(&key(), GROUP, &context, &plain).unwrap();
            prop_assert!(sealed != again);
            prop_assert_eq!(&open_app(&key(), GROUP, &context, &sealed).unwrap(), &plain);
            let mut bad = sealed.to_vec();
            let at = flip % bad.len();
            bad[at] ^= 1;
            prop_assert!(open_app(&key(), GROUP, &context, &bad).is_err());
        }
    }
}
