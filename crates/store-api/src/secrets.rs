//! Secrets: a few small named values that only the app that put them may read.

use std::fmt;

use async_trait::async_trait;
use zeroize::ZeroizeOnDrop;

use crate::{Error, Kind, Result};

/// The longest secret, in bytes: the keychains of all systems take that much.
pub const MAX_SECRET_LEN: usize = 2048;
/// The longest name of a secret, in bytes.
pub const MAX_SECRET_NAME_LEN: usize = 128;

/// A secret's bytes, at most [`MAX_SECRET_LEN`]. They are wiped when dropped and do not print themselves.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes ownership of the bytes. [`Kind::TooLarge`] if there are too many; they are wiped then too.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self> {
        let secret = Self(bytes.into());
        if secret.0.len() > MAX_SECRET_LEN {
            let message = format!("a secret has at most {MAX_SECRET_LEN} bytes");
            return Err(
                Error::new(Kind::TooLarge, "secrets.put", message).with("len", secret.0.len())
            );
        }
        Ok(secret)
    }

    /// Returns the bytes, for code that uses or stores them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The name of a secret: 1 to [`MAX_SECRET_NAME_LEN`] of the characters `a-z 0-9 . - _ /`. The name
/// itself is not secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// Makes a name. [`Kind::Invalid`] if it is malformed.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let is_allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_/".contains(&byte)
        };
        let fits = (1..=MAX_SECRET_NAME_LEN).contains(&name.len());
        if !fits || !name.bytes().all(is_allowed) {
            let message = format!(
                "a secret's name has 1 to {MAX_SECRET_NAME_LEN} of the characters a-z 0-9 . - _ /"
            );
            return Err(Error::new(Kind::Invalid, "secrets.name", message)
                .with("name", name.escape_debug()));
        }
        Ok(Self(name))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keeps secrets. For keys and passwords, of which there are few: not a store for data.
#[async_trait]
pub trait Secrets: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name for people, as in an error.
    fn name(&self) -> &str;

    /// Returns the secret, or `None` if there is none of this name. One that cannot be decrypted is
    /// [`Kind::Denied`] or [`Kind::Corrupt`], never `None`.
    async fn get(&self, name: SecretName) -> Result<Option<Secret>>;

    /// Stores a secret, and replaces one of the same name. Whole or not at all, and as durable as
    /// this keeper is when it returns.
    async fn put(&self, name: SecretName, secret: Secret) -> Result<()>;

    /// Forgets a secret. Deleting an absent secret is not an error.
    async fn delete(&self, name: SecretName) -> Result<()>;

    /// Returns the names of all secrets, ascending.
    async fn list(&self) -> Result<Vec<SecretName>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new(*b"canary").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn limits_are_kept() {
        assert!(Secret::new(vec![0; MAX_SECRET_LEN]).is_ok());
        let error = Secret::new(vec![0; MAX_SECRET_LEN + 1]).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        for bad in ["", "A", "a b", "ä", &"a".repeat(MAX_SECRET_NAME_LEN + 1)] {
            assert_eq!(SecretName::new(bad).unwrap_err().kind(), Kind::Invalid);
        }
        assert!(SecretName::new("group/0f.read-key_1").is_ok());
    }
}
