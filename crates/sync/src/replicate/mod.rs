//! Replication: members of a group compare their records, and fetch what the newer ones name.
//!
//! A [`Replicator`] keeps connections with other members of its groups. On each, both sides first
//! prove a group to each other; then each says which values it has of the group's records,
//! and sends those that the other has not. A record names a root, and a root a tree: whatever of that
//! is not here is fetched, from all who have it at once. Changes are pushed as they happen; comparing
//! again now and then is what guarantees that nothing is missed.

mod fetch;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod proof;
mod receive;
mod routes;
mod serve;
mod session;
mod status;
#[cfg(test)]
mod tests;
pub mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use store_api::{Error, Kind, Listing, PublicKey, RecordId, Result};
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    task::JoinSet,
    time::Instant,
};

use self::session::Session;
pub use self::status::{RepoStatus, Request, Status, Synced};
use crate::{
    groups::{Event, Groups, Repo},
    network::{Address, Connection, Network, Stream},
};

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// The most streams of one connection that are answered at a time.
const MAX_STREAMS: usize = 64;
/// How long a peer may take to say its first words on a stream.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a peer that lied, or could not be reached, is left alone the first time; then twice as
/// long, and so on.
const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
/// The longest that it is.
const MAX_BACK_OFF: Duration = Duration::from_secs(300);

/// Two connections that two peers make to each other within this time were made at the same time.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long peers have to hear that our routes are withdrawn.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// What a member wants to have of others' repos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Everything.
    #[default]
    Everything,
    /// Which files there are; contents when they are asked for.
    Names,
}

/// Whether a change is told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// It is.
    #[default]
    AtOnce,
    /// Only comparing tells.
    Never,
}

/// How to replicate.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to fetch.
    pub policy: Policy,
    /// Whether changes are pushed.
    pub push: Push,
    /// How often to compare, and to look for members who are not connected.
    pub compare_every: Duration,
    /// For how long a route of ours is good; it is renewed at half of that.
    pub route_for: Duration,
}

impl Default for Options {
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
    options: Options,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    sessions: Mutex<BTreeMap<u64, Arc<Session>>>,
    next: AtomicU64,
    /// Tells that sessions came or went, or that one holds something new.
    stirred: Notify,
    /// Tells that there may be somebody new to connect to.
    met: Notify,
    avoided: Mutex<BTreeMap<Avoided, BackOff>>,
    /// Who answered at an address.
    peers: Mutex<BTreeMap<Address, PublicKey>>,
    requests: status::Requests,
    tasks: Mutex<JoinSet<()>>,
}

/// Whom to leave alone for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Avoided {
    Peer(PublicKey),
    Address(Address),
}

#[derive(Debug, Clone, Copy)]
struct BackOff {
    until: Instant,
    last: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicator")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// A connection, with the groups that were proven on it.
pub(crate) struct Link {
    id: u64,
    connection: Connection,
    /// Who made the connection: of two that two peers make at the same time, that of the lesser key
    /// stays.
    dialer: PublicKey,
    since: Instant,
}

impl Link {
    fn connection_lives(&self) -> bool {
        futures_util::FutureExt::now_or_never(self.connection.closed()).is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicator {
    /// Begins to replicate. Must be called within a tokio runtime.
    pub fn start(groups: Groups, network: Arc<dyn Network>, options: Options) -> Self {
        let shared = Arc::new(Shared {
            groups,
            network,
            options,
            links: Mutex::default(),
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
            stirred: Notify::new(),
            met: Notify::new(),
            avoided: Mutex::default(),
            peers: Mutex::default(),
            requests: status::Requests::default(),
            tasks: Mutex::new(JoinSet::new()),
        });
        shared.spawn(Arc::clone(&shared).accept());
        shared.spawn(Arc::clone(&shared).dial());
        shared.spawn(Arc::clone(&shared).listen());
        shared.spawn(Arc::clone(&shared).fetch_all());
        Self(shared)
    }

    /// The groups.
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// Connects to a member at this address, now; otherwise addresses come from invites and routes.
    ///
    /// # Errors
    /// As of [`Network::connect`].
    pub async fn connect(&self, address: &Address) -> Result<()> {
        let connection = self.0.network.connect(address, None).await?;
        self.0.add_link(connection, Side::Dialed);
        Ok(())
    }

    /// The bytes of a file within `range`, which come from members first where they are not here: of
    /// who has [only names](Policy::Names), this is how contents come. All of the file is then kept as
    /// long as the repo has it.
    ///
    /// # Errors
    /// As of [`Repo::read`]; [`Kind::Unavailable`] where nobody who is connected can give the file.
    pub async fn read(
        &self,
        repo: &Repo,
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Listing<Bytes>> {
        let entry = self.0.fetch_file(repo, path).await?;
        Ok(repo.read_entry(&entry, range))
    }

    /// Where this device can be reached now, for an invite.
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
        let mut tasks = self.abort();
        while tasks.join_next().await.is_some() {}
        self.0.network.close().await;
    }

    /// Ends everything at once, without telling anybody; our routes lapse. What runs ends soon after,
    /// and the network stays open.
    pub fn abort(&self) -> JoinSet<()> {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.abort_all();
        lock(&self.0.sessions).clear();
        lock(&self.0.links).clear();
        tasks
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialed,
    Accepted,
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        // Those that ended need not be kept.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn accept(self: Arc<Self>) {
        loop {
            match self.network.accept().await {
                Ok(connection) => self.add_link(connection, Side::Accepted),
                Err(error) if error.kind() == Kind::Closed => return,
                Err(error) => tracing::debug!(%error, "a connection failed"),
            }
        }
    }

    fn add_link(self: &Arc<Self>, connection: Connection, side: Side) {
        let peer = connection.peer();
        let link = Arc::new(Link {
            id: self.number(),
            dialer: match side {
                Side::Dialed => self.network.key(),
                Side::Accepted => peer,
            },
            connection,
            since: Instant::now(),
        });
        {
            let mut links = lock(&self.links);
            let is_same = |other: &&Arc<Link>| other.connection.peer() == peer;
            let other = links.values().find(is_same).cloned();
            if let Some(other) = &other {
                let at_once = other.since.elapsed() < AT_ONCE;
                if at_once && other.dialer < link.dialer {
                    link.connection.close("there is another connection");
                    return;
                }
                // A peer that connects again, or later on, knows that the other one is gone: it may
                // have been killed, which is noticed here only after a while.
                other.connection.close("there is a newer connection");
                links.remove(&other.id);
            }
            if links.len() >= MAX_CONNECTIONS || self.is_avoided(&Avoided::Peer(peer)) {
                link.connection.close("not now");
                return;
            }
            links.insert(link.id, Arc::clone(&link));
        }
        let shared = Arc::clone(self);
        self.spawn(async move {
            if side == Side::Dialed {
                shared.greet(&link);
            }
            shared.answer_streams(&link).await;
            lock(&shared.links).remove(&link.id);
            lock(&shared.sessions).retain(|_, session| session.link.id != link.id);
            shared.stirred.notify_waiters();
        });
    }

    /// Opens a session for each group that has none on this connection yet.
    fn greet(self: &Arc<Self>, link: &Arc<Link>) {
        for group in self.groups.groups() {
            let has = |session: &Arc<Session>| {
                session.link.id == link.id && session.group.id() == group.id()
            };
            if lock(&self.sessions).values().any(has) {
                continue;
            }
            let (shared, link) = (Arc::clone(self), Arc::clone(link));
            self.spawn(async move {
                if let Err(error) = shared.ask(&link, group).await {
                    tracing::debug!(%error, "a group could not be proven");
                    if error.kind() != Kind::Denied {
                        shared.give_up(&link, &error);
                    }
                }
            });
        }
    }

    async fn answer_streams(self: &Arc<Self>, link: &Arc<Link>) {
        let mut answering = JoinSet::new();
        loop {
            if answering.len() >= MAX_STREAMS {
                answering.join_next().await;
                continue;
            }
            let stream = tokio::select! {
                biased;
                Some(_) = answering.join_next() => continue,
                stream = link.connection.accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    let (shared, link) = (Arc::clone(self), Arc::clone(link));
                    answering.spawn(async move {
                        if let Err(error) = shared.answer(&link, stream).await {
                            tracing::debug!(%error, "a peer's stream ended");
                            if is_lie(&error) {
                                shared.avoid_peer(&link, &error);
                            } else if is_stall(&error) {
                                shared.give_up(&link, &error);
                            }
                        }
                    });
                }
                Err(_) => return,
            }
        }
    }

    async fn answer(self: &Arc<Self>, link: &Arc<Link>, mut stream: Stream) -> Result<()> {
        use tokio::io::AsyncReadExt;
        let first = tokio::time::timeout(PATIENCE, stream.recv.read_u8()).await;
        let first = first.map_err(|_| silent())?.map_err(wire::lost)?;
        match first {
            wire::HELLO => self.answer_hello(link, stream).await,
            wire::GET => self.answer_get(link, stream).await,
            other => {
                let message = "the peer begins with what is not known here";
                Err(Error::new(Kind::Invalid, "sync.peer.read", message).with("what", other))
            }
        }
    }

    /// Follows what changes here, and tells it.
    async fn listen(self: Arc<Self>) {
        let mut events = self.groups.events();
        let mut next = Instant::now() + self.options.compare_every;
        loop {
            let event = tokio::select! {
                biased;
                // First, so that no number of events can put it off.
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + self.options.compare_every;
                    for session in self.sessions() {
                        session.compare();
                    }
                    continue;
                }
                event = events.recv() => event,
            };
            match event {
                Ok(Event::Changed { group, .. } | Event::Held { group, .. }) => {
                    self.stirred.notify_waiters();
                    self.push(&self.sessions_of(group));
                }
                Ok(Event::Groups) => {
                    let links: Vec<_> = lock(&self.links).values().cloned().collect();
                    for link in links {
                        self.greet(&link);
                    }
                    self.met.notify_one();
                    self.stirred.notify_waiters();
                }
                Err(RecvError::Lagged(_)) => {
                    self.stirred.notify_waiters();
                    self.push(&self.sessions());
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Waits a moment for the peers to be told what has just changed.
    async fn say_good_bye(&self) {
        let told = async {
            for session in self.sessions() {
                session.push();
                while !matches!(session.is_level().await, Ok(true) | Err(_)) {
                    tokio::time::sleep(GOOD_BYE / 20).await;
                }
            }
        };
        // Who is not told in time finds out when the routes expire.
        drop(tokio::time::timeout(GOOD_BYE, told).await);
    }

    fn push(&self, sessions: &[Arc<Session>]) {
        if self.options.push == Push::AtOnce {
            sessions.iter().for_each(|session| session.push());
        }
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).values().cloned().collect()
    }

    fn sessions_of(&self, group: RecordId) -> Vec<Arc<Session>> {
        let mut sessions = self.sessions();
        sessions.retain(|session| session.group.id() == group);
        sessions
    }

    /// Connects to members that are not connected, and keeps our own routes fresh.
    async fn dial(self: Arc<Self>) {
        let mut addresses = self.network.watch_addresses();
        loop {
            if let Err(error) = self.announce_routes().await {
                tracing::warn!(%error, "our routes could not be announced");
            }
            let mut dialing = JoinSet::new();
            for address in self.candidates().await {
                let shared = Arc::clone(&self);
                dialing.spawn(async move { shared.dial_one(address).await });
                if dialing.len() >= MAX_STREAMS {
                    dialing.join_next().await;
                }
            }
            while dialing.join_next().await.is_some() {}
            let pause = tokio::time::sleep(self.options.compare_every.min(FIRST_BACK_OFF));
            tokio::select! {
                biased;
                changed = futures_util::StreamExt::next(&mut addresses) => {
                    if changed.is_none() {
                        // The network was closed.
                        return;
                    }
                }
                () = self.met.notified() => {}
                () = pause => {}
            }
        }
    }

    async fn dial_one(self: &Arc<Self>, address: Address) {
        let avoided = Avoided::Address(address.clone());
        match self.network.connect(&address, None).await {
            Ok(connection) => {
                lock(&self.avoided).remove(&avoided);
                let mut peers = lock(&self.peers);
                if peers.len() >= MAX_CONNECTIONS {
                    peers.clear();
                }
                peers.insert(address, connection.peer());
                drop(peers);
                self.add_link(connection, Side::Dialed);
            }
            Err(error) => {
                tracing::debug!(%address, %error, "a member cannot be reached");
                self.avoid(avoided);
            }
        }
    }

    /// Addresses of members that may be worth a try.
    async fn candidates(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        let own = self.network.addresses();
        let now = self.groups.0.now();
        for group in self.groups.groups() {
            let mut texts = group.addresses();
            match group.routes().await {
                Ok(routes) => texts.extend(
                    routes
                        .into_iter()
                        .filter(|(_, route)| route.expires > now)
                        .map(|(_, route)| route.address),
                ),
                Err(error) => tracing::warn!(%error, "a group's routes cannot be read"),
            }
            for text in texts {
                // What another network understands is not for us.
                let Ok(address) = Address::new(text) else {
                    continue;
                };
                if !own.contains(&address)
                    && !all.contains(&address)
                    && !self.is_avoided(&Avoided::Address(address.clone()))
                {
                    all.push(address);
                }
            }
        }
        let peers = lock(&self.peers).clone();
        let links = lock(&self.links);
        let is_of_no_use = |address: &Address| {
            let peer = peers.get(address);
            peer.is_some_and(|peer| {
                self.is_avoided(&Avoided::Peer(*peer))
                    || links.values().any(|l| l.connection.peer() == *peer)
            })
        };
        all.retain(|address| !is_of_no_use(address));
        drop(links);
        all
    }

    fn is_avoided(&self, whom: &Avoided) -> bool {
        let avoided = lock(&self.avoided);
        avoided
            .get(whom)
            .is_some_and(|back| back.until > Instant::now())
    }

    fn avoid(&self, whom: Avoided) {
        let mut avoided = lock(&self.avoided);
        if avoided.len() >= MAX_CONNECTIONS {
            let now = Instant::now();
            avoided.retain(|_, back| back.until > now);
        }
        let now = Instant::now();
        // Who has done well for long begins anew.
        let last = avoided
            .get(&whom)
            .filter(|back| now < back.until + MAX_BACK_OFF)
            .map(|back| back.last * 2);
        let last = last.unwrap_or(FIRST_BACK_OFF).min(MAX_BACK_OFF);
        let until = now + last;
        avoided.insert(whom, BackOff { until, last });
    }

    /// Ends a connection with who lied, and leaves it alone for a while.
    fn avoid_peer(&self, link: &Link, error: &Error) {
        // What several of its streams suffer from is one lie.
        if link.connection_lives() {
            let peer = link.connection.peer();
            tracing::warn!(%peer, %error, "a peer lied");
            self.avoid(Avoided::Peer(peer));
            link.connection.close("that was not right");
        }
    }

    /// Ends a connection whose session ended: only a new one begins it anew. Who was silent for too long
    /// is left alone for a while; others may just have been started again.
    fn give_up(&self, link: &Link, error: &Error) {
        if link.connection_lives() {
            let peer = link.connection.peer();
            tracing::debug!(%peer, %error, "a session ended");
            if is_stall(error) {
                self.avoid(Avoided::Peer(peer));
            }
            link.connection.close("a session ended");
        }
    }
}

/// Whether only a peer that lies, or speaks another language, can be the cause.
fn is_lie(error: &Error) -> bool {
    matches!(error.kind(), Kind::Invalid | Kind::TooLarge)
}

const STALLED: &str = "the peer says nothing";

fn silent() -> Error {
    Error::new(Kind::Unavailable, "sync.peer.read", STALLED)
}

/// Whether a peer did not go on in time.
fn is_stall(error: &Error) -> bool {
    error.kind() == Kind::Unavailable && error.message() == STALLED
}
