//! The files of a tree that a device wants to have, according to its policy and its pins.
//!
//! ```text
//! policy           version u8 = 1 | what u8 (1 everything, 2 names, 3 pinned, 4 selected)
//!                  | selected: up to u64 | count u16 | for each prefix: length u16 | text
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, Result};

use super::name::{MAX_NAME_LEN, Name};
use crate::{codec::Fields, seal::file::sealed_len};

/// The most prefixes of a policy.
pub const MAX_PREFIXES: usize = 64;

const VERSION: u8 = 1;
const SET: &str = "sync.policy.set";
const READ: &str = "sync.policy.read";

/// The contents of others' repos that a member wants to have. Pinned files and the member's own files
/// are always wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Everything.
    #[default]
    Everything,
    /// Files that are chosen by path and size. A replica, which sees no paths, applies only the size.
    Selected {
        /// The prefixes of the wanted paths; if there are none, any path is wanted.
        prefixes: Vec<String>,
        /// The length of the longest wanted file, in bytes.
        up_to: u64,
    },
    /// No contents, except of files that are read; those then stay.
    Names,
    /// Only pinned files. Other files that are read nevertheless stay until they are freed.
    Pinned,
}

impl Policy {
    /// Encodes the policy. One with too many or too long prefixes is [`Kind::TooLarge`].
    pub fn encode(&self) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        bytes.put_u8(VERSION);
        match self {
            Self::Everything => bytes.put_u8(1),
            Self::Names => bytes.put_u8(2),
            Self::Pinned => bytes.put_u8(3),
            Self::Selected { prefixes, up_to } => {
                let fits = |prefix: &String| prefix.len() <= MAX_NAME_LEN;
                if prefixes.len() > MAX_PREFIXES || !prefixes.iter().all(fits) {
                    return Err(Error::new(
                        Kind::TooLarge,
                        SET,
                        "these prefixes are too many or too long",
                    )
                    .with("most", MAX_PREFIXES)
                    .with("longest", MAX_NAME_LEN));
                }
                bytes.put_u8(4);
                bytes.put_u64(*up_to);
                let short = "it was just compared with a small constant";
                bytes.put_u16(prefixes.len().try_into().expect(short));
                for prefix in prefixes {
                    bytes.put_u16(prefix.len().try_into().expect(short));
                    bytes.put_slice(prefix.as_bytes());
                }
            }
        }
        Ok(bytes.freeze())
    }

    /// Decodes a policy. Malformed bytes are [`Kind::Invalid`].
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(READ, VERSION, value)?;
        let policy = match fields.u8()? {
            1 => Self::Everything,
            2 => Self::Names,
            3 => Self::Pinned,
            4 => {
                let (up_to, count) = (fields.u64()?, fields.u16()?.into());
                if count > MAX_PREFIXES {
                    return Err(fields.invalid("the policy has too many prefixes"));
                }
                let mut prefixes = Vec::with_capacity(count);
                for _ in 0..count {
                    let len = fields.u16()?;
                    let text = str::from_utf8(fields.bytes(len.into())?);
                    let text = text.map_err(|error| {
                        fields.invalid("a prefix is not valid UTF-8").because(error)
                    })?;
                    prefixes.push(text.to_owned());
                }
                Self::Selected { prefixes, up_to }
            }
            other => {
                let error = fields.invalid("the kind of policy is unknown");
                return Err(error.with("policy", other));
            }
        };
        fields.end()?;
        Ok(policy)
    }
}

/// The files of one repo that a device wants, according to its policy and its pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    policy: Policy,
    pinned: BTreeSet<String>,
}

/// The digest of one version of [`Wants`].
pub type WantsDigest = [u8; 8];

impl Wants {
    /// All files are wanted.
    pub const EVERYTHING: Self = Self {
        policy: Policy::Everything,
        pinned: BTreeSet::new(),
    };

    /// Combines a policy with the paths that are pinned.
    pub fn new(policy: Policy, pinned: BTreeSet<String>) -> Self {
        Self { policy, pinned }
    }

    /// Returns true if every file is wanted.
    pub fn all(&self) -> bool {
        self.policy == Policy::Everything
    }

    /// Returns true if no file is wanted.
    pub fn none(&self) -> bool {
        matches!(self.policy, Policy::Names | Policy::Pinned) && self.pinned.is_empty()
    }

    /// Returns true if this file is wanted.
    pub fn wants(&self, name: &Name, size: u64) -> bool {
        let name = name.as_str();
        let selected = match &self.policy {
            Policy::Everything => true,
            Policy::Names | Policy::Pinned => false,
            Policy::Selected { prefixes, up_to } => {
                let begins = |prefix: &String| name.starts_with(prefix.as_str());
                size <= *up_to && (prefixes.is_empty() || prefixes.iter().any(begins))
            }
        };
        selected || self.is_pinned(name)
    }

    /// Returns true if files that were read stay although they are not wanted otherwise.
    pub fn keeps_read(&self) -> bool {
        self.policy == Policy::Names
    }

    fn is_pinned(&self, name: &str) -> bool {
        !self.pinned.is_empty()
            && (self.pinned.contains(name)
                || name
                    .match_indices('/')
                    .any(|(at, _)| self.pinned.contains(&name[..at])))
    }

    /// Returns the length of the longest sealed file that a replica, which sees no names, wants.
    pub fn longest_sealed(&self) -> u64 {
        match &self.policy {
            Policy::Everything => u64::MAX,
            Policy::Selected { up_to, .. } => sealed_len(*up_to),
            Policy::Names | Policy::Pinned => 0,
        }
    }

    /// Returns a digest that changes whenever other files are wanted.
    pub fn digest(&self) -> Result<WantsDigest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.policy.encode()?);
        for path in &self.pinned {
            hasher.update(&(path.len() as u64).to_be_bytes());
            hasher.update(path.as_bytes());
        }
        let digest = *hasher.finalize().as_bytes();
        Ok(*digest.first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(prefixes: &[&str]) -> Policy {
        Policy::Selected {
            prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
            up_to: 20 << 20,
        }
    }

    #[test]
    fn the_layout_stays() {
        let all = [
            Policy::Everything,
            Policy::Names,
            Policy::Pinned,
            selected(&[]),
            selected(&["photos/", "ü"]),
        ];
        let bytes = all.each_ref().map(|policy| policy.encode().unwrap());
        let cases: Vec<&[u8]> = bytes.iter().map(|bytes| &bytes[..]).collect();
        crate::golden::check_hex("policies.hex", &cases);
        for (policy, bytes) in all.iter().zip(&bytes) {
            assert_eq!(Policy::decode(bytes).unwrap(), *policy);
            for len in 0..bytes.len() {
                let error = Policy::decode(&bytes[..len]).unwrap_err();
                assert_eq!(error.message(), "the bytes end too early", "{len} bytes");
            }
            let more = [&bytes[..], b"x"].concat();
            let error = Policy::decode(&more).unwrap_err();
            assert_eq!(error.message(), "there are bytes after the end");
        }
        let digests = all.map(|policy| {
            let pinned = BTreeSet::new();
            Wants { policy, pinned }.digest().unwrap()
        });
        assert_eq!(BTreeSet::from(digests).len(), 5);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let prefixes = |count, len| vec!["x".repeat(len); count];
        for (count, len, fits) in [
            (MAX_PREFIXES, MAX_NAME_LEN, true),
            (MAX_PREFIXES + 1, 1, false),
            (1, MAX_NAME_LEN + 1, false),
        ] {
            let prefixes = prefixes(count, len);
            let encoded = Policy::Selected { prefixes, up_to: 1 }.encode();
            assert_eq!(encoded.is_ok(), fits, "{count} of {len}");
        }
        let many = [&[1, 4][..], &[0; 8], &[0, 65], &[0; 130]].concat();
        let error = Policy::decode(&many).unwrap_err();
        assert_eq!(error.message(), "the policy has too many prefixes");
    }

    #[test]
    fn pins_cover_what_is_below() {
        let wants = Wants {
            policy: Policy::Pinned,
            pinned: BTreeSet::from(["a/b".to_owned(), "c".to_owned()]),
        };
        for (name, is_wanted) in [
            ("a/b", true),
            ("a/b/x/y", true),
            ("c/d", true),
            ("a", false),
            ("a/bc", false),
            ("cd", false),
            ("x/c", false),
        ] {
            let name = Name::new(name).unwrap();
            assert_eq!(wants.wants(&name, 1), is_wanted, "{name}");
        }
    }
}
