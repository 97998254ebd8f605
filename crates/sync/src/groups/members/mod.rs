//! The members of a group, as its operations say, and the keys that they share.
//!
//! A [`Roster`] has the operations that are known here and what they mean. Whoever changes it works on a draft: what
//! is in memory is never ahead of what is stored.

mod draft;
mod invites;
mod open;
mod people;
mod remove;
mod secret;
mod stored;
mod take;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use larder_store_api::{Error, Kind, PublicKey, RecordId, Result, SecretKey};
use larder_store_engine::generate_key;

pub use self::{
    invites::{InviteOptions, OpenInvite},
    people::{LogEntry, Person, PersonDevice},
    remove::{Removal, Removed},
};
pub(crate) use self::{open::Opened, secret::DeviceSecret, stored::PART_LEN};
use super::{Group, Inner};
use crate::{
    invite::InviteSeed,
    keyring::{EpochKeys, Keyring},
    keys::{LocateKey, ReadKey},
    membership::{Log, Member, OpId, Rights, State},
};

/// The place of this device in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It has an invite, and waits for a member to let it in.
    Waiting,
    /// It is a member.
    Member,
    /// It was a member, and somebody removed it, or it left.
    Out,
}

/// The operations of a group, what they mean, and the keys of this device.
pub(super) struct Roster {
    pub(super) keys: Keyring,
    device: PublicKey,
    secret: Mutex<DeviceSecret>,
    known: Mutex<Known>,
    /// Held by who changes any of it.
    turn: tokio::sync::Mutex<()>,
    /// Something may be stored that is not known: whoever stored it gave up meanwhile.
    is_behind: AtomicBool,
}

/// The operations that are stored, and their meaning.
#[derive(Default)]
struct Known {
    log: Option<Log>,
    state: Arc<State>,
    lists: BTreeMap<OpId, Arc<Vec<u8>>>,
    opened: Opened,
}

/// The right to change a roster.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// Loads what is stored of a group.
    pub(super) async fn load(
        inner: &Inner,
        group: RecordId,
        mut secret: DeviceSecret,
    ) -> Result<Self> {
        let log = inner.load_ops(group).await?;
        let lists = inner.load_lists(group).await?;
        let lists = lists.into_iter().map(|(id, list)| (id, Arc::new(list)));
        let mut known = Known {
            state: Arc::new(log.as_ref().map(Log::state).unwrap_or_default()),
            log,
            lists: lists.collect(),
            opened: Opened::default(),
        };
        let keys = Keyring::new();
        if let Some(log) = &known.log {
            known.opened.open(log, &keys, &mut secret, &known.lists);
        }
        Ok(Self {
            keys,
            device: secret.key(),
            secret: Mutex::new(secret),
            known: Mutex::new(known),
            turn: tokio::sync::Mutex::default(),
            is_behind: AtomicBool::new(false),
        })
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&lock(&self.known).state)
    }
}

/// Makes a group, and returns its id and the secrets of its first device.
pub(super) async fn found(inner: &Inner) -> Result<(RecordId, DeviceSecret)> {
    let (root, device) = (generate_key()?, DeviceSecret::generate()?);
    let draft = draft::Draft::found(&root, &device, inner.now())?;
    let id = RecordId(draft.log.group().0);
    inner.keep_root(id, &root).await?;
    let device = draft.store_new(inner, device).await?;
    Ok((id, device))
}

impl Group {
    /// The key by which the group's operations name this device.
    pub fn device(&self) -> PublicKey {
        self.roster().device
    }

    /// Looks at the group's operations; `None` if none has come yet.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> Option<T> {
        lock(&self.roster().known).log.as_ref().map(look)
    }

    /// Returns the meaning of the group's operations.
    pub(crate) fn state(&self) -> Arc<State> {
        self.roster().state()
    }

    /// The keys of the group that this device holds.
    pub fn keyring(&self) -> &Keyring {
        &self.roster().keys
    }

    /// Returns the place of this device in the group.
    pub fn standing(&self) -> Standing {
        let state = self.state();
        if state.members.contains_key(&self.device()) {
            Standing::Member
        } else if state.gone.contains_key(&self.device()) {
            Standing::Out
        } else {
            Standing::Waiting
        }
    }

    /// Returns the rights that this device has now.
    pub fn rights(&self) -> Rights {
        self.rights_of(self.device())
    }

    pub(crate) fn rights_of(&self, device: PublicKey) -> Rights {
        let now = self.inner().now();
        let state = self.state();
        let member = state.members.get(&device);
        member.map_or(Rights::NONE, |member| member.rights(now))
    }

    /// Returns true if this device holds keys that open names and files. A replica does not, nor one that waits to
    /// be let in.
    pub fn can_read(&self) -> bool {
        self.keyring().reads()
    }

    /// Returns true if this device may write a repo of its own now.
    pub fn can_write(&self) -> bool {
        self.rights().covers(Rights::WRITE)
    }

    /// Waits until this device is a member, or is not one any more.
    ///
    /// ```
    /// # use larder_sync::{groups::{Groups, Standing}, invite::Invite};
    /// # async fn example(groups: &Groups, invite: &Invite) -> larder_store_api::Result<()> {
    /// // While a replicator of these groups runs, and can reach a member.
    /// let group = groups.join(invite).await?;
    /// if group.wait_for_standing().await? == Standing::Member {
    ///     println!("we are {} people", group.people().await?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Closed`] if the groups are closed meanwhile.
    pub async fn wait_for_standing(&self) -> Result<Standing> {
        let mut events = self.inner().listen().1;
        loop {
            match self.standing() {
                Standing::Waiting => {}
                standing => return Ok(standing),
            }
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = events.recv().await {
                let message = "the groups were closed";
                return Err(Error::new(Kind::Closed, "sync.group.wait", message));
            }
        }
    }

    /// Remembers the seed of an invite, for as long as something may be boxed to it.
    pub(super) async fn add_invite(&self, seed: InviteSeed) -> Result<()> {
        let _turn = self.turn().await?;
        let mut secret = lock(&self.roster().secret).clone();
        secret.add_invite(seed);
        self.inner()
            .keep_device(self.id(), &secret.encode()?)
            .await?;
        *lock(&self.roster().secret) = secret;
        Ok(())
    }

    /// Returns the key that seals what this device remembers of the group before it can read it.
    pub(super) fn local_key(&self) -> ReadKey {
        lock(&self.roster().secret).local_key()
    }

    /// Returns the key with which this device signs.
    pub(crate) fn device_secret(&self) -> SecretKey {
        lock(&self.roster().secret).device.clone()
    }

    /// Returns true if others may have something for this device: it is a member, or has an invite that may be open.
    pub(crate) fn is_hopeful(&self) -> bool {
        if self.standing() != Standing::Out {
            return true;
        }
        let (state, now) = (self.state(), self.inner().now());
        let seeds = self.invite_seeds();
        seeds.iter().any(|seed| {
            let key = seed.public();
            let mut known = state.invites.values().filter(|invite| invite.key == key);
            known.all(|invite| invite.is_open(now))
        })
    }

    /// Returns the seeds of the invites that this device has.
    pub(crate) fn invite_seeds(&self) -> Vec<InviteSeed> {
        lock(&self.roster().secret).invites.clone()
    }

    /// Waits for the turn to change what is known of the members.
    pub(super) async fn turn(&self) -> Result<Turn<'_>> {
        let roster = self.roster();
        let turn = roster.turn.lock().await;
        if roster.is_behind.load(Ordering::SeqCst) {
            self.catch_up(&turn).await?;
        }
        Ok(turn)
    }

    /// Reads what is stored, after somebody gave up while it was stored.
    async fn catch_up(&self, turn: &Turn<'_>) -> Result<()> {
        let (inner, roster) = (self.inner(), self.roster());
        let Some(log) = inner.load_ops(self.id()).await? else {
            roster.is_behind.store(false, Ordering::SeqCst);
            return Ok(());
        };
        let lists = inner.load_lists(self.id()).await?;
        let lists = lists.into_iter().map(|(id, list)| (id, Arc::new(list)));
        let held = roster.keys.count();
        self.take_stored(turn, log, lists.collect(), held).await
    }

    /// Returns the member that this device is, or else an error that says why it is not a member.
    fn member(&self, operation: &'static str) -> Result<Member> {
        let state = self.state();
        if let Some(member) = state.members.get(&self.device()) {
            return Ok(member.clone());
        }
        let (kind, message) = match self.standing() {
            Standing::Out => (
                Kind::Denied,
                "this device is not in the group any more; what it has stays",
            ),
            _ => (
                Kind::Unavailable,
                "this device waits for a member to let it in",
            ),
        };
        Err(Error::new(kind, operation, message).with("group", self.id()))
    }

    /// Refuses what this device has no right to.
    pub(super) fn demand(&self, operation: &'static str, rights: Rights) -> Result<()> {
        let member = self.member(operation)?;
        if member.rights(self.inner().now()).covers(rights) {
            return Ok(());
        }
        let message = match rights {
            Rights::WRITE => "this device may not write in the group",
            Rights::READ => "a replica keeps what it cannot read",
            Rights::INVITE => "this device may not invite to the group",
            _ => "this device may not remove others from the group",
        };
        Err(Error::new(Kind::Denied, operation, message).with("group", self.id()))
    }

    /// Returns the keys to seal with: those of an epoch that nobody has who was removed, as far as is known here. If
    /// there is none, who writes makes one.
    pub(crate) async fn sealing(&self, operation: &'static str) -> Result<Arc<EpochKeys>> {
        if self.roster().is_behind.load(Ordering::SeqCst) {
            drop(self.turn().await?);
        }
        self.demand(operation, Rights::READ)?;
        if let Some(keys) = self.usable() {
            return Ok(keys);
        }
        let turn = self.turn().await?;
        if let Some(keys) = self.usable() {
            return Ok(keys);
        }
        if !self.rights().covers(Rights::WRITE) {
            let message = "members were removed, and nobody who writes has made a new key yet";
            return Err(Error::new(Kind::Unavailable, operation, message).with("group", self.id()));
        }
        self.write(&turn, |draft| draft.epoch().map(drop)).await?;
        self.usable().ok_or_else(|| {
            let message = "the new key may not be sealed under";
            Error::new(Kind::Internal, operation, message).with("group", self.id())
        })
    }

    /// Returns the preferred keys under which may be sealed now, of those that are here.
    pub(crate) fn usable(&self) -> Option<Arc<EpochKeys>> {
        let now = self.inner().now();
        let usable = self.with_log(|log| log.usable(now))?;
        let keys = self.keyring();
        let mut held = usable.into_iter().filter_map(|id| keys.get(id));
        let found = held.find(|keys| keys.read().is_ok());
        keys.seal_under(found.as_ref().map(|keys| keys.id()));
        found
    }

    /// Returns the locate keys of all epochs under which may be sealed now: nobody has them who was removed, as far as
    /// is known here.
    pub(crate) fn usable_locates(&self) -> Vec<LocateKey> {
        let now = self.inner().now();
        let usable = self.with_log(|log| log.usable(now)).unwrap_or_default();
        let held = usable.into_iter().filter_map(|id| self.keyring().get(id));
        held.map(|keys| keys.locate().clone()).collect()
    }

    /// Returns true if may still be sealed under these keys.
    pub(crate) fn is_usable(&self, keys: &EpochKeys) -> bool {
        let now = self.inner().now();
        let usable = self.with_log(|log| log.usable(now));
        !self.roster().is_behind.load(Ordering::SeqCst)
            && usable.is_some_and(|usable| usable.contains(&keys.id()))
    }
}
