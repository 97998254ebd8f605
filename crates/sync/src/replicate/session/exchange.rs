//! The dialogue of a session: saying what the peer lacks, and hearing what it has.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use larder_store_api::{
    Error, Freshness, Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordId, RecordStore,
    Result, Signed, Slot,
};
use larder_store_engine::{MAX_VALUE_LEN, verify};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use super::{MAX_HOLDINGS, MAX_RECORDS, MAX_RETRY, MAX_SESSIONS, RETRY, Session, Trust, trust};
use crate::{
    groups::Group,
    network::Stream,
    records::{self, REPO_ROOT},
    replicate::{
        Link, Shared,
        fault::{Blame, Fault, Outcome, refuses},
        index::{Change, GroupIndex},
        lock,
        proof::Who,
        wire::{Digest, Message, Version, Which, next_frame, write_frame},
    },
};

impl Shared {
    pub(super) async fn run_session(
        self: &Arc<Self>,
        link: &Arc<Link>,
        group: Group,
        who: Who,
        stream: Stream,
    ) -> Outcome<()> {
        let id = group.id();
        if self.sessions.count(link, id) >= MAX_SESSIONS {
            return Err(refuses("a group has too many sessions on one connection"));
        }
        let session = Arc::new(Session {
            id: self.sessions.number(),
            link: Arc::clone(link),
            full: AtomicBool::new(trust(&group, &who) == Trust::Member),
            who,
            told: Mutex::default(),
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
        if trust(&session.group, &session.who) != Trust::Gone {
            link.prove();
        }
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
        let mut to_say = {
            let mut to_say = lock(&session.to_say);
            let mut now = std::mem::take(&mut *to_say);
            if !session.has_compared() {
                // Before the peer has announced what it has, this would send everything.
                to_say.slots = std::mem::take(&mut now.slots);
                to_say.repos = std::mem::take(&mut now.repos);
            }
            now
        };
        if let Err(fault) = self.say_operations(session, &mut to_say, send).await {
            let mut again = lock(&session.to_say);
            again.known |= to_say.known;
            again.slots.extend(&to_say.slots);
            again.repos.extend(&to_say.repos);
            return Err(fault);
        }
        if !session.is_full() {
            // Until it is a member.
            lock(&session.to_say).slots.extend(&to_say.slots);
            return Ok(());
        }
        if let Some(answers) = to_say.state
            && let Some(digest) = self.digest(&session.group)
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

    /// Returns a digest of what is here of a group; equal operations and values have equal digests.
    fn digest(&self, group: &Group) -> Option<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.index.look(group.id(), GroupIndex::digest)?);
        group.with_log(|log| {
            for head in log.heads() {
                hasher.update(&head.0);
            }
        });
        hasher.finalize().as_bytes().first_chunk().copied()
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
            Which::Values(device) => records::values_id(group.id(), device),
            Which::Repo(key) => records::repo_id(group.id(), key),
        };
        let found = group.records().get(id, slot, Freshness::Local).await;
        let found = found_or_none(found);
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
            let message = Message::decode(&frame).peer()?;
            // Of a peer that was let in elsewhere, it counts before that is known here: it is not said again.
            if message.is_of_members() && matches!(session.trust(), Trust::Gone | Trust::Stranger) {
                continue;
            }
            match message {
                Message::Have { record, slots } => {
                    let ours = self
                        .index
                        .look(group, |index| index.versions.get(&record).cloned());
                    let mut peer = lock(&session.peer);
                    if peer.known.len() < MAX_RECORDS || peer.known.contains_key(&record) {
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
                Message::Known { ids } => session.peer_knows(ids),
                Message::Ops { ops } => {
                    self.heard(session, self.hear_operations(session, &ops).await)?;
                }
                Message::Want { epoch, is_closed } => {
                    let given = session.wants_boxes(epoch, is_closed).await;
                    self.heard(session, given.local())?;
                }
                Message::Boxes { epoch, part, bytes } => {
                    let taken = self.hear_boxes(session, epoch, part, &bytes).await;
                    self.heard(session, taken)?;
                }
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
                    let is_level = self.digest(&session.group).map(|ours| ours == digest);
                    let is_level = is_level.and_then(|is_level| {
                        self.index.look(group, |index| {
                            is_level.then(|| session.has_what_we_have(&index.versions))
                        })
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

    /// Goes on after a failure of our own store, to ask the peer again later.
    fn heard(&self, session: &Arc<Session>, heard: Outcome<()>) -> Outcome<()> {
        match heard {
            Err(Fault::Local(error)) => {
                let group = session.group.id();
                self.troubles.note(Some(group), "store", &error);
                self.ask_again(session);
                Ok(())
            }
            heard => heard,
        }
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
            // Of somebody who may not write, or not any more, or is not known here yet: the next comparison announces
            // it again.
            Which::Values(device) if !group.value_devices().contains(&device) => return Ok(()),
            Which::Values(_) => None,
            Which::Repo(key) if !group.takes_from(key) => return Ok(()),
            Which::Repo(key) => match group.repo(key).await.local()? {
                Some(repo) => Some(repo),
                None => return Ok(()),
            },
        };
        let descriptor = match record {
            Which::Values(device) => records::values_record(group.id(), device),
            Which::Repo(key) => records::repo_record(group.id(), key),
        };
        let id = match (&repo, record) {
            (Some(repo), _) => repo.id(),
            (None, Which::Values(device) | Which::Repo(device)) => {
                records::values_id(group.id(), device)
            }
        };
        check(&descriptor, id, slot, &signed).peer()?;
        let ours = self.index.version(group.id(), record, slot);
        let within_bounds = match record {
            Which::Values(_) => records::check_device_value(slot, &signed),
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
        let here = found_or_none(here);
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
                if repo_of(record).is_none() {
                    group.records().create(descriptor).await.local()?;
                }
                let put = PutRecord::Import(signed);
                group.records().put(id, slot, put).await
            }
        };
        match put.local()? {
            Put::Published { .. } | Put::Queued { .. } => {
                drop(turn);
                match record {
                    Which::Values(device) => group.value_changed(device, slot),
                    Which::Repo(repo) => group.record_changed(repo, slot),
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
}

/// A record of which nothing has come yet has no values.
fn found_or_none(found: Result<Option<Signed>>) -> Result<Option<Signed>> {
    match found {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        found => found,
    }
}

fn repo_of(record: Which) -> Option<PublicKey> {
    match record {
        Which::Values(_) => None,
        Which::Repo(repo) => Some(repo),
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
