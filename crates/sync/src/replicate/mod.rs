//! Replication: members of a group compare their records, and fetch what the newer ones name.
//!
//! A [`Replicator`] keeps connections with other members of its groups. On each, both sides first
//! prove a group to each other; then each says which values it has of the group's records,
//! and sends those that the other has not. A record names a root, and a root a tree: whatever of that
//! is not here is fetched, from all who have it at once. Changes are pushed as they happen; comparing
//! again now and then is what guarantees that nothing is missed.

mod connections;
mod dialer;
mod fault;
mod fetch;
mod free;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod index;
mod leases;
mod limits;
mod locate_file;
mod penalties;
mod possession;
mod progress;
mod proof;
mod receive;
mod retained;
mod routes;
mod serve;
mod session;
mod sessions;
mod status;
#[cfg(test)]
mod tests;
pub mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeBounds,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use larder_store_api::{Error, Kind, Listing, PublicKey, RecordId, Result};
use larder_store_engine::Hash;
use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
        watch,
    },
    task::JoinSet,
    time::Instant,
};

pub use self::status::{GroupStatus, Lack, MemberStatus, RepoStatus, Request, Synced};
use self::{
    connections::Link,
    index::{Change, Found},
    limits::{GOOD_BYE, MAX_CONNECTIONS, MAX_STREAMS, PATIENCE},
    penalties::Avoided,
    session::Slots,
    wire::Which,
};
pub use self::{
    dialer::Attempt,
    fault::Trouble,
    free::{Copies, Freed},
    progress::{FileProgress, RepoProgress},
};
use crate::{
    groups::{Event, Group, Groups, Missing, Policy, Repo},
    network::{Address, Network},
    records::REPO_ROOT,
};

/// The number of changes that a listener may lag behind before it looks at everything.
const CHANGES: usize = 1024;
/// The time after which a group that could not be read is read again; it doubles each time.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// The longest that it is waited.
const MAX_READ_AGAIN: Duration = Duration::from_secs(60);

/// Says if a change is announced at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// It is.
    #[default]
    AtOnce,
    /// Only comparing tells.
    Never,
}

/// The options of replication.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// The policy for the repos of groups that have no policy of their own.
    pub policy: Policy,
    /// Says if changes are pushed.
    pub push: Push,
    /// The interval at which to compare, and to look for members that are not connected.
    pub compare_every: Duration,
    /// The time for which a route of ours is valid; it is renewed at half of that.
    pub route_for: Duration,
}

impl ReplicateOptions {
    /// Sets the policy for the repos of groups that have no policy of their own.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Says if changes are pushed.
    #[must_use]
    pub fn push(mut self, push: Push) -> Self {
        self.push = push;
        self
    }

    /// Sets the interval at which to compare, and to look for members that are not connected.
    #[must_use]
    pub fn compare_every(mut self, interval: Duration) -> Self {
        self.compare_every = interval;
        self
    }

    /// Sets the time for which a route of ours is valid.
    #[must_use]
    pub fn route_for(mut self, time: Duration) -> Self {
        self.route_for = time;
        self
    }
}

impl Default for ReplicateOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            push: Push::default(),
            compare_every: Duration::from_secs(30),
            route_for: Duration::from_secs(3600),
        }
    }
}

/// Replicates all groups of a device over a network, until it is [shut down](Self::shutdown).
#[derive(Debug, Clone)]
pub struct Replicator(Arc<Shared>);

pub(crate) struct Shared {
    groups: Groups,
    network: Arc<dyn Network>,
    options: ReplicateOptions,
    connections: connections::Connections,
    sessions: sessions::Sessions,
    index: index::Index,
    /// The number of the groups' events that are in the index.
    seen: watch::Sender<u64>,
    /// The changes, for all tasks that wait for something.
    changes: broadcast::Sender<Change>,
    /// Tells that there may be somebody new to connect to.
    met: Notify,
    penalties: penalties::Penalties,
    failures: dialer::Failures,
    requests: status::Requests,
    contacts: status::Contacts,
    tasks: Mutex<JoinSet<()>>,
    /// The progress of fetching each repo.
    moved: Mutex<BTreeMap<RecordId, Arc<progress::Transferred>>>,
    /// Freeing, and saying that a tree is here, come one after the other.
    freeing: tokio::sync::Mutex<()>,
    /// The number of times that something was freed.
    freed: AtomicU64,
    leases: Arc<leases::Leases>,
    /// The parts of the trees with these roots that nobody could give, if they are too many to be
    /// stored.
    given_up: Mutex<BTreeMap<RecordId, (Hash, Missing)>>,
    troubles: fault::Troubles,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicator")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicator {
    /// Begins to replicate. Must be called within a tokio runtime.
    pub fn start(groups: Groups, network: Arc<dyn Network>, options: ReplicateOptions) -> Self {
        let shared = Arc::new(Shared {
            leases: leases::Leases::new(groups.clone(), network.key()),
            connections: connections::Connections::new(network.key()),
            groups,
            network,
            options,
            sessions: sessions::Sessions::default(),
            index: index::Index::default(),
            seen: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES),
            met: Notify::new(),
            penalties: penalties::Penalties::default(),
            failures: dialer::Failures::default(),
            requests: status::Requests::default(),
            contacts: status::Contacts::default(),
            tasks: Mutex::new(JoinSet::new()),
            moved: Mutex::default(),
            freeing: tokio::sync::Mutex::default(),
            freed: AtomicU64::new(0),
            given_up: Mutex::default(),
            troubles: fault::Troubles::default(),
        });
        shared.spawn(Arc::clone(&shared).accept());
        shared.spawn(Arc::clone(&shared).dial());
        shared.spawn(Arc::clone(&shared).listen());
        shared.spawn(Arc::clone(&shared).fetch_all());
        shared.spawn(Arc::clone(&shared).follow_members());
        Self(shared)
    }

    /// The groups.
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// Connects to a member at this address, now; otherwise addresses come from invites and routes.
    ///
    /// # Errors
    /// The errors of [`Network::connect`]; [`Kind::Unavailable`] if the peer is [left alone](Self::left_alone).
    pub async fn connect(&self, address: &Address) -> Result<()> {
        let connection = self.0.network.connect(address, None).await?;
        let peer = connection.peer();
        if self.0.penalties.is_avoided(&Avoided::Peer(peer)) {
            connection.close("not now");
            let message = "the peer lied or was silent for too long, and is left alone for a while";
            return Err(Error::new(Kind::Unavailable, "sync.connect", message).with("peer", peer));
        }
        self.0.add_link(connection, Some(address.clone()));
        Ok(())
    }

    /// The bytes of a file within `range`, which come from members first where they are not here: of
    /// who has [only names](Policy::Names), this is how contents come. All of the file is then kept as
    /// long as the repo has it.
    ///
    /// # Errors
    /// The errors of [`Repo::read`]; [`Kind::Unavailable`] if no connected member can give the file.
    pub async fn read(
        &self,
        repo: &Repo,
        path: &str,
        range: impl RangeBounds<u64>,
    ) -> Result<Listing<Bytes>> {
        let entry = self.0.fetch_file(repo, path).await?;
        Ok(repo.read_entry(&entry, range))
    }

    /// Returns the addresses at which this device can be reached now, for an invite.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.0.network.addresses();
        addresses.iter().map(|a| a.as_str().to_owned()).collect()
    }

    /// Withdraws our routes, ends all sessions and closes the network.
    pub async fn shutdown(&self) {
        match self.0.withdraw_routes().await {
            Ok(()) => self.0.say_good_bye().await,
            Err(error) => tracing::warn!(%error, "our routes stay until they expire"),
        }
        self.0.keep_contacts().await;
        self.abort().await;
        self.0.network.close().await;
    }

    /// Ends everything at once, without telling anybody; our routes lapse, and the network stays open. All that
    /// this replicator ran has ended when the returned future has, which need not be waited for.
    pub fn abort(&self) -> Aborting {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.abort_all();
        self.0.sessions.clear();
        self.0.connections.clear();
        Aborting(Box::pin(async move {
            while tasks.join_next().await.is_some() {}
        }))
    }
}

/// Waits until all that a [`Replicator`] ran has ended, after it was [aborted](Replicator::abort).
pub struct Aborting(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Aborting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aborting")
    }
}

impl Future for Aborting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

/// The groups that are to be read, each with the time from when on, and the pause before that.
#[derive(Debug, Default)]
struct ToRead(BTreeMap<RecordId, (Instant, Duration)>);

impl ToRead {
    /// Adds groups to be read now; one that could not be read waits until its pause is over.
    fn extend(&mut self, groups: impl IntoIterator<Item = RecordId>) {
        for group in groups {
            let now = (Instant::now(), Duration::ZERO);
            self.0.entry(group).or_insert(now);
        }
    }

    /// This one could not be read, after this pause.
    fn again(&mut self, group: RecordId, pause: Duration) {
        let pause = (pause * 2).clamp(READ_AGAIN, MAX_READ_AGAIN);
        self.0.insert(group, (Instant::now() + pause, pause));
    }

    /// The pause of a group that is read now.
    fn take(&mut self, group: RecordId) -> Duration {
        self.0
            .remove(&group)
            .map_or(Duration::ZERO, |(_, pause)| pause)
    }

    /// Removes and returns the groups that are due.
    fn take_due(&mut self) -> BTreeMap<RecordId, Duration> {
        let now = Instant::now();
        let due = self.0.extract_if(.., |_, (at, _)| *at <= now);
        due.map(|(group, (_, pause))| (group, pause)).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|(at, _)| *at).min()
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        // Those that ended need not be kept.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Follows what changes here: brings the index up to date, and tells peers and those who wait for it.
    async fn listen(self: Arc<Self>) {
        let (mut seen, mut events) = self.groups.0.listen();
        let mut next = Instant::now() + self.options.compare_every;
        let mut to_read = ToRead::default();
        to_read.extend(self.groups.groups().iter().map(Group::id));
        loop {
            let due = to_read.take_due();
            if !due.is_empty() {
                for (group, pause) in self.read_groups(due).await {
                    to_read.again(group, pause);
                }
            }
            self.seen.send_replace(seen);
            let wait = to_read.next().map_or(next, |at| at.min(next));
            let event = tokio::select! {
                biased;
                // First, so that no number of events can put it off.
                () = tokio::time::sleep_until(wait) => {
                    if next <= Instant::now() {
                        next = Instant::now() + self.options.compare_every;
                        self.leases.lapse();
                        // Changes without an event, such as damage, are found now.
                        let groups = self.index_groups().await;
                        let all = groups.iter().map(|group| (group.id(), to_read.take(group.id())));
                        for (group, pause) in self.read_groups(all.collect()).await {
                            to_read.again(group, pause);
                        }
                        for session in self.sessions.all() {
                            let group = session.group.id();
                            let repos = self.index.look(group, |index| {
                                index.repos.keys().copied().collect::<Vec<_>>()
                            });
                            // Those of which it was told what there is are not told again.
                            session.repos_changed(repos.unwrap_or_default());
                            session.compare_state();
                        }
                    }
                    continue;
                }
                event = events.recv() => event,
            };
            match event {
                Ok(event) => {
                    seen += 1;
                    to_read.extend(self.follow(event).await);
                }
                Err(RecvError::Lagged(missed)) => {
                    seen += missed;
                    to_read.extend(self.groups.groups().iter().map(Group::id));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Does what follows from an event; gives the groups of which everything is to be read.
    async fn follow(self: &Arc<Self>, event: Event) -> Vec<RecordId> {
        match event {
            Event::Changed {
                group,
                repo,
                writer,
                slot,
                ..
            } => {
                let which = repo.map_or(Which::Values(writer), Which::Repo);
                let Some(found) = self.groups.group(group) else {
                    return Vec::new();
                };
                match self.index_slot(&found, which, slot).await {
                    Ok(true) => {
                        let push = self.options.push == Push::AtOnce;
                        let ours = self.index.version(group, which, slot);
                        for session in self.sessions.of(group) {
                            session.slot_changed(which, slot, ours, push);
                        }
                        self.tell(Change::Record { group, which, slot });
                        if let (Some(repo), REPO_ROOT) = (repo, slot) {
                            self.repo_changed(group, repo);
                        }
                        Vec::new()
                    }
                    Ok(false) => vec![group],
                    Err(error) => {
                        self.troubles.note(Some(group), "read", &error);
                        vec![group]
                    }
                }
            }
            Event::Held { group, repo } => {
                let Some(found) = self.groups.group(group) else {
                    return Vec::new();
                };
                match self.index_repo(&found, repo).await {
                    Ok(()) => {
                        self.repo_changed(group, repo);
                        Vec::new()
                    }
                    Err(error) => {
                        self.troubles.note(Some(group), "read", &error);
                        vec![group]
                    }
                }
            }
            Event::Members { group } => {
                let Some(found) = self.groups.group(group) else {
                    return Vec::new();
                };
                match self.index_members(&found).await {
                    Ok(Some(new)) => {
                        self.members_changed(group, new);
                        Vec::new()
                    }
                    Ok(None) => {
                        self.members_changed(group, Found::default());
                        vec![group]
                    }
                    Err(error) => {
                        self.troubles.note(Some(group), "read", &error);
                        vec![group]
                    }
                }
            }
            Event::Joined { .. }
            | Event::Removed { .. }
            | Event::RemovedHere { .. }
            | Event::Voided { .. }
            | Event::InviteOverused { .. } => Vec::new(),
            // Some of it may open only now.
            Event::Wants { group } | Event::Rekeyed { group } => vec![group],
            Event::Resync => self.groups.groups().iter().map(Group::id).collect(),
            Event::Groups => {
                let groups = self.index_groups().await;
                for session in self.sessions.all() {
                    if !groups.iter().any(|group| group.id() == session.group.id()) {
                        session.end();
                        self.sessions.remove(&session);
                    }
                }
                for link in self.connections.all() {
                    self.greet(&link);
                }
                self.met.notify_one();
                self.tell(Change::Groups);
                groups.iter().map(Group::id).collect()
            }
        }
    }

    /// More is known of the members of a group: operations go to all peers, and each is looked at again.
    fn members_changed(&self, group: RecordId, new: Found) {
        for session in self.sessions.any_of(group) {
            if session.look_again() {
                self.tell(Change::Session { group });
            }
        }
        let push = self.options.push == Push::AtOnce;
        for (which, slot) in new.slots {
            let ours = self.index.version(group, which, slot);
            for session in self.sessions.of(group) {
                session.slot_changed(which, slot, ours, push);
            }
        }
        for repo in new.repos {
            self.repo_came(group, repo);
        }
        self.met.notify_one();
        self.tell(Change::Group { group });
    }

    /// A repo is in the group from now on.
    fn repo_came(&self, group: RecordId, repo: PublicKey) {
        let which = Which::Repo(repo);
        let slots = self
            .index
            .look(group, |index| index.versions.get(&which).cloned());
        let slots = slots.flatten().unwrap_or_default();
        for session in self.sessions.of(group) {
            session.record_is(which, &slots);
            if self.options.push == Push::AtOnce {
                session.push(slots.keys().map(|slot| (which, *slot)));
            }
        }
        self.met.notify_one();
        self.repo_changed(group, repo);
    }

    fn repo_changed(&self, group: RecordId, repo: PublicKey) {
        if self.options.push == Push::AtOnce {
            for session in self.sessions.of(group) {
                session.repos_changed([repo]);
            }
        }
        self.tell(Change::Repo { group, repo });
    }

    /// Reads all of these groups, and tells what is different; gives those that could not be read. Each has
    /// the pause before it, if it was tried before.
    async fn read_groups(
        &self,
        groups: BTreeMap<RecordId, Duration>,
    ) -> BTreeMap<RecordId, Duration> {
        let mut failed = BTreeMap::new();
        for (id, pause) in groups {
            let Some(group) = self.groups.group(id) else {
                continue;
            };
            let is_new = self.index.look(id, |_| ()).is_none();
            let found = match self.index_group(&group).await {
                Ok(found) => found,
                Err(error) => {
                    self.troubles.note(Some(id), "read", &error);
                    failed.insert(id, pause);
                    continue;
                }
            };
            self.troubles.clear(Some(id), "read");
            for session in self.sessions.of(id) {
                self.index
                    .look(id, |index| session.versions_are(&index.versions));
                if is_new {
                    session.compare();
                }
                if self.options.push == Push::AtOnce {
                    for (which, slot) in &found.slots {
                        let ours = self.index.version(id, *which, *slot);
                        session.slot_changed(*which, *slot, ours, true);
                    }
                }
                session.repos_changed(found.repos.iter().copied());
            }
            if is_new || !found.slots.is_empty() || !found.repos.is_empty() {
                self.tell(Change::Group { group: id });
                self.met.notify_one();
            }
        }
        failed
    }

    /// Tells those who wait for it.
    fn tell(&self, change: Change) {
        // An error says that nobody waits.
        self.changes.send(change).ok();
    }

    /// Waits until all that happened by now is in the index.
    async fn caught_up(&self) {
        let now = self.groups.0.count_events();
        let mut seen = self.seen.subscribe();
        // It is never closed while this is there.
        drop(seen.wait_for(|seen| *seen >= now).await);
    }

    /// Waits a moment for the peers to be told what has just changed.
    async fn say_good_bye(&self) {
        let told = async {
            self.caught_up().await;
            let mut changes = self.changes.subscribe();
            for session in self.sessions.all() {
                while !session.is_level(Slots::All) {
                    if let Err(RecvError::Closed) = changes.recv().await {
                        return;
                    }
                }
            }
        };
        // A peer that is not told in time finds out when the routes expire.
        drop(tokio::time::timeout(GOOD_BYE, told).await);
    }
}
