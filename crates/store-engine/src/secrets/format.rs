//! The bytes of a file of secrets.
//!
//! ```text
//! file       "larder secrets\n" | version u8 = 1 | unlock u8 (0 key, 1 password)
//!            | memory KiB u32 | passes u32 | salt [16] | nonce [24]
//!            | XChaCha20-Poly1305(key, nonce, plaintext; all before the ciphertext is associated)
//! plaintext  for each secret, by name: name length u8 | name | length u16 | bytes
//! key        the key itself; or Argon2id(password, salt, memory, passes, one lane)
//! ```
//!
//! Integers are big-endian. Argon2id is RFC 9106; XChaCha20-Poly1305 draft-irtf-cfrg-xchacha.

use std::collections::BTreeMap;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use larder_store_api::{Error, Kind, Result, Secret, SecretName};
use zeroize::Zeroizing;

use super::unlock::Unlock;
use crate::random::random;

const MAGIC: &[u8] = b"larder secrets\n";
const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const HEADER_LEN: usize = MAGIC.len() + 2 + 4 + 4 + SALT_LEN + NONCE_LEN;
/// The longest file that is read: far more than anybody's keys need.
pub(super) const MAX_FILE_LEN: u64 = 16 << 20;
/// The memory for trying a password: RFC 9106's second recommendation.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// The most memory that a file may demand, so that a foreign file cannot use up all of it.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;

pub(super) type Table = BTreeMap<SecretName, Secret>;

/// The key of a file, with its header.
pub(super) struct FileKey {
    key: Zeroizing<[u8; 32]>,
    unlock: u8,
    memory_kib: u32,
    passes: u32,
    salt: [u8; SALT_LEN],
}

impl FileKey {
    /// Derives the key of a new file. A password takes about a tenth of a second.
    pub(super) fn create(unlock: &Unlock) -> Result<Self> {
        let mut salt = [0; SALT_LEN];
        random("secrets.put", &mut salt)?;
        Self::derive(unlock, MEMORY_KIB, PASSES, salt)
    }

    fn derive(unlock: &Unlock, memory_kib: u32, passes: u32, salt: [u8; SALT_LEN]) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let unlock = match unlock {
            Unlock::Key(given) => {
                key.copy_from_slice(given.expose());
                0
            }
            Unlock::Password(password) => {
                let fail = |error: argon2::Error| damaged(&error.to_string());
                let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(fail)?;
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password.as_bytes(), &salt, &mut *key)
                    .map_err(fail)?;
                1
            }
        };
        Ok(Self {
            key,
            unlock,
            memory_kib,
            passes,
            salt,
        })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }

    /// Returns the bytes of the whole file.
    pub(super) fn seal(&self, table: &Table) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random("secrets.put", &mut nonce)?;
        self.seal_with(table, nonce)
    }

    pub(super) fn seal_with(&self, table: &Table, nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>> {
        let mut file = Vec::with_capacity(HEADER_LEN);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&[VERSION, self.unlock]);
        file.extend_from_slice(&self.memory_kib.to_be_bytes());
        file.extend_from_slice(&self.passes.to_be_bytes());
        file.extend_from_slice(&self.salt);
        file.extend_from_slice(&nonce);
        let plain = encode(table);
        let payload = Payload {
            msg: &plain,
            aad: &file,
        };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| {
            Error::new(
                Kind::Internal,
                "secrets.put",
                "the secrets cannot be sealed",
            )
        })?;
        file.extend_from_slice(&sealed);
        Ok(file)
    }

    /// Opens a file, and returns its key and secrets.
    pub(super) fn open(unlock: &Unlock, file: &[u8]) -> Result<(Self, Table)> {
        let Some((header, sealed)) = file.split_at_checked(HEADER_LEN) else {
            return Err(damaged("the file is too short"));
        };
        let Some(fields) = header.strip_prefix(MAGIC) else {
            let message = "the file is not a secrets file";
            return Err(Error::new(Kind::Invalid, "secrets.open", message));
        };
        let mut fields = Fields(fields);
        let [version, kind] = fields.take()?;
        if version != VERSION {
            let message = "the file has a format that is not known here; use a newer version";
            return Err(
                Error::new(Kind::Unsupported, "secrets.open", message).with("format", version)
            );
        }
        let memory_kib = u32::from_be_bytes(fields.take()?);
        let passes = u32::from_be_bytes(fields.take()?);
        let (salt, nonce) = (fields.take()?, fields.take::<NONCE_LEN>()?);
        match (kind, unlock) {
            (0, Unlock::Key(_)) | (1, Unlock::Password(_)) => {}
            (0, Unlock::Password(_)) => return Err(denied("it has a key, and no password")),
            (1, Unlock::Key(_)) => return Err(denied("it has a password")),
            _ => return Err(damaged("it is unknown how to unlock it")),
        }
        if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES {
            return Err(damaged("it asks for too much work"));
        }
        let key = Self::derive(unlock, memory_kib, passes, salt)?;
        let payload = Payload {
            msg: sealed,
            aad: header,
        };
        let plain = key.cipher().decrypt(&XNonce::from(nonce), payload);
        let plain =
            Zeroizing::new(plain.map_err(|_| {
                denied("the key or the password is wrong, or the file was damaged")
            })?);
        Ok((key, decode(&plain)?))
    }
}

pub(super) fn encode(table: &Table) -> Zeroizing<Vec<u8>> {
    let len =
        |(name, secret): (&SecretName, &Secret)| 3 + name.as_str().len() + secret.expose().len();
    // Allocated in full, because growing it would leave a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(table.iter().map(len).sum()));
    for (name, secret) in table {
        let (name, secret) = (name.as_str().as_bytes(), secret.expose());
        plain.push(u8::try_from(name.len()).expect("a name has at most 128 bytes"));
        plain.extend_from_slice(name);
        let len = u16::try_from(secret.len()).expect("a secret has at most 2048 bytes");
        plain.extend_from_slice(&len.to_be_bytes());
        plain.extend_from_slice(secret);
    }
    plain
}

pub(super) fn decode(plain: &[u8]) -> Result<Table> {
    let mut table = Table::new();
    let mut fields = Fields(plain);
    while !fields.0.is_empty() {
        let [len] = fields.take()?;
        let name = str::from_utf8(fields.slice(len.into())?)
            .map_err(|error| damaged(&error.to_string()))?;
        let name = SecretName::new(name)?;
        let len = u16::from_be_bytes(fields.take()?);
        let secret = Secret::new(fields.slice(len.into())?)?;
        if table
            .last_key_value()
            .is_some_and(|(last, _)| *last >= name)
        {
            return Err(damaged("its names are in no order"));
        }
        table.insert(name, secret);
    }
    Ok(table)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut field = [0; N];
        field.copy_from_slice(self.slice(N)?);
        Ok(field)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((field, rest)) = self.0.split_at_checked(len) else {
            return Err(damaged("it ends too early"));
        };
        self.0 = rest;
        Ok(field)
    }
}

fn damaged(why: &str) -> Error {
    let message = format!("the file of secrets is damaged: {why}; bring it back from a backup");
    Error::new(Kind::Corrupt, "secrets.open", message)
}

fn denied(why: &str) -> Error {
    let message = format!("the file of secrets cannot be unlocked: {why}");
    Error::new(Kind::Denied, "secrets.open", message)
}

#[cfg(test)]
mod tests {
    use larder_store_api::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn key() -> Unlock {
        Unlock::Key(SecretKey::from_bytes([7; 32]))
    }

    fn table() -> Table {
        let entry = |name: &str, bytes: &[u8]| {
            (SecretName::new(name).unwrap(), Secret::new(bytes).unwrap())
        };
        Table::from([entry("a", b"one"), entry("b/2", b"")])
    }

    fn exposed(table: &Table) -> Vec<(&str, &[u8])> {
        table
            .iter()
            .map(|(name, secret)| (name.as_str(), secret.expose()))
            .collect()
    }

    #[test]
    fn the_format_stays() {
        let key = FileKey::derive(&key(), MEMORY_KIB, PASSES, [1; SALT_LEN]).unwrap();
        let file = key.seal_with(&table(), [2; NONCE_LEN]).unwrap();
        let golden = include_str!("../../tests/golden/secrets.hex");
        let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.trim());
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for unlock in [key(), Unlock::Password("correct horse".to_owned().into())] {
            let file = FileKey::create(&unlock).unwrap().seal(&table()).unwrap();
            let (_, opened) = FileKey::open(&unlock, &file).unwrap();
            assert_eq!(exposed(&opened), exposed(&table()));
            assert!(!file.windows(3).any(|part| part == b"one"));
        }
        let file = FileKey::create(&key()).unwrap().seal(&table()).unwrap();
        let other = Unlock::Key(SecretKey::from_bytes([8; 32]));
        let password = Unlock::Password("x".to_owned().into());
        for wrong in [other, password] {
            let error = FileKey::open(&wrong, &file).err().unwrap();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(FileKey::open(&key(), &damaged).is_err(), "byte {at}");
        }
        for len in 0..file.len() {
            assert!(FileKey::open(&key(), &file[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_plaintext_is_decoded_or_refused(bytes: Vec<u8>) {
            if let Ok(table) = decode(&bytes) {
                prop_assert_eq!(&encode(&table)[..], &bytes[..]);
            }
        }
    }
}
