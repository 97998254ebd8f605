//! Signatures over what members say, each with a context of its own.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};

use super::id::OpId;

/// Begins every message that is signed here, so that no other use of a key makes one.
const DOMAIN: &[u8] = b"larder group statement 1";

const OP: &str = "larder 2026 group op signature v1";
const CLAIM: &str = "larder 2026 group claim v1";
const SESSION: &str = "larder 2026 group session v1";
const REPO: &str = "larder 2026 group repo v1";

fn message(context: &str, parts: &[&[u8; 32]]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(*part);
    }
    [DOMAIN, hasher.finalize().as_bytes()].concat()
}

fn sign(key: &SecretKey, context: &str, parts: &[&[u8; 32]]) -> [u8; 64] {
    // It is wiped when dropped.
    let key = SigningKey::from_bytes(key.expose());
    key.sign(&message(context, parts)).to_bytes()
}

fn verify(key: PublicKey, context: &str, parts: &[&[u8; 32]], signature: &[u8; 64]) -> Result<()> {
    let valid = VerifyingKey::from_bytes(&key.0).and_then(|key| {
        key.verify_strict(&message(context, parts), &Signature::from_bytes(signature))
    });
    valid.map_err(|_| {
        let message = "the signature is not that of its key";
        Error::new(Kind::Invalid, "membership.verify", message).with("key", key)
    })
}

/// Signs what a peer says about itself in a session; `transcript` is a hash of all that identifies the session.
pub fn sign_session(key: &SecretKey, transcript: &[u8; 32]) -> [u8; 64] {
    sign(key, SESSION, &[transcript])
}

/// Checks what [`sign_session`] signed.
pub fn verify_session(key: PublicKey, transcript: &[u8; 32], signature: &[u8; 64]) -> Result<()> {
    verify(key, SESSION, &[transcript], signature)
}

/// Signs an operation as its author.
pub(super) fn sign_op(author: &SecretKey, id: &OpId) -> [u8; 64] {
    sign(author, OP, &[&id.0])
}

/// Checks the author's signature of an operation.
pub(super) fn verify_op(author: PublicKey, id: &OpId, signature: &[u8; 64]) -> Result<()> {
    verify(author, OP, &[&id.0], signature)
}

/// Signs with the key of an invite that `device` may use it.
pub fn sign_claim(invite: &SecretKey, group: OpId, cap: OpId, device: PublicKey) -> [u8; 64] {
    sign(invite, CLAIM, &[&group.0, &cap.0, &device.0])
}

/// Checks what [`sign_claim`] signed.
pub(super) fn verify_claim(
    invite: PublicKey,
    group: OpId,
    cap: OpId,
    device: PublicKey,
    signature: &[u8; 64],
) -> Result<()> {
    verify(invite, CLAIM, &[&group.0, &cap.0, &device.0], signature)
}

/// Signs with the key of a repo that it is the repo of `device` in this group, and of nobody else.
pub fn sign_repo(repo: &SecretKey, group: OpId, device: PublicKey) -> [u8; 64] {
    sign(repo, REPO, &[&group.0, &device.0])
}

/// Checks what [`sign_repo`] signed.
pub(super) fn verify_repo(
    repo: PublicKey,
    group: OpId,
    device: PublicKey,
    signature: &[u8; 64],
) -> Result<()> {
    verify(repo, REPO, &[&group.0, &device.0], signature)
}
