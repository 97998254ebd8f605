//! The keys of one epoch of a group, and the right that each of them gives.
//!
//! ```text
//! secret of an epoch [32], random    membership/secret.rs
//!   ├─ locate key                    finds members and copies what they have, sealed
//!   └─ read key                      opens names, pages and files
//! ```
//!
//! What is sealed carries the label of its epoch, by which its key is found. Two epochs may have one label.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

mod sealed {
    pub trait Sealed {
        /// Derives the key for one use, named by `context`.
        fn derive(&self, context: &str) -> zeroize::Zeroizing<[u8; 32]>;
    }
}

/// A key of a group in one epoch: a [`LocateKey`] or a [`ReadKey`].
pub trait EpochKey: sealed::Sealed + fmt::Debug + Send + Sync {
    /// Returns the label of the key's epoch.
    fn epoch(&self) -> u32;
}

macro_rules! epoch_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, ZeroizeOnDrop)]
        pub struct $name {
            key: [u8; 32],
            #[zeroize(skip)]
            epoch: u32,
        }

        impl $name {
            /// Makes a key from its bytes and the label of its epoch.
            pub fn from_bytes(key: [u8; 32], epoch: u32) -> Self {
                Self { key, epoch }
            }

            /// Returns the 32 bytes, for passing the key on.
            pub fn expose(&self) -> &[u8; 32] {
                &self.key
            }

            /// Returns the label of the key's epoch.
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
    LocateKey
}

epoch_key! {
    /// Opens the names, pages and files of a group.
    ReadKey
}

/// Returns true if two secrets are equal; takes constant time.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}

/// Derives a key for one use, named by `context`, from a key of a group.
pub fn derive(key: &impl EpochKey, context: &str) -> Zeroizing<[u8; 32]> {
    sealed::Sealed::derive(key, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_differ() {
        let key = ReadKey::from_bytes([7; 32], 5);
        assert_ne!(derive(&key, "one"), derive(&key, "two"));
        assert_ne!(key, ReadKey::from_bytes([7; 32], 6));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (read, locate) = (
            ReadKey::from_bytes([7; 32], 5),
            LocateKey::from_bytes([7; 32], 5),
        );
        let text = format!("{read:?} {locate:?}");
        assert_eq!(text, "ReadKey(…, epoch 5) LocateKey(…, epoch 5)");
    }
}
