//! The groups that this device remembers, in collections, and their keys, among the secrets.
//!
//! ```text
//! sync/groups      group id [32]                  -> version u8 = 1 | group's key [32]
//! sync/repos       group id [32] | repo id [32]   -> version u8 = 1 | repo's key [32]      ours
//! sync/addresses   group id [32]                  -> version u8 = 1 | for each: length u16 | text
//! sync/names       group id [32]                  -> its name by the invite, sealed as in its record
//! sync/local, sync/damaged   how much of each repo is here (local.rs)
//! sync/others      group id [32] | repo id [32]   -> version u8 = 1 | signed value (record_format)
//!                                    the root of another device of ours, until its tree is here
//! sync/promised    "until"                        -> version u8 = 1 | milliseconds since 1970, i64
//!                                    until then something may be kept for others (leases.rs)
//! sync/contacts    other devices that were met (contacts.rs)
//! secret group/ID  version u8 = 1 | access u8 (1 write, 2 read, 3 replica) | epoch u32
//!                  | secret [32]; or read key [32] | locate key [32]; or locate key [32]
//!                  (the group's key is in the collection)
//! secret repo/ID   the repo's secret key [32]
//! ```
//!
//! A secret is put before the entry that says that it is there. A crash may leave a secret that nothing
//! names, which does no harm.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{
    CollectionId, Error, Kind, PublicKey, RecordId, Result, Secret, SecretKey, SecretName, Secrets,
    Signed,
};
use larder_store_engine::{Collections, record_format};
use zeroize::Zeroizing;

use super::Inner;
use crate::{
    codec::Fields,
    keys::{Access, GroupKeys, GroupSecret, LocateKey, ReadKey},
};

const GROUPS: CollectionId = CollectionId::from_static("sync/groups");
const REPOS: CollectionId = CollectionId::from_static("sync/repos");
const ADDRESSES: CollectionId = CollectionId::from_static("sync/addresses");
const NAMES: CollectionId = CollectionId::from_static("sync/names");
const PROMISED: CollectionId = CollectionId::from_static("sync/promised");
const UNTIL: &[u8] = b"until";
const OTHERS: CollectionId = CollectionId::from_static("sync/others");
const VERSION: u8 = 1;
const WRITE: u8 = 1;
const READ: u8 = 2;
const REPLICA: u8 = 3;
const GROUP_SECRET: &str = "group/";
const REPO_SECRET: &str = "repo/";
const OPEN: &str = "sync.open";

fn group_secret(id: RecordId) -> Result<SecretName> {
    SecretName::new(format!("{GROUP_SECRET}{id}"))
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

pub(super) fn encode_keys(keys: &GroupKeys) -> Result<Secret> {
    let (access, parts): (u8, [Option<&[u8; 32]>; 2]) = match keys.access() {
        Access::Write { secret, .. } => (WRITE, [Some(secret.key().expose()), None]),
        Access::Read { read, locate } => (READ, [Some(read.expose()), Some(locate.expose())]),
        Access::Replica { locate } => (REPLICA, [Some(locate.expose()), None]),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(70));
    bytes.put_u8(VERSION);
    bytes.put_u8(access);
    bytes.put_u32(keys.epoch());
    for part in parts.into_iter().flatten() {
        bytes.put_slice(part);
    }
    Secret::new(bytes.as_slice())
}

pub(super) fn decode_keys(group: PublicKey, secret: &Secret) -> Result<GroupKeys> {
    let mut fields = Fields::versioned(OPEN, VERSION, secret.expose())?;
    let (access, epoch) = (fields.u8()?, fields.u32()?);
    let first = Zeroizing::new(fields.take::<32>()?);
    let keys = match access {
        WRITE => {
            let secret = GroupSecret::from_key(SecretKey::from_bytes(*first));
            GroupKeys::write(secret, epoch)
        }
        READ => {
            let second = Zeroizing::new(fields.take::<32>()?);
            let (read, locate) = (
                ReadKey::from_bytes(*first, epoch),
                LocateKey::from_bytes(*second, epoch),
            );
            GroupKeys::read_only(group, read, locate)?
        }
        REPLICA => GroupKeys::replica(group, LocateKey::from_bytes(*first, epoch)),
        other => {
            let error = fields.invalid("the keys allow what is not known here");
            return Err(error.with("access", other));
        }
    };
    fields.end()?;
    if keys.group() != group {
        let message = "the secret is that of another group";
        return Err(Error::new(Kind::Invalid, OPEN, message));
    }
    Ok(keys)
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
        let is_key = [GROUP_SECRET, REPO_SECRET]
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

/// The repos that this device writes, in all groups. Needs none of the keys.
/// Lists the repos that this device writes, each with its group.
pub(super) async fn our_repos(collections: &Collections) -> Result<Vec<(RecordId, RecordId)>> {
    let mut entries = collections.scan_range(REPOS, ..);
    let mut repos = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let group = entry.key.first_chunk().copied();
        let group = group
            .ok_or_else(|| damaged(Error::new(Kind::Corrupt, OPEN, "the key is too short")))?;
        let repo = decode_named(&entry.value).map_err(damaged)?;
        repos.push((RecordId(group), crate::records::repo_id(repo)));
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
    /// The keys of all groups.
    pub(super) async fn load_groups(&self) -> Result<Vec<GroupKeys>> {
        let mut entries = self.collections.scan_range(GROUPS, ..);
        let mut groups = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            let group = decode_named(&entry.value).map_err(damaged)?;
            let id = crate::records::group_id(group);
            let secret = self.secrets.get(group_secret(id)?).await?;
            let secret = secret.ok_or_else(|| missing("group", id))?;
            groups.push(decode_keys(group, &secret).map_err(damaged)?);
        }
        Ok(groups)
    }

    pub(super) async fn keep_group(&self, keys: &GroupKeys) -> Result<()> {
        let id = keys.id();
        self.secrets
            .put(group_secret(id)?, encode_keys(keys)?)
            .await?;
        let key = Bytes::copy_from_slice(&id.0);
        self.collections
            .put(GROUPS, key, named(keys.group()))
            .await?;
        Ok(())
    }

    /// Forgets a group and our repos in it; the keys go last.
    pub(super) async fn forget_group(&self, id: RecordId) -> Result<()> {
        for (repo, _) in self.load_repos(id).await? {
            self.forget_other(id, repo).await?;
            let key = [id.0, repo.0].concat();
            self.collections.delete(REPOS, key).await?;
            self.secrets.delete(repo_secret(repo)?).await?;
        }
        self.forget_wants(id).await?;
        let key = Bytes::copy_from_slice(&id.0);
        self.collections.delete(ADDRESSES, key.clone()).await?;
        self.collections.delete(NAMES, key.clone()).await?;
        self.forget_contacts(id).await?;
        self.collections.delete(GROUPS, key).await?;
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

    /// Returns the name that an invite gave to a group, sealed as in the group's record.
    pub(super) async fn load_name(&self, group: RecordId) -> Result<Option<Bytes>> {
        let entry = self.collections.get(NAMES, group.0.to_vec()).await?;
        Ok(entry.map(|entry| entry.value))
    }

    pub(super) async fn keep_name(&self, group: RecordId, sealed: Bytes) -> Result<()> {
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
            let id = crate::records::repo_id(repo);
            let secret = self.secrets.get(repo_secret(id)?).await?;
            let secret = secret.ok_or_else(|| missing("repo", id))?;
            let bytes = Zeroizing::new(<[u8; 32]>::try_from(secret.expose()).map_err(|error| {
                damaged(
                    Error::new(Kind::Invalid, OPEN, "a stored secret is not a key").because(error),
                )
            })?);
            repos.push((id, SecretKey::from_bytes(*bytes)));
        }
        Ok(repos)
    }

    pub(crate) async fn keep_repo(
        &self,
        group: RecordId,
        repo: PublicKey,
        secret: &SecretKey,
    ) -> Result<()> {
        let id = crate::records::repo_id(repo);
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

    fn all() -> [GroupKeys; 3] {
        let secret = GroupSecret::from_key(SecretKey::from_bytes([7; 32]));
        let write = GroupKeys::write(secret, 3);
        let read = write.to_read_only().expect("it can read");
        let replica = write.to_replica();
        [write, read, replica]
    }

    #[test]
    fn keys_are_kept_as_they_were() {
        for keys in all() {
            let secret = encode_keys(&keys).unwrap();
            assert!(decode_keys(keys.group(), &secret).unwrap() == keys);
            for len in 0..secret.expose().len() {
                let cut = Secret::new(&secret.expose()[..len]).unwrap();
                let error = decode_keys(keys.group(), &cut).unwrap_err();
                assert_eq!(error.kind(), Kind::Invalid, "{len} bytes");
                assert_eq!(error.message(), "the bytes end too early", "{len} bytes");
            }
        }
    }

    #[test]
    fn the_layout_stays() {
        let lens = all().map(|keys| encode_keys(&keys).unwrap().expose().to_vec());
        assert_eq!(lens.each_ref().map(Vec::len), [38, 70, 38]);
        assert_eq!(lens[0][..6], [1, 1, 0, 0, 0, 3]);
        assert_eq!(lens[0][6..], [7; 32]);
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
        cases.extend(lens.iter().map(|secret| &secret[..]));
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
