//! A session: one group on one connection, after both sides have proven it. Each side says what it
//! has, and sends what the other has not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use store_api::{
    Error, Freshness, Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordId, RecordStore,
    Result, Signed, Slot,
};
use store_engine::{MAX_VALUE_LEN, verify};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{
    Link, PATIENCE, Shared,
    fault::{Blame, Fault, Outcome, lost},
    lock,
    proof::{self, ANSWER_LEN, Ends},
    wire::{HELLO, Message, Version, Which, next_frame, read_frame, write_frame},
};
use crate::{
    groups::{Group, Holding, Repo},
    network::Stream,
    records::{self, FIRST_ROUTE, REPO_ROOT},
};

/// Of how many repos it is known what a peer holds: of those that a group has room for, and of others that
/// were replaced in its record.
const MAX_HOLDINGS: usize = 2 * records::GROUP_SLOTS as usize;

/// How long to wait after a store of ours failed; then twice as long, and so on.
const RETRY: Duration = Duration::from_secs(2);
/// The longest that it is waited.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// One group on one connection.
pub(crate) struct Session {
    pub(super) id: u64,
    pub(super) link: Arc<Link>,
    pub(super) group: Group,
    /// What the peer is known to have.
    known: Mutex<BTreeMap<Which, BTreeMap<Slot, Version>>>,
    /// The trees that it holds.
    holds: Mutex<BTreeMap<PublicKey, Holding>>,
    /// What it was told that we hold.
    told: Mutex<BTreeMap<PublicKey, Holding>>,
    /// Whether it has said all that it has at least once.
    compared: AtomicBool,
    /// When it was last heard, by the clock of the groups.
    heard: AtomicI64,
    must_compare: AtomicBool,
    must_push: AtomicBool,
    wake: Notify,
    retry: Mutex<Retry>,
}

/// When the peer is asked again for what could not be stored.
#[derive(Debug, Default)]
struct Retry {
    waits: bool,
    pause: Duration,
}

impl Session {
    /// Has everything compared again.
    pub(super) fn compare(&self) {
        self.must_compare.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Has sent what the peer has not.
    pub(super) fn push(&self) {
        self.must_push.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Whether the peer has said all that it has.
    pub(super) fn has_compared(&self) -> bool {
        self.compared.load(Ordering::SeqCst)
    }

    /// How much of a repo's tree the peer holds.
    pub(super) fn holds(&self, repo: PublicKey) -> Option<Holding> {
        lock(&self.holds).get(&repo).copied()
    }

    /// All of them, by repo.
    pub(super) fn holdings(&self) -> BTreeMap<PublicKey, Holding> {
        lock(&self.holds).clone()
    }

    /// When the peer was last heard, in milliseconds since 1970.
    pub(super) fn heard(&self) -> i64 {
        self.heard.load(Ordering::SeqCst)
    }

    /// Whether the peer has the newest of these values, which are ours, and we have its.
    pub(super) fn is_level(&self, ours: &Versions, slots: Slots) -> bool {
        let theirs = lock(&self.known);
        let none = BTreeMap::new();
        // What it has of repos that the group has not means nothing.
        ours.iter().all(|(which, ours)| {
            let theirs = theirs.get(which).unwrap_or(&none).iter();
            let counts = |(slot, _): &(&Slot, &Version)| slots.contain(*which, **slot);
            ours.iter().filter(counts).eq(theirs.filter(counts))
        })
    }
}

/// Which values the slots of a group's records have.
pub(super) type Versions = BTreeMap<Which, BTreeMap<Slot, Version>>;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    /// Everything.
    All,
    /// What members have: not their routes, which are told anew though nothing changed.
    Data,
}

impl Slots {
    fn contain(self, which: Which, slot: Slot) -> bool {
        self == Self::All || which == Which::Group || slot < FIRST_ROUTE
    }
}

/// The values that we have; `None` while the root of another device of ours waits for its tree.
pub(super) async fn versions_of(group: &Group) -> Result<Option<Versions>> {
    for repo in group.repos().await? {
        if repo.other().await?.is_some() {
            return Ok(None);
        }
    }
    let mut all = Versions::new();
    for (which, id) in records_of(group).await? {
        all.insert(which, versions(group, id).await?.into_iter().collect());
    }
    Ok(Some(all))
}

/// The records of a group, its own first: the others mean something only with it.
async fn records_of(group: &Group) -> Result<Vec<(Which, RecordId)>> {
    let mut all = vec![(Which::Group, group.id())];
    for repo in group.repos().await? {
        all.push((Which::Repo(repo.key()), repo.id()));
    }
    Ok(all)
}

async fn versions(group: &Group, id: RecordId) -> Result<Vec<(Slot, Version)>> {
    let found = group.intact(id).await?;
    let version = |(slot, signed): &(Slot, Signed)| (*slot, Version::of(signed));
    Ok(found.iter().map(version).collect())
}

impl Shared {
    /// Proves a group to a peer, and runs the session if the peer proves it too.
    pub(super) async fn ask(self: &Arc<Self>, link: &Arc<Link>, group: Group) -> Outcome<()> {
        let ends = Ends {
            binding: link.connection.binding(),
            asker: self.network.key(),
            answerer: link.connection.peer(),
        };
        let mut stream = link.connection.open().await.link()?;
        let (hello, nonce) = proof::hello(&ends, group.keys()).local()?;
        stream.send.write_all(&[HELLO]).await.map_err(lost)?;
        write_frame(&mut stream.send, &hello).await?;
        let mut answer = [0; ANSWER_LEN];
        let answered = tokio::time::timeout(PATIENCE, stream.recv.read_exact(&mut answer)).await;
        answered.map_err(|_| Fault::stalls())?.map_err(lost)?;
        if !proof::check(&ends, group.keys(), &nonce, &answer) {
            let peer = link.connection.peer();
            return Err(Fault::refuses("the peer is no member of the group").with("peer", peer));
        }
        self.run_session(link, group, stream).await
    }

    pub(super) async fn answer_hello(
        self: &Arc<Self>,
        link: &Arc<Link>,
        mut stream: Stream,
    ) -> Outcome<()> {
        let ends = Ends {
            binding: link.connection.binding(),
            asker: link.connection.peer(),
            answerer: self.network.key(),
        };
        let hello = tokio::time::timeout(PATIENCE, read_frame(&mut stream.recv)).await;
        let hello = hello.map_err(|_| Fault::stalls())??;
        let hello = hello.ok_or_else(|| Fault::lies("the peer's hello is missing"))?;
        let groups = self.groups.groups();
        let (found, answer) = proof::answer(&ends, groups.iter().map(Group::keys), &hello)?;
        let found = found.map(|keys| keys.id());
        let written = async {
            stream.send.write_all(&answer).await?;
            stream.send.flush().await
        };
        written.await.map_err(lost)?;
        match groups.into_iter().find(|group| Some(group.id()) == found) {
            Some(group) => self.run_session(link, group, stream).await,
            // To a stranger it looks as if it had found out itself.
            None => stream.send.shutdown().await.map_err(lost),
        }
    }

    async fn run_session(
        self: &Arc<Self>,
        link: &Arc<Link>,
        group: Group,
        stream: Stream,
    ) -> Outcome<()> {
        let session = Arc::new(Session {
            id: self.number(),
            link: Arc::clone(link),
            group,
            known: Mutex::default(),
            holds: Mutex::default(),
            told: Mutex::default(),
            compared: AtomicBool::new(false),
            heard: AtomicI64::new(self.groups.0.now()),
            must_compare: AtomicBool::new(true),
            must_push: AtomicBool::new(false),
            wake: Notify::new(),
            retry: Mutex::default(),
        });
        session.wake.notify_one();
        lock(&self.sessions).insert(session.id, Arc::clone(&session));
        self.stirred.notify_waiters();
        let Stream { send, recv } = stream;
        let ended = tokio::select! {
            biased;
            ended = self.hear(&session, recv) => ended,
            ended = self.speak(&session, send) => ended,
        };
        lock(&self.sessions).remove(&session.id);
        self.stirred.notify_waiters();
        if let Err(fault) = &ended {
            self.blame(link, fault);
        }
        ended
    }

    async fn speak(&self, session: &Session, mut send: impl AsyncWrite + Unpin) -> Outcome<()> {
        let group = Some(session.group.id());
        let mut pause = RETRY;
        loop {
            session.wake.notified().await;
            match self.say(session, &mut send).await {
                Ok(()) => {
                    self.troubles.clear(group, "compare");
                    pause = RETRY;
                }
                // That is not the peer's fault, and may be over soon.
                Err(Fault::Local(error)) => {
                    self.troubles.note(group, "compare", &error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                    session.compare();
                    session.push();
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Says what is to be said.
    async fn say(&self, session: &Session, send: &mut (impl AsyncWrite + Unpin)) -> Outcome<()> {
        if session.must_compare.swap(false, Ordering::SeqCst) {
            for (record, id) in records_of(&session.group).await.local()? {
                let slots = versions(&session.group, id).await.local()?;
                let have = Message::Have { record, slots };
                write_frame(send, &have.encode().local()?).await?;
            }
            write_frame(send, &Message::Compared.encode().local()?).await?;
        }
        // Before it has said what it has, everything would be sent.
        if session.has_compared() && session.must_push.swap(false, Ordering::SeqCst) {
            self.send_newer(session, send).await?;
        }
        Ok(())
    }

    async fn send_newer(
        &self,
        session: &Session,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Outcome<()> {
        let group = &session.group;
        for (record, id) in records_of(group).await.local()? {
            for (slot, signed) in group.intact(id).await.local()? {
                let version = Version::of(&signed);
                if !session.lacks(record, slot, version) {
                    continue;
                }
                let message = Message::Slot {
                    record,
                    slot,
                    signed,
                };
                write_frame(send, &message.encode().local()?).await?;
                session.note(record, slot, version);
            }
        }
        for repo in group.repos().await.local()? {
            let holding = match self.holding(&repo).await {
                Ok(holding) => holding,
                // Our own root is damaged: there is nothing to say of it until it is healed.
                Err(error) if error.kind() == Kind::Corrupt => continue,
                Err(error) => return Err(Fault::Local(error)),
            };
            let told = lock(&session.told).insert(repo.key(), holding);
            if told != Some(holding) {
                let holds = Message::Holds {
                    repo: repo.key(),
                    holding,
                };
                write_frame(send, &holds.encode().local()?).await?;
            }
        }
        // The peer says nothing to what it was sent.
        self.contacts.look();
        Ok(())
    }

    async fn hear(&self, session: &Arc<Session>, mut recv: impl AsyncRead + Unpin) -> Outcome<()> {
        while let Some(frame) = next_frame(&mut recv).await? {
            session.heard.store(self.groups.0.now(), Ordering::SeqCst);
            match Message::decode(&frame).peer()? {
                Message::Have { record, slots } => {
                    let mut known = lock(&session.known);
                    // As many as a group has repos, and the group.
                    if known.len() <= usize::from(records::GROUP_SLOTS) {
                        known.insert(record, slots.into_iter().collect());
                    }
                }
                Message::Compared => {
                    if !lock(&session.retry).waits {
                        self.troubles.clear(Some(session.group.id()), "store");
                    }
                    session.compared.store(true, Ordering::SeqCst);
                    session.push();
                    self.stirred.notify_waiters();
                }
                Message::Slot {
                    record,
                    slot,
                    signed,
                } => match self.take_slot(session, record, slot, signed).await {
                    Ok(()) => self.troubles.clear(Some(session.group.id()), "store"),
                    Err(Fault::Local(error)) => {
                        self.troubles
                            .note(Some(session.group.id()), "store", &error);
                        self.ask_again(session);
                    }
                    Err(fault) => return Err(fault),
                },
                Message::Holds { repo, holding } => {
                    // Also of a repo that is not known here yet: it is not said again.
                    let mut holds = lock(&session.holds);
                    if holds.len() < MAX_HOLDINGS || holds.contains_key(&repo) {
                        holds.insert(repo, holding);
                    }
                    drop(holds);
                    self.stirred.notify_waiters();
                }
            }
        }
        Ok(())
    }

    /// Keeps what the peer has sent, if it is newer and right.
    async fn take_slot(
        &self,
        session: &Session,
        record: Which,
        slot: Slot,
        signed: Signed,
    ) -> Outcome<()> {
        let group = &session.group;
        let repo = match record {
            Which::Group => None,
            Which::Repo(key) => match group.repo(key).await.local()? {
                Some(repo) => Some(repo),
                // The group has it not, or not yet: it will be said again when comparing.
                None => return Ok(()),
            },
        };
        let id = repo.as_ref().map_or(group.id(), Repo::id);
        let descriptor = match record {
            Which::Group => records::group_record(group.keys().group()),
            Which::Repo(key) => records::repo_record(key),
        };
        check(&descriptor, id, slot, &signed).peer()?;
        session.note(record, slot, Version::of(&signed));
        // A root is taken in turn with whoever changes the repo, or makes it ours.
        let repo = repo.as_ref().filter(|_| slot == REPO_ROOT);
        let turn = match repo {
            Some(repo) => Some((repo, repo.turn().await)),
            None => None,
        };
        if let Some((repo, turn)) = &turn
            && group.is_ours(id)
        {
            if repo.remember(turn, signed).await.local()? {
                self.stirred.notify_waiters();
            }
            return Ok(());
        }
        let here = group.records().get(id, slot, Freshness::Local).await;
        let is_new = matches!(here, Ok(None));
        let here = group.unless_damaged(id, slot, here).local()?;
        if here.as_ref().is_some_and(|here| here.seq > signed.seq) {
            return Ok(());
        }
        let is_same = |here: &Signed| here.seq == signed.seq && here.value == signed.value;
        if here.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let put = group.records().put(id, slot, PutRecord::Import(signed));
        match put.await.local()? {
            Put::Published { .. } | Put::Queued { .. } => {
                drop(turn);
                group.record_changed(id);
                if id == group.id() && !is_new {
                    self.name_ours(id).await.local()?;
                }
            }
            // Both have the same number, and ours stays.
            Put::Superseded { .. } => session.push(),
        }
        Ok(())
    }

    /// Has the peer say again, in a while, what could not be stored.
    fn ask_again(&self, session: &Arc<Session>) {
        let pause = {
            let mut retry = lock(&session.retry);
            if retry.waits {
                return;
            }
            retry.waits = true;
            retry.pause = (retry.pause * 2).clamp(RETRY, MAX_RETRY);
            retry.pause
        };
        let session = Arc::downgrade(session);
        self.spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(session) = session.upgrade() {
                lock(&session.retry).waits = false;
                session.compare();
            }
        });
    }

    /// What was in a slot of the group's record was replaced: that may have been a repo of ours.
    async fn name_ours(&self, group: RecordId) -> Result<()> {
        // Not the session's handle: since it was made, better keys may have come.
        match self.groups.group(group) {
            Some(group) => group.name_ours().await,
            None => Ok(()),
        }
    }
}

/// Checks what a peer may send for a slot, before anything of it is stored: so what goes wrong then is not its
/// fault.
fn check(descriptor: &RecordDescriptor, id: RecordId, slot: Slot, signed: &Signed) -> Result<()> {
    let wrong = |message| {
        let error = Error::new(Kind::Invalid, "sync.peer.read", message);
        error.with("record", id).with("slot", slot)
    };
    let writer = descriptor.writer_of(slot);
    let writer = writer.ok_or_else(|| wrong("the record has no such slot"))?;
    if signed.writer != writer {
        return Err(wrong("the slot belongs to another writer"));
    }
    if signed.value.len() > MAX_VALUE_LEN as usize {
        return Err(wrong("the value is longer than one can be"));
    }
    verify(id, slot, signed)
}

impl Session {
    /// Whether the peer lacks this value, as far as that is known: it has none, an older one, or
    /// another one with the same number.
    fn lacks(&self, record: Which, slot: Slot, version: Version) -> bool {
        let known = lock(&self.known);
        let theirs = known.get(&record).and_then(|slots| slots.get(&slot));
        theirs.is_none_or(|theirs| theirs.seq <= version.seq && *theirs != version)
    }

    /// The peer has this value, or said so. Of two with one number it is the latest that counts: if
    /// it is the lesser, the peer sends the greater one itself.
    fn note(&self, record: Which, slot: Slot, version: Version) {
        let mut known = lock(&self.known);
        let theirs = known.entry(record).or_default().entry(slot);
        let theirs = theirs.or_insert(version);
        if theirs.seq <= version.seq {
            *theirs = version;
        }
    }
}
