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
pub(crate) mod members;
mod merge_devices;
pub(crate) mod missing;
mod own_trees;
mod policy;
mod read_twice;
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

use larder_store_api::{Error, Kind, PublicKey, RecordId, Result, SecretKey, Secrets};
use larder_store_engine::{Blobs, Collections, Records, public_key};
use tokio::sync::broadcast;

use self::members::{DeviceSecret, Roster};
pub use self::{
    app_crypto::AppContext,
    app_values::{RecordPut, RecordValue},
    contacts::Holding,
    events::{Event, Events, GroupId},
    file_changes::{FileChanges, FilesChanged, MAX_CHANGED_FILES},
    files::{Staged, WriteOptions, Written},
    group::{Group, Member},
    members::{
        InviteOptions, LogEntry, OpenInvite, Person, PersonDevice, Removal, Removed, Standing,
    },
    missing::{Missing, MissingFile, RepoState},
    own_trees::OwnTrees,
    policy::MAX_PINNED,
    repo::{Changes, Repo},
    snapshot::Snapshot,
};
pub use crate::tree::wants::{MAX_PREFIXES, Policy};
pub(crate) use crate::tree::wants::{Wants, WantsDigest};
use crate::{
    invite::{Invite, InviteKind, MAX_ADDRESSES},
    records,
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
        for (id, secret) in groups.0.load_groups().await? {
            groups.add(id, secret).await?;
        }
        Ok(groups)
    }

    async fn add(&self, id: RecordId, secret: DeviceSecret) -> Result<Group> {
        let roster = Roster::load(&self.0, id, secret).await?;
        let ours = self.0.load_repos(id).await?;
        let addresses = self.0.load_addresses(id).await?;
        let group = Group::new(Arc::clone(&self.0), id, roster, ours, addresses);
        for repo in group.ours().await? {
            repo.adopt().await?;
        }
        // A crash may have left it out.
        group.publish_repos().await?;
        self.known().insert(group.id(), group.clone());
        self.0.tell(Event::Groups);
        Ok(group)
    }

    /// Makes a group with this name. Durable when it returns. The [way back](Group::recovery) into it is here.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] for a name over [`MAX_LABEL_LEN`](records::MAX_LABEL_LEN).
    pub async fn create_group(&self, name: &str) -> Result<Group> {
        const OPERATION: &str = "sync.create";
        let _open = self.0.gate.enter(OPERATION)?;
        let _one = self.0.joining.lock().await;
        if name.len() > records::MAX_LABEL_LEN {
            let message = format!("a name has at most {} bytes", records::MAX_LABEL_LEN);
            return Err(Error::new(Kind::TooLarge, OPERATION, message).with("len", name.len()));
        }
        let (id, secret) = members::found(&self.0).await?;
        let group = self.add(id, secret).await?;
        group.set_name(name).await?;
        Ok(group)
    }

    /// Accepts an invite. This device is a member once it has met one that lets it in: see [`Group::standing`] and
    /// [`Group::wait_for_standing`]. Until then the group has the invite's name. Joining again adds what the invite
    /// allows beyond what was allowed, and the repos that it brings. Durable when it returns.
    ///
    /// # Errors
    /// The errors of the store and of the secrets.
    pub async fn join(&self, invite: &Invite) -> Result<Group> {
        const OPERATION: &str = "sync.join";
        let _open = self.0.gate.enter(OPERATION)?;
        let _one = self.0.joining.lock().await;
        let (id, known) = (invite.group(), self.group(invite.group()));
        let group = match known {
            Some(known) => known,
            None => {
                let secret = DeviceSecret::generate()?;
                self.0.keep_group(id, &secret).await?;
                self.add(id, secret).await?
            }
        };
        if invite.kind() == InviteKind::Recovery {
            let root = SecretKey::from_bytes(*invite.seed().expose());
            self.0.keep_root(id, &root).await?;
        } else {
            group.add_invite(invite.seed().clone()).await?;
        }
        if let Some(name) = invite.name() {
            self.0.keep_name(id, &group.local_key(), name).await?;
        }
        for secret in invite.repos() {
            let repo = public_key(secret);
            let of_repo = records::repo_id(id, repo);
            // Its record may be here, and its tree not.
            if !group.is_ours(of_repo) && self.0.ever_local(of_repo).await?.is_none() {
                let nothing = local_trees::Local::NOTHING;
                self.0.keep_local(of_repo, &nothing).await?;
            }
            self.0.keep_repo(id, repo, secret).await?;
            group.adopt_secret(secret.clone()).await?;
        }
        let mut addresses = invite.addresses().to_vec();
        let known = group.addresses();
        addresses.extend(
            known
                .into_iter()
                .filter(|a| !invite.addresses().contains(a)),
        );
        addresses.truncate(MAX_ADDRESSES);
        self.0.keep_addresses(id, &addresses).await?;
        group.set_addresses(addresses);
        // A member who joins again needs nobody for that.
        group.use_invites().await?;
        self.0.tell(Event::Groups);
        Ok(group)
    }

    /// Forgets a group: its records, its trees and its keys go, and with the next collection its files.
    /// Others are not told; [`Group::resign`] says it before. Leaving a group that is not here is not an error.
    pub async fn leave(&self, group: impl Into<GroupId>) -> Result<()> {
        let GroupId(id) = group.into();
        let _open = self.0.gate.enter("sync.leave")?;
        let _one = self.0.joining.lock().await;
        self.forget(id).await
    }

    async fn forget(&self, id: RecordId) -> Result<()> {
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

/// A repo's key and secret, where it is ours.
pub(crate) type Ours = BTreeMap<RecordId, (PublicKey, SecretKey)>;
