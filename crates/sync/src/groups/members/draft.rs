//! Saying something: operations of this device, made and judged on a copy of the log before they are stored.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use larder_store_api::{Error, Kind, RecordId, Result, SecretKey};
use larder_store_engine::{Hash, random};

use super::{Group, Known, Opened, Turn, lock, secret::DeviceSecret};
use crate::{
    groups::{Event, Inner},
    keyring::Keyring,
    membership::{
        Added, Body, Boxes, Cap, Epoch, EpochSecret, Log, MAX_BOXES, MAX_DEPTH, MAX_LINKS, Op,
        OpId, Recipient, Recipients, Rights, State, seal_locate_box,
    },
};

const SAY: &str = "sync.group.say";

/// A copy of a group's operations, with some more that are not stored yet.
pub(super) struct Draft {
    pub(super) log: Log,
    pub(super) keys: Keyring,
    device: SecretKey,
    pub(super) now: i64,
    lists: Vec<(OpId, Vec<u8>)>,
}

impl Draft {
    /// A group with its root, a first device that has all rights, and a first epoch.
    pub(super) fn found(root: &SecretKey, device: &DeviceSecret, now: i64) -> Result<Self> {
        let mut nonce = [0; 32];
        random("sync.create", &mut nonce)?;
        let log = Log::new(Op::genesis(root, nonce, now)?)?;
        let group = log.group();
        let mut draft = Self {
            log,
            keys: Keyring::new(),
            device: device.device.clone(),
            now,
            lists: Vec::new(),
        };
        let cap = Cap {
            own: true,
            ..Cap::device(device.key(), Rights::ADMIN, MAX_DEPTH)
        };
        draft.say_as(root, Body::Cap(cap), now)?;
        draft.say(Body::Keys(device.keys(group, None)))?;
        draft.epoch()?;
        Ok(draft)
    }

    /// Stores a group that begins, in one commit with the entry that names it.
    pub(super) async fn store_new(
        self,
        inner: &Inner,
        mut device: DeviceSecret,
    ) -> Result<DeviceSecret> {
        let id = RecordId(self.log.group().0);
        let mut opened = Opened::default();
        opened.open(&self.log, &self.keys, &mut device, &BTreeMap::new());
        inner.keep_device(id, &device.encode()?).await?;
        let edits = vec![Inner::group_edit(id)];
        inner
            .keep_ops(id, &self.log, 0, &self.lists, &[], edits)
            .await?;
        Ok(device)
    }

    /// The key with which this device signs.
    pub(super) fn device_key(&self) -> SecretKey {
        self.device.clone()
    }

    /// Says something as this device.
    pub(super) fn say(&mut self, body: Body) -> Result<OpId> {
        let device = self.device.clone();
        self.say_as(&device, body, self.now)
    }

    /// Says something with another key, or at another time. What would do nothing is refused.
    pub(super) fn say_as(&mut self, key: &SecretKey, body: Body, time: i64) -> Result<OpId> {
        let op = self.log.sign(key, body, time)?;
        self.add(op)
    }

    /// Adds an operation; one that would do nothing is refused.
    pub(super) fn add(&mut self, op: Op) -> Result<OpId> {
        let id = op.id();
        match self.log.add(op) {
            Added::New(_) | Added::Known => {}
            other => {
                let message = "the group takes no more operations of this device";
                return Err(Error::new(Kind::Full, SAY, message).with("why", format!("{other:?}")));
            }
        }
        match self.log.set_aside(id) {
            None => Ok(id),
            Some(reason) => {
                let message = "the group's other members would not let this count";
                Err(Error::new(Kind::Denied, SAY, message).with("why", format!("{reason:?}")))
            }
        }
    }

    /// Makes an epoch for all who are members now.
    pub(super) fn epoch(&mut self) -> Result<OpId> {
        let time = self.log.epoch_time(self.now);
        let recipients = Recipients::of(&self.log.state(), time);
        let (secret, list, epoch) = self.new_epoch(&recipients)?;
        let device = self.device.clone();
        let id = self.say_as(&device, Body::Epoch(epoch), time)?;
        self.made(id, secret, list);
        Ok(id)
    }

    /// Makes a secret for these, which links back to all others that are here.
    pub(super) fn new_epoch(
        &self,
        recipients: &Recipients,
    ) -> Result<(EpochSecret, Vec<u8>, Epoch)> {
        let secret = EpochSecret::generate()?;
        let list = secret.seal_list(self.log.group(), recipients)?;
        let mut links = Vec::new();
        for id in self.log.head_epochs().into_iter().take(MAX_LINKS) {
            if let Some(keys) = self.keys.get(id)
                && let Some(earlier) = keys.secret()
            {
                links.push(secret.link(id, earlier)?);
            }
        }
        let epoch = secret.statement(recipients, Hash::of(&list), links);
        Ok((secret, list, epoch))
    }

    /// Notes the secret of an epoch that was made.
    pub(super) fn made(&mut self, id: OpId, secret: EpochSecret, list: Vec<u8>) {
        self.keys.add(id, secret);
        self.lists.push((id, list));
    }

    /// Boxes all epochs to which no other leads to somebody, as far as this device holds them.
    pub(super) fn boxes_for(&self, to: &Recipient) -> Result<Vec<(OpId, [u8; 81])>> {
        let mut boxes = Vec::new();
        let (heads, group) = (self.log.head_epochs(), self.log.group());
        for id in heads.into_iter().rev().take(MAX_BOXES) {
            let Some(keys) = self.keys.get(id) else {
                continue;
            };
            let sealed = match keys.secret() {
                Some(secret) => secret.seal_box(group, to),
                None if !to.reads => seal_locate_box(group, keys.locate(), to),
                None => continue,
            };
            match sealed {
                Ok(sealed) => boxes.push((id, sealed)),
                // Nothing can be boxed to this key, which is its owner's fault.
                Err(error) if error.kind() == Kind::Invalid => {}
                Err(error) => return Err(error),
            }
        }
        Ok(boxes)
    }

    /// Tells somebody the epochs to which no other leads; `claim` is the use of an invite that this answers.
    pub(super) fn box_to(&mut self, to: &Recipient, claim: OpId) -> Result<()> {
        let boxes = Boxes {
            recipient: to.key,
            claim,
            boxes: self.boxes_for(to)?,
        };
        if boxes.boxes.is_empty() && claim == OpId::NONE {
            return Ok(());
        }
        self.say(Body::Boxes(boxes)).map(drop)
    }
}

impl Group {
    /// Makes operations on a copy of the log, and stores them in one commit. Durable when it returns.
    pub(super) async fn write<T>(
        &self,
        turn: &Turn<'_>,
        make: impl FnOnce(&mut Draft) -> Result<T>,
    ) -> Result<T> {
        let roster = self.roster();
        let log = self.with_log(Clone::clone).ok_or_else(|| {
            let message = "no member was met yet";
            Error::new(Kind::Unavailable, SAY, message).with("group", self.id())
        })?;
        let mut draft = Draft {
            log,
            keys: roster.keys.clone(),
            device: lock(&roster.secret).device.clone(),
            now: self.inner().now(),
            lists: Vec::new(),
        };
        let made = make(&mut draft)?;
        self.store(turn, draft.log, draft.lists).await?;
        Ok(made)
    }

    /// Stores a log that has more than the one that is here, and then says what it means. Whoever gives up meanwhile
    /// leaves what is known behind what is stored, until somebody takes the next turn.
    pub(super) async fn store(
        &self,
        turn: &Turn<'_>,
        log: Log,
        new: Vec<(OpId, Vec<u8>)>,
    ) -> Result<()> {
        let (inner, roster) = (self.inner(), self.roster());
        let (mut lists, stored) = {
            let known = lock(&roster.known);
            let stored = known.log.as_ref().map_or(0, Log::len);
            (known.lists.clone(), stored)
        };
        let heads = log.head_epochs();
        let mut gone = Vec::new();
        lists.retain(|id, list| {
            let stays = heads.binary_search(id).is_ok();
            if !stays {
                gone.push((*id, list.len()));
            }
            stays
        });
        for (id, list) in &new {
            lists.insert(*id, Arc::new(list.clone()));
        }
        let held = roster.keys.count();
        // The secrets come first: what is sealed under them must open after a crash.
        self.open_epochs(&log, &lists).await?;
        roster.is_behind.store(true, Ordering::SeqCst);
        inner
            .keep_ops(self.id(), &log, stored, &new, &gone, Vec::new())
            .await?;
        self.take_stored(turn, log, lists, held).await
    }

    /// Opens what can be opened now, and keeps what must be kept of it. Returns what was opened.
    async fn open_epochs(&self, log: &Log, lists: &BTreeMap<OpId, Arc<Vec<u8>>>) -> Result<Opened> {
        let (inner, roster) = (self.inner(), self.roster());
        let mut opened = lock(&roster.known).opened.clone();
        let mut secret = lock(&roster.secret).clone();
        let before = secret.encode()?;
        opened.open(log, &roster.keys, &mut secret, lists);
        let secrets = secret.encode()?;
        if secrets.expose() != before.expose() {
            inner.keep_device(self.id(), &secrets).await?;
            lock(&roster.secret).epochs = secret.epochs;
        }
        Ok(opened)
    }

    /// Knows what is stored, and says what is new. Before, so many keys were held.
    pub(super) async fn take_stored(
        &self,
        _turn: &Turn<'_>,
        log: Log,
        lists: BTreeMap<OpId, Arc<Vec<u8>>>,
        held: usize,
    ) -> Result<()> {
        let (inner, roster) = (self.inner(), self.roster());
        let opened = self.open_epochs(&log, &lists).await?;
        let state = Arc::new(log.state());
        let (before, is_new) = {
            let mut known = lock(&roster.known);
            let before = known.log.as_ref().map_or(0, Log::len);
            let is_new = log.len() > before || known.lists.len() != lists.len();
            let state_before = Arc::clone(&known.state);
            *known = Known {
                log: Some(log),
                state: Arc::clone(&state),
                lists,
                opened,
            };
            (state_before, is_new)
        };
        roster.is_behind.store(false, Ordering::SeqCst);
        if is_new {
            self.members_changed();
            self.tell_of(&before, &state);
        }
        if roster.keys.count() != held {
            inner.tell(Event::Rekeyed { group: self.id() });
        }
        Ok(())
    }

    /// Tells what is different.
    fn tell_of(&self, before: &State, now: &State) {
        let (inner, group, own) = (self.inner(), self.id(), self.device());
        inner.tell(Event::Members { group });
        for device in now.members.keys() {
            if !before.members.contains_key(device) {
                let device = *device;
                inner.tell(Event::Joined { group, device });
            }
        }
        for (device, gone) in &now.gone {
            if !before.gone.contains_key(device) {
                let (device, owner) = (*device, gone.owner);
                inner.tell(match device == own {
                    true => Event::RemovedHere { group },
                    false => Event::Removed {
                        group,
                        device,
                        owner,
                    },
                });
            }
        }
        for (id, invite) in &now.invites {
            let was = before.invites.get(id).is_some_and(|was| was.is_overused());
            if invite.is_overused() && !was {
                let invite = invite.key;
                inner.tell(Event::InviteOverused { group, invite });
            }
        }
        let void = now.void.keys().filter(|id| !before.void.contains_key(id));
        let void = void.count();
        if void > 0 {
            inner.tell(Event::Voided {
                group,
                operations: void,
            });
        }
    }

    /// Returns true if this device may make epochs.
    pub(super) fn makes_epochs(&self) -> bool {
        self.rights().covers(Rights::WRITE)
    }
}
