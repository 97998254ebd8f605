//! Which contents of others' repos a device wants to have; which files there are always comes.
//!
//! ```text
//! sync/policies    group id [32], or group id [32] | repo id [32]
//!                    -> version u8 = 1 | what u8 (1 everything, 2 names, 3 pinned, 4 selected)
//!                       | selected: up to u64 | count u16 | for each prefix: length u16 | text
//! sync/pinned      group id [32] | repo id [32] | BLAKE3 of the path [32]
//!                    -> version u8 = 1 | path
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use store_api::{CollectionId, Error, Kind, RecordId, Result};
use store_engine::Hash;

use super::{Event, Group, Inner, Repo};
use crate::{
    codec::Fields,
    seal::file::sealed_len,
    tree::{MAX_NAME_LEN, Name},
};

/// The most prefixes that a policy has.
pub const MAX_PREFIXES: usize = 64;
/// The most paths of a repo that are pinned.
pub const MAX_PINNED: usize = 4096;

const POLICIES: CollectionId = CollectionId::from_static("sync/policies");
const PINNED: CollectionId = CollectionId::from_static("sync/pinned");
const VERSION: u8 = 1;
const SET: &str = "sync.policy.set";
const READ: &str = "sync.policy.read";
const PIN: &str = "sync.pin";

/// Which contents a member wants to have of others' repos. What is pinned is always wanted, and so is all
/// of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Policy {
    /// Everything.
    #[default]
    Everything,
    /// Files that are chosen by path and size. A replica, which sees no paths, goes by size alone.
    Selected {
        /// What their paths begin with, one of these; any path where there is none.
        prefixes: Vec<String>,
        /// How many bytes they have at most.
        up_to: u64,
    },
    /// None, but when they are read; what was read stays.
    Names,
    /// None but what is pinned. What was read nevertheless stays until it is
    /// [freed](crate::replicate::Replicator::free).
    Pinned,
}

impl Policy {
    pub(super) fn encode(&self) -> Result<Bytes> {
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

    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(READ, VERSION, value)?;
        let policy = match fields.u8()? {
            1 => Self::Everything,
            2 => Self::Names,
            3 => Self::Pinned,
            4 => {
                let (up_to, count) = (fields.u64()?, fields.u16()?.into());
                if count > MAX_PREFIXES {
                    return Err(fields.invalid("too many prefixes"));
                }
                let mut prefixes = Vec::with_capacity(count);
                for _ in 0..count {
                    let len = fields.u16()?;
                    let text = str::from_utf8(fields.bytes(len.into())?);
                    let text = text.map_err(|error| fields.invalid("no text").because(error))?;
                    prefixes.push(text.to_owned());
                }
                Self::Selected { prefixes, up_to }
            }
            other => {
                let error = fields.invalid("a policy that is not known here");
                return Err(error.with("policy", other));
            }
        };
        fields.end()?;
        Ok(policy)
    }
}

/// What a device wants of one repo: its policy, and what is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants {
    policy: Policy,
    pinned: BTreeSet<String>,
}

/// Tells apart what was wanted at different times.
pub(crate) type WantsDigest = [u8; 8];

impl Wants {
    pub(crate) const EVERYTHING: Self = Self {
        policy: Policy::Everything,
        pinned: BTreeSet::new(),
    };

    /// Whether every file is wanted.
    pub(crate) fn all(&self) -> bool {
        self.policy == Policy::Everything
    }

    /// Whether none is.
    pub(crate) fn none(&self) -> bool {
        matches!(self.policy, Policy::Names | Policy::Pinned) && self.pinned.is_empty()
    }

    /// Whether this file is.
    pub(crate) fn wants(&self, name: &Name, size: u64) -> bool {
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

    /// Whether what was read of others stays although it is not wanted otherwise.
    pub(crate) fn keeps_read(&self) -> bool {
        self.policy == Policy::Names
    }

    fn is_pinned(&self, name: &str) -> bool {
        !self.pinned.is_empty()
            && (self.pinned.contains(name)
                || name
                    .match_indices('/')
                    .any(|(at, _)| self.pinned.contains(&name[..at])))
    }

    /// The longest sealed file that a replica wants, which sees no names.
    pub(crate) fn longest_sealed(&self) -> u64 {
        match &self.policy {
            Policy::Everything => u64::MAX,
            Policy::Selected { up_to, .. } => sealed_len(*up_to),
            Policy::Names | Policy::Pinned => 0,
        }
    }

    pub(crate) fn digest(&self) -> Result<WantsDigest> {
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

fn damaged(error: Error) -> Error {
    Error::new(
        Kind::Corrupt,
        READ,
        "what is remembered of a policy is damaged",
    )
    .because(error)
}

fn pin_key(group: RecordId, repo: RecordId, path: &str) -> Bytes {
    let hash = Hash::of(path);
    [&group.0[..], &repo.0, hash.as_bytes()].concat().into()
}

fn encode_path(path: &str) -> Bytes {
    [&[VERSION], path.as_bytes()].concat().into()
}

fn decode_path(value: &[u8]) -> Result<String> {
    let fields = Fields::versioned(READ, VERSION, value)?;
    let no_text = fields.invalid("no text");
    let text = str::from_utf8(fields.rest());
    Ok(text.map_err(|error| no_text.because(error))?.to_owned())
}

impl Inner {
    async fn policy(&self, key: Vec<u8>) -> Result<Option<Policy>> {
        let entry = self.collections.get(POLICIES, key).await?;
        entry
            .map(|entry| Policy::decode(&entry.value).map_err(damaged))
            .transpose()
    }

    async fn set_policy(
        &self,
        group: RecordId,
        key: Vec<u8>,
        policy: Option<&Policy>,
    ) -> Result<()> {
        match policy {
            Some(policy) => {
                let value = policy.encode()?;
                self.collections.put(POLICIES, key, value).await?;
            }
            None => {
                self.collections.delete(POLICIES, key).await?;
            }
        }
        self.tell(Event::Wants { group });
        Ok(())
    }

    async fn pinned(&self, group: RecordId, repo: RecordId) -> Result<BTreeSet<String>> {
        let prefix: Bytes = [group.0, repo.0].concat().into();
        let mut entries = self.collections.scan_prefix(PINNED, prefix);
        let mut all = BTreeSet::new();
        while let Some(entry) = entries.try_next().await? {
            all.insert(decode_path(&entry.value).map_err(damaged)?);
        }
        Ok(all)
    }

    /// Forgets what was wanted of a group.
    pub(super) async fn forget_wants(&self, group: RecordId) -> Result<()> {
        for collection in [POLICIES, PINNED] {
            let prefix = Bytes::copy_from_slice(&group.0);
            let mut entries = self.collections.scan_prefix(collection.clone(), prefix);
            let mut keys = Vec::new();
            while let Some(entry) = entries.try_next().await? {
                keys.push(entry.key);
            }
            drop(entries);
            for key in keys {
                self.collections.delete(collection.clone(), key).await?;
            }
        }
        Ok(())
    }
}

fn check(group: &Group, policy: Option<&Policy>) -> Result<()> {
    if let Some(Policy::Selected { prefixes, .. }) = policy
        && !prefixes.is_empty()
        && group.keys().read().is_none()
    {
        let message = "a replica sees no paths: choose by size alone";
        return Err(Error::new(Kind::Unsupported, SET, message).with("group", group.id()));
    }
    Ok(())
}

impl Group {
    /// What this device wants of the group's repos; `None` where nothing was said: then it is
    /// [as the replicator was told](crate::replicate::Options::policy).
    pub async fn policy(&self) -> Result<Option<Policy>> {
        self.inner().policy(self.id().0.to_vec()).await
    }

    /// Says what this device wants of the group's repos, from now on and durably; `None` takes that back.
    /// What comes to be wanted is fetched; what is not wanted any more stays until it is
    /// [freed](crate::replicate::Replicator::free), or its owner removes it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for prefixes on a replica, [`Kind::TooLarge`] for more than
    /// [`MAX_PREFIXES`].
    pub async fn set_policy(&self, policy: Option<&Policy>) -> Result<()> {
        check(self, policy)?;
        let (inner, key) = (self.inner(), self.id().0.to_vec());
        inner.set_policy(self.id(), key, policy).await
    }
}

impl Repo {
    fn policy_key(&self) -> Vec<u8> {
        [self.group().id().0, self.id().0].concat()
    }

    /// What this device wants of this repo; `None` where nothing was said: then it is as of its group.
    pub async fn policy(&self) -> Result<Option<Policy>> {
        self.group().inner().policy(self.policy_key()).await
    }

    /// The same as [`Group::set_policy`], for this repo alone.
    ///
    /// # Errors
    /// As of [`Group::set_policy`].
    pub async fn set_policy(&self, policy: Option<&Policy>) -> Result<()> {
        check(self.group(), policy)?;
        let inner = self.group().inner();
        let (group, key) = (self.group().id(), self.policy_key());
        inner.set_policy(group, key, policy).await
    }

    /// Pins a path, with all that is below it: its contents are wanted whatever the policy. The path may
    /// have no file yet. Pinning twice is no error.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a path that is none, [`Kind::Full`] where [`MAX_PINNED`] are pinned,
    /// [`Kind::Denied`] to a replica.
    pub async fn pin(&self, path: &str) -> Result<()> {
        self.group().read_key(PIN)?;
        let path = Name::new(path)?;
        let (inner, group) = (self.group().inner(), self.group().id());
        let pinned = inner.pinned(group, self.id()).await?;
        if pinned.len() >= MAX_PINNED && !pinned.contains(path.as_str()) {
            let message = "too many paths of this repo are pinned: pin what is above them";
            return Err(Error::new(Kind::Full, PIN, message).with("most", MAX_PINNED));
        }
        let key = pin_key(group, self.id(), path.as_str());
        let value = encode_path(path.as_str());
        inner.collections.put(PINNED, key, value).await?;
        inner.tell(Event::Wants { group });
        Ok(())
    }

    /// Takes a [pin](Self::pin) back. What is not pinned is no error.
    pub async fn unpin(&self, path: &str) -> Result<()> {
        let (inner, group) = (self.group().inner(), self.group().id());
        let key = pin_key(group, self.id(), path);
        inner.collections.delete(PINNED, key).await?;
        inner.tell(Event::Wants { group });
        Ok(())
    }

    /// The paths that are pinned.
    pub async fn pinned(&self) -> Result<BTreeSet<String>> {
        let group = self.group();
        group.inner().pinned(group.id(), self.id()).await
    }

    /// What this device wants of it; `default` is for who has said nothing.
    pub(crate) async fn wants(&self, default: &Policy) -> Result<Wants> {
        if self.is_ours() {
            return Ok(Wants::EVERYTHING);
        }
        let policy = match self.policy().await? {
            Some(policy) => Some(policy),
            None => self.group().policy().await?,
        };
        let policy = policy.unwrap_or_else(|| default.clone());
        let pinned = match policy {
            Policy::Everything => BTreeSet::new(),
            _ => self.pinned().await?,
        };
        Ok(Wants { policy, pinned })
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
        let path = encode_path("photos/a b");
        let mut cases: Vec<&[u8]> = bytes.iter().map(|bytes| &bytes[..]).collect();
        cases.push(&path);
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
        assert_eq!(decode_path(&path).unwrap(), "photos/a b");
        let version = "the bytes have a version that is not known here";
        for (bytes, expected) in [(b"\x02x", version), (b"\x01\xff", "no text")] {
            assert_eq!(decode_path(bytes).unwrap_err().message(), expected);
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
        assert_eq!(error.message(), "too many prefixes");
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
