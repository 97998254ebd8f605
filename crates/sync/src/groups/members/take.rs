//! Taking in what others say, and answering it: claims of invites, and epochs for those who lack them.

use std::sync::Arc;

use larder_store_api::{Kind, PublicKey, Result};
use larder_store_engine::{Hash, public_key};

use super::{Group, Turn, lock, secret::op_id};
use crate::membership::{
    Added, Body, Cap, Log, MAX_AHEAD, MAX_DEPTH, Op, OpId, Recipient, Rights, State,
};

impl Group {
    /// Takes in operations whose signatures were checked, each after those before it. What cannot be placed yet waits,
    /// and the sender of those that are not taken is not to blame.
    pub(crate) async fn take_ops(&self, mut ops: Vec<Op>) -> Result<()> {
        let latest = self.inner().now().saturating_add(MAX_AHEAD);
        let turn = self.turn().await?;
        let known = self.with_log(|log| {
            ops.retain(|op| log.get(op.id()).is_none());
            log.clone()
        });
        ops.retain(|op| op.content().time <= latest);
        let is_genesis = |op: &Op| op.id() == op_id(self.id());
        let mut log = match (known, ops.iter().position(is_genesis)) {
            (Some(log), _) => log,
            (None, Some(at)) => Log::new(ops.remove(at))?,
            (None, None) => return Ok(()),
        };
        if ops.is_empty() && self.with_log(|_| ()).is_some() {
            return Ok(());
        }
        for op in ops {
            let id = op.id();
            if let Added::Refused(why) = log.add(op) {
                tracing::debug!(%id, ?why, "an operation is not taken");
            }
        }
        self.store(&turn, log, Vec::new()).await?;
        self.answer(&turn).await?;
        drop(turn);
        self.publish_repos().await
    }

    /// Uses the invites that this device has, if the group's operations are here.
    pub(crate) async fn use_invites(&self) -> Result<()> {
        if self.with_log(|_| ()).is_none() {
            return Ok(());
        }
        let turn = self.turn().await?;
        self.answer(&turn).await
    }

    /// Uses the invites that this device has, where they are open and not used yet.
    async fn answer(&self, turn: &Turn<'_>) -> Result<()> {
        let secret = lock(&self.roster().secret).clone();
        let state = self.state();
        let (now, group) = (self.inner().now(), op_id(self.id()));
        for seed in &secret.invites {
            let key = seed.public();
            let mut invites = state.invites.values();
            let is_new = invites.any(|invite| {
                invite.key == key
                    && invite.is_open(now)
                    && !invite.claimed_by.contains(&self.device())
            });
            if !is_new {
                continue;
            }
            let claim = self.write(turn, |draft| {
                let keys = secret.keys(group, None);
                let op = draft
                    .log
                    .sign_claim(&secret.device, &seed.key(), keys, now)?;
                draft.add(op)
            });
            match claim.await {
                Ok(claim) => tracing::debug!(%claim, "an invite is used"),
                Err(error) if matches!(error.kind(), Kind::Denied | Kind::Full) => {
                    tracing::warn!(%error, "an invite cannot be used");
                }
                Err(error) => return Err(error),
            }
        }
        self.return_by_root(turn, &state).await
    }

    /// Lets this device in by the secret of the group's root, if it has that.
    async fn return_by_root(&self, turn: &Turn<'_>, state: &State) -> Result<()> {
        let device = self.device();
        if state.members.contains_key(&device) || state.gone.contains_key(&device) {
            return Ok(());
        }
        let Some(root) = self.inner().root_secret(self.id()).await? else {
            return Ok(());
        };
        if self.with_log(Log::root) != Some(public_key(&root)) {
            return Ok(());
        }
        let keys = lock(&self.roster().secret).keys(op_id(self.id()), None);
        self.write(turn, |draft| {
            let cap = Cap {
                own: true,
                ..Cap::device(device, Rights::ADMIN, MAX_DEPTH)
            };
            let now = draft.now;
            draft.say_as(&root, Body::Cap(cap), now)?;
            draft.say(Body::Keys(keys))?;
            // Nothing was boxed to this device: it goes on with a key of its own until others give it theirs.
            draft.epoch()
        })
        .await
        .map(drop)
    }

    /// Lets in a device that has claimed an invite, if that still counts.
    pub(crate) async fn admit(&self, device: PublicKey) -> Result<()> {
        let waits = |state: &State| state.waiting.values().any(|waits| *waits == device);
        if !waits(&self.state()) || self.rights() == Rights::NONE {
            return Ok(());
        }
        let turn = self.turn().await?;
        let state = self.state();
        let claims = state.waiting.iter().filter(|(_, waits)| **waits == device);
        for (claim, _) in claims {
            let found = self.with_log(|log| claimed(log, &state, *claim)).flatten();
            let Some(to) = found else {
                continue;
            };
            let admitted = self.write(&turn, |draft| draft.box_to(&to, *claim)).await;
            match admitted {
                Ok(()) => tracing::debug!(%device, "a device is let in"),
                Err(error) if matches!(error.kind(), Kind::Denied | Kind::Full) => {
                    tracing::debug!(%device, %error, "a device is not let in");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives epochs to a member that lacks this one, if this device holds it.
    pub(crate) async fn give_epochs(&self, device: PublicKey, epoch: OpId) -> Result<()> {
        let now = self.inner().now();
        let lacking = self.with_log(|log| log.lacking(epoch, now));
        let to = lacking
            .into_iter()
            .flatten()
            .find(|lacks| lacks.key == device);
        let Some(to) = to.filter(|to| self.holds(epoch, to)) else {
            return Ok(());
        };
        if !self.rights().covers(Rights::REPLICA) {
            return Ok(());
        }
        let turn = self.turn().await?;
        self.write(&turn, |draft| draft.box_to(&to, OpId::NONE))
            .await
    }

    fn holds(&self, epoch: OpId, to: &Recipient) -> bool {
        let keys = self.keyring().get(epoch);
        keys.is_some_and(|keys| keys.secret().is_some() || !to.reads)
    }

    /// Returns the epochs to which no other leads whose boxes are not here, each with whether this device cannot open
    /// it. Peers are asked for those.
    pub(crate) fn lacks_boxes(&self) -> Vec<(OpId, bool)> {
        let known = lock(&self.roster().known);
        let Some(log) = &known.log else {
            return Vec::new();
        };
        let reads = known
            .state
            .members
            .get(&self.device())
            .is_none_or(|member| member.rights(self.inner().now()).covers(Rights::READ));
        let heads = log.head_epochs().into_iter();
        let heads = heads.map(|id| {
            let keys = self.keyring().get(id);
            let is_closed = match keys {
                Some(keys) => reads && keys.secret().is_none(),
                None => true,
            };
            (id, is_closed)
        });
        heads
            .filter(|(id, is_closed)| *is_closed || !known.lists.contains_key(id))
            .collect()
    }

    /// Returns the boxes of an epoch, if they are here.
    pub(crate) fn boxes(&self, epoch: OpId) -> Option<Arc<Vec<u8>>> {
        lock(&self.roster().known).lists.get(&epoch).cloned()
    }

    /// Returns the length that the boxes of an epoch have, if there is such an epoch and they are wanted.
    pub(crate) fn boxes_len(&self, epoch: OpId) -> Option<usize> {
        let known = lock(&self.roster().known);
        let log = known.log.as_ref()?;
        if known.lists.contains_key(&epoch) || log.head_epochs().binary_search(&epoch).is_err() {
            return None;
        }
        let recipients = log.recipients_of(epoch)?;
        Some(1 + recipients.iter().len() * crate::membership::BOX_LEN)
    }

    /// Takes in the boxes of an epoch, if they are those that its maker made.
    pub(crate) async fn take_boxes(&self, epoch: OpId, list: Vec<u8>) -> Result<()> {
        let turn = self.turn().await?;
        let hash = Hash::of(&list);
        let log = self.with_log(|log| {
            let is_right = log.epoch(epoch).is_some_and(|epoch| epoch.boxes == hash);
            is_right.then(|| log.clone())
        });
        let Some(log) = log.flatten() else {
            return Ok(());
        };
        self.store(&turn, log, vec![(epoch, list)]).await?;
        drop(turn);
        self.publish_repos().await
    }

    /// Names our repos that no operation names yet, and tells what we called them.
    pub(crate) async fn publish_repos(&self) -> Result<()> {
        if !self.can_write() {
            return Ok(());
        }
        let turn = self.turn().await?;
        let state = self.state();
        let ours = self.our_secrets();
        let unnamed: Vec<_> = ours
            .iter()
            .filter(|(key, _)| !state.repos.contains_key(key))
            .collect();
        if !unnamed.is_empty() {
            let secret = lock(&self.roster().secret).clone();
            let group = op_id(self.id());
            let written = self.write(&turn, |draft| {
                for (_, repo) in &unnamed {
                    draft.say(Body::Keys(secret.keys(group, Some(repo))))?;
                }
                Ok(())
            });
            match written.await {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Kind::Denied | Kind::Full) => {
                    tracing::warn!(group = %self.id(), %error, "a repo is not in its group");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        drop(turn);
        self.publish_profiles().await
    }
}

/// Returns who claimed an invite, unless that wants more than a claim.
fn claimed(log: &Log, state: &State, claim: OpId) -> Option<Recipient> {
    let op = log.get(claim)?;
    let Body::Claim(said) = op.body() else {
        return None;
    };
    let invite = state.invites.get(&op.content().proof)?;
    (!invite.confirm).then(|| Recipient {
        key: op.content().author,
        box_key: said.keys.box_key,
        reads: invite.rights.covers(Rights::READ),
    })
}
