//! Keys of writers.

use ed25519_dalek::SigningKey;
use larder_store_api::{PublicKey, Result, SecretKey};
use zeroize::Zeroizing;

use crate::random::random;

/// Generates a key from the operating system's randomness;
/// [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) if that fails.
pub fn generate_key() -> Result<SecretKey> {
    let mut seed = Zeroizing::new([0; 32]);
    random("key.generate", &mut *seed)?;
    Ok(SecretKey::from_bytes(*seed))
}

/// Returns the public key of a secret one.
pub fn public_key(secret: &SecretKey) -> PublicKey {
    PublicKey(signing_key(secret).verifying_key().to_bytes())
}

/// Returns the signing key. It is wiped when dropped, like the secret.
pub(super) fn signing_key(secret: &SecretKey) -> SigningKey {
    SigningKey::from_bytes(secret.expose())
}
