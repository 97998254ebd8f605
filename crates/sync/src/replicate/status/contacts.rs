//! Follows who is there, what they hold, and since when both sides have the same; and remembers it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use larder_store_api::{PublicKey, RecordId, Result};
use tokio::{sync::broadcast::error::RecvError, time::Instant};

use crate::{
    groups::{
        Group, Holding, Policy,
        contacts::{Contact, MAX_CONTACTS},
    },
    replicate::{
        Shared,
        index::{Change, GroupIndex},
        lock,
        session::{Session, Slots},
    },
    tree::Root,
};

/// The time for which events are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(50);

/// The shortest time between two writes about a device that stays connected, and in or out of sync.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The known facts about the devices of each group.
#[derive(Debug, Default)]
pub(in crate::replicate) struct Contacts {
    known: Mutex<BTreeMap<RecordId, BTreeMap<PublicKey, Known>>>,
}

#[derive(Debug, Clone)]
struct Known {
    contact: Contact,
    /// The facts that were written last, and when.
    kept: Option<(Contact, Instant)>,
}

impl Contacts {
    fn is_loaded(&self, group: RecordId) -> bool {
        lock(&self.known).contains_key(&group)
    }

    /// Returns the known facts about the devices of a group.
    pub(super) fn of(&self, group: RecordId) -> BTreeMap<PublicKey, Contact> {
        let all = lock(&self.known);
        let known = all.get(&group).into_iter().flatten();
        known
            .map(|(device, known)| (*device, known.contact.clone()))
            .collect()
    }
}

/// The newest roots of a group's repos.
pub(super) struct Newest {
    roots: BTreeMap<PublicKey, Root>,
    /// True if all of the newest trees are here.
    are_here: bool,
}

impl Newest {
    /// As the index has them.
    fn indexed(index: &GroupIndex) -> Self {
        let roots = index.repos.iter();
        Self {
            roots: roots.map(|(key, repo)| (*key, repo.newest)).collect(),
            are_here: index.repos.values().all(|repo| repo.is_here && !repo.waits),
        }
    }

    pub(super) async fn of(group: &Group, default: &Policy) -> Result<Self> {
        let (mut roots, mut are_here) = (BTreeMap::new(), true);
        for repo in group.repos().await? {
            let state = repo.state(default).await?;
            are_here &= state.is_here();
            roots.insert(repo.key(), state.announced);
        }
        Ok(Self { roots, are_here })
    }

    /// Returns true if we have all of them, and so does the device with these holdings.
    pub(super) fn are_held(&self, holds: &BTreeMap<PublicKey, Holding>) -> bool {
        self.are_here
            && self.roots.iter().all(|(repo, root)| match holds.get(repo) {
                Some(holding) => holding.is_all_of(root.hash),
                // Before there is anything nothing is told.
                None => root.is_empty(),
            })
    }
}

impl Shared {
    /// Follows the devices of all groups, for ever.
    pub(in crate::replicate) async fn follow_members(self: Arc<Self>) {
        let groups: Vec<_> = self.groups.groups().iter().map(Group::id).collect();
        if let Err(error) = self.groups.0.forget_contacts_but(&groups).await {
            tracing::warn!(%error, "devices of groups that were left cannot be forgotten");
        }
        let mut before = BTreeMap::new();
        let mut changes = self.changes.subscribe();
        // All of them where `None`.
        let mut of: Option<BTreeSet<RecordId>> = None;
        loop {
            let start = Instant::now();
            self.look_at_some(&mut before, of.as_ref()).await;
            // However much happens, most of the time is for other things.
            let mut changed = BTreeSet::new();
            let mut all = false;
            let gathered = tokio::time::sleep(GATHER.max(start.elapsed() * 4));
            let rest = tokio::time::sleep(self.options.compare_every);
            tokio::pin!(gathered, rest);
            loop {
                let is_enough = all || !changed.is_empty();
                tokio::select! {
                    biased;
                    () = &mut gathered, if is_enough => break,
                    () = &mut rest => {
                        all = true;
                        break;
                    }
                    change = changes.recv() => match change {
                        Ok(Change::Groups) | Err(RecvError::Lagged(_)) => all = true,
                        Ok(change) => changed.extend(change.group()),
                        Err(RecvError::Closed) => return,
                    }
                }
            }
            of = (!all).then_some(changed);
        }
    }

    async fn look_at_some(
        &self,
        before: &mut BTreeMap<u64, Arc<Session>>,
        of: Option<&BTreeSet<RecordId>>,
    ) {
        self.caught_up().await;
        let is_of = |group: RecordId| of.is_none_or(|of| of.contains(&group));
        let sessions = self.sessions.all().into_iter();
        let sessions: BTreeMap<u64, _> = sessions.map(|session| (session.id, session)).collect();
        let mut ended = before.clone();
        ended.retain(|id, session| is_of(session.group.id()) && !sessions.contains_key(id));
        before.retain(|_, session| !is_of(session.group.id()));
        let now = sessions.iter();
        let now = now.filter(|(_, session)| is_of(session.group.id()));
        before.extend(now.map(|(id, session)| (*id, Arc::clone(session))));
        let groups = self.groups.groups();
        for group in groups.iter().filter(|group| is_of(group.id())) {
            let of_group = |session: &&Arc<Session>| session.group.id() == group.id();
            let ended: Vec<_> = ended.values().filter(of_group).collect();
            let sessions: Vec<_> = sessions.values().filter(of_group).collect();
            match self.look_at(group, &ended, &sessions).await {
                Ok(()) => self.troubles.clear(Some(group.id()), "contacts"),
                Err(error) => self.troubles.note(Some(group.id()), "contacts", &error),
            }
        }
        let mut left: Vec<RecordId> = lock(&self.contacts.known).keys().copied().collect();
        left.retain(|id| !groups.iter().any(|group| group.id() == *id));
        for group in left {
            // Again: something may have been written while it was left.
            if let Err(error) = self.groups.0.forget_contacts(group).await {
                tracing::warn!(%group, %error, "devices cannot be forgotten");
            }
            lock(&self.contacts.known).remove(&group);
        }
    }

    /// Brings what was remembered of a group's devices into memory.
    pub(super) async fn load_contacts(&self, group: RecordId) -> Result<()> {
        if self.contacts.is_loaded(group) {
            return Ok(());
        }
        let loaded = self.groups.0.load_contacts(group).await?;
        let loaded = loaded.into_iter().map(|(device, contact)| {
            let kept = Some((contact.clone(), Instant::now()));
            (device, Known { contact, kept })
        });
        let mut known = lock(&self.contacts.known);
        known.entry(group).or_insert_with(|| loaded.collect());
        Ok(())
    }

    async fn look_at(
        &self,
        group: &Group,
        ended: &[&Arc<Session>],
        sessions: &[&Arc<Session>],
    ) -> Result<()> {
        self.load_contacts(group.id()).await?;
        let devices: BTreeSet<_> = sessions.iter().map(|s| s.link.connection.peer()).collect();
        self.with_contacts(group.id(), |contacts| {
            // Of two sessions with one device the one that goes on counts.
            for session in ended.iter().chain(sessions) {
                let known = contacts.entry(session.link.connection.peer());
                let known = known.or_insert_with(|| Known {
                    contact: Contact {
                        last: 0,
                        synced_since: None,
                        repo: None,
                        holds: BTreeMap::new(),
                    },
                    kept: None,
                });
                known.contact.last = session.heard();
                known.contact.holds.extend(session.holdings());
            }
        });
        if lock(&self.contacts.known)
            .get(&group.id())
            .is_none_or(BTreeMap::is_empty)
        {
            return Ok(());
        }

        let Some(newest) = self.index.look(group.id(), |index| Newest::indexed(index)) else {
            return Ok(());
        };
        let is_needed = |s: &&Arc<Session>| s.has_compared() && newest.are_held(&s.holdings());
        let is_level = |session: &Session| session.is_level(Slots::Data);
        let now = self.groups.0.now();
        self.with_contacts(group.id(), |contacts| {
            for (device, known) in contacts.iter_mut() {
                let contact = &mut known.contact;
                contact
                    .holds
                    .retain(|repo, _| newest.roots.contains_key(repo));
                let of_device = |s: &&&Arc<Session>| s.link.connection.peer() == *device;
                let session = sessions.iter().find(of_device);
                // A device that comes back counts as having what it had, until it reports otherwise.
                let stays = newest.are_held(&contact.holds)
                    && session.is_none_or(|s| !is_needed(s) || is_level(s));
                let begins = || session.is_some_and(|s| is_needed(s) && is_level(s));
                contact.synced_since = match contact.synced_since {
                    Some(since) if stays => Some(since),
                    _ => begins().then_some(now),
                };
            }
        });
        self.keep_contacts_of(group, &devices, KEEP_EVERY).await?;
        self.forget_oldest(group.id(), &devices).await
    }

    fn with_contacts(&self, group: RecordId, change: impl FnOnce(&mut BTreeMap<PublicKey, Known>)) {
        if let Some(contacts) = lock(&self.contacts.known).get_mut(&group) {
            change(contacts);
        }
    }

    /// Writes what has changed of a group's devices; of those that are connected, and of which nothing
    /// but the time has changed, what was not written for so long.
    async fn keep_contacts_of(
        &self,
        group: &Group,
        connected: &BTreeSet<PublicKey>,
        every: Duration,
    ) -> Result<()> {
        let is_news = |device: &PublicKey, known: &Known| {
            let Some((kept, when)) = &known.kept else {
                return true;
            };
            let now = &known.contact;
            let is_due = when.elapsed() >= every || !connected.contains(device);
            kept.synced_since != now.synced_since || (is_due && kept != now)
        };
        let mut news: Vec<(PublicKey, Contact)> = Vec::new();
        self.with_contacts(group.id(), |contacts| {
            let found = contacts
                .iter()
                .filter(|(device, known)| is_news(device, known));
            news.extend(found.map(|(device, known)| (*device, known.contact.clone())));
        });
        if news.is_empty() {
            return Ok(());
        }
        let members = self.members_of(group);
        for (device, mut contact) in news {
            contact.repo = members.get(&device).copied().or(contact.repo);
            self.groups
                .0
                .keep_contact(group.id(), device, &contact)
                .await?;
            self.with_contacts(group.id(), |contacts| {
                if let Some(known) = contacts.get_mut(&device) {
                    known.contact.repo = contact.repo;
                    known.kept = Some((contact, Instant::now()));
                }
            });
        }
        Ok(())
    }

    /// Forgets those who were not heard of for the longest, where there are too many.
    async fn forget_oldest(&self, group: RecordId, connected: &BTreeSet<PublicKey>) -> Result<()> {
        let mut gone = Vec::new();
        self.with_contacts(group, |contacts| {
            let mut left: Vec<_> = contacts
                .iter()
                .filter(|(device, _)| !connected.contains(device))
                .map(|(device, known)| (known.contact.last, *device))
                .collect();
            left.sort_unstable();
            left.truncate(contacts.len().saturating_sub(MAX_CONTACTS));
            for (_, device) in left {
                contacts.remove(&device);
                gone.push(device);
            }
        });
        for device in gone {
            self.groups.0.forget_contact(group, device).await?;
        }
        Ok(())
    }

    /// Writes what is known of all devices, at the end.
    pub(in crate::replicate) async fn keep_contacts(&self) {
        self.look_at_some(&mut BTreeMap::new(), None).await;
        for group in self.groups.groups() {
            let nobody = BTreeSet::new();
            let kept = self.keep_contacts_of(&group, &nobody, Duration::ZERO);
            if let Err(error) = kept.await {
                tracing::warn!(group = %group.id(), %error, "devices cannot be remembered");
            }
        }
    }

    /// The members of a group by the devices whose addresses they tell: of two that tell the same, the one
    /// that did it for longer. Their addresses are only what they say, and not proven.
    pub(super) fn members_of(&self, group: &Group) -> BTreeMap<PublicKey, PublicKey> {
        let routes = self.index.look(group.id(), |index| index.routes.clone());
        let routes = routes.unwrap_or_default().into_iter();
        let mut routes: Vec<_> = routes.map(|((repo, _), route)| (repo, route)).collect();
        routes.sort_by_key(|(_, route)| std::cmp::Reverse(route.expires));
        let mut members = BTreeMap::new();
        for (repo, route) in routes {
            if let Some(device) = self.peer_of(&route.address) {
                members.entry(device).or_insert(repo);
            }
        }
        members
    }
}
