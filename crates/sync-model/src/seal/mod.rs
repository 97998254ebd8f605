//! Encryption: data that leaves a member is unreadable without the group's keys.
//!
//! [`value`] seals small values of records, [`app`] data that an app stores or sends itself,
//! [`file`](mod@file) the contents of files, [`page`] the pages of a repo's tree.

pub mod app;
mod envelope;
pub mod file;
pub mod page;
pub mod value;

use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag, aead::AeadInOut};

/// The number of bytes that sealing adds: the tag of Poly1305.
pub const TAG_LEN: usize = 16;

pub(crate) fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&(*key).into())
}

/// Seals `text` in place, and returns its tag. The texts of this crate are far below the cipher's limit
/// of 256 GiB.
pub(crate) fn seal_in_place(
    cipher: &ChaCha20Poly1305,
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> [u8; TAG_LEN] {
    cipher
        .encrypt_inout_detached(&Nonce::from(nonce), aad, text.into())
        .expect("sealing fails only beyond 256 GiB")
        .into()
}

/// Opens `text` in place; if the tag is invalid, returns `None` and leaves the text unchanged.
#[must_use]
pub(crate) fn open_in_place(
    cipher: &ChaCha20Poly1305,
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
    tag: [u8; TAG_LEN],
) -> Option<()> {
    cipher
        .decrypt_inout_detached(&Nonce::from(nonce), aad, text.into(), &Tag::from(tag))
        .ok()
}
