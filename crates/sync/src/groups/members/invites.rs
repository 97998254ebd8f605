//! Making invites, ending them, and confirming those who use them.

use std::time::Duration;

use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};

use super::{Group, Turn};
use crate::{
    invite::{Invite, InviteKind, InviteSeed, MAX_ADDRESSES, MAX_REPOS},
    membership::{Body, Cap, MAX_USES, OpId, Recipient, Remove, Rights},
};

const INVITE: &str = "sync.group.invite";

/// The time for which an invite can be used unless another is asked for.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The kind of an invite, and for how many and how long it is.
///
/// ```
/// use std::time::Duration;
/// # use larder_sync::{groups::{Group, InviteOptions}, invite::InviteKind};
///
/// # async fn example(group: &Group) -> larder_store_api::Result<()> {
/// let class = InviteOptions::new(InviteKind::Read).uses(20).for_time(Duration::from_secs(3600));
/// println!("{}", group.invite_with(class, Vec::new()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InviteOptions {
    /// The kind.
    pub kind: InviteKind,
    /// The number of devices that may use it.
    pub uses: u16,
    /// The time at which it ends, in milliseconds since 1970; `None` for a week from now.
    pub until: Option<i64>,
    /// Whoever uses it waits until somebody who may invite confirms the device.
    pub confirm: bool,
    time: Duration,
}

impl InviteOptions {
    /// An invite for one device, for a week. Whoever uses one for an admin is confirmed first.
    pub fn new(kind: InviteKind) -> Self {
        Self {
            kind,
            uses: 1,
            until: None,
            confirm: kind == InviteKind::Admin,
            time: WEEK,
        }
    }

    /// Sets the number of devices that may use it.
    #[must_use]
    pub fn uses(mut self, uses: u16) -> Self {
        self.uses = uses;
        self
    }

    /// Sets the time at which it ends, in milliseconds since 1970.
    #[must_use]
    pub fn until(mut self, until: i64) -> Self {
        self.until = Some(until);
        self
    }

    /// Sets the time for which it can be used, from now.
    #[must_use]
    pub fn for_time(mut self, time: Duration) -> Self {
        self.time = time;
        self.until = None;
        self
    }

    /// Says if whoever uses it waits until somebody who may invite confirms the device.
    #[must_use]
    pub fn confirm(mut self, confirm: bool) -> Self {
        self.confirm = confirm;
        self
    }
}

/// An invite that members know of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenInvite {
    /// Its key, by which it is [revoked](Group::revoke).
    pub key: PublicKey,
    /// The rights that it gives.
    pub rights: Rights,
    /// It is for further devices of who made it.
    pub own: bool,
    /// The number of devices that may use it.
    pub uses: u16,
    /// The devices that were let in with it.
    pub used_by: Vec<PublicKey>,
    /// The devices that used it and wait to be confirmed.
    pub waiting: Vec<PublicKey>,
    /// The time at which it ends.
    pub until: Option<i64>,
    /// The device that made it.
    pub by: PublicKey,
    /// It can still be used.
    pub is_open: bool,
}

impl Group {
    /// Makes an invite of this kind for one device, for a week; see [`invite_with`](Self::invite_with).
    ///
    /// # Errors
    /// The errors of [`invite_with`](Self::invite_with).
    pub async fn invite(&self, kind: InviteKind, addresses: Vec<String>) -> Result<Invite> {
        self.invite_with(InviteOptions::new(kind), addresses).await
    }

    /// Makes an invite, with the group's name and the addresses where this device and others may be found. For
    /// another device of ours it brings our repos. Durable when it returns; whoever uses it is let in by any member
    /// who has heard of it.
    ///
    /// # Errors
    /// [`Kind::Denied`] if we may not do ourselves what it would allow, or not invite; [`Kind::Invalid`] for no uses,
    /// or more than [`MAX_USES`].
    pub async fn invite_with(
        &self,
        options: InviteOptions,
        addresses: Vec<String>,
    ) -> Result<Invite> {
        let _open = self.enter(INVITE)?;
        let own = options.kind == InviteKind::Device;
        if options.kind == InviteKind::Recovery {
            let message = "the way back into a group is shown, and not made";
            return Err(Error::new(Kind::Unsupported, INVITE, message));
        }
        if !(1..=MAX_USES).contains(&options.uses) {
            let message = format!("an invite is for 1 to {MAX_USES} devices");
            return Err(Error::new(Kind::Invalid, INVITE, message).with("uses", options.uses));
        }
        let member = self.member(INVITE)?;
        let now = self.inner().now();
        let held = member.rights(now);
        let rights = match own {
            true => held,
            false => options.kind.rights(),
        };
        if !held.covers(rights) || !(own || held.covers(Rights::INVITE)) {
            let message = "you cannot let others do what you cannot do yourself";
            return Err(Error::new(Kind::Denied, INVITE, message).with("group", self.id()));
        }
        let depth = member.held.values().map(|held| held.depth).max();
        let depth = match (own, rights.covers(Rights::INVITE)) {
            (true, _) => depth.unwrap_or_default(),
            (false, true) => depth.unwrap_or_default().saturating_sub(1),
            (false, false) => 0,
        };
        let until = options.until.unwrap_or_else(|| {
            now.saturating_add(i64::try_from(options.time.as_millis()).unwrap_or(i64::MAX))
        });
        let seed = InviteSeed::generate()?;
        let cap = Cap {
            invite: Some(seed.boxes().public()),
            own,
            confirm: options.confirm,
            uses: options.uses,
            until: Some(until),
            ..Cap::device(seed.public(), rights, depth)
        };
        let to = Recipient {
            key: seed.public(),
            box_key: seed.boxes().public(),
            reads: rights.covers(Rights::READ),
        };
        let turn = self.turn().await?;
        self.write(&turn, |draft| {
            draft.say(Body::Cap(cap))?;
            // So that a replica alone can let somebody in who reads.
            match options.confirm {
                true => Ok(()),
                false => draft.box_to(&to, OpId::NONE),
            }
        })
        .await?;
        drop(turn);
        self.text_of(options.kind, seed, addresses).await
    }

    async fn text_of(
        &self,
        kind: InviteKind,
        seed: InviteSeed,
        mut addresses: Vec<String>,
    ) -> Result<Invite> {
        for known in self.addresses() {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&known) {
                addresses.push(known);
            }
        }
        let mut invite = Invite::new(kind, self.id(), seed, addresses)?;
        if kind == InviteKind::Device {
            let repos = self.our_secrets().into_iter().map(|(_, repo)| repo);
            let repos: Vec<SecretKey> = repos.take(MAX_REPOS).collect();
            invite = invite.with_repos(repos)?;
        }
        if kind != InviteKind::Replica
            && self.can_read()
            && let Some(name) = self.name().await?
        {
            invite = invite.with_name(name)?;
        }
        Ok(invite)
    }

    /// Returns the way back into the group for who loses all devices: whoever has it has all rights, and nobody can
    /// take them. Only the device that made the group has it, until it is [forgotten](Self::forget_recovery).
    ///
    /// # Errors
    /// The errors of the secrets.
    pub async fn recovery(&self, addresses: Vec<String>) -> Result<Option<Invite>> {
        let Some(root) = self.inner().root_secret(self.id()).await? else {
            return Ok(None);
        };
        let seed = InviteSeed::from_bytes(*root.expose());
        let mut all = addresses;
        all.truncate(MAX_ADDRESSES);
        Invite::new(InviteKind::Recovery, self.id(), seed, all).map(Some)
    }

    /// Takes the [way back](Self::recovery) off this device, after it was kept elsewhere.
    ///
    /// # Errors
    /// The errors of the secrets.
    pub async fn forget_recovery(&self) -> Result<()> {
        self.inner().forget_root(self.id()).await
    }

    /// Returns the invites of the group, those too that ended.
    pub fn invites(&self) -> Vec<OpenInvite> {
        let (state, now) = (self.state(), self.inner().now());
        let waiting = |cap: &OpId| {
            let claims = self.with_log(|log| {
                let claims = state.waiting.iter();
                let of_cap = claims.filter(|(claim, _)| {
                    log.get(**claim)
                        .is_some_and(|claim| claim.content().proof == *cap)
                });
                of_cap.map(|(_, device)| *device).collect::<Vec<_>>()
            });
            claims.unwrap_or_default()
        };
        let invites = state.invites.iter().map(|(cap, invite)| OpenInvite {
            key: invite.key,
            rights: invite.rights,
            own: invite.own,
            uses: invite.uses,
            used_by: invite.used_by.iter().copied().collect(),
            waiting: waiting(cap),
            until: invite.until,
            by: invite.by,
            is_open: invite.is_open(now),
        });
        invites.collect()
    }

    /// Ends an invite, and makes a new key that nobody has who knows it. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none such, [`Kind::Denied`] if it is another member's and we may not remove.
    pub async fn revoke(&self, invite: PublicKey) -> Result<()> {
        const OPERATION: &str = "sync.group.revoke";
        let _open = self.enter(OPERATION)?;
        let state = self.state();
        if !state.invites.values().any(|known| known.key == invite) {
            let message = "there is no such invite";
            return Err(Error::new(Kind::NotFound, OPERATION, message).with("invite", invite));
        }
        let turn = self.turn().await?;
        self.end_invite(&turn, invite).await
    }

    async fn end_invite(&self, turn: &Turn<'_>, invite: PublicKey) -> Result<()> {
        let makes = self.makes_epochs();
        self.write(turn, |draft| {
            let remove = Remove {
                targets: vec![invite],
                ..Remove::default()
            };
            draft.say(Body::Remove(remove))?;
            match makes {
                true => draft.epoch().map(drop),
                false => Ok(()),
            }
        })
        .await
    }

    /// Gives rights to a device: one that waits to be confirmed, or one that was a member or is. What it had beyond
    /// them is taken, which needs the right to remove. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] if we may not do ourselves what it would allow, or not invite.
    pub async fn allow(&self, device: PublicKey, rights: Rights) -> Result<()> {
        const OPERATION: &str = "sync.group.allow";
        let _open = self.enter(OPERATION)?;
        let member = self.member(OPERATION)?;
        self.demand(OPERATION, Rights::INVITE)?;
        let depth = member.held.values().map(|held| held.depth).max();
        let depth = match rights.covers(Rights::INVITE) {
            true => depth.unwrap_or_default().saturating_sub(1),
            false => 0,
        };
        let has = self.rights_of(device);
        let makes = self.makes_epochs();
        let claim_keys = self.with_log(|log| {
            let claims = log.ops().filter(|op| op.content().author == device);
            claims.filter_map(|op| op.body().keys()).last().cloned()
        });
        let Some(keys) = claim_keys.flatten() else {
            let message = "this device has not said a word in the group";
            return Err(Error::new(Kind::NotFound, OPERATION, message).with("device", device));
        };
        let turn = self.turn().await?;
        self.write(&turn, |draft| {
            if !rights.covers(has) {
                let remove = Remove {
                    targets: vec![device],
                    ..Remove::default()
                };
                draft.say(Body::Remove(remove))?;
            }
            draft.say(Body::Cap(Cap::device(device, rights, depth)))?;
            let to = Recipient {
                key: device,
                box_key: keys.box_key,
                reads: rights.covers(Rights::READ),
            };
            match makes && !rights.covers(has) {
                true => draft.epoch().map(drop),
                false => draft.box_to(&to, OpId::NONE),
            }
        })
        .await
    }

    /// Makes a new key, under which all is sealed from now on. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] if this device may not write.
    pub async fn rotate(&self) -> Result<()> {
        const OPERATION: &str = "sync.group.rotate";
        let _open = self.enter(OPERATION)?;
        self.demand(OPERATION, Rights::WRITE)?;
        let turn = self.turn().await?;
        self.write(&turn, |draft| draft.epoch().map(drop)).await
    }
}
