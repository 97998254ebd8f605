//! A group: its record says which repos are in it, its keys what we can make of them.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use larder_store_api::{
    Error, Freshness, Kind, PublicKey, Put, PutRecord, RecordId, RecordStore, Result, SecretKey,
    SeqExpect, Slot,
};
use larder_store_engine::{Blobs, Records, generate_key, public_key};

use super::{
    Event, GroupId, Inner, Ours,
    repair::Told,
    repo::{Repo, RepoInner},
};
use crate::{
    invite::{Invite, InviteKind, MAX_ADDRESSES},
    keys::{GroupKeys, ReadKey},
    records::{
        self, FIRST_APP, FIRST_MEMBER, GROUP_NAME, GROUP_SLOTS, Profile, REPO_PROFILE,
        open_group_name, open_member, seal_group_name, seal_member,
    },
    tree::Tree,
};

/// A group of which this device is a member. A cheap handle; clones are the same group.
#[derive(Clone)]
pub struct Group(Arc<GroupInner>);

struct GroupInner {
    inner: Arc<Inner>,
    keys: GroupKeys,
    id: RecordId,
    tree: Option<Tree>,
    /// The repos that were asked for: they have records. The references are weak, as a repo holds
    /// its group.
    repos: Mutex<BTreeMap<RecordId, Weak<RepoInner>>>,
    /// The addresses at which others may be found, from invites.
    addresses: Vec<String>,
    state: Arc<State>,
}

/// The state that all handles of a group share: joining again with better keys makes a new handle,
/// and the old ones are still in use.
#[derive(Default)]
struct State {
    ours: Mutex<Ours>,
    /// The keys of all repos, as long as the group's record does not change.
    members: Mutex<Members>,
    /// Held while a repo's tree is changed. Two who change it at once would be told apart by the
    /// record, but one could drop the tag that keeps the other's tree.
    changing: Mutex<BTreeMap<RecordId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a repo's tree is fetched.
    fetching: Mutex<BTreeMap<RecordId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while one of our repos gets a slot of the group's record, so that none gets two.
    naming: tokio::sync::Mutex<()>,
    told: Told,
}

/// The members that the group's record names.
#[derive(Default)]
struct Members {
    /// The number of times that the record has changed.
    generation: u64,
    keys: Option<Arc<Vec<PublicKey>>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.0.id).finish()
    }
}

/// Somebody in a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Member {
    /// The member's name; `None` if it has not arrived yet, and to a replica.
    pub name: Option<String>,
    /// Its repo.
    pub repo: Repo,
}

const CREATE_REPO: &str = "sync.group.create_repo";
const REPOS: &str = "sync.group.repos";
/// The number of repos for which the group's record has room.
const SLOTS: u16 = FIRST_APP - FIRST_MEMBER;

/// Returns the slot at which the search for a free slot of a repo begins.
pub(crate) fn first_slot(repo: PublicKey) -> u16 {
    u16::from_be_bytes([repo.0[0], repo.0[1]]) % SLOTS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    pub(super) fn new(
        inner: Arc<Inner>,
        keys: GroupKeys,
        ours: Vec<(RecordId, SecretKey)>,
        addresses: Vec<String>,
        before: Option<&Self>,
    ) -> Self {
        let state = before.map_or_else(Arc::default, |before| Arc::clone(&before.0.state));
        let ours = ours
            .into_iter()
            .map(|(id, secret)| (id, (public_key(&secret), secret)));
        lock(&state.ours).extend(ours);
        let tree = keys.read().map(|read| Tree::new(inner.blobs.clone(), read));
        Self(Arc::new(GroupInner {
            id: keys.id(),
            inner,
            keys,
            tree,
            repos: Mutex::default(),
            addresses,
            state,
        }))
    }

    /// The group's id, its name everywhere.
    pub fn id(&self) -> RecordId {
        self.0.id
    }

    /// The keys that this device holds.
    pub fn keys(&self) -> &GroupKeys {
        &self.0.keys
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0.inner
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner().blobs
    }

    pub(crate) fn records(&self) -> &Records {
        &self.inner().records
    }

    pub(crate) fn read_key(&self, operation: &'static str) -> Result<&ReadKey> {
        self.0.keys.read().ok_or_else(|| self.replica(operation))
    }

    pub(crate) fn tree(&self, operation: &'static str) -> Result<Tree> {
        self.0.tree.clone().ok_or_else(|| self.replica(operation))
    }

    fn replica(&self, operation: &'static str) -> Error {
        let message = "a replica keeps what it cannot read";
        Error::new(Kind::Denied, operation, message).with("group", self.0.id)
    }

    /// Returns the group's name: that of its record, or of the invite while the record's has not arrived.
    /// `None` if neither is there, or it is invalid.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica.
    pub async fn name(&self) -> Result<Option<String>> {
        const OPERATION: &str = "sync.group.name";
        self.check_open(OPERATION)?;
        let read = self.read_key(OPERATION)?;
        let found = self.records().get(self.0.id, GROUP_NAME, Freshness::Local);
        let sealed = match found.await? {
            Some(found) => found.value,
            None => match self.inner().load_name(self.0.id).await? {
                Some(sealed) => sealed,
                None => return Ok(None),
            },
        };
        // Any writer of the record may write an invalid name, which must not stop anything.
        let name = open_group_name(read, self.0.id, &sealed);
        Ok(name
            .inspect_err(|error| tracing::debug!(group = %self.0.id, %error, "it has no name"))
            .ok())
    }

    /// Gives the group another name, for everybody. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] without write access to the group's record, [`Kind::TooLarge`] for a name over
    /// [`MAX_LABEL_LEN`](records::MAX_LABEL_LEN).
    pub async fn set_name(&self, name: &str) -> Result<()> {
        const OPERATION: &str = "sync.group.set_name";
        let _open = self.enter(OPERATION)?;
        let name = seal_group_name(self.read_key(OPERATION)?, self.0.id, name)?;
        self.put_slot(GROUP_NAME, name).await
    }

    /// Makes an invite of this kind, with the group's name and the addresses where this device and others
    /// may be found. For another device of ours it brings the first of our repos.
    ///
    /// # Errors
    /// [`Kind::Denied`] if we cannot do ourselves what it would allow, [`Kind::NotFound`] if it
    /// is for a device and we have no repo.
    pub async fn invite(&self, kind: InviteKind, addresses: Vec<String>) -> Result<Invite> {
        const OPERATION: &str = "sync.group.invite";
        let denied = || {
            let message = "you cannot let others do what you cannot do yourself";
            Error::new(Kind::Denied, OPERATION, message).with("group", self.0.id)
        };
        let keys = match kind {
            InviteKind::Write if self.0.keys.secret().is_none() => return Err(denied()),
            InviteKind::Write | InviteKind::Device => self.0.keys.clone(),
            InviteKind::Read => self.0.keys.to_read_only().ok_or_else(denied)?,
            InviteKind::Replica => self.0.keys.to_replica(),
            _ => {
                let message = "this version cannot make an invite of this kind";
                return Err(Error::new(Kind::Unsupported, OPERATION, message));
            }
        };
        let mut all = addresses;
        for known in &self.0.addresses {
            if all.len() < MAX_ADDRESSES && !all.contains(known) {
                all.push(known.clone());
            }
        }
        let name = match keys.read() {
            Some(_) => self.name().await?,
            None => None,
        };
        let named = |invite: Invite| match name {
            Some(name) => invite.with_name(name),
            None => Ok(invite),
        };
        if kind != InviteKind::Device {
            return named(Invite::member(keys, all)?);
        }
        let ours = lock(&self.0.state.ours).values().next().cloned();
        let (_, secret) = ours.ok_or_else(|| {
            let message = "there is no repo of yours in this group yet";
            Error::new(Kind::NotFound, OPERATION, message).with("group", self.0.id)
        })?;
        named(Invite::device(keys, secret, all)?)
    }

    /// Returns the addresses at which others may be found, from invites.
    pub fn addresses(&self) -> Vec<String> {
        self.0.addresses.clone()
    }

    /// Makes a repo of ours, which everybody in the group will see. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] without write access to the group's record, [`Kind::Full`] if the group
    /// has as many repos as it can have.
    pub async fn create_repo(&self, name: &str) -> Result<Repo> {
        let _open = self.enter(CREATE_REPO)?;
        self.create_repo_with(name, generate_key()?).await
    }

    /// Creates a repo with this key.
    pub(crate) async fn create_repo_with(&self, name: &str, secret: SecretKey) -> Result<Repo> {
        let key = public_key(&secret);
        let id = records::repo_id(key);
        let profile = Profile {
            name: name.to_owned(),
        };
        let profile = profile.seal(self.read_key(CREATE_REPO)?, id)?;
        self.writer(CREATE_REPO)?;
        self.records().create(records::repo_record(key)).await?;
        self.put_profile(id, profile, &secret).await?;
        let _one = self.0.state.naming.lock().await;
        // From here on it is ours, and what a crash leaves out is done by `name_ours`.
        self.inner().keep_repo(self.0.id, key, &secret).await?;
        lock(&self.0.state.ours).insert(id, (key, secret));
        self.name_repo(key).await?;
        self.repo_of(key).await
    }

    /// Writes a sealed profile into a repo's record.
    pub(super) async fn put_profile(
        &self,
        id: RecordId,
        profile: Bytes,
        secret: &SecretKey,
    ) -> Result<()> {
        let write = PutRecord::Write {
            value: profile,
            writer: secret.clone(),
            expect: SeqExpect::Any,
        };
        self.records().put(id, REPO_PROFILE, write).await?;
        Ok(())
    }

    /// Names a repo in a free slot of the group's record.
    pub(super) async fn name_repo(&self, key: PublicKey) -> Result<()> {
        let (writer, locate) = (self.writer(CREATE_REPO)?, self.0.keys.locate());
        // If the group's record has not come here yet, two members may take one slot: so each
        // begins at a slot of its own. If that happens nevertheless, one of the two stays, and
        // the other one's owner names it again.
        let taken = self.slots().await?;
        let slots = (0..SLOTS).map(|n| FIRST_MEMBER + (first_slot(key) + n) % SLOTS);
        for slot in slots.filter(|slot| !taken.contains(slot)) {
            let write = PutRecord::Write {
                value: seal_member(locate, self.0.id, slot, key)?,
                writer: writer.clone(),
                expect: SeqExpect::Absent,
            };
            match self.records().put(self.0.id, slot, write).await? {
                Put::Published { .. } | Put::Queued { .. } => {
                    self.record_changed(None, slot);
                    return Ok(());
                }
                // Somebody took it meanwhile.
                Put::Superseded { .. } => {}
            }
        }
        let message = "the group has no room for another repo";
        Err(Error::new(Kind::Full, CREATE_REPO, message).with("group", self.0.id))
    }

    /// Names our repos again that the group's record does not name, or not any more: somebody may have
    /// taken the same slot, or a crash have come first. One without a profile is left alone: that is
    /// another device's, and the group's record has not come here yet. While a member's slot is damaged
    /// nobody is named: it may come back.
    pub(crate) async fn name_ours(&self) -> Result<()> {
        if self.0.keys.secret().is_none() {
            return Ok(());
        }
        let _one = self.0.state.naming.lock().await;
        for repo in self.ours().await? {
            let profile = self
                .records()
                .get(repo.id(), REPO_PROFILE, Freshness::Local);
            let profile = self.unless_damaged(repo.id(), REPO_PROFILE, profile.await)?;
            if profile.is_some()
                && !self.repo_keys().await?.contains(&repo.key())
                && !self.has_damaged_members().await?
            {
                match self.name_repo(repo.key()).await {
                    Err(error) if error.kind() == Kind::Full => {
                        tracing::warn!(repo = %repo.key(), %error, "a repo is not in its group");
                    }
                    named => named?,
                }
            }
        }
        Ok(())
    }

    /// Our repos, those too that the group's record does not name.
    pub(crate) async fn ours(&self) -> Result<Vec<Repo>> {
        let keys: Vec<_> = lock(&self.0.state.ours)
            .values()
            .map(|(key, _)| *key)
            .collect();
        let mut repos = Vec::with_capacity(keys.len());
        for key in keys {
            repos.push(self.repo_of(key).await?);
        }
        Ok(repos)
    }

    /// Returns true if a repo is ours; a handle that was made before the repo's key arrived does
    /// not know that.
    pub(crate) fn is_ours(&self, repo: RecordId) -> bool {
        lock(&self.0.state.ours).contains_key(&repo)
    }

    /// The slots of the group's record that are members' and have something.
    async fn slots(&self) -> Result<Vec<Slot>> {
        let slots = FIRST_MEMBER..FIRST_APP;
        let found = self.records().intact(self.0.id, slots).await?;
        let whole = found.values.iter().map(|(slot, _)| *slot);
        Ok(whole
            .chain(found.damaged.iter().map(|(slot, _)| *slot))
            .collect())
    }

    pub(super) fn writer(&self, operation: &'static str) -> Result<SecretKey> {
        let secret = self.0.keys.secret().ok_or_else(|| {
            let message = "this device may read the group, and not write its record";
            Error::new(Kind::Denied, operation, message).with("group", self.0.id)
        })?;
        Ok(secret.key().clone())
    }

    pub(super) async fn put_slot(&self, slot: Slot, value: Bytes) -> Result<()> {
        let write = PutRecord::Write {
            value,
            writer: self.writer("sync.group.write")?,
            expect: SeqExpect::Any,
        };
        self.records().put(self.0.id, slot, write).await?;
        self.record_changed(None, slot);
        Ok(())
    }

    /// The public keys of all repos in the group, by the slots of its record. A repo that is in two
    /// slots comes once.
    ///
    /// A slot that cannot be opened is left out: somebody wrote into it with other keys, and must not
    /// be able to hide the rest.
    pub(crate) async fn repo_keys(&self) -> Result<Arc<Vec<PublicKey>>> {
        let generation = {
            let members = lock(&self.0.state.members);
            if let Some(known) = &members.keys {
                return Ok(Arc::clone(known));
            }
            members.generation
        };
        let keys = Arc::new(self.read_repo_keys().await?);
        let mut members = lock(&self.0.state.members);
        // Unless the record changed while it was read.
        if members.generation == generation {
            members.keys = Some(Arc::clone(&keys));
        }
        Ok(keys)
    }

    /// A slot of the record of a repo, or of the group's own, has a new value.
    pub(crate) fn record_changed(&self, repo: Option<PublicKey>, slot: Slot) {
        let record = repo.map_or(self.0.id, records::repo_id);
        self.told().forget(record);
        if repo.is_none() {
            let mut members = lock(&self.0.state.members);
            members.generation += 1;
            members.keys = None;
        }
        self.inner().tell(Event::Changed {
            group: self.0.id,
            record,
            repo,
            slot,
        });
    }

    async fn read_repo_keys(&self) -> Result<Vec<PublicKey>> {
        let mut keys = Vec::new();
        for (_, key) in self.read_members(FIRST_MEMBER..GROUP_SLOTS).await? {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The public keys of the repos that are named in these slots.
    pub(super) async fn read_members(&self, slots: Range<Slot>) -> Result<Vec<(Slot, PublicKey)>> {
        let mut members = Vec::new();
        let found = self.records().intact(self.0.id, slots).await?;
        for (slot, error) in &found.damaged {
            self.tell_damaged(self.0.id, *slot, error);
        }
        for (slot, found) in found.values {
            match open_member(self.0.keys.locate(), self.0.id, slot, &found.value) {
                Ok(key) => members.push((slot, key)),
                // The app has a value there.
                Err(_) if slot >= FIRST_APP => {}
                Err(error) => {
                    tracing::warn!(group = %self.0.id, slot, %error, "a slot is no member's");
                }
            }
        }
        Ok(members)
    }

    pub(super) fn told(&self) -> &Told {
        &self.0.state.told
    }

    /// Waits for the turn to give a repo a slot of the group's record.
    pub(super) async fn naming(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.state.naming.lock().await
    }

    /// All repos in the group, as far as that is known here.
    pub async fn repos(&self) -> Result<Vec<Repo>> {
        self.check_open(REPOS)?;
        self.named().await
    }

    /// Returns the repo that this device writes, or `None` if it has none in the group. See [`repos`](Self::repos).
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn own_repo(&self) -> Result<Option<Repo>> {
        Ok(self.repos().await?.into_iter().find(Repo::is_ours))
    }

    /// The repos that the group's record names.
    async fn named(&self) -> Result<Vec<Repo>> {
        let keys = self.repo_keys().await?;
        let mut repos = Vec::with_capacity(keys.len());
        for &key in keys.iter() {
            repos.push(self.repo_of(key).await?);
        }
        Ok(repos)
    }

    /// The repo with this key; `None` if the group has none such, as far as that is known here. A
    /// handle of its own: closing another one does not close it.
    pub async fn repo(&self, key: PublicKey) -> Result<Option<Repo>> {
        match self.has_repo(key).await? {
            true => self.repo_of(key).await.map(Some),
            false => Ok(None),
        }
    }

    /// Returns true if the group has a repo with this key, as far as that is known here.
    pub async fn has_repo(&self, key: PublicKey) -> Result<bool> {
        self.check_open(REPOS)?;
        Ok(self.repo_keys().await?.contains(&key))
    }

    /// Everybody in the group, those too who are not online.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for repo in self.repos().await? {
            let name = match self.0.keys.read() {
                Some(_) => repo.name().await?,
                None => None,
            };
            members.push(Member { name, repo });
        }
        Ok(members)
    }

    async fn repo_of(&self, key: PublicKey) -> Result<Repo> {
        let id = records::repo_id(key);
        let secret = lock(&self.0.state.ours)
            .get(&id)
            .map(|(_, secret)| secret.clone());
        let known = lock(&self.0.repos).get(&id).cloned();
        let held = known.as_ref().and_then(Weak::upgrade);
        if let Some(repo) = held.filter(|repo| repo.secret.is_some() == secret.is_some()) {
            return Ok(Repo(repo, Arc::default()));
        }
        if known.is_none() {
            self.records().create(records::repo_record(key)).await?;
        }
        let repo = Arc::new(RepoInner {
            group: self.clone(),
            key,
            id,
            secret,
            changing: lock(&self.0.state.changing).entry(id).or_default().clone(),
            fetching: lock(&self.0.state.fetching).entry(id).or_default().clone(),
        });
        lock(&self.0.repos).insert(id, Arc::downgrade(&repo));
        Ok(Repo(repo, Arc::default()))
    }

    /// Removes all that the store has of the group, but its keys.
    pub(super) async fn forget(&self) -> Result<()> {
        let mut repos = self.named().await?;
        repos.extend(self.ours().await?);
        for repo in repos {
            repo.keep_only(&[]).await?;
            self.inner().forget_local(repo.id()).await?;
            self.inner().forget_damage(repo.id()).await?;
            self.records().forget(repo.id()).await?;
        }
        self.records().forget(self.0.id).await
    }
}

impl From<&Group> for GroupId {
    fn from(group: &Group) -> Self {
        Self(group.id())
    }
}
