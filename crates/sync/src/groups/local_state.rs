//! The groups that this device remembers, in collections, and their keys, among the secrets.
//!
//! ```text
//! sync/groups      group id [32]                  -> version u8 = 2
//! sync/repos       group id [32] | repo id [32]   -> version u8 = 1 | repo's key [32]      ours
//! sync/addresses   group id [32]                  -> version u8 = 1 | for each: length u16 | text
//! sync/names       group id [32]                  -> its name by the invite, sealed with a key of this device
//! sync/profiles    group id [32] | repo id [32]   -> our profile, sealed with a key of this device until it is told
//! sync/ops, sync/boxes   operations of members (members/stored.rs)
//! sync/local, sync/damaged   how much of each repo is here (local_trees.rs)
//! sync/others      group id [32] | repo id [32]   -> version u8 = 1 | signed value (record_format)
//!                                    the root of another device of ours, until its tree is here
//! sync/promised    "until"                        -> version u8 = 1 | milliseconds since 1970, i64
//!                                    until then something may be kept for others (leases.rs)
//! sync/contacts    other devices that were met (contacts.rs)
//! secret group/ID  keys of this device (members/secret.rs)
//! secret root/ID   the secret key of the group's root [32], where the group was made
//! secret repo/ID   the repo's secret key [32]
//! ```
//!
//! A secret is put before the entry that says that it is there. A crash may leave a secret that nothing
//! names, which does no harm.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{
    CollectionId, Edit, Error, Kind, PublicKey, RecordId, Result, Secret, SecretKey, SecretName,
    Secrets, Signed,
};
use larder_store_engine::{Collections, record_format};
use zeroize::Zeroizing;

use super::{Inner, members::DeviceSecret};
use crate::{
    codec::Fields,
    keys::ReadKey,
    records::{open_group_name, seal_group_name},
};

const GROUPS: CollectionId = CollectionId::from_static("sync/groups");
const REPOS: CollectionId = CollectionId::from_static("sync/repos");
const ADDRESSES: CollectionId = CollectionId::from_static("sync/addresses");
const NAMES: CollectionId = CollectionId::from_static("sync/names");
const PROMISED: CollectionId = CollectionId::from_static("sync/promised");
const UNTIL: &[u8] = b"until";
const OTHERS: CollectionId = CollectionId::from_static("sync/others");
const VERSION: u8 = 1;
const GROUP_VERSION: u8 = 2;
const PROFILES: CollectionId = CollectionId::from_static("sync/profiles");
const ROOT_SECRET: &str = "root/";
const GROUP_SECRET: &str = "group/";
const REPO_SECRET: &str = "repo/";
const OPEN: &str = "sync.open";

fn group_secret(id: RecordId) -> Result<SecretName> {
    SecretName::new(format!("{GROUP_SECRET}{id}"))
}

fn root_secret(id: RecordId) -> Result<SecretName> {
    SecretName::new(format!("{ROOT_SECRET}{id}"))
}

fn repo_secret(id: RecordId) -> Result<SecretName> {
    SecretName::new(format!("{REPO_SECRET}{id}"))
}

pub(super) fn named(key: PublicKey) -> Bytes {
    [&[VERSION], &key.0[..]].concat().into()
}

pub(super) fn decode_named(value: &[u8]) -> Result<PublicKey> {
    let mut fields = Fields::versioned(OPEN, VERSION, value)?;
    let key = PublicKey(fields.take()?);
    fields.end()?;
    Ok(key)
}

fn damaged(error: Error) -> Error {
    let message = "what is remembered of a group is damaged";
    Error::new(Kind::Corrupt, OPEN, message).because(error)
}

fn missing(what: &'static str, id: RecordId) -> Error {
    let message = "a key of a group is not among the secrets; bring them back";
    Error::new(Kind::NotFound, OPEN, message).with(what, id)
}

fn secret_key(secret: &Secret) -> Result<SecretKey> {
    let bytes = <[u8; 32]>::try_from(secret.expose());
    let bytes = Zeroizing::new(bytes.map_err(|error| {
        damaged(Error::new(Kind::Invalid, OPEN, "a stored secret is not a key").because(error))
    })?);
    Ok(SecretKey::from_bytes(*bytes))
}

pub(super) fn encode_addresses(all: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    for address in all {
        let len = u16::try_from(address.len()).expect("an invite's address has at most 1 KiB");
        bytes.put_u16(len);
        bytes.put_slice(address.as_bytes());
    }
    bytes.freeze()
}

pub(super) fn decode_addresses(value: &[u8]) -> Result<Vec<String>> {
    let mut fields = Fields::versioned(OPEN, VERSION, value)?;
    let mut all = Vec::new();
    while !fields.is_empty() {
        let len = fields.u16()?;
        let text = str::from_utf8(fields.bytes(len.into())?);
        let text = text.map_err(|error| {
            fields
                .invalid("an address is not valid UTF-8")
                .because(error)
        })?;
        all.push(text.to_owned());
    }
    Ok(all)
}

pub(super) fn encode_promised(until: i64) -> Bytes {
    [&[VERSION], &until.to_be_bytes()[..]].concat().into()
}

pub(super) fn decode_promised(value: &[u8]) -> Result<i64> {
    let mut fields = Fields::versioned(OPEN, VERSION, value)?;
    let until = fields.i64()?;
    fields.end()?;
    Ok(until)
}

pub(super) async fn copy_keys(from: &dyn Secrets, to: &dyn Secrets) -> Result<u64> {
    let mut copied = 0;
    for name in from.list().await? {
        let is_key = [GROUP_SECRET, ROOT_SECRET, REPO_SECRET]
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix));
        if is_key
            && to.get(name.clone()).await?.is_none()
            && let Some(secret) = from.get(name.clone()).await?
        {
            to.put(name, secret).await?;
            copied += 1;
        }
    }
    Ok(copied)
}

/// Lists the repos that this device writes, each with its group.
pub(super) async fn our_repos(collections: &Collections) -> Result<Vec<(RecordId, RecordId)>> {
    let mut entries = collections.scan_range(REPOS, ..);
    let mut repos = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let group = entry.key.first_chunk().copied();
        let group = group
            .ok_or_else(|| damaged(Error::new(Kind::Corrupt, OPEN, "the key is too short")))?;
        let repo = decode_named(&entry.value).map_err(damaged)?;
        let group = RecordId(group);
        repos.push((group, crate::records::repo_id(group, repo)));
    }
    Ok(repos)
}

pub(super) async fn has_groups(collections: &Collections) -> Result<bool> {
    let first = collections.scan_range(GROUPS, ..).try_next().await?;
    Ok(first.is_some())
}

pub(super) fn encode_other(signed: &Signed) -> Result<Bytes> {
    Ok([&[VERSION], &record_format::encode_signed(signed)?[..]]
        .concat()
        .into())
}

pub(super) fn decode_other(value: &Bytes) -> Result<Signed> {
    let fields = Fields::versioned(OPEN, VERSION, value)?;
    record_format::decode_signed(&value.slice_ref(fields.rest()))
}

impl Inner {
    /// All groups, with the secrets of this device in them.
    pub(super) async fn load_groups(&self) -> Result<Vec<(RecordId, DeviceSecret)>> {
        let mut entries = self.collections.scan_range(GROUPS, ..);
        let mut groups = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let id = <[u8; 32]>::try_from(&*entry.key);
            let id = RecordId(id.map_err(|error| {
                let message = "the id of a group is too short";
                damaged(Error::new(Kind::Invalid, OPEN, message).because(error))
            })?);
            let secret = self.secrets.get(group_secret(id)?).await?;
            let secret = secret.ok_or_else(|| missing("group", id))?;
            let decoded = DeviceSecret::decode(&secret);
            groups.push((
                id,
                decoded.map_err(|error| match error.kind() {
                    Kind::Unsupported => error.with("group", id),
                    _ => damaged(error),
                })?,
            ));
        }
        Ok(groups)
    }

    pub(super) async fn keep_device(&self, id: RecordId, secret: &Secret) -> Result<()> {
        self.secrets.put(group_secret(id)?, secret.clone()).await
    }

    /// The edit that [`keep_group`](Self::keep_group) makes.
    pub(super) fn group_edit(id: RecordId) -> Edit {
        Edit::put(GROUPS, Bytes::copy_from_slice(&id.0), vec![GROUP_VERSION])
    }

    pub(super) async fn keep_group(&self, id: RecordId, secret: &DeviceSecret) -> Result<()> {
        self.keep_device(id, &secret.encode()?).await?;
        let key = Bytes::copy_from_slice(&id.0);
        self.collections
            .put(GROUPS, key, vec![GROUP_VERSION])
            .await?;
        Ok(())
    }

    /// Returns the secret of a group's root, if it is here.
    pub(crate) async fn root_secret(&self, id: RecordId) -> Result<Option<SecretKey>> {
        let secret = self.secrets.get(root_secret(id)?).await?;
        secret.as_ref().map(secret_key).transpose()
    }

    pub(super) async fn keep_root(&self, id: RecordId, root: &SecretKey) -> Result<()> {
        let secret = Secret::new(root.expose().as_slice())?;
        self.secrets.put(root_secret(id)?, secret).await
    }

    pub(super) async fn forget_root(&self, id: RecordId) -> Result<()> {
        self.secrets.delete(root_secret(id)?).await
    }

    /// Returns the profile of a repo of ours that was not told yet.
    pub(super) async fn load_profile(
        &self,
        group: RecordId,
        repo: RecordId,
    ) -> Result<Option<Bytes>> {
        let key = [group.0, repo.0].concat();
        let entry = self.collections.get(PROFILES, key).await?;
        Ok(entry.map(|entry| entry.value))
    }

    pub(super) async fn keep_profile(
        &self,
        group: RecordId,
        repo: RecordId,
        sealed: Bytes,
    ) -> Result<()> {
        let key = [group.0, repo.0].concat();
        self.collections.put(PROFILES, key, sealed).await?;
        Ok(())
    }

    pub(super) async fn forget_profile(&self, group: RecordId, repo: RecordId) -> Result<()> {
        let key = [group.0, repo.0].concat();
        self.collections.delete(PROFILES, key).await?;
        Ok(())
    }

    /// Forgets a group and our repos in it; the keys go last.
    pub(super) async fn forget_group(&self, id: RecordId) -> Result<()> {
        for (repo, _) in self.load_repos(id).await? {
            self.forget_other(id, repo).await?;
            let key = [id.0, repo.0].concat();
            self.collections.delete(REPOS, key).await?;
            self.forget_profile(id, repo).await?;
            self.secrets.delete(repo_secret(repo)?).await?;
        }
        self.forget_wants(id).await?;
        let key = Bytes::copy_from_slice(&id.0);
        self.collections.delete(ADDRESSES, key.clone()).await?;
        self.collections.delete(NAMES, key.clone()).await?;
        self.forget_contacts(id).await?;
        self.forget_ops(id).await?;
        self.collections.delete(GROUPS, key).await?;
        self.forget_root(id).await?;
        self.secrets.delete(group_secret(id)?).await
    }

    /// Returns the addresses at which members of a group may be found, from invites.
    pub(super) async fn load_addresses(&self, group: RecordId) -> Result<Vec<String>> {
        let entry = self.collections.get(ADDRESSES, group.0.to_vec()).await?;
        match entry {
            Some(entry) => decode_addresses(&entry.value).map_err(damaged),
            None => Ok(Vec::new()),
        }
    }

    pub(super) async fn keep_addresses(&self, group: RecordId, all: &[String]) -> Result<()> {
        self.collections
            .put(ADDRESSES, group.0.to_vec(), encode_addresses(all))
            .await?;
        Ok(())
    }

    /// Returns the name that an invite gave to a group; `None` too if it cannot be opened.
    pub(super) async fn load_name(&self, group: RecordId, key: ReadKey) -> Result<Option<String>> {
        let entry = self.collections.get(NAMES, group.0.to_vec()).await?;
        let name = entry.and_then(|entry| open_group_name(&key, group, &entry.value).ok());
        Ok(name.map(|(_, name)| name))
    }

    pub(super) async fn keep_name(&self, group: RecordId, key: &ReadKey, name: &str) -> Result<()> {
        let sealed = seal_group_name(key, group, 0, name)?;
        self.collections
            .put(NAMES, group.0.to_vec(), sealed)
            .await?;
        Ok(())
    }

    /// Our repos in a group, with their keys.
    pub(super) async fn load_repos(&self, group: RecordId) -> Result<Vec<(RecordId, SecretKey)>> {
        let prefix = Bytes::copy_from_slice(&group.0);
        let mut entries = self.collections.scan_prefix(REPOS, prefix);
        let mut repos = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let repo = decode_named(&entry.value).map_err(damaged)?;
            let id = crate::records::repo_id(group, repo);
            let secret = self.secrets.get(repo_secret(id)?).await?;
            let secret = secret.ok_or_else(|| missing("repo", id))?;
            repos.push((id, secret_key(&secret)?));
        }
        Ok(repos)
    }

    pub(crate) async fn keep_repo(
        &self,
        group: RecordId,
        repo: PublicKey,
        secret: &SecretKey,
    ) -> Result<()> {
        let id = crate::records::repo_id(group, repo);
        let bytes = Secret::new(secret.expose().as_slice())?;
        self.secrets.put(repo_secret(id)?, bytes).await?;
        let key = [group.0, id.0].concat();
        self.collections.put(REPOS, key, named(repo)).await?;
        Ok(())
    }

    /// Returns the time until which something that would be freed may be kept for others.
    pub(crate) async fn promised(&self) -> Result<Option<i64>> {
        let entry = self.collections.get(PROMISED, UNTIL).await?;
        entry
            .map(|entry| decode_promised(&entry.value).map_err(damaged))
            .transpose()
    }

    pub(crate) async fn keep_promised(&self, until: i64) -> Result<()> {
        let value = encode_promised(until);
        self.collections.put(PROMISED, UNTIL, value).await?;
        Ok(())
    }

    /// The root of a repo of ours that another device made and that waits for its tree.
    pub(super) async fn other(&self, group: RecordId, repo: RecordId) -> Result<Option<Signed>> {
        let key = [group.0, repo.0].concat();
        let entry = self.collections.get(OTHERS, key).await?;
        entry
            .map(|entry| decode_other(&entry.value).map_err(damaged))
            .transpose()
    }

    pub(super) async fn keep_other(
        &self,
        group: RecordId,
        repo: RecordId,
        signed: &Signed,
    ) -> Result<()> {
        let key = [group.0, repo.0].concat();
        self.collections
            .put(OTHERS, key, encode_other(signed)?)
            .await?;
        Ok(())
    }

    pub(super) async fn forget_other(&self, group: RecordId, repo: RecordId) -> Result<()> {
        let key = [group.0, repo.0].concat();
        self.collections.delete(OTHERS, key).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_stays() {
        let key = PublicKey([9; 32]);
        assert_eq!(decode_named(&named(key)).unwrap(), key);
        let at = ["mem://a".to_owned(), "ü".to_owned()];
        assert_eq!(decode_addresses(&encode_addresses(&at)).unwrap(), at);
        let (named, at) = (named(key), encode_addresses(&at));
        let signed = Signed {
            value: Bytes::from_static(b"value"),
            seq: 7,
            writer: PublicKey([3; 32]),
            signature: Bytes::from_static(&[4; 64]),
        };
        let bytes = encode_other(&signed).unwrap();
        let mut cases: Vec<&[u8]> = vec![&named, &at, &bytes];
        let promised = encode_promised(1_700_000_000_000);
        assert_eq!(decode_promised(&promised).unwrap(), 1_700_000_000_000);
        cases.push(&promised);
        crate::golden::check_hex("kept.hex", &cases);
        assert_eq!(decode_other(&bytes).unwrap(), signed);
        for len in 0..bytes.len() - signed.value.len() {
            let error = decode_other(&bytes.slice(..len)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{len} bytes");
        }
    }
}
