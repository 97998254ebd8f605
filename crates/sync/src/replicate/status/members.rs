//! The progress of each member of a group: what they have that we lack, and what we have that they
//! lack.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use larder_store_api::{Error, Kind, PublicKey, Result};
use larder_store_engine::Hash;

use super::contacts::Newest;
use crate::{
    groups::{
        Group, GroupId, Holding, Missing, Policy, Repo,
        contacts::{Contact, MAX_CONTACTS},
    },
    records::RepoRoot,
    replicate::{Replicator, Shared, session::Session},
    tree::{
        Root,
        count::{Count, Which, count},
    },
};

/// The files that one side has and the other lacks. A file that only has another name is on both
/// sides, and that a file was removed is nothing to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// The files of which anything is lacking.
    pub files: u64,
    /// The bytes that are lacking; to a replica those of sealed files, which are a little longer.
    pub bytes: u64,
    /// True if the numbers were counted. Where it is not, pages are not here yet, or the other side
    /// said that it holds what is not known here; the numbers then come from what is said of the
    /// whole.
    pub exact: bool,
}

impl Lack {
    const NOTHING: Self = Self {
        files: 0,
        bytes: 0,
        exact: true,
    };

    fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.exact &= other.exact;
    }
}

impl From<Count> for Lack {
    fn from(count: Count) -> Self {
        Self {
            files: count.files,
            bytes: count.bytes,
            exact: !count.is_guess,
        }
    }
}

/// The progress of a member's device, or of a member of whom no device is known. Times are
/// milliseconds since 1970, by the clock of this device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The member's repo: the one that tells the device's address. `None` if none does, as for those
    /// who only read.
    pub repo: Option<PublicKey>,
    /// The device's key; `None` if none of the member's is known.
    pub device: Option<PublicKey>,
    /// True if the device is connected.
    pub connected: bool,
    /// The time at which the device was last heard of; `None` if it never was. After a crash up to
    /// a minute early.
    pub last_contact: Option<i64>,
    /// Since when both sides hold the newest roots that are known here, as far as they want them;
    /// `None` while they do not. Of who is not connected, what it said when it was.
    pub in_sync_since: Option<i64>,
    /// The files that they have and we lack, of those that we want.
    pub they_have: Lack,
    /// The files that we have and they lack.
    pub we_have: Lack,
}

impl Replicator {
    /// Returns the progress of each member of a group, device by device, including those that are
    /// not connected; but not this device.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the group is not here.
    pub async fn members(&self, group: impl Into<GroupId>) -> Result<Vec<MemberStatus>> {
        let GroupId(group) = group.into();
        let group = self.0.groups.group(group).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "sync.members",
                "there is no such group here",
            )
            .with("group", group)
        })?;
        self.0.members_status(&group).await
    }
}

impl Group {
    /// Returns the members' status, as [`Replicator::members`] does, from when this store last
    /// replicated the group: nobody is connected. `default` is what is wanted where [nothing was
    /// said](Self::policy).
    pub async fn members_status(&self, default: &Policy) -> Result<Vec<MemberStatus>> {
        let contacts = self.inner().load_contacts(self.id()).await?;
        let device = |contact: Contact| Device {
            repo: contact.repo,
            contact: Some(contact),
            session: None,
        };
        let devices = contacts
            .into_iter()
            .map(|(key, contact)| (key, device(contact)));
        status_of(self, default, devices.collect()).await
    }
}

/// The known facts about a device.
#[derive(Default)]
struct Device {
    repo: Option<PublicKey>,
    contact: Option<Contact>,
    session: Option<Arc<Session>>,
}

impl Shared {
    async fn members_status(&self, group: &Group) -> Result<Vec<MemberStatus>> {
        self.load_contacts(group.id()).await?;
        let mut devices: BTreeMap<PublicKey, Device> = BTreeMap::new();
        for (device, contact) in self.contacts.of(group.id()) {
            let known = devices.entry(device).or_default();
            known.repo = contact.repo;
            known.contact = Some(contact);
        }
        for session in self.sessions.of(group.id()) {
            let device = session.link.connection.peer();
            devices.entry(device).or_default().session = Some(session);
        }
        for (device, repo) in self.members_of(group) {
            // Nothing else bounds the devices that members report.
            if devices.contains_key(&device) || devices.len() < MAX_CONTACTS {
                devices.entry(device).or_default().repo = Some(repo);
            }
        }
        devices.remove(&self.network.key());
        status_of(group, &self.options.policy, devices).await
    }
}

async fn status_of(
    group: &Group,
    default: &Policy,
    devices: BTreeMap<PublicKey, Device>,
) -> Result<Vec<MemberStatus>> {
    let newest = Newest::of(group, default).await?;
    let mut repos = Vec::new();
    for repo in group.repos().await? {
        repos.push(Compared::new(default, repo).await?);
    }
    let met: BTreeSet<_> = devices.values().filter_map(|known| known.repo).collect();
    let mut all = Vec::with_capacity(devices.len());
    for (device, known) in devices {
        let mut holds = BTreeMap::new();
        if let Some(contact) = &known.contact {
            holds.clone_from(&contact.holds);
        }
        if let Some(session) = &known.session {
            holds.extend(session.holdings());
        }
        let (they_have, we_have) = compare(&mut repos, &holds).await?;
        let contact = known.contact.as_ref();
        let since = contact.and_then(|contact| contact.synced_since);
        all.push(MemberStatus {
            repo: known.repo,
            device: Some(device),
            connected: known.session.is_some(),
            last_contact: match &known.session {
                Some(session) => Some(session.heard()),
                None => contact.map(|contact| contact.last),
            },
            in_sync_since: since.filter(|_| newest.are_held(&holds)),
            they_have,
            we_have,
        });
    }
    let strangers: Vec<PublicKey> = repos
        .iter()
        .map(|compared| &compared.repo)
        .filter(|repo| !repo.is_ours() && !met.contains(&repo.key()))
        .map(Repo::key)
        .collect();
    for repo in strangers {
        let (they_have, we_have) = compare(&mut repos, &BTreeMap::new()).await?;
        all.push(MemberStatus {
            repo: Some(repo),
            device: None,
            connected: false,
            last_contact: None,
            in_sync_since: None,
            they_have,
            we_have,
        });
    }
    Ok(all)
}

/// Returns what each side lacks, over all repos.
async fn compare(
    repos: &mut [Compared],
    holds: &BTreeMap<PublicKey, Holding>,
) -> Result<(Lack, Lack)> {
    let (mut they_have, mut we_have) = (Lack::NOTHING, Lack::NOTHING);
    for repo in repos {
        let theirs = holds.get(&repo.repo.key()).copied();
        let (they, we) = repo.with(theirs).await?;
        they_have.add(they);
        we_have.add(we);
    }
    Ok((they_have, we_have))
}

/// A root that somebody holds, and how many files and bytes of it they lack.
type Held = (Hash, u64, u64);

/// A repo, compared with what others hold of it.
struct Compared {
    repo: Repo,
    /// The tree that is here, as far as anybody could give it.
    here: Root,
    /// The missing part of the repo.
    missing: Missing,
    /// All roots that are known, the newest first.
    known: Vec<Root>,
    /// The roots of another device of ours that waits for its tree.
    other: Vec<Root>,
    wants: Which,
    /// The results for each holding: many devices hold the same.
    found: BTreeMap<Option<Held>, (Lack, Lack)>,
}

impl Compared {
    async fn new(default: &Policy, repo: Repo) -> Result<Self> {
        let wants = repo.wants(default).await?;
        let settled = repo.settled(&wants).await?;
        let missing = repo.missing_of(&settled, &wants).await?;
        let known = repo.readable_root().await?;
        let other = repo.other().await?;
        Ok(Self {
            here: settled.root,
            missing,
            known: known.as_ref().map_or(Vec::new(), roots),
            other: other.map_or(Vec::new(), |other| roots(&other.root)),
            wants: match wants.none() {
                true => Which::Names,
                false => Which::Missing(wants),
            },
            found: BTreeMap::new(),
            repo,
        })
    }

    async fn with(&mut self, theirs: Option<Holding>) -> Result<(Lack, Lack)> {
        let key = theirs.map(|theirs| (theirs.root, theirs.lacks_files, theirs.lacks_bytes));
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let (mut they_have, mut we_have) = self.compare(theirs.map(|theirs| theirs.root)).await?;
        if let Some(theirs) = theirs {
            // Files that both lack count for neither side.
            let (ours, both) = (&self.missing, self.missing.files.min(theirs.lacks_files));
            let lacks = ours.files > 0 || theirs.lacks_files > 0;
            let is_guess = (both > 0 && ours.files != theirs.lacks_files)
                || (lacks && theirs.root != self.here.hash);
            they_have.add(lack(ours.files - both, ours.bytes, is_guess));
            we_have.add(lack(
                theirs.lacks_files - both,
                theirs.lacks_bytes,
                is_guess,
            ));
        }
        self.found.insert(key, (they_have, we_have));
        Ok((they_have, we_have))
    }

    /// Returns the number of roots that came after this one; the tree without files is the oldest
    /// of all, unless it is announced.
    fn age(&self, root: Hash) -> Option<usize> {
        let age = self.known.iter().position(|known| known.hash == root);
        age.or((root == Hash::EMPTY).then_some(usize::MAX))
    }

    async fn compare(&self, theirs: Option<Hash>) -> Result<(Lack, Lack)> {
        let here = self.here;
        if theirs == Some(here.hash) || (theirs.is_none() && self.is_nothing()) {
            return Ok((Lack::NOTHING, Lack::NOTHING));
        }
        // A root that is here and no longer announced is older than all announced ones, except the empty tree.
        let ours = self.age(here.hash).unwrap_or(usize::MAX - 1);
        if let Some(theirs) = theirs
            && let Some(age) = self.age(theirs)
        {
            let root = self.known.get(age).copied().unwrap_or(Root::EMPTY);
            return Ok(match age < ours {
                true => (self.count(root, here, &self.wants).await?, Lack::NOTHING),
                false => (Lack::NOTHING, self.count(here, root, &Which::Here).await?),
            });
        }
        let other = theirs.and_then(|theirs| self.other.iter().find(|root| root.hash == theirs));
        if let Some(&other) = other {
            // Both went on from what both had.
            let they_have = self.count(other, here, &self.wants).await?;
            return Ok((they_have, self.count(here, other, &Which::Here).await?));
        }
        let unknown = Lack {
            exact: false,
            ..Lack::NOTHING
        };
        let all = Lack {
            files: here.files,
            bytes: here.bytes,
            exact: here.is_empty(),
        };
        Ok((unknown, all))
    }

    /// Returns true if there is no tree at all yet.
    fn is_nothing(&self) -> bool {
        self.here.is_empty() && self.known.iter().all(Root::is_empty)
    }

    async fn count(&self, new: Root, old: Root, which: &Which) -> Result<Lack> {
        let group = self.repo.group();
        let tree = match group.can_read() {
            true => Some(group.tree("sync.members")?),
            false => None,
        };
        let counted = count(group.blobs(), tree.as_ref(), new, old, which).await?;
        Ok(counted.into())
    }
}

/// So many files, with these bytes where there are any.
fn lack(files: u64, bytes: u64, is_guess: bool) -> Lack {
    Lack {
        files,
        bytes: if files == 0 { 0 } else { bytes },
        exact: !is_guess,
    }
}

/// A root and those before it, of which only the hashes are known.
fn roots(root: &RepoRoot) -> Vec<Root> {
    let before = root.history().into_iter().skip(1).map(|earlier| Root {
        hash: earlier.hash,
        level: earlier.level,
        ..Root::EMPTY
    });
    std::iter::once(root.root).chain(before).collect()
}
