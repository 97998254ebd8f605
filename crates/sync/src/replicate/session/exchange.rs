//! The dialogue of a session: proving the group, saying what the peer lacks, and hearing what it has.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use larder_store_api::{
    Error, Freshness, Kind, Put, PutRecord, RecordDescriptor, RecordId, RecordStore, Result,
    Signed, Slot,
};
use larder_store_engine::{MAX_VALUE_LEN, verify};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{MAX_HOLDINGS, MAX_RETRY, MAX_SESSIONS, RETRY, Session};
use crate::{
    groups::{Group, Repo},
    network::Stream,
    records::{self, REPO_ROOT},
    replicate::{
        Link, PATIENCE, Shared,
        fault::{Blame, Fault, Outcome, lies, lost, refuses},
        index::{Change, GroupIndex},
        lock,
        proof::{self, ANSWER_LEN, Ends},
        wire::{HELLO, Message, Version, Which, next_frame, read_frame, write_frame},
    },
};

impl Shared {
    /// Proves a group to a peer, and runs the session if the peer proves it too.
    pub(in crate::replicate) async fn ask(
        self: &Arc<Self>,
        link: &Arc<Link>,
        group: Group,
    ) -> Outcome<()> {
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
            return Err(refuses("the peer is not a member of the group").with("peer", peer));
        }
        self.run_session(link, group, stream).await
    }

    pub(in crate::replicate) async fn answer_hello(
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
        let hello = hello.ok_or_else(|| lies("the peer's hello is missing"))?;
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
            // To a stranger this looks as if it had detected the failed proof itself.
            None => stream.send.shutdown().await.map_err(lost),
        }
    }

    async fn run_session(
        self: &Arc<Self>,
        link: &Arc<Link>,
        group: Group,
        stream: Stream,
    ) -> Outcome<()> {
        let id = group.id();
        if self.sessions.count(link, id) >= MAX_SESSIONS {
            return Err(refuses("a group has too many sessions on one connection"));
        }
        let session = Arc::new(Session {
            id: self.sessions.number(),
            link: Arc::clone(link),
            group,
            peer: Mutex::default(),
            compared: AtomicBool::new(false),
            heard: AtomicI64::new(self.groups.0.now()),
            to_say: Mutex::default(),
            wake: Notify::new(),
            over: Notify::new(),
            retry: Mutex::default(),
        });
        session.compare();
        link.prove();
        self.sessions.add(&session);
        self.index
            .look(id, |index| session.versions_are(&index.versions));
        self.tell(Change::Session { group: id });
        let Stream { send, recv } = stream;
        let ended = tokio::select! {
            biased;
            ended = self.hear(&session, recv) => ended,
            ended = self.speak(&session, send) => ended,
            () = session.over.notified() => Ok(()),
        };
        self.sessions.remove(&session);
        self.tell(Change::Session { group: id });
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
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Sends the pending messages.
    async fn say(&self, session: &Session, send: &mut (impl AsyncWrite + Unpin)) -> Outcome<()> {
        let group = session.group.id();
        let to_say = {
            let mut to_say = lock(&session.to_say);
            let mut now = std::mem::take(&mut *to_say);
            if !session.has_compared() {
                // Before the peer has announced what it has, this would send everything.
                to_say.slots = std::mem::take(&mut now.slots);
                to_say.repos = std::mem::take(&mut now.repos);
            }
            now
        };
        if let Some(answers) = to_say.state
            && let Some(digest) = self.index.look(group, GroupIndex::digest)
        {
            let state = Message::State { answers, digest };
            write_frame(send, &state.encode().local()?).await?;
        }
        if to_say.all {
            // If the group is not indexed yet, this is sent as soon as it is.
            let versions = self.index.look(group, |index| index.versions.clone());
            let Some(versions) = versions else {
                return Ok(());
            };
            for (record, slots) in versions {
                let slots = slots.into_iter().collect();
                let have = Message::Have { record, slots };
                write_frame(send, &have.encode().local()?).await?;
            }
            write_frame(send, &Message::Compared.encode().local()?).await?;
        }
        for (which, slot) in &to_say.slots {
            if let Err(fault) = self.send_slot(session, *which, *slot, send).await {
                lock(&session.to_say).slots.extend(&to_say.slots);
                lock(&session.to_say).repos.extend(&to_say.repos);
                return Err(fault);
            }
        }
        for repo in to_say.repos {
            let holding = self.index.look(group, |index| {
                index.repos.get(&repo).and_then(|repo| repo.holding)
            });
            let Some(holding) = holding.flatten() else {
                continue;
            };
            if lock(&session.peer).told.insert(repo, holding) != Some(holding) {
                let holds = Message::Holds { repo, holding };
                write_frame(send, &holds.encode().local()?).await?;
            }
        }
        // The peer does not confirm what it was sent.
        self.tell(Change::Peer { group });
        Ok(())
    }

    /// Sends a value that the peer may lack.
    async fn send_slot(
        &self,
        session: &Session,
        record: Which,
        slot: Slot,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Outcome<()> {
        let group = &session.group;
        let id = match record {
            Which::Group => group.id(),
            Which::Repo(key) => records::repo_id(key),
        };
        let found = group.records().get(id, slot, Freshness::Local).await;
        let Some(signed) = group.unless_damaged(id, slot, found).local()? else {
            return Ok(());
        };
        let version = Version::of(&signed);
        if session.lacks(record, slot, version) {
            let message = Message::Slot {
                record,
                slot,
                signed,
            };
            write_frame(send, &message.encode().local()?).await?;
            let ours = self.index.version(group.id(), record, slot);
            session.note(record, slot, version, ours);
        }
        Ok(())
    }

    async fn hear(&self, session: &Arc<Session>, mut recv: impl AsyncRead + Unpin) -> Outcome<()> {
        let group = session.group.id();
        while let Some(frame) = next_frame(&mut recv).await? {
            session.heard.store(self.groups.0.now(), Ordering::SeqCst);
            match Message::decode(&frame).peer()? {
                Message::Have { record, slots } => {
                    let ours = self
                        .index
                        .look(group, |index| index.versions.get(&record).cloned());
                    let mut peer = lock(&session.peer);
                    // As many as the group has repos, plus one for the group itself.
                    if peer.known.len() <= usize::from(records::GROUP_SLOTS) {
                        peer.known.insert(record, slots.into_iter().collect());
                        if let Some(ours) = ours.flatten() {
                            peer.compare_record(record, &ours);
                        }
                    }
                }
                Message::Compared => {
                    if !lock(&session.retry).waits {
                        self.troubles.clear(Some(group), "store");
                    }
                    session.compared.store(true, Ordering::SeqCst);
                    let repos = self.index.look(group, |index| {
                        let repos = index.repos.keys().copied();
                        repos.collect::<Vec<_>>()
                    });
                    let differ = lock(&session.peer).differ.clone();
                    lock(&session.to_say).slots.extend(differ);
                    session.repos_changed(repos.unwrap_or_default());
                    self.tell(Change::Session { group });
                }
                Message::Slot {
                    record,
                    slot,
                    signed,
                } => match self.take_slot(session, record, slot, signed).await {
                    Ok(()) => {
                        self.troubles.clear(Some(group), "store");
                        lock(&session.retry).pause = Duration::ZERO;
                    }
                    Err(Fault::Local(error)) => {
                        self.troubles.note(Some(group), "store", &error);
                        self.ask_again(session);
                    }
                    Err(fault) => return Err(fault),
                },
                Message::Holds { repo, holding } => {
                    // This also holds for a repo that is not known here yet: the peer does not repeat
                    // it.
                    let mut peer = lock(&session.peer);
                    if peer.holds.len() < MAX_HOLDINGS || peer.holds.contains_key(&repo) {
                        peer.holds.insert(repo, holding);
                    }
                    drop(peer);
                    self.tell(Change::Holding { group, repo });
                }
                Message::State { answers, digest } => {
                    let is_level = self.index.look(group, |index| {
                        let is_level = index.digest() == digest;
                        is_level.then(|| session.has_what_we_have(&index.versions))
                    });
                    match is_level {
                        // Both sides learned the same values from others, so nothing has shown yet that
                        // they are equal.
                        Some(Some(true)) => self.tell(Change::Peer { group }),
                        Some(Some(false)) | None => {}
                        Some(None) => {
                            if !answers {
                                lock(&session.to_say).state = Some(true);
                            }
                            session.compare();
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Stores a value that the peer has sent, if it is newer and valid.
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
                // The group does not have the repo, or not yet: the next comparison announces it again.
                None => return Ok(()),
            },
        };
        let id = repo.as_ref().map_or(group.id(), Repo::id);
        let descriptor = match record {
            Which::Group => records::group_record(group.keys().group()),
            Which::Repo(key) => records::repo_record(key),
        };
        check(&descriptor, id, slot, &signed).peer()?;
        let ours = self.index.version(group.id(), record, slot);
        let within_bounds = match record {
            Which::Group => records::check_group_value(slot, &signed),
            Which::Repo(_) => records::check_repo_value(slot, &signed),
        };
        if let Err(error) = within_bounds {
            // Its writer signed it: the peer only passes it on.
            tracing::debug!(record = %id, %error, "a value is not taken");
            session.refuse(record, slot, Version::of(&signed), ours);
            return Ok(());
        }
        session.note(record, slot, Version::of(&signed), ours);
        // Anyone who changes the repo, or makes it ours, takes the same turn.
        let repo = repo.as_ref().filter(|_| slot == REPO_ROOT);
        let turn = match repo {
            Some(repo) => Some((repo, repo.turn().await)),
            None => None,
        };
        if let Some((repo, turn)) = &turn
            && group.is_ours(id)
        {
            if repo.remember(turn, signed).await.local()? {
                self.tell_held(repo);
            }
            return Ok(());
        }
        let here = group.records().get(id, slot, Freshness::Local).await;
        let is_new = matches!(here, Ok(None));
        let here = group.unless_damaged(id, slot, here).local()?;
        if let Some(here) = &here
            && here.seq > signed.seq
        {
            // The peer may not have it yet.
            session.slot_changed(record, slot, Some(Version::of(here)), true);
            return Ok(());
        }
        let is_same = |here: &Signed| here.seq == signed.seq && here.value == signed.value;
        if here.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let put = match &turn {
            Some((repo, turn)) => repo.take_root(turn, signed).await,
            None => {
                let put = PutRecord::Import(signed);
                group.records().put(id, slot, put).await
            }
        };
        match put.local()? {
            Put::Published { .. } | Put::Queued { .. } => {
                drop(turn);
                let repo = match record {
                    Which::Group => None,
                    Which::Repo(key) => Some(key),
                };
                group.record_changed(repo, slot);
                if id == group.id() && !is_new {
                    self.name_ours(id).await.local()?;
                }
            }
            // Both values have the same number, and ours stays.
            Put::Superseded { .. } => {
                let ours = self.index.version(group.id(), record, slot);
                session.slot_changed(record, slot, ours, true);
            }
        }
        Ok(())
    }

    /// Asks the peer to resend, after a pause, the values that could not be stored.
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

    /// Announces our repos in the group's record again after one of its slots was replaced: the slot
    /// may have held one of them.
    async fn name_ours(&self, group: RecordId) -> Result<()> {
        // The session's handle may be outdated: better keys may have arrived since it was made.
        match self.groups.group(group) {
            Some(group) => group.name_ours().await,
            None => Ok(()),
        }
    }
}

/// Checks what a peer may send for a slot, before anything of it is stored. A failure after that is not
/// the peer's fault.
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
