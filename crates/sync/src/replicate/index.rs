//! An in-memory index of what this device has of each group, so that a change costs only its own size
//! instead of a scan of everything.
//!
//! One task updates it from events, and then sends the [`Change`]. When groups are compared, everything
//! is read again, which finds whatever events missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use larder_store_api::{Freshness, Kind, PublicKey, RecordId, RecordStore, Result, Slot};
use larder_store_engine::Hash;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Shared, lock,
    wire::{Digest, Version, Which},
};
use crate::{
    groups::{Group, Holding, Repo, WantsDigest},
    records::{FIRST_ROUTE, REPO_ROOT, REPO_SLOTS, Route},
    tree::Root,
};

/// A change, sent to tasks that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A session of a group began or ended, or its peer has announced everything that it has.
    Session { group: RecordId },
    /// A peer was told something, or told us something.
    Peer { group: RecordId },
    /// A peer has more or less of a repo than before.
    Holding { group: RecordId, repo: PublicKey },
    /// A slot of a group's record has another value.
    Record {
        group: RecordId,
        which: Which,
        slot: Slot,
    },
    /// The local part of a repo changed, or what is wanted of it.
    Repo { group: RecordId, repo: PublicKey },
    /// Anything of a group may have changed.
    Group { group: RecordId },
    /// A group was added or removed.
    Groups,
}

impl Change {
    /// The group that changed; `None` if it may be any.
    pub(super) fn group(&self) -> Option<RecordId> {
        match self {
            Self::Session { group }
            | Self::Peer { group }
            | Self::Holding { group, .. }
            | Self::Record { group, .. }
            | Self::Repo { group, .. }
            | Self::Group { group } => Some(*group),
            Self::Groups => None,
        }
    }

    /// Returns true if the change may concern a group.
    pub(super) fn is_of(&self, group: RecordId) -> bool {
        self.group().is_none_or(|of| of == group)
    }
}

/// Waits for a matching change. If so many changes were missed that one of them may have matched,
/// returns too.
pub(super) async fn until(changes: &mut Receiver<Change>, is_it: impl Fn(Change) -> bool) {
    loop {
        match changes.recv().await {
            Ok(change) if !is_it(change) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // There will be no more changes.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The versions of the values in the slots of a group's records.
pub(super) type Versions = BTreeMap<Which, BTreeMap<Slot, Version>>;

/// The parts of a repo that are to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) root: Option<Hash>,
    pub(super) wanted: WantsDigest,
}

/// The local state of a repo.
#[derive(Debug, Clone)]
pub(super) struct RepoIndex {
    pub(super) is_ours: bool,
    pub(super) newest: Root,
    /// True if the newest tree is here, with all that is wanted of it.
    pub(super) is_here: bool,
    /// True if the root of another device of ours waits for its tree.
    pub(super) waits: bool,
    /// The part of the repo that is announced to others; `None` while our own root is damaged.
    pub(super) holding: Option<Holding>,
    pub(super) behind: Option<Behind>,
}

/// The local state of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupIndex {
    pub(super) versions: Versions,
    pub(super) repos: BTreeMap<PublicKey, RepoIndex>,
    /// The routes on which members announce that they can be reached.
    pub(super) routes: BTreeMap<(PublicKey, Slot), Route>,
    digest: Option<Digest>,
}

impl GroupIndex {
    /// Returns a digest of all versions; equal values have equal digests.
    pub(super) fn digest(&mut self) -> Digest {
        *self.digest.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new();
            for (which, slots) in &self.versions {
                match which {
                    Which::Group => hasher.update(&[0]),
                    Which::Repo(key) => hasher.update(&[1]).update(&key.0),
                };
                hasher.update(&(slots.len() as u64).to_be_bytes());
                for (slot, version) in slots {
                    hasher.update(&slot.to_be_bytes());
                    hasher.update(&version.seq.to_be_bytes());
                    hasher.update(&version.digest);
                }
            }
            let hash = hasher.finalize();
            *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
        })
    }

    fn set(&mut self, which: Which, slot: Slot, version: Option<Version>) {
        self.digest = None;
        let slots = self.versions.entry(which).or_default();
        match version {
            Some(version) => drop(slots.insert(slot, version)),
            None => drop(slots.remove(&slot)),
        }
    }

    fn set_route(&mut self, repo: PublicKey, slot: Slot, route: Option<Route>) {
        match route {
            Some(route) => drop(self.routes.insert((repo, slot), route)),
            None => drop(self.routes.remove(&(repo, slot))),
        }
    }
}

/// The index of all groups.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<BTreeMap<RecordId, GroupIndex>>);

impl Index {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RecordId, GroupIndex>> {
        lock(&self.0)
    }

    /// Runs a function on a group's entry; `None` if the group is not indexed yet.
    pub(super) fn look<T>(
        &self,
        group: RecordId,
        look: impl FnOnce(&mut GroupIndex) -> T,
    ) -> Option<T> {
        self.all().get_mut(&group).map(look)
    }

    /// Returns the version of the value in a slot.
    pub(super) fn version(&self, group: RecordId, which: Which, slot: Slot) -> Option<Version> {
        let all = self.all();
        all.get(&group)?.versions.get(&which)?.get(&slot).copied()
    }

    /// Forgets all groups except these.
    fn keep_only(&self, groups: &BTreeSet<RecordId>) {
        self.all().retain(|id, _| groups.contains(id));
    }
}

/// The differences between two readings of a group.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) slots: Vec<(Which, Slot)>,
    pub(super) repos: BTreeSet<PublicKey>,
}

impl Shared {
    /// Indexes all groups, and forgets those that were left.
    pub(super) async fn index_groups(&self) -> Vec<Group> {
        let groups = self.groups.groups();
        let ids = groups.iter().map(Group::id).collect();
        self.index.keep_only(&ids);
        groups
    }

    /// Indexes all of a group, and returns what has changed.
    pub(super) async fn index_group(&self, group: &Group) -> Result<Found> {
        let mut new = GroupIndex::default();
        for repo in group.repos().await? {
            self.read_repo(&mut new, &repo).await?;
        }
        let own = own_versions(group).await?;
        new.versions.insert(Which::Group, own);
        let mut all = self.index.all();
        let old = all.insert(group.id(), new).unwrap_or_default();
        let new = &all[&group.id()];
        let mut found = Found::default();
        let nothing = BTreeMap::new();
        for (which, slots) in &new.versions {
            let before = old.versions.get(which).unwrap_or(&nothing);
            let differ = slots
                .iter()
                .filter(|(slot, now)| before.get(*slot) != Some(*now));
            found.slots.extend(differ.map(|(slot, _)| (*which, *slot)));
            let gone = before.keys().filter(|slot| !slots.contains_key(*slot));
            found.slots.extend(gone.map(|slot| (*which, *slot)));
        }
        for (repo, now) in &new.repos {
            let is_same = |before: &RepoIndex| {
                (before.holding, before.behind) == (now.holding, now.behind)
                    && (before.newest, before.is_here) == (now.newest, now.is_here)
                    && before.waits == now.waits
            };
            if !old.repos.get(repo).is_some_and(is_same) {
                found.repos.insert(*repo);
            }
        }
        Ok(found)
    }

    async fn read_repo(&self, index: &mut GroupIndex, repo: &Repo) -> Result<()> {
        let (group, key) = (repo.group(), repo.key());
        let mut versions = BTreeMap::new();
        for (slot, signed) in group.intact(repo.id()).await? {
            versions.insert(slot, Version::of(&signed));
            if (FIRST_ROUTE..REPO_SLOTS).contains(&slot) {
                index.set_route(key, slot, open_route(repo, slot, &signed.value));
            }
        }
        index.versions.insert(Which::Repo(key), versions);
        index.repos.insert(key, self.look_at_repo(repo).await?);
        Ok(())
    }

    /// Reads how much of a repo is here.
    async fn look_at_repo(&self, repo: &Repo) -> Result<RepoIndex> {
        let state = match repo.state(&self.options.policy).await {
            Ok(state) => state,
            // Our own root is damaged: nothing is announced until it is repaired.
            Err(error) if error.kind() == Kind::Corrupt && repo.is_ours() => {
                return Ok(RepoIndex {
                    is_ours: true,
                    newest: Root::EMPTY,
                    is_here: false,
                    waits: false,
                    holding: None,
                    behind: None,
                });
            }
            Err(error) => return Err(error),
        };
        Ok(RepoIndex {
            is_ours: repo.is_ours(),
            newest: state.announced,
            is_here: state.is_here(),
            waits: repo.other().await?.is_some(),
            holding: Some(self.holding(repo).await?),
            behind: self.is_behind(repo).await?,
        })
    }

    /// Indexes a repo again after its local part changed.
    pub(super) async fn index_repo(&self, group: &Group, key: PublicKey) -> Result<()> {
        if let Some(repo) = group.repo(key).await? {
            let found = self.look_at_repo(&repo).await?;
            self.index
                .look(group.id(), |index| index.repos.insert(key, found));
        }
        Ok(())
    }

    /// Indexes the members of a group after its record changed: reads the added repos, with what is
    /// here of them, and the slots of the record that name them.
    pub(super) async fn index_members(&self, group: &Group) -> Result<Found> {
        let keys = group.repo_keys().await?;
        let members: BTreeSet<PublicKey> = keys.iter().copied().collect();
        let known = self.index.look(group.id(), |index| {
            let is_member = |key: &PublicKey| members.contains(key);
            index.repos.retain(|key, _| is_member(key));
            index.routes.retain(|(key, _), _| is_member(key));
            index.versions.retain(|which, _| match which {
                Which::Group => true,
                Which::Repo(key) => is_member(key),
            });
            index.digest = None;
            index.repos.keys().copied().collect::<BTreeSet<_>>()
        });
        let known = known.unwrap_or_default();
        let (mut found, mut new) = (Found::default(), GroupIndex::default());
        for key in members.difference(&known) {
            if let Some(repo) = group.repo(*key).await? {
                self.read_repo(&mut new, &repo).await?;
                found.repos.insert(*key);
            }
        }
        if !found.repos.is_empty() {
            // With the slots that name them, at once: a peer that hears of a repo's values before it
            // hears of the repo ignores them.
            let own = own_versions(group).await?;
            self.index.look(group.id(), |index| {
                index.versions.append(&mut new.versions);
                index.repos.append(&mut new.repos);
                index.routes.append(&mut new.routes);
                index.digest = None;
                let before = index.versions.insert(Which::Group, own.clone());
                let before = before.unwrap_or_default();
                let changed = own
                    .iter()
                    .filter(|(slot, now)| before.get(*slot) != Some(*now));
                found.slots = changed.map(|(slot, _)| (Which::Group, *slot)).collect();
            });
        }
        Ok(found)
    }

    /// Indexes a slot that changed. Returns false if the group is not indexed yet: then all of it must
    /// be read.
    pub(super) async fn index_slot(&self, group: &Group, which: Which, slot: Slot) -> Result<bool> {
        let is_known = self.index.look(group.id(), |index| match which {
            Which::Group => true,
            Which::Repo(key) => index.repos.contains_key(&key),
        });
        let repo = match (is_known, which) {
            (None, _) => return Ok(false),
            (Some(_), Which::Group) => None,
            // The whole record is read when the change of the group's record that names the repo is
            // processed.
            (Some(false), Which::Repo(_)) => return Ok(true),
            (Some(true), Which::Repo(key)) => match group.repo(key).await? {
                Some(repo) => Some(repo),
                None => return Ok(true),
            },
        };
        let id = repo.as_ref().map_or(group.id(), Repo::id);
        let found = group.records().get(id, slot, Freshness::Local).await;
        let found = group.unless_damaged(id, slot, found)?;
        let route = match (&repo, &found) {
            (Some(repo), Some(signed)) if (FIRST_ROUTE..REPO_SLOTS).contains(&slot) => {
                open_route(repo, slot, &signed.value)
            }
            _ => None,
        };
        self.index.look(group.id(), |index| {
            index.set(which, slot, found.as_ref().map(Version::of));
            if let Some(repo) = &repo
                && slot >= FIRST_ROUTE
            {
                index.set_route(repo.key(), slot, route);
            }
        });
        if let Some(repo) = repo
            && slot == REPO_ROOT
        {
            self.index_repo(group, repo.key()).await?;
        }
        Ok(true)
    }
}

/// Returns the versions of the group's own record. Read them after the repos: then the record names
/// each of those.
async fn own_versions(group: &Group) -> Result<BTreeMap<Slot, Version>> {
    let own = group.intact(group.id()).await?;
    let versions = own
        .iter()
        .map(|(slot, signed)| (*slot, Version::of(signed)));
    Ok(versions.collect())
}

/// Returns the route in a slot. A value that cannot be opened counts as no route: its owner wrote it
/// with other keys.
fn open_route(repo: &Repo, slot: Slot, value: &[u8]) -> Option<Route> {
    match Route::open(repo.group().keys().locate(), repo.id(), slot, value) {
        Ok(route) => Some(route),
        Err(error) => {
            tracing::debug!(repo = %repo.key(), %error, "a slot does not hold a valid route");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(seq: u64) -> Version {
        Version {
            seq,
            digest: [seq as u8; 8],
        }
    }

    #[test]
    fn a_digest_tells_any_two_states_apart() {
        let repo = |n| Which::Repo(PublicKey([n; 32]));
        let mut index = GroupIndex::default();
        let mut seen = BTreeSet::from([index.digest()]);
        for (which, slot, seq) in [
            (Which::Group, 0, 1),
            (Which::Group, 1, 1),
            (Which::Group, 1, 2),
            (repo(1), 1, 2),
            (repo(2), 1, 2),
            (repo(2), 2, 2),
        ] {
            index.set(which, slot, Some(version(seq)));
            assert!(seen.insert(index.digest()), "{which:?} {slot} {seq}");
        }
        let before = index.digest();
        index.set(repo(2), 2, None);
        assert_ne!(index.digest(), before);
        index.set(repo(2), 2, Some(version(2)));
        assert_eq!(index.digest(), before);
    }

    #[test]
    fn who_waits_for_one_group_hears_of_all_groups() {
        let (one, two) = (RecordId([1; 32]), RecordId([2; 32]));
        assert!(Change::Session { group: one }.is_of(one));
        assert!(!Change::Session { group: one }.is_of(two));
        assert!(Change::Groups.is_of(one) && Change::Groups.is_of(two));
    }
}
