//! Pages of a tree, sealed so that equal pages give equal bytes, and different ones reveal nothing.
//!
//! ```text
//! sealed page      version u8 = 1 | epoch u32 | id [32] | ChaCha20-Poly1305(plain text), nonce 0
//! associated data  version u8
//! id               BLAKE3 keyed_hash(id key, plain text)
//! id key           BLAKE3 derive_key("larder 2026 page id key v1", read key)
//! page's key       BLAKE3 keyed_hash(BLAKE3 derive_key("larder 2026 page key v1", read key), id)
//! ```
//!
//! The id serves as a synthetic nonce: each plain text has its own key, so the fixed nonce is never
//! used for two texts under one key.

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, Result};
use zeroize::Zeroizing;

use super::{TAG_LEN, cipher, envelope::check_epoch, open_in_place, seal_in_place};
use crate::{
    codec::Fields,
    keys::{ReadKey, derive},
};

/// The version of the layout.
pub const VERSION: u8 = 1;

/// The number of bytes that sealing a page adds.
pub const OVERHEAD: usize = 1 + 4 + 32 + TAG_LEN;

const ID_CONTEXT: &str = "larder 2026 page id key v1";
const KEY_CONTEXT: &str = "larder 2026 page key v1";
const OPEN: &str = "sync.page.open";

/// Seals and opens pages with two keys that are derived once from a read key.
pub struct PageKeys {
    id: Zeroizing<[u8; 32]>,
    key: Zeroizing<[u8; 32]>,
    read: ReadKey,
}

impl std::fmt::Debug for PageKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKeys(…)")
    }
}

impl PageKeys {
    /// Derives the keys for pages from this read key.
    pub fn new(read: &ReadKey) -> Self {
        Self {
            id: derive(read, ID_CONTEXT),
            key: derive(read, KEY_CONTEXT),
            read: read.clone(),
        }
    }

    /// Seals a page. Equal plain texts give equal bytes.
    pub fn seal(&self, plain: &[u8]) -> Bytes {
        let id = blake3::keyed_hash(&self.id, plain);
        let mut bytes = BytesMut::with_capacity(OVERHEAD + plain.len());
        bytes.put_u8(VERSION);
        bytes.put_u32(self.read.epoch());
        bytes.put_slice(id.as_bytes());
        let head = bytes.len();
        bytes.put_slice(plain);
        let cipher = cipher(&self.page_key(id.as_bytes()));
        let tag = seal_in_place(&cipher, [0; 12], &[VERSION], &mut bytes[head..]);
        bytes.put_slice(&tag);
        bytes.freeze()
    }

    /// Opens a page, and checks its id.
    ///
    /// Malformed bytes are [`Kind::Invalid`], a page of another epoch is [`Kind::Denied`], and a page
    /// that was sealed with another key, or modified, is [`Kind::Corrupt`].
    pub fn open(&self, sealed: &[u8]) -> Result<Bytes> {
        let mut fields = Fields::versioned(OPEN, VERSION, sealed)?;
        let epoch = fields.u32()?;
        let id: [u8; 32] = fields.take()?;
        let Some((text, tag)) = fields.rest().split_last_chunk::<TAG_LEN>() else {
            return Err(Error::new(Kind::Invalid, OPEN, "the bytes end too early"));
        };
        check_epoch(OPEN, &self.read, epoch)?;
        let mut plain = BytesMut::from(text);
        let corrupt = || Error::new(Kind::Corrupt, OPEN, "the page was not sealed with this key");
        let cipher = cipher(&self.page_key(&id));
        open_in_place(&cipher, [0; 12], &[VERSION], &mut plain, *tag).ok_or_else(corrupt)?;
        if blake3::keyed_hash(&self.id, &plain) != id {
            return Err(corrupt());
        }
        Ok(plain.freeze())
    }

    fn page_key(&self, id: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*blake3::keyed_hash(&self.key, id).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> PageKeys {
        PageKeys::new(&ReadKey::from_bytes([1; 32], 2))
    }

    #[test]
    fn the_layout_is_pinned() {
        let sealed = keys().seal(b"a page");
        crate::golden::check_hex("page.hex", &[&sealed]);
        assert_eq!(keys().open(&sealed).unwrap(), "a page");
    }

    #[test]
    fn another_key_does_not_open_it() {
        let sealed = keys().seal(b"a page");
        let kind = |key, epoch| {
            let keys = PageKeys::new(&ReadKey::from_bytes(key, epoch));
            keys.open(&sealed).unwrap_err().kind()
        };
        assert_eq!(kind([2; 32], 2), Kind::Corrupt);
        assert_eq!(kind([1; 32], 3), Kind::Denied);
    }

    #[test]
    fn a_page_with_another_id_is_refused() {
        // Made by a holder of the key: it opens, but its id does not match its text.
        let keys = keys();
        let (id, mut text) = ([5; 32], *b"a page");
        let tag = seal_in_place(&cipher(&keys.page_key(&id)), [0; 12], &[VERSION], &mut text);
        let bytes = [&[VERSION, 0, 0, 0, 2], &id[..], &text, &tag].concat();
        assert_eq!(keys.open(&bytes).unwrap_err().kind(), Kind::Corrupt);
    }

    proptest! {
        #[test]
        fn opening_anything_is_safe(bytes: Vec<u8>) {
            prop_assert!(keys().open(&bytes).is_err());
        }

        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, flip: usize) {
            let sealed = keys().seal(&plain);
            prop_assert_eq!(&keys().seal(&plain), &sealed);
            prop_assert_eq!(&keys().open(&sealed).unwrap(), &plain);
            let mut bad = sealed.to_vec();
            let at = flip % bad.len();
            bad[at] ^= 1;
            prop_assert!(keys().open(&bad).is_err());
        }
    }
}
