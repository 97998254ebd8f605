//! Groups, the repos in them and the files in those, as they lie in a store. None of this needs a
//! network: what others do comes by [`replicate`](crate::replicate).

mod app_crypto;
mod app_values;
mod close;
mod close_guard;
pub(crate) mod contacts;
mod damaged;
mod events;
mod file_changes;
mod files;
mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod group;
mod local_state;
pub(crate) mod local_trees;
mod merge_devices;
pub(crate) mod missing;
mod own_trees;
mod policy;
mod repair;
mod repo;
mod snapshot;
mod tree_tags;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use larder_store_api::{Error, Kind, PublicKey, RecordId, RecordStore, Result, SecretKey, Secrets};
use larder_store_engine::{Blobs, Collections, Records};
use tokio::sync::broadcast;

#[cfg(test)]
pub(crate) use self::group::first_slot;
pub use self::{
    app_crypto::AppContext,
    app_values::{RecordPut, RecordValue},
    contacts::Holding,
    events::{Event, Events, GroupId},
    file_changes::{FileChanges, FilesChanged, MAX_CHANGED_FILES},
    files::{Staged, WriteOptions, Written},
    group::{Group, Member},
    missing::{Missing, MissingFile, RepoState},
    own_trees::OwnTrees,
    policy::MAX_PINNED,
    repo::{Changes, Repo},
    snapshot::Snapshot,
};
pub use crate::tree::wants::{MAX_PREFIXES, Policy};
pub(crate) use crate::tree::wants::{Wants, WantsDigest};
use crate::{
    invite::{Invite, MAX_ADDRESSES},
    keys::{GroupKeys, GroupSecret},
    records::{self, GROUP_NAME, seal_group_name},
};

/// The number of changes that a listener may lag behind before it is told that it missed some.
const EVENTS: usize = 256;

/// The prefix of the names of all tags and collections that belong to groups.
pub const TAG_PREFIX: &str = "sync/";

/// A function that tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The parts of a store that hold groups: bytes, maps, and keys.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Files and trees; and, in their collections, records and which groups there are: what belongs together
    /// becomes durable together.
    pub blobs: Blobs,
    /// The keys.
    pub secrets: Arc<dyn Secrets>,
}

impl Stores {
    /// The collections that the blobs are in.
    pub fn collections(&self) -> &Collections {
        self.blobs.collections()
    }
}

/// All groups of a device. A cheap handle; clones are the same.
///
/// One at a time works on a store.
#[derive(Debug, Clone)]
pub struct Groups(pub(crate) Arc<Inner>, Arc<Mutex<BTreeMap<RecordId, Group>>>);

/// The state that all groups share. Groups hold it, and it holds no group: the store is closed with
/// the last handle.
pub(crate) struct Inner {
    pub(crate) blobs: Blobs,
    pub(crate) collections: Collections,
    pub(crate) records: Records,
    pub(crate) secrets: Arc<dyn Secrets>,
    clock: Clock,
    events: Mutex<Told>,
    /// Creating, joining and leaving come one after the other.
    joining: tokio::sync::Mutex<()>,
    gate: close_guard::Gate,
    pub(crate) damaged: damaged::Damaged,
}

/// Tells what happens, and how often that was.
#[derive(Debug)]
struct Told {
    sender: broadcast::Sender<Event>,
    count: u64,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups")
            .field("blobs", &self.blobs)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Now, in milliseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    fn events(&self) -> MutexGuard<'_, Told> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut events = self.events();
        events.count += 1;
        // An error says that nobody listens.
        events.sender.send(event).ok();
    }

    /// Returns the number of events so far.
    pub(crate) fn count_events(&self) -> u64 {
        self.events().count
    }

    /// Subscribes to events from now on, and returns the number of events before.
    pub(crate) fn listen(&self) -> (u64, broadcast::Receiver<Event>) {
        let events = self.events();
        (events.count, events.sender.subscribe())
    }
}

impl Groups {
    fn known(&self) -> MutexGuard<'_, BTreeMap<RecordId, Group>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The groups of a store.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if a group's keys are no longer among the secrets, [`Kind::Corrupt`]
    /// if they are damaged.
    pub async fn open(stores: Stores) -> Result<Self> {
        let clock = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            })
        };
        Self::open_with(stores, Arc::new(clock)).await
    }

    /// Returns true if a store has any groups. Needs none of its keys.
    pub async fn exist_in(collections: &Collections) -> Result<bool> {
        local_state::has_groups(collections).await
    }

    /// Says that files of this store may not be here any more, as after a repair of its blobs: those of all
    /// repos are looked for when groups are replicated next. Needs none of the keys.
    pub async fn forget_files(collections: &Collections) -> Result<()> {
        let ours = local_state::our_repos(collections).await?;
        let ours: Vec<_> = ours.into_iter().map(|(_, repo)| repo).collect();
        local_trees::forget_files(collections, &ours).await
    }

    /// Copies the keys of all groups, and of our repos in them, that `to` lacks. With the collections
    /// of the store they make another device of what they are copied to.
    pub async fn copy_keys(from: &dyn Secrets, to: &dyn Secrets) -> Result<u64> {
        local_state::copy_keys(from, to).await
    }

    /// Opens the groups of a store, as [`open`](Self::open) does, with a clock of your own.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open).
    pub async fn open_with(stores: Stores, clock: Clock) -> Result<Self> {
        let inner = Inner {
            records: Records::new(stores.collections().clone()),
            collections: stores.collections().clone(),
            blobs: stores.blobs,
            secrets: stores.secrets,
            clock,
            events: Mutex::new(Told {
                sender: broadcast::Sender::new(EVENTS),
                count: 0,
            }),
            joining: tokio::sync::Mutex::default(),
            gate: close_guard::Gate::default(),
            damaged: damaged::Damaged::default(),
        };
        let groups = Self(Arc::new(inner), Arc::default());
        for keys in groups.0.load_groups().await? {
            groups.add(keys).await?;
        }
        Ok(groups)
    }

    async fn add(&self, keys: GroupKeys) -> Result<Group> {
        let record = records::group_record(keys.group());
        self.0.records.create(record).await?;
        let ours = self.0.load_repos(keys.id()).await?;
        let addresses = self.0.load_addresses(keys.id()).await?;
        let group = Group::new(
            Arc::clone(&self.0),
            keys.clone(),
            ours,
            addresses,
            self.group(keys.id()).as_ref(),
        );
        for repo in group.ours().await? {
            repo.adopt().await?;
        }
        group.name_ours().await?;
        self.known().insert(group.id(), group.clone());
        self.0.tell(Event::Groups);
        Ok(group)
    }

    /// Makes a group with this name. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] for a name over [`MAX_LABEL_LEN`](records::MAX_LABEL_LEN).
    pub async fn create_group(&self, name: &str) -> Result<Group> {
        let _open = self.0.gate.enter("sync.create")?;
        let _one = self.0.joining.lock().await;
        let keys = GroupKeys::write(GroupSecret::generate()?, 0);
        let read = keys.read().expect("these keys may do everything");
        let name = seal_group_name(read, keys.id(), name)?;
        self.0.keep_group(&keys).await?;
        let group = self.add(keys).await?;
        group.put_slot(GROUP_NAME, name).await?;
        Ok(group)
    }

    /// Joins a group, which has the invite's name until its own arrives. Joining again adds what the invite
    /// allows beyond what was allowed, and the repo that it brings. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the keys are of an epoch other than those known here.
    pub async fn join(&self, invite: &Invite) -> Result<Group> {
        const OPERATION: &str = "sync.join";
        let _open = self.0.gate.enter(OPERATION)?;
        let _one = self.0.joining.lock().await;
        let known = self.group(invite.keys().id());
        let keys = match &known {
            None => invite.keys().clone(),
            Some(known) if known.keys().epoch() != invite.keys().epoch() => {
                let message = "the invite's keys are of another epoch than the group's";
                return Err(Error::new(Kind::Conflict, OPERATION, message)
                    .with("group", known.id())
                    .with("epoch", invite.keys().epoch()));
            }
            Some(known) => more(known.keys(), invite.keys()).clone(),
        };
        self.0.keep_group(&keys).await?;
        if let (Some(name), Some(read)) = (invite.name(), keys.read()) {
            let sealed = seal_group_name(read, keys.id(), name)?;
            self.0.keep_name(keys.id(), sealed).await?;
        }
        if let Some(secret) = invite.repo() {
            let repo = larder_store_engine::public_key(secret);
            let id = records::repo_id(repo);
            // Its record may be here, and its tree not.
            if !known.as_ref().is_some_and(|known| known.is_ours(id))
                && self.0.ever_local(id).await?.is_none()
            {
                self.0.keep_local(id, &local_trees::Local::NOTHING).await?;
            }
            self.0.keep_repo(keys.id(), repo, secret).await?;
        }
        let mut addresses = invite.addresses().to_vec();
        let known = known.map_or(Vec::new(), |known| known.addresses());
        addresses.extend(
            known
                .into_iter()
                .filter(|a| !invite.addresses().contains(a)),
        );
        addresses.truncate(MAX_ADDRESSES);
        self.0.keep_addresses(keys.id(), &addresses).await?;
        self.add(keys).await
    }

    /// Leaves a group: its records, its trees and its keys go, and with the next collection its files.
    /// Leaving a group that is not here is not an error.
    pub async fn leave(&self, group: impl Into<GroupId>) -> Result<()> {
        let GroupId(id) = group.into();
        let _open = self.0.gate.enter("sync.leave")?;
        let _one = self.0.joining.lock().await;
        // It stays in the list until all is gone, so that what failed can be done again.
        if let Some(group) = self.group(id) {
            group.forget().await?;
        }
        self.0.forget_group(id).await?;
        self.known().remove(&id);
        self.0.tell(Event::Groups);
        Ok(())
    }

    /// The groups of this device.
    pub fn groups(&self) -> Vec<Group> {
        self.known().values().cloned().collect()
    }

    /// Returns one of them; `None` if this device is not a member.
    pub fn group(&self, id: impl Into<GroupId>) -> Option<Group> {
        self.known().get(&id.into().0).cloned()
    }

    /// Subscribes to changes from now on.
    pub fn events(&self) -> Events {
        Events::new(self.0.listen().1)
    }
}

/// The keys that allow more.
fn more<'a>(one: &'a GroupKeys, other: &'a GroupKeys) -> &'a GroupKeys {
    let rank = |keys: &GroupKeys| (keys.secret().is_some(), keys.read().is_some());
    if rank(other) > rank(one) { other } else { one }
}

/// A repo's key and secret, where it is ours.
pub(crate) type Ours = BTreeMap<RecordId, (PublicKey, SecretKey)>;
