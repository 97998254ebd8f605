//! The policies of a device: the contents of others' repos that it wants to have; the list of files
//! always comes.
//!
//! ```text
//! sync/policies    group id [32], or group id [32] | repo id [32] -> policy (tree/wants.rs)
//! sync/pinned      group id [32] | repo id [32] | BLAKE3 of the path [32]
//!                    -> version u8 = 1 | path
//! ```

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{CollectionId, Error, Kind, RecordId, Result};
use larder_store_engine::Hash;

use super::{Event, Group, Inner, Repo, Standing};
use crate::{
    codec::Fields,
    membership::Rights,
    tree::{
        Name,
        wants::{Policy, Wants},
    },
};

/// The most paths of a repo that are pinned.
pub const MAX_PINNED: usize = 4096;

const POLICIES: CollectionId = CollectionId::from_static("sync/policies");
const PINNED: CollectionId = CollectionId::from_static("sync/pinned");
const VERSION: u8 = 1;
const SET: &str = "sync.policy.set";
const READ: &str = "sync.policy.read";
const PIN: &str = "sync.pin";

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
    let no_text = fields.invalid("the path is not valid UTF-8");
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
        && group.standing() == Standing::Member
        && !group.rights().covers(Rights::READ)
    {
        let message = "a replica sees no paths: choose by size alone";
        return Err(Error::new(Kind::Unsupported, SET, message).with("group", group.id()));
    }
    Ok(())
}

impl Group {
    /// Returns the policy of this device for the group's repos; `None` if none was set: then [the
    /// replicator's](crate::replicate::ReplicateOptions::policy) holds.
    pub async fn policy(&self) -> Result<Option<Policy>> {
        self.inner().policy(self.id().0.to_vec()).await
    }

    /// Says what this device wants of the group's repos, from now on and durably; `None` takes that back.
    /// Files that come to be wanted are fetched; a file that is not wanted any more stays until it is
    /// [freed](crate::replicate::Replicator::free), or its owner removes it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for prefixes on a replica, [`Kind::TooLarge`] for more than
    /// [`MAX_PREFIXES`](crate::groups::MAX_PREFIXES).
    pub async fn set_policy(&self, policy: impl Into<Option<Policy>>) -> Result<()> {
        let policy = policy.into();
        let policy = policy.as_ref();
        check(self, policy)?;
        let (inner, key) = (self.inner(), self.id().0.to_vec());
        inner.set_policy(self.id(), key, policy).await
    }
}

impl Repo {
    fn policy_key(&self) -> Vec<u8> {
        [self.group().id().0, self.id().0].concat()
    }

    /// Returns the policy of this device for this repo; `None` if none was set: then that of its
    /// group holds.
    pub async fn policy(&self) -> Result<Option<Policy>> {
        self.group().inner().policy(self.policy_key()).await
    }

    /// Sets the policy for this repo alone, as [`Group::set_policy`] does for a group.
    ///
    /// # Errors
    /// The errors of [`Group::set_policy`].
    pub async fn set_policy(&self, policy: impl Into<Option<Policy>>) -> Result<()> {
        let policy = policy.into();
        let policy = policy.as_ref();
        check(self.group(), policy)?;
        let inner = self.group().inner();
        let (group, key) = (self.group().id(), self.policy_key());
        inner.set_policy(group, key, policy).await
    }

    /// Pins a path, with all that is below it: its contents are wanted whatever the policy. The path may
    /// have no file yet. Pinning twice is not an error.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an invalid path, [`Kind::Full`] if [`MAX_PINNED`] are pinned,
    /// [`Kind::Denied`] to a replica.
    pub async fn pin(&self, path: &str) -> Result<()> {
        self.group().check_reads(PIN)?;
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

    /// Takes a [pin](Self::pin) back. A path that is not pinned is not an error.
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

    /// Returns what this device wants of the repo; `default` is the policy if none was set.
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
        Ok(Wants::new(policy, pinned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_pins_stays() {
        let path = encode_path("photos/a b");
        crate::golden::check_hex("pinned.hex", &[&path]);
        assert_eq!(decode_path(&path).unwrap(), "photos/a b");
        let version = "the bytes have a version that is not known here";
        for (bytes, expected) in [
            (b"\x02x", version),
            (b"\x01\xff", "the path is not valid UTF-8"),
        ] {
            assert_eq!(decode_path(bytes).unwrap_err().message(), expected);
        }
    }
}
