//! The ways to unlock a file of secrets.

use std::{fs, io::ErrorKind, path::Path};

use larder_store_api::{Error, Kind, Result, SecretKey};
use zeroize::Zeroizing;

use super::private::{Existing, parent, read_private, write_private};
use crate::random::random;

/// The way to unlock a file of secrets.
#[derive(Clone)]
pub enum Unlock {
    /// A key that is stored elsewhere.
    Key(SecretKey),
    /// A password; trying one costs 64 MiB of memory and about a tenth of a second.
    Password(Zeroizing<String>),
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Password(_) => "Password(…)",
        })
    }
}

impl Unlock {
    /// Reads the key from the file at `path`: 64 hexadecimal digits, which only its owner may read. If
    /// there is no such file, creates it. Store it apart from the file that it unlocks.
    ///
    /// # Errors
    /// [`Kind::Denied`] if others could read it, [`Kind::Corrupt`] if it does not contain a key.
    pub fn key_file(path: &Path) -> Result<Self> {
        let fail = |error| Error::io("secrets.unlock", path, error);
        match read_private(path, 1 << 10) {
            Ok(text) => {
                let digits = text.trim_ascii_end();
                let key = blake3::Hash::from_hex(digits).map_err(|_| {
                    let message = "the key file is damaged; bring it back from a backup";
                    Error::new(Kind::Corrupt, "secrets.unlock", message)
                        .with("path", path.display())
                })?;
                Ok(Self::Key(SecretKey::from_bytes(*key.as_bytes())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; 32]);
                random("secrets.unlock", &mut *key)?;
                let text = Zeroizing::new(blake3::Hash::from_bytes(*key).to_hex().to_string());
                let folder = parent(path);
                fs::create_dir_all(folder).map_err(fail)?;
                // If two processes create it at once, the second finds the first one's.
                match write_private(path, text.as_bytes(), Existing::Stays) {
                    Ok(()) => Ok(Self::Key(SecretKey::from_bytes(*key))),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::key_file(path),
                    Err(error) => Err(fail(error)),
                }
            }
            Err(error) => Err(fail(error)),
        }
    }
}
