//! Entry points of the fuzzer for the file of secrets.

use larder_store_api::SecretKey;

use super::{
    Unlock,
    format::{FileKey, decode, encode},
};

/// Decodes a table without its seal, which must encode to the same bytes; and opens a file, which
/// nobody can forge.
pub(crate) fn secrets(bytes: &[u8]) {
    if let Ok(table) = decode(bytes) {
        assert_eq!(encode(&table).as_slice(), bytes);
    }
    let unlock = Unlock::Key(SecretKey::from_bytes([7; 32]));
    assert!(FileKey::open(&unlock, bytes).is_err());
}
