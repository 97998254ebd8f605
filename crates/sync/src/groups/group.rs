//! A group: its operations say who is in it, its keys what we can make of what they have.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use larder_store_api::{
    Error, Kind, PublicKey, PutRecord, RecordId, RecordStore, Result, SecretKey, SeqExpect, Signed,
};
use larder_store_engine::{Blobs, Records, generate_key, public_key, record_format, verify};

use super::{
    Event, GroupId, Inner, Ours,
    members::{Roster, Standing},
    repair::Told,
    repo::{Repo, RepoInner},
};
use crate::{
    membership::Rights,
    records::{
        self, GROUP_NAME, Profile, REPO_PROFILE, REPO_ROOT, open_group_name, seal_group_name,
    },
    tree::Tree,
};

/// A group of which this device is a member, or will be. A cheap handle; clones are the same group.
#[derive(Clone)]
pub struct Group(Arc<GroupInner>);

struct GroupInner {
    inner: Arc<Inner>,
    id: RecordId,
    roster: Roster,
    tree: Tree,
    /// The repos that were asked for: they have records. The references are weak, as a repo holds
    /// its group.
    repos: Mutex<BTreeMap<RecordId, Weak<RepoInner>>>,
    /// The addresses at which others may be found, from invites.
    addresses: Mutex<Vec<String>>,
    ours: Mutex<Ours>,
    /// Held while a repo's tree is changed. Two who change it at once would be told apart by the
    /// record, but one could drop the tag that keeps the other's tree.
    changing: Mutex<BTreeMap<RecordId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a repo's tree is fetched.
    fetching: Mutex<BTreeMap<RecordId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a value of ours that the group shares gets a number.
    numbering: tokio::sync::Mutex<()>,
    told: Told,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.0.id).finish()
    }
}

/// Somebody in a group who has a repo.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    pub(super) fn new(
        inner: Arc<Inner>,
        id: RecordId,
        roster: Roster,
        ours: Vec<(RecordId, SecretKey)>,
        addresses: Vec<String>,
    ) -> Self {
        let ours = ours
            .into_iter()
            .map(|(id, secret)| (id, (public_key(&secret), secret)));
        Self(Arc::new(GroupInner {
            id,
            tree: Tree::new(inner.blobs.clone(), roster.keys.clone()),
            roster,
            inner,
            repos: Mutex::default(),
            addresses: Mutex::new(addresses),
            ours: Mutex::new(ours.collect()),
            changing: Mutex::default(),
            fetching: Mutex::default(),
            numbering: tokio::sync::Mutex::default(),
            told: Told::default(),
        }))
    }

    /// The group's id, its name everywhere.
    pub fn id(&self) -> RecordId {
        self.0.id
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.0.roster
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

    /// Refuses a device that holds no key that opens names and files.
    pub(crate) fn check_reads(&self, operation: &'static str) -> Result<()> {
        if self.can_read() {
            return Ok(());
        }
        let (kind, message) = match self.standing() {
            Standing::Waiting => (
                Kind::Unavailable,
                "this device waits for a member to let it in",
            ),
            _ => (Kind::Denied, "a replica keeps what it cannot read"),
        };
        Err(Error::new(kind, operation, message).with("group", self.0.id))
    }

    pub(crate) fn tree(&self, operation: &'static str) -> Result<Tree> {
        self.check_reads(operation)?;
        Ok(self.0.tree.clone())
    }

    /// Returns the group's name: that which a member wrote last, or of the invite while none has arrived.
    /// `None` if neither is there, or it is invalid.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica.
    pub async fn name(&self) -> Result<Option<String>> {
        const OPERATION: &str = "sync.group.name";
        self.check_open(OPERATION)?;
        if self.can_read()
            && let Some(found) = self.newest_value(GROUP_NAME).await?
        {
            let id = records::values_id(self.id(), found.device);
            let opened = self.keyring().open_read(&found.signed.value, |key| {
                open_group_name(key, id, &found.signed.value)
            });
            // Any writer may write an invalid name, which must not stop anything.
            let opened = opened
                .inspect_err(|error| tracing::debug!(group = %self.0.id, %error, "it has no name"));
            return Ok(opened.ok().map(|(_, name)| name));
        }
        match self.inner().load_name(self.0.id, self.local_key()).await? {
            None if !self.can_read() => self.check_reads(OPERATION).map(|()| None),
            named => Ok(named),
        }
    }

    /// Gives the group another name, for everybody. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] if this device may not write, [`Kind::TooLarge`] for a name over
    /// [`MAX_LABEL_LEN`](records::MAX_LABEL_LEN).
    pub async fn set_name(&self, name: &str) -> Result<()> {
        const OPERATION: &str = "sync.group.set_name";
        let _open = self.enter(OPERATION)?;
        self.put_value(OPERATION, GROUP_NAME, |key, id, number| {
            seal_group_name(key, id, number, name)
        })
        .await
        .map(drop)
    }

    /// Waits for the turn to number a value that the group shares.
    pub(super) async fn numbering(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.numbering.lock().await
    }

    /// Returns the addresses at which others may be found, from invites.
    pub fn addresses(&self) -> Vec<String> {
        lock(&self.0.addresses).clone()
    }

    pub(super) fn set_addresses(&self, addresses: Vec<String>) {
        *lock(&self.0.addresses) = addresses;
    }

    /// The keys and secrets of our repos.
    pub(super) fn our_secrets(&self) -> Vec<(PublicKey, SecretKey)> {
        lock(&self.0.ours).values().cloned().collect()
    }

    /// Makes a repo of ours, which everybody in the group will see. Durable when it returns. On a device that waits to
    /// be let in, others hear of it after that.
    ///
    /// # Errors
    /// [`Kind::Denied`] if this device may not write, [`Kind::TooLarge`] for a name over
    /// [`MAX_LABEL_LEN`](records::MAX_LABEL_LEN), [`Kind::Full`] if the group takes no more from this device.
    pub async fn create_repo(&self, name: &str) -> Result<Repo> {
        let _open = self.enter(CREATE_REPO)?;
        if self.standing() != Standing::Waiting {
            self.demand(CREATE_REPO, Rights::WRITE)?;
        }
        let secret = generate_key()?;
        let key = public_key(&secret);
        let id = records::repo_id(self.id(), key);
        let inner = self.inner();
        let profile = Profile {
            name: name.to_owned(),
        };
        let sealed = profile.seal(&self.local_key(), id)?;
        inner.keep_profile(self.id(), id, sealed).await?;
        // From here on it is ours, and what a crash leaves out is done when the groups are opened again.
        inner.keep_repo(self.0.id, key, &secret).await?;
        self.adopt_secret(secret).await?;
        self.publish_repos().await?;
        if self.standing() == Standing::Member && !self.has_repo(key).await? {
            let message = "the group takes no more repos of this device";
            return Err(Error::new(Kind::Full, CREATE_REPO, message).with("group", self.id()));
        }
        self.repo_of(key).await
    }

    /// Makes a repo ours, with what is here of it.
    pub(super) async fn adopt_secret(&self, secret: SecretKey) -> Result<()> {
        let key = public_key(&secret);
        let id = records::repo_id(self.id(), key);
        lock(&self.0.ours).insert(id, (key, secret));
        self.repo_of(key).await?.adopt().await
    }

    /// Tells the names of our repos that were not told yet.
    pub(super) async fn publish_profiles(&self) -> Result<()> {
        let inner = self.inner();
        for (key, secret) in self.our_secrets() {
            let id = records::repo_id(self.id(), key);
            let Some(sealed) = inner.load_profile(self.id(), id).await? else {
                continue;
            };
            let profile = Profile::open(&self.local_key(), id, &sealed)?;
            let sealing = self.sealing(CREATE_REPO).await;
            let keys = match sealing {
                // The keys come after the word that it is let in.
                Err(error) if error.kind() == Kind::Unavailable => return Ok(()),
                sealing => sealing?,
            };
            let repo = self.repo_of(key).await?;
            let profile = profile.seal(keys.read()?, id)?;
            self.put_profile(repo.id(), profile, &secret).await?;
            inner.forget_profile(self.id(), id).await?;
            self.record_changed(key, REPO_PROFILE);
        }
        Ok(())
    }

    /// Writes a sealed profile into a repo's record.
    pub(super) async fn put_profile(
        &self,
        id: RecordId,
        profile: bytes::Bytes,
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

    /// Our repos, those too that no operation names yet.
    pub(crate) async fn ours(&self) -> Result<Vec<Repo>> {
        let mut repos = Vec::new();
        for (key, _) in self.our_secrets() {
            repos.push(self.repo_of(key).await?);
        }
        Ok(repos)
    }

    /// Returns true if a repo is ours; a handle that was made before the repo's key arrived does
    /// not know that.
    pub(crate) fn is_ours(&self, repo: RecordId) -> bool {
        lock(&self.0.ours).contains_key(&repo)
    }

    /// The public keys of all repos that the group's operations name, but those that others go on from.
    pub(crate) fn repo_keys(&self) -> Vec<PublicKey> {
        let state = self.state();
        let named = state.repos.keys().copied();
        named
            .filter(|repo| !state.succeeded.contains_key(repo))
            .collect()
    }

    /// A slot of the record of a repo has a new value.
    pub(crate) fn record_changed(&self, repo: PublicKey, slot: larder_store_api::Slot) {
        let record = records::repo_id(self.id(), repo);
        self.told().forget(record);
        self.inner().tell(Event::Changed {
            group: self.0.id,
            record,
            repo: Some(repo),
            writer: repo,
            slot,
        });
    }

    /// A value that a device shares with the group is another.
    pub(crate) fn value_changed(&self, device: PublicKey, slot: larder_store_api::Slot) {
        let record = records::values_id(self.id(), device);
        self.told().forget(record);
        self.inner().tell(Event::Changed {
            group: self.0.id,
            record,
            repo: None,
            writer: device,
            slot,
        });
    }

    /// Forgets handles that nobody holds, after more became known of the members.
    pub(super) fn members_changed(&self) {
        lock(&self.0.repos).retain(|_, repo| repo.strong_count() > 0);
    }

    pub(super) fn told(&self) -> &Told {
        &self.0.told
    }

    /// All repos in the group, as far as that is known here.
    pub async fn repos(&self) -> Result<Vec<Repo>> {
        self.check_open(REPOS)?;
        self.named().await
    }

    /// Returns the repo that this device writes, or `None` if it has none in the group, or none that goes on: those of
    /// who was removed end for ever. See [`repos`](Self::repos).
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn own_repo(&self) -> Result<Option<Repo>> {
        self.check_open(REPOS)?;
        let (state, ours) = (self.state(), self.ours().await?);
        let mut ours = ours.into_iter();
        Ok(ours.find(|repo| !state.frozen.contains_key(&repo.key())))
    }

    /// The repos that the group's operations name.
    async fn named(&self) -> Result<Vec<Repo>> {
        let mut repos = Vec::new();
        for key in self.repo_keys() {
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
        let state = self.state();
        Ok(state.repos.contains_key(&key) && !state.succeeded.contains_key(&key))
    }

    /// Everybody in the group who has a repo, those too who are not online. [`people`](Self::people) has all.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for repo in self.repos().await? {
            let name = match self.can_read() {
                true => repo.name().await?,
                false => None,
            };
            members.push(Member { name, repo });
        }
        Ok(members)
    }

    /// Returns the last root of a repo that counts, if its owner was removed: `Some(None)` if there is none.
    pub(crate) fn frozen_root(&self, repo: PublicKey) -> Option<Option<Signed>> {
        let state = self.state();
        let roots = state.frozen.get(&repo)?;
        let id = records::repo_id(self.id(), repo);
        let mut roots: Vec<_> = roots.iter().collect();
        // The greatest that its owner did sign: whoever removes somebody can name anything.
        roots.sort_by_key(|root| std::cmp::Reverse((root.seq, &root.signed)));
        let signed = roots.into_iter().find_map(|root| {
            let bytes = bytes::Bytes::copy_from_slice(&root.signed);
            let signed = record_format::decode_signed(&bytes).ok()?;
            let is_right = signed.writer == repo && signed.seq == root.seq;
            (is_right && verify(id, REPO_ROOT, &signed).is_ok()).then_some(signed)
        });
        Some(signed)
    }

    /// Returns true if what a repo's record says counts: its owner was not removed, and some device of the owner may
    /// write now.
    pub(crate) fn takes_from(&self, repo: PublicKey) -> bool {
        let (state, now) = (self.state(), self.inner().now());
        let Some(owner) = state.repos.get(&repo) else {
            return false;
        };
        let mut members = state.members.values();
        !state.frozen.contains_key(&repo)
            && members
                .any(|member| member.owner == *owner && member.rights(now).covers(Rights::WRITE))
    }

    pub(super) async fn repo_of(&self, key: PublicKey) -> Result<Repo> {
        let id = records::repo_id(self.id(), key);
        let secret = lock(&self.0.ours)
            .get(&id)
            .map(|(_, secret)| secret.clone());
        let known = lock(&self.0.repos).get(&id).cloned();
        let held = known.as_ref().and_then(Weak::upgrade);
        if let Some(repo) = held.filter(|repo| repo.secret.is_some() == secret.is_some()) {
            return Ok(Repo(repo, Arc::default()));
        }
        if known.is_none() {
            let record = records::repo_record(self.id(), key);
            self.records().create(record).await?;
        }
        let repo = Arc::new(RepoInner {
            group: self.clone(),
            key,
            id,
            secret,
            changing: lock(&self.0.changing).entry(id).or_default().clone(),
            fetching: lock(&self.0.fetching).entry(id).or_default().clone(),
        });
        lock(&self.0.repos).insert(id, Arc::downgrade(&repo));
        Ok(Repo(repo, Arc::default()))
    }

    /// Removes all that the store has of the group, but its keys.
    pub(super) async fn forget(&self) -> Result<()> {
        let mut repos = self.named().await?;
        repos.extend(self.ours().await?);
        for succeeded in self.state().succeeded.keys() {
            repos.push(self.repo_of(*succeeded).await?);
        }
        for repo in repos {
            repo.keep_only(&[]).await?;
            self.inner().forget_local(repo.id()).await?;
            self.inner().forget_damage(repo.id()).await?;
            self.records().forget(repo.id()).await?;
        }
        for device in self.value_devices() {
            let id = records::values_id(self.id(), device);
            self.records().forget(id).await?;
        }
        Ok(())
    }
}

impl From<&Group> for GroupId {
    fn from(group: &Group) -> Self {
        Self(group.id())
    }
}
