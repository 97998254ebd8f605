//! Which epochs may be sealed under, and to whom a new one is boxed.

use std::collections::{BTreeMap, HashSet};

use larder_store_api::PublicKey;

use super::{
    MAX_OPEN_INVITES,
    bits::Bits,
    body::{Body, BoxKey, Epoch},
    id::OpId,
    judge::Judge,
    log::Log,
    op::Op,
    rights::Rights,
    state::State,
};

const RECIPIENTS: &str = "larder 2026 group recipients v1";

/// The holder of a key to which an epoch is boxed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The device, or the invite.
    pub key: PublicKey,
    /// The key to which it is boxed.
    pub box_key: BoxKey,
    /// It gets the secret; otherwise the locate key alone.
    pub reads: bool,
}

/// Those to whom an epoch is boxed, in the order of their keys: all members and open invites that its author knew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// The recipients of an epoch that is made at `time` by who knows this.
    ///
    /// At most [`MAX_OPEN_INVITES`] invites are among them; the others want a member who reads to let somebody in.
    pub fn of(state: &State, time: i64) -> Self {
        let mut found = BTreeMap::new();
        let has_ended = |device: &PublicKey| {
            let member = state.members.get(device);
            member.is_some_and(|member| member.rights(time) == Rights::NONE)
        };
        let invites = state.invites.values().filter(|invite| {
            let is_open = invite.is_open(time) && !invite.claimed_by.iter().any(has_ended);
            is_open && !invite.confirm && !state.members.contains_key(&invite.key)
        });
        for invite in invites.take(MAX_OPEN_INVITES) {
            let reads = invite.rights.covers(Rights::READ);
            found.insert(invite.key, (invite.box_key, reads));
        }
        for (key, member) in &state.members {
            let rights = member.rights(time);
            if let Some(box_key) = member.box_key.filter(|_| rights.covers(Rights::REPLICA)) {
                found.insert(*key, (box_key, rights.covers(Rights::READ)));
            }
        }
        let found = found.into_iter().map(|(key, (box_key, reads))| Recipient {
            key,
            box_key,
            reads,
        });
        Self(found.collect())
    }

    /// Returns the hash by which an epoch names them.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(RECIPIENTS);
        for recipient in &self.0 {
            hasher.update(&recipient.key.0);
            hasher.update(&recipient.box_key.0);
            hasher.update(&[u8::from(recipient.reads)]);
        }
        *hasher.finalize().as_bytes()
    }

    /// Returns them in the order of their boxes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Recipient> {
        self.0.iter()
    }

    /// Returns the place of a key among them.
    pub fn position(&self, key: PublicKey) -> Option<usize> {
        self.0
            .binary_search_by_key(&key, |recipient| recipient.key)
            .ok()
    }
}

impl Log {
    /// Returns the epochs under which may be sealed at `now`, the preferred one first; with none, who writes makes
    /// one first.
    ///
    /// Their past has every removal in force, every use of an invite by who was removed, and the end of all rights
    /// that have ended; and they are boxed to exactly those who were members in their past. So who was removed has
    /// no box of them, and no later epoch that links to them has a box for such a person either.
    pub fn usable(&self, now: i64) -> Vec<OpId> {
        let judge = Judge::with_memo(self, None);
        let removals = self.removals.iter().copied();
        let removals: Vec<_> = removals.filter(|at| judge.counts(*at)).collect();
        let ended = self.ended(&judge, now);
        let mut known = self.claims_of_removed(&judge);
        known.extend(self.claims_of_ended(&judge, &ended));
        let mut found = Vec::new();
        for (at, valid) in &self.epochs {
            let node = &self.nodes[*at];
            let time = node.op.content().time;
            let knows = |other: &usize| other == at || node.past.has(*other);
            let is_fresh = removals.iter().chain(&known).all(knows)
                && ended
                    .iter()
                    .all(|(grant, until)| knows(grant) && time > *until);
            if is_fresh && node.verdict.is_ok() && *valid.get_or_init(|| self.is_valid(*at)) {
                found.push((time, node.op.id()));
            }
        }
        found.sort_unstable();
        found.into_iter().rev().map(|(_, id)| id).collect()
    }

    /// Returns the recipients of an epoch, as its past has them; `None` if there is no such epoch here.
    pub fn recipients_of(&self, epoch: OpId) -> Option<Recipients> {
        let at = self.place_of(epoch)?;
        self.nodes[at].op.body().epoch()?;
        Some(self.recipients_at(at))
    }

    /// Returns the recipients of an epoch that is made together with this removal, which is signed without an epoch
    /// for this question alone; `None` if it does not count. The log stays as it is.
    pub fn recipients_after(&self, removal: Op) -> Option<Recipients> {
        let (id, time) = (removal.id(), removal.content().time);
        let mut log = self.clone();
        log.add(removal);
        let counts = log.get(id).is_some() && log.set_aside(id).is_none();
        counts.then(|| Recipients::of(&log.members(None), time))
    }

    /// Returns the time that a new epoch has: now, and not before any that is here, whatever the clocks say.
    pub fn epoch_time(&self, now: i64) -> i64 {
        let times = self
            .epochs
            .iter()
            .map(|(at, _)| self.nodes[*at].op.content().time);
        times.fold(now, i64::max)
    }

    /// Returns an epoch that is in the log, whether or not it may be sealed under.
    pub fn epoch(&self, id: OpId) -> Option<&Epoch> {
        self.get(id)?.body().epoch()
    }

    /// Returns the epochs that no other links to: their secrets open all others.
    pub fn head_epochs(&self) -> Vec<OpId> {
        let nodes = self.epochs.iter().map(|(at, _)| &self.nodes[*at].op);
        let nodes = nodes.filter(|op| self.set_aside(op.id()).is_none());
        let mut heads: Vec<_> = nodes.clone().map(|op| op.id()).collect();
        let links = nodes.filter_map(|op| op.body().epoch());
        let linked: HashSet<_> = links
            .flat_map(|epoch| &epoch.links)
            .map(|link| link.epoch)
            .collect();
        heads.retain(|id| !linked.contains(id));
        heads.sort_unstable();
        heads
    }

    /// Returns the members and open invites that have no box of an epoch, so that whoever holds it boxes it to
    /// them. Those whose rights had ended when the epoch was made are not among them.
    pub fn lacking(&self, epoch: OpId, now: i64) -> Vec<Recipient> {
        let (Some(at), Some(have)) = (self.place_of(epoch), self.recipients_of(epoch)) else {
            return Vec::new();
        };
        let time = self.nodes[at].op.content().time.max(now);
        let boxed: HashSet<_> = self
            .ops()
            .filter_map(|op| match op.body() {
                Body::Boxes(boxes) if boxes.boxes.iter().any(|(id, _)| *id == epoch) => {
                    Some(boxes.recipient)
                }
                _ => None,
            })
            .collect();
        let wanted = Recipients::of(&self.members(None), time);
        let lacks =
            |recipient: &&Recipient| !have.0.contains(recipient) && !boxed.contains(&recipient.key);
        wanted.iter().filter(lacks).copied().collect()
    }

    /// Claims of devices that are out, and how they had come in: they know the keys of the invites that they used, so
    /// that who makes an epoch must know of that.
    fn claims_of_removed(&self, judge: &Judge<'_>) -> Vec<usize> {
        let mut known = Vec::new();
        for cap in self.uses.keys().copied() {
            if !judge.has(cap) || !judge.is_good(cap) {
                continue;
            }
            let past = &self.nodes[cap].past;
            for claim in judge.claims(cap) {
                let outs = judge.outs(self.nodes[claim].author);
                for (_, given) in outs.filter(|(removal, _)| !past.has(*removal)) {
                    known.push(claim);
                    known.extend(given);
                }
            }
        }
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Claims of devices whose rights time has ended, which know the keys of those invites too.
    fn claims_of_ended(&self, judge: &Judge<'_>, ended: &[(usize, i64)]) -> Vec<usize> {
        let receivers = ended.iter().filter_map(|(grant, _)| self.grant(*grant));
        let receivers: HashSet<_> = receivers.map(|grant| grant.receiver).collect();
        if receivers.is_empty() {
            return Vec::new();
        }
        let caps = self.uses.keys().copied().filter(|cap| judge.is_good(*cap));
        let claims = caps.flat_map(|cap| judge.claims(cap));
        claims
            .filter(|claim| receivers.contains(&self.nodes[*claim].author))
            .collect()
    }

    /// Grants to devices that time has ended, with their last moments.
    fn ended(&self, judge: &Judge<'_>, now: i64) -> Vec<(usize, i64)> {
        let grants = self.subjects.iter().flat_map(|subject| &subject.grants);
        let ended = grants.filter_map(|at| {
            let grant = self.grant(*at).filter(|grant| !grant.is_invite)?;
            let until = grant.until.filter(|until| now > *until)?;
            judge.holds(*at).then_some((*at, until))
        });
        ended.collect()
    }

    /// Returns whether an epoch is boxed to exactly those who were members, by one of them, and not earlier than
    /// those that it knew: a later one that links to it must not be for somebody whose time it saw ended.
    fn is_valid(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let Some(epoch) = node.op.body().epoch() else {
            return false;
        };
        let before = self
            .epochs
            .iter()
            .filter(|(other, _)| node.past.has(*other));
        let mut times = before.map(|(other, _)| self.nodes[*other].op.content().time);
        let recipients = self.recipients_at(at);
        let author = node.op.content().author;
        let maker = recipients.position(author).map(|at| recipients.0[at]);
        let may_make = author == self.root() || maker.is_some_and(|maker| maker.reads);
        may_make
            && recipients.hash() == epoch.recipients
            && times.all(|time| time <= node.op.content().time)
    }

    fn recipients_at(&self, at: usize) -> Recipients {
        let mut view: Bits = self.nodes[at].past.clone();
        // A removal that makes an epoch is known to it.
        view.set(at);
        Recipients::of(&self.members(Some(&view)), self.nodes[at].op.content().time)
    }
}
