//! The layout with a random nonce, shared by values of records and an app's own data.
//!
//! ```text
//! sealed           version u8 = 1 | epoch u32 | nonce [24] | XChaCha20-Poly1305(plain)
//! key              BLAKE3 derive_key(context, read or locate key)
//! ```
//!
//! The nonce is random, so that sealing the same text twice gives different bytes. The associated data
//! binds the text to its place, so that nobody can move it.

use bytes::{BufMut, Bytes, BytesMut};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::random;

use super::TAG_LEN;
use crate::{
    codec::Fields,
    keys::{EpochKey, derive},
};

/// The version of the layout.
pub(super) const VERSION: u8 = 1;

/// The number of bytes that sealing adds.
pub(super) const OVERHEAD: usize = 1 + 4 + NONCE_LEN + TAG_LEN;

pub(crate) const NONCE_LEN: usize = 24;

/// One use of the layout.
pub(super) struct Envelope {
    /// The context for deriving the key.
    pub(super) context: &'static str,
    /// The name of sealing in errors.
    pub(super) seal: &'static str,
    /// The name of opening in errors.
    pub(super) open: &'static str,
    /// The longest plain text, in bytes.
    pub(super) max_plain_len: usize,
}

impl Envelope {
    /// Seals a text. One that is too long is [`Kind::TooLarge`].
    pub(super) fn seal(
        &self,
        key: &impl EpochKey,
        associated: &[u8],
        plain: &[u8],
    ) -> Result<Bytes> {
        let mut nonce = [0; NONCE_LEN];
        random(self.seal, &mut nonce)?;
        self.seal_with(key, associated, plain, nonce)
    }

    pub(super) fn seal_with(
        &self,
        key: &impl EpochKey,
        associated: &[u8],
        plain: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Bytes> {
        self.check_len(self.seal, plain.len())?;
        let mut bytes = BytesMut::with_capacity(OVERHEAD + plain.len());
        bytes.put_u8(VERSION);
        bytes.put_u32(key.epoch());
        bytes.put_slice(&nonce);
        let head = bytes.len();
        bytes.put_slice(plain);
        let tag = self
            .cipher(key)
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                associated,
                (&mut bytes[head..]).into(),
            )
            .expect("sealing fails only beyond 256 GiB");
        bytes.put_slice(&tag);
        Ok(bytes.freeze())
    }

    /// Opens a sealed text; `None` if it was sealed with another key or other associated data, or was
    /// modified.
    ///
    /// Malformed bytes are [`Kind::Invalid`], too many are [`Kind::TooLarge`], and a text of another
    /// epoch is [`Kind::Denied`].
    pub(super) fn open(
        &self,
        key: &impl EpochKey,
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Option<Bytes>> {
        self.check_len(self.open, sealed.len().saturating_sub(OVERHEAD))?;
        let mut fields = Fields::versioned(self.open, VERSION, sealed)?;
        let epoch = fields.u32()?;
        let nonce: [u8; NONCE_LEN] = fields.take()?;
        let Some((text, tag)) = fields.rest().split_last_chunk::<TAG_LEN>() else {
            let message = "the bytes end too early";
            return Err(Error::new(Kind::Invalid, self.open, message));
        };
        check_epoch(self.open, key, epoch)?;
        let mut plain = BytesMut::from(text);
        let opened = self.cipher(key).decrypt_inout_detached(
            &XNonce::from(nonce),
            associated,
            (&mut plain[..]).into(),
            &(*tag).into(),
        );
        Ok(opened.ok().map(|()| plain.freeze()))
    }

    fn check_len(&self, operation: &'static str, len: usize) -> Result<()> {
        if len <= self.max_plain_len {
            return Ok(());
        }
        let message = format!("at most {} bytes can be sealed at once", self.max_plain_len);
        Err(Error::new(Kind::TooLarge, operation, message).with("len", len))
    }

    fn cipher(&self, key: &impl EpochKey) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*derive(key, self.context)).into())
    }
}

/// Returns an error if the text was sealed in another epoch than the key's.
pub(super) fn check_epoch(operation: &'static str, key: &impl EpochKey, epoch: u32) -> Result<()> {
    if key.epoch() == epoch {
        return Ok(());
    }
    let message = "the data was sealed in an epoch whose key is not held";
    Err(Error::new(Kind::Denied, operation, message)
        .with("epoch", epoch)
        .with("held", key.epoch()))
}
