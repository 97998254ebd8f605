//! The meaning of a set of operations: who is a member, with which rights, and what was taken.

use std::collections::{BTreeMap, BTreeSet};

use larder_store_api::PublicKey;

use super::{
    bits::Bits,
    body::{BoxKey, DeviceKeys, FrozenRoot},
    id::OpId,
    judge::Judge,
    log::Log,
    rights::Rights,
};

/// The meaning of a set of operations: equal for equal sets, however they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct State {
    /// The devices that are members, by their keys.
    pub members: BTreeMap<PublicKey, Member>,
    /// The devices that were members and are not any more.
    pub gone: BTreeMap<PublicKey, Gone>,
    /// Invites, by the caps that made them.
    pub invites: BTreeMap<OpId, Invite>,
    /// Claims of invites that nothing has ended, which nobody has answered in a way that counts.
    pub waiting: BTreeMap<OpId, PublicKey>,
    /// The repos that devices have named as their owner's, and those owners, some of whom may be gone.
    pub repos: BTreeMap<PublicKey, PublicKey>,
    /// Repos of which only one root counts, because their writers were removed: the greatest of these whose
    /// signature is right; none, if there is none.
    pub frozen: BTreeMap<PublicKey, BTreeSet<FrozenRoot>>,
    /// Repos that another one goes on from.
    pub succeeded: BTreeMap<PublicKey, PublicKey>,
    /// The removals in force.
    pub removals: BTreeSet<OpId>,
    /// Operations that a removal, which their authors did not know, made void.
    pub void: BTreeMap<OpId, OpId>,
}

/// A device that is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The first device of the person whose device this is; for devices of the root's owner, the root.
    pub owner: PublicKey,
    /// All that it holds: the operations that gave it, and what they gave.
    pub held: BTreeMap<OpId, Held>,
    /// The key to which secrets are boxed; `None` until the device has told it.
    pub box_key: Option<BoxKey>,
    /// The repo of its owner, if it has one.
    pub repo: Option<PublicKey>,
    /// The device that gave it the cap or made the invite.
    pub invited_by: PublicKey,
    /// The distance from the root: the lesser removes the greater.
    pub level: u8,
}

/// Rights that a member holds by one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The rights.
    pub rights: Rights,
    /// The number of times that they may be handed on.
    pub depth: u8,
    /// The last moment of them.
    pub until: Option<i64>,
    /// The beginnings of names that may be written; empty for all.
    pub prefixes: Vec<String>,
}

/// A device that is not a member any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gone {
    /// The person whose device it was.
    pub owner: PublicKey,
    /// The removals because of which it is not a member.
    pub by: BTreeSet<OpId>,
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invite {
    /// Its key, whose secret is in the link.
    pub key: PublicKey,
    /// The key to which epochs are boxed for who has the link.
    pub box_key: BoxKey,
    /// The rights that it gives.
    pub rights: Rights,
    /// The last moment at which somebody may be let in with it.
    pub until: Option<i64>,
    /// The number of devices that may be let in.
    pub uses: u16,
    /// It is for further devices of who made it.
    pub own: bool,
    /// A device that claims it needs a cap of its own.
    pub confirm: bool,
    /// The device that made it.
    pub by: PublicKey,
    /// The devices that were let in, in order of their keys. More than `uses` are possible where members did
    /// not know of each other.
    pub used_by: BTreeSet<PublicKey>,
    /// The devices that claimed it, let in or not: they know its key.
    pub claimed_by: BTreeSet<PublicKey>,
    /// Nothing has ended it, but for time and uses.
    pub open: bool,
}

impl Member {
    /// Returns its rights at a time, in milliseconds.
    pub fn rights(&self, now: i64) -> Rights {
        let held = self.held.values().filter(|held| held.is_at(now));
        held.fold(Rights::NONE, |all, held| all | held.rights)
    }

    /// Returns whether it may write this name at a time.
    pub fn may_write(&self, name: &str, now: i64) -> bool {
        self.held.values().any(|held| {
            let begins = |prefix: &String| name.starts_with(prefix.as_str());
            held.is_at(now)
                && held.rights.covers(Rights::WRITE)
                && (held.prefixes.is_empty() || held.prefixes.iter().any(begins))
        })
    }
}

impl Held {
    fn is_at(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}

impl Invite {
    /// Returns whether it can be used at a time.
    pub fn is_open(&self, now: i64) -> bool {
        let left = self.used_by.len() < usize::from(self.uses);
        self.open && left && self.until.is_none_or(|until| now <= until)
    }

    /// Returns whether more devices were let in than it is for.
    pub fn is_overused(&self) -> bool {
        self.used_by.len() > usize::from(self.uses)
    }
}

impl Log {
    /// Returns what the operations mean. It is a function of their set alone, total, and takes about a
    /// millisecond for ten thousand.
    pub fn state(&self) -> State {
        let judge = Judge::with_memo(self, None);
        let mut state = self.judged(&judge);
        self.add_repos(&mut state, &judge);
        for at in self.touched.iter().copied() {
            // A removal is void only by a hard one: that its author was removed beside it does not undo it.
            let by = judge.void_by(at);
            let by = by.filter(|_| self.remove(at).is_none() || !judge.counts(at));
            if let Some(by) = by.map(|by| self.nodes[by].op.id()).min() {
                state.void.insert(self.nodes[at].op.id(), by);
            }
        }
        state
    }

    /// Returns the members and invites in a part of the log that has the past of each operation in it.
    pub(super) fn members(&self, view: Option<&Bits>) -> State {
        self.judged(&Judge::with_memo(self, view))
    }

    fn judged(&self, judge: &Judge<'_>) -> State {
        let mut state = State::default();
        let removals = self.removals.iter().filter(|at| judge.counts(**at));
        let removals = removals.map(|at| self.nodes[*at].op.id());
        state.removals = removals.collect();
        for (at, subject) in self.subjects.iter().enumerate() {
            let grants = subject.grants.iter().copied();
            let mut grants: Vec<_> = grants.filter(|grant| judge.has(*grant)).collect();
            // Of several, the one that is nearest to the root comes first, and says whose device it is.
            grants.sort_by_key(|at| {
                let level = self.grant(*at).map(|grant| grant.level);
                (level, self.nodes[*at].op.id())
            });
            for grant in grants {
                self.add_grant(&mut state, judge, at, grant);
            }
        }
        for (key, member) in &mut state.members {
            state.gone.remove(key);
            member.box_key = self.keys_of(judge, *key).map(|keys| keys.box_key);
        }
        for (cap, claims) in &self.uses {
            let node = &self.nodes[*cap];
            let (Some(found), true) = (self.cap(*cap), judge.has(*cap)) else {
                continue;
            };
            let Some(box_key) = found.invite else {
                continue;
            };
            let open = judge.is_open(*cap);
            for claim in judge.claims(*cap).filter(|_| open) {
                if judge.is_good(claim) && !judge.is_admitted(claim) {
                    let op = &self.nodes[claim].op;
                    state.waiting.insert(op.id(), op.content().author);
                }
            }
            let used = claims.admitted.iter().copied();
            let used = used.filter(|(_, by)| judge.has(*by) && judge.is_good(*by));
            let claimed = judge.claims(*cap).map(|claim| &self.nodes[claim].op);
            let invite = Invite {
                claimed_by: claimed.map(|op| op.content().author).collect(),
                key: found.key,
                box_key,
                rights: found.rights,
                until: self.invite_until(*cap),
                uses: found.uses,
                own: found.own,
                confirm: found.confirm,
                by: node.op.content().author,
                used_by: used
                    .map(|(claim, _)| self.nodes[claim].op.content().author)
                    .collect(),
                open,
            };
            state.invites.insert(node.op.id(), invite);
        }
        state
    }

    /// An invite ends when it says, and with the rights that it gives.
    fn invite_until(&self, cap: usize) -> Option<i64> {
        let own = self.cap(cap).and_then(|cap| cap.until);
        let given = self.grant(cap).and_then(|grant| grant.until);
        own.into_iter().chain(given).min()
    }

    /// Adds what one operation gives to one device, or notes who took it.
    fn add_grant(&self, state: &mut State, judge: &Judge<'_>, subject: usize, grant: usize) {
        let node = &self.nodes[grant];
        let key = self.subjects[subject].key;
        let (Some(given), Ok(acts)) = (self.grant(grant), &node.verdict) else {
            return;
        };
        if given.is_invite || grant == 0 {
            return;
        }
        if judge.holds(grant) {
            // Of who was let in, the cap that the claim is of.
            let cap = acts.admits.and_then(|claim| self.acts(claim));
            let by = cap.map_or(grant, |acts| acts.proof);
            let member = state.members.entry(key).or_insert_with(|| Member {
                owner: given.owner,
                held: BTreeMap::new(),
                box_key: None,
                repo: None,
                invited_by: self.nodes[by].op.content().author,
                level: given.level,
            });
            let held = Held {
                rights: given.rights,
                depth: given.depth,
                until: given.until,
                prefixes: given.prefixes.clone(),
            };
            member.held.insert(node.op.id(), held);
            return;
        }
        let mut by = judge.voids(grant);
        let removals = self.subjects[subject].removals.iter().copied();
        by.extend(removals.filter(|at| !node.past.has(*at) && judge.counts(*at)));
        let gone = state.gone.entry(key).or_insert_with(|| Gone {
            owner: given.owner,
            by: BTreeSet::new(),
        });
        let by = by.into_iter().map(|at| self.nodes[at].op.id());
        gone.by.extend(by);
    }

    /// Returns the keys that a device told last.
    pub(super) fn keys_of(&self, judge: &Judge<'_>, device: PublicKey) -> Option<&DeviceKeys> {
        let subject = &self.subjects[self.subject_of(device)?];
        let mut told = subject.told.iter().copied().filter(|at| judge.has(*at));
        let last = if subject.is_forked {
            told.max_by_key(|at| {
                let op = &self.nodes[*at].op;
                (op.content().seq, op.id())
            })
        } else {
            told.next_back()
        };
        last.and_then(|at| self.nodes[at].op.body().keys())
    }
}
