//! The keys of a group, and the rights that each of them gives.
//!
//! ```text
//! group secret (ed25519)          writes the group's record; derives both keys of every epoch
//!   ├─ locate key of an epoch     finds members and copies what they have, sealed
//!   └─ read key of an epoch       opens names, pages and files
//! key of an epoch                 BLAKE3 derive_key(context, secret [32] | epoch u32)
//! ```

use std::fmt;

use larder_store_api::{Error, Kind, PublicKey, RecordId, Result, SecretKey};
use larder_store_engine::{generate_key, public_key};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::ids::group_id;

/// The context of BLAKE3's key derivation that makes a locate key.
pub const LOCATE_CONTEXT: &str = "larder 2026 group locate key v1";

/// The context of BLAKE3's key derivation that makes a read key.
pub const READ_CONTEXT: &str = "larder 2026 group read key v1";

/// The secret of a group: signs its record, and derives all its keys.
#[derive(Clone)]
pub struct GroupSecret(SecretKey);

impl GroupSecret {
    /// Generates a secret from the operating system's randomness; [`Kind::Unavailable`] if that fails.
    pub fn generate() -> Result<Self> {
        generate_key().map(Self)
    }

    /// Makes a group's secret from this key.
    pub fn from_key(key: SecretKey) -> Self {
        Self(key)
    }

    /// Returns the key that signs the group's record.
    pub fn key(&self) -> &SecretKey {
        &self.0
    }

    /// Returns the public key of the group's record.
    pub fn public(&self) -> PublicKey {
        public_key(&self.0)
    }

    fn derive(&self, context: &str, epoch: u32) -> [u8; 32] {
        let mut material = Zeroizing::new([0; 36]);
        material[..32].copy_from_slice(self.0.expose());
        material[32..].copy_from_slice(&epoch.to_be_bytes());
        blake3::derive_key(context, &*material)
    }
}

impl fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSecret(…)")
    }
}

mod sealed {
    pub trait Sealed {
        /// Derives the key for one use, named by `context`.
        fn derive(&self, context: &str) -> zeroize::Zeroizing<[u8; 32]>;
    }
}

/// A key of a group in one epoch: a [`LocateKey`] or a [`ReadKey`].
pub trait EpochKey: sealed::Sealed + fmt::Debug + Send + Sync {
    /// Returns the epoch of the key; the first is 0.
    fn epoch(&self) -> u32;
}

macro_rules! epoch_key {
    ($(#[$doc:meta])* $name:ident, $context:ident) => {
        $(#[$doc])*
        #[derive(Clone, ZeroizeOnDrop)]
        pub struct $name {
            key: [u8; 32],
            #[zeroize(skip)]
            epoch: u32,
        }

        impl $name {
            /// Derives the key of `epoch` in the group with this secret.
            pub fn derive(secret: &GroupSecret, epoch: u32) -> Self {
                let key = secret.derive($context, epoch);
                Self { key, epoch }
            }

            /// Makes a key from its parts.
            pub fn from_bytes(key: [u8; 32], epoch: u32) -> Self {
                Self { key, epoch }
            }

            /// Returns the 32 bytes, for passing the key on.
            pub fn expose(&self) -> &[u8; 32] {
                &self.key
            }

            /// Returns the epoch of the key.
            pub fn epoch(&self) -> u32 {
                self.epoch
            }
        }

        impl sealed::Sealed for $name {
            fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(blake3::derive_key(context, &self.key))
            }
        }

        impl EpochKey for $name {
            fn epoch(&self) -> u32 {
                self.epoch
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(…, epoch {})", stringify!($name), self.epoch)
            }
        }

        impl PartialEq for $name {
            /// Compares in constant time.
            fn eq(&self, other: &Self) -> bool {
                same(&self.key, &other.key) && self.epoch == other.epoch
            }
        }

        impl Eq for $name {}
    };
}

epoch_key! {
    /// Finds a group's members and opens the data that is needed to copy their files, but not the
    /// files.
    LocateKey, LOCATE_CONTEXT
}

epoch_key! {
    /// Opens the names, pages and files of a group.
    ReadKey, READ_CONTEXT
}

/// Returns true if two secrets are equal; takes constant time.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}

/// Derives a key for one use, named by `context`, from a key of a group.
pub fn derive(key: &impl EpochKey, context: &str) -> Zeroizing<[u8; 32]> {
    sealed::Sealed::derive(key, context)
}

/// The access of a member to a group, with the keys for it.
#[derive(Debug, Clone)]
pub enum Access {
    /// The right to read everything and to write the group's record.
    Write {
        /// Writes the group's record.
        secret: GroupSecret,
        /// Opens the data.
        read: ReadKey,
        /// Finds and copies the data.
        locate: LocateKey,
    },
    /// The right to read everything.
    Read {
        /// Opens the data.
        read: ReadKey,
        /// Finds and copies the data.
        locate: LocateKey,
    },
    /// The right to keep a sealed copy of everything.
    Replica {
        /// Finds and copies the data.
        locate: LocateKey,
    },
}

/// A member's keys of a group, all of one epoch.
#[derive(Debug, Clone)]
pub struct GroupKeys {
    group: PublicKey,
    access: Access,
}

impl GroupKeys {
    /// Returns all the keys of an epoch.
    pub fn write(secret: GroupSecret, epoch: u32) -> Self {
        Self {
            group: secret.public(),
            access: Access::Write {
                read: ReadKey::derive(&secret, epoch),
                locate: LocateKey::derive(&secret, epoch),
                secret,
            },
        }
    }

    /// Returns the keys of a reader; [`Kind::Invalid`] if they belong to different epochs.
    pub fn read_only(group: PublicKey, read: ReadKey, locate: LocateKey) -> Result<Self> {
        if read.epoch() != locate.epoch() {
            let message = "the read key and the locate key are of two epochs";
            return Err(Error::new(Kind::Invalid, "sync.keys", message)
                .with("read", read.epoch())
                .with("locate", locate.epoch()));
        }
        let access = Access::Read { read, locate };
        Ok(Self { group, access })
    }

    /// Returns the keys of a replica.
    pub fn replica(group: PublicKey, locate: LocateKey) -> Self {
        let access = Access::Replica { locate };
        Self { group, access }
    }

    /// Returns the keys for a member that may only read; `None` if these keys do not allow reading.
    pub fn to_read_only(&self) -> Option<Self> {
        let access = Access::Read {
            read: self.read()?.clone(),
            locate: self.locate().clone(),
        };
        let group = self.group;
        Some(Self { group, access })
    }

    /// Returns the keys for a member that may only keep a sealed copy.
    pub fn to_replica(&self) -> Self {
        Self::replica(self.group, self.locate().clone())
    }

    /// Returns the public key of the group's record.
    pub fn group(&self) -> PublicKey {
        self.group
    }

    /// Returns the id of the group, which is its record's id.
    pub fn id(&self) -> RecordId {
        group_id(self.group)
    }

    /// Returns the access that these keys allow.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Returns the epoch of the keys.
    pub fn epoch(&self) -> u32 {
        self.locate().epoch()
    }

    /// Returns the key that every member holds.
    pub fn locate(&self) -> &LocateKey {
        match &self.access {
            Access::Write { locate, .. }
            | Access::Read { locate, .. }
            | Access::Replica { locate } => locate,
        }
    }

    /// Returns the read key, if these keys include it.
    pub fn read(&self) -> Option<&ReadKey> {
        match &self.access {
            Access::Write { read, .. } | Access::Read { read, .. } => Some(read),
            Access::Replica { .. } => None,
        }
    }

    /// Returns the secret that writes the group's record, if these keys include it.
    pub fn secret(&self) -> Option<&GroupSecret> {
        match &self.access {
            Access::Write { secret, .. } => Some(secret),
            _ => None,
        }
    }
}

impl PartialEq for GroupKeys {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group
            && self.secret().is_some() == other.secret().is_some()
            && self.read() == other.read()
            && self.locate() == other.locate()
    }
}

impl Eq for GroupKeys {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> GroupSecret {
        GroupSecret::from_key(SecretKey::from_bytes([7; 32]))
    }

    #[test]
    fn keys_are_pinned() {
        let hex = |key: &[u8; 32]| blake3::Hash::from_bytes(*key).to_string();
        let keys = GroupKeys::write(secret(), 3);
        let lines = [
            hex(&keys.group().0),
            hex(&keys.id().0),
            hex(keys.locate().expose()),
            hex(keys.read().unwrap().expose()),
        ];
        crate::golden::check("keys.hex", &lines);
    }

    #[test]
    fn epochs_and_uses_differ() {
        let (a, b) = (ReadKey::derive(&secret(), 0), ReadKey::derive(&secret(), 1));
        assert_ne!(a.expose(), b.expose());
        assert_ne!(a.expose(), LocateKey::derive(&secret(), 0).expose());
        assert_ne!(derive(&a, "one"), derive(&a, "two"));
    }

    #[test]
    fn lesser_keys_lack_the_greater_ones() {
        let keys = GroupKeys::write(secret(), 0);
        let read = keys.to_read_only().unwrap();
        assert!(read.secret().is_none() && read.read().is_some());
        let replica = read.to_replica();
        assert!(replica.read().is_none() && replica.to_read_only().is_none());
        assert_eq!(replica.id(), keys.id());
        let later = LocateKey::derive(&secret(), 1);
        let read = keys.read().unwrap().clone();
        let error = GroupKeys::read_only(keys.group(), read, later).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = format!("{:?}", GroupKeys::write(secret(), 5));
        for part in [
            "GroupSecret(…)",
            "ReadKey(…, epoch 5)",
            "LocateKey(…, epoch 5)",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("7, 7") && !text.contains("0707"), "{text}");
    }
}
