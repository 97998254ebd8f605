//! Removing members, and leaving.

use std::collections::BTreeSet;

use larder_store_api::{Error, Kind, PublicKey, Result};
use larder_store_engine::record_format;

use super::{Group, draft::Draft};
use crate::{
    groups::Repo,
    membership::{Body, Epoch, FrozenRoot, MAX_ROOT_LEN, OpId, Remove, Rights, State},
    tree::Root,
};

const REMOVE: &str = "sync.group.remove";

/// The most roots in one operation, so that its epoch fits beside them.
const ROOTS: usize = 3;

/// Says how somebody is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removal {
    /// Those who came by them go too.
    pub with_invited: bool,
    /// All members are asked to delete their copies.
    pub forget: bool,
    /// Of what they said, nothing counts that this device has not heard. Only the creator of the group can say this.
    pub hard: bool,
}

impl Removal {
    /// Cuts off what comes later, and nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those who came by them go too.
    #[must_use]
    pub fn with_invited(mut self) -> Self {
        self.with_invited = true;
        self
    }
}

/// The outcome of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The devices that are out.
    pub devices: Vec<PublicKey>,
    /// The repos that stay as they are known here, with their trees.
    pub frozen: Vec<(PublicKey, Root)>,
}

impl Group {
    /// Removes somebody, by the key of the person or of one device. From now on they get nothing new: whatever is
    /// sealed is sealed with a key that they do not have, and their repos stay as they are known here. Durable when it
    /// returns; others hear of it as they are met.
    ///
    /// ```
    /// # use larder_sync::groups::{Group, Removal};
    /// # async fn example(group: &Group) -> larder_store_api::Result<()> {
    /// for person in group.people().await? {
    ///     if person.name.as_deref() == Some("bob") {
    ///         let removed = group.remove(person.key, Removal::new()).await?;
    ///         println!("{} device(s) of bob are out", removed.devices.len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is nobody such; [`Kind::Denied`] if we may not remove them: without the right to,
    /// those who are nearer to the creator of the group, and others of the same distance.
    pub async fn remove(&self, who: PublicKey, how: Removal) -> Result<Removed> {
        let _open = self.enter(REMOVE)?;
        let own = self.member(REMOVE)?;
        let state = self.state();
        let members = state.members.iter();
        let devices: Vec<PublicKey> = members
            .filter(|(device, member)| **device == who || member.owner == who)
            .map(|(device, _)| *device)
            .collect();
        let Some(first) = devices.first() else {
            let message = "there is no such member";
            return Err(Error::new(Kind::NotFound, REMOVE, message).with("member", who));
        };
        let owner = state.members[first].owner;
        if owner != own.owner {
            self.demand(REMOVE, Rights::REMOVE)?;
        }
        let remove = Remove {
            hard: how.hard,
            forget: how.forget,
            with_invited: how.with_invited,
            targets: devices,
            ..Remove::default()
        };
        let after = self.state_after(&remove)?;
        let stays = |device: &PublicKey| after.members.contains_key(device);
        let devices: Vec<PublicKey> = state
            .members
            .keys()
            .copied()
            .filter(|device| !stays(device))
            .collect();
        // The other devices of a person go on writing its repos.
        let owners = |state: &State| -> BTreeSet<PublicKey> {
            state.members.values().map(|member| member.owner).collect()
        };
        let mut repos = Vec::new();
        for owner in owners(&state).difference(&owners(&after)) {
            repos.extend(self.repos_of(*owner).await?);
        }
        let (roots, frozen) = self.last_roots(&repos).await?;
        let values = self.values_of(&devices.iter().copied().collect()).await?;
        let turn = self.turn().await?;
        let makes = self.makes_epochs();
        self.write(&turn, |draft| draft.remove(remove, roots, makes))
            .await?;
        drop(turn);
        self.take_over(values).await?;
        Ok(Removed { devices, frozen })
    }

    /// Returns what would hold after a removal.
    fn state_after(&self, remove: &Remove) -> Result<State> {
        let (device, now) = (self.device_secret(), self.inner().now());
        let after = self.with_log(|log| {
            let mut after = log.clone();
            let body = Body::Remove(remove.clone());
            after.add(log.sign(&device, body, log.epoch_time(now))?);
            Ok(after.state())
        });
        after.unwrap_or_else(|| Ok(State::default()))
    }

    /// Says that this device leaves. What it has stays here until the group is
    /// [forgotten](crate::groups::Groups::leave); others hear of it as they are met.
    ///
    /// # Errors
    /// [`Kind::Denied`] if it is not a member any more.
    pub async fn resign(&self) -> Result<()> {
        let _open = self.enter(REMOVE)?;
        let own = self.member(REMOVE)?;
        let state = self.state();
        let devices = state
            .members
            .values()
            .filter(|member| member.owner == own.owner);
        let repos = match devices.count() {
            1 => self.repos_of(own.owner).await?,
            _ => Vec::new(),
        };
        let (roots, _) = self.last_roots(&repos).await?;
        let turn = self.turn().await?;
        let remove = Remove {
            leave: true,
            targets: vec![self.device()],
            frozen: roots.into_iter().take(ROOTS).collect(),
            ..Remove::default()
        };
        self.write(&turn, |draft| draft.say(Body::Remove(remove)).map(drop))
            .await
    }

    async fn repos_of(&self, owner: PublicKey) -> Result<Vec<Repo>> {
        let state = self.state();
        let mut repos = Vec::new();
        for (repo, of) in &state.repos {
            if *of == owner
                && let Some(repo) = self.repo(*repo).await?
            {
                repos.push(repo);
            }
        }
        Ok(repos)
    }

    /// The last roots of repos that are known here, as their owner signed them.
    async fn last_roots(
        &self,
        repos: &[Repo],
    ) -> Result<(Vec<FrozenRoot>, Vec<(PublicKey, Root)>)> {
        let (mut roots, mut trees) = (Vec::new(), Vec::new());
        for repo in repos {
            // One that is damaged freezes as none. Any other error ends the removal: frozen is for ever, and a store
            // that cannot be read now has the root later.
            let signed = match repo.signed_root().await {
                Ok(signed) => signed,
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Invalid) => None,
                Err(error) => return Err(error),
            };
            let encoded = signed
                .as_ref()
                .and_then(|signed| record_format::encode_signed(signed).ok());
            let encoded = encoded.filter(|bytes| bytes.len() <= MAX_ROOT_LEN);
            let root = match &signed {
                Some(_) => repo.readable_root().await?.map(|root| root.root),
                None => None,
            };
            trees.push((repo.key(), root.unwrap_or(Root::EMPTY)));
            if let (Some(signed), Some(bytes)) = (signed, encoded) {
                roots.push(FrozenRoot {
                    repo: repo.key(),
                    seq: signed.seq,
                    signed: bytes.to_vec(),
                });
            }
        }
        Ok((roots, trees))
    }

    /// The devices that are out, with the operations that removed them: whoever was removed is told that, and no
    /// more.
    pub(crate) fn removed_by(&self, device: PublicKey) -> BTreeSet<OpId> {
        let state = self.state();
        let gone = state.gone.get(&device);
        gone.map(|gone| gone.by.clone()).unwrap_or_default()
    }
}

impl Draft {
    /// Removes somebody: in one operation with a new epoch, after others that freeze more repos than fit there.
    fn remove(&mut self, remove: Remove, roots: Vec<FrozenRoot>, makes: bool) -> Result<()> {
        let mut parts: Vec<Vec<FrozenRoot>> = roots.chunks(ROOTS).map(<[_]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        for frozen in parts {
            let part = Remove {
                frozen,
                ..remove.clone()
            };
            self.say(Body::Remove(part))?;
        }
        let mut remove = Remove {
            frozen: last,
            ..remove
        };
        if !makes {
            return self.say(Body::Remove(remove)).map(drop);
        }
        let (device, time) = (self.device_key(), self.log.epoch_time(self.now));
        let probe = self.log.sign(&device, Body::Remove(remove.clone()), time)?;
        let Some(recipients) = self.log.recipients_after(probe) else {
            // It would do nothing; saying it tells why.
            return self.say(Body::Remove(remove)).map(drop);
        };
        let (secret, list, epoch): (_, _, Epoch) = self.new_epoch(&recipients)?;
        remove.epoch = Some(epoch);
        let id = self.say_as(&device, Body::Remove(remove), time)?;
        self.made(id, secret, list);
        Ok(())
    }
}
