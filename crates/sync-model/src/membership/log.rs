//! The operations of a group that are known here, with those before each.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::OnceLock,
};

use larder_store_api::{Error, Kind, PublicKey, Result};

use super::{
    MAX_ADMIN_OPS, MAX_OPS, MAX_OWN_OPS, MAX_WAITING, RESERVED_OPS,
    acts::{Acts, Reason},
    bits::Bits,
    body::Body,
    id::OpId,
    op::Op,
    rights::Rights,
};

/// The outcome of [`Log::add`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is in the log now, and so are these that waited for it; it comes first.
    New(Vec<OpId>),
    /// It was in the log before.
    Known,
    /// It waits for operations before it that are not here yet. Of more than
    /// [`MAX_WAITING`](super::MAX_WAITING) all are forgotten, as if they had never come: a peer that sends
    /// operations in order, as [`Log::since`] has them, needs none to wait.
    Waits,
    /// It was not taken.
    Refused(Refused),
}

/// The reason why an operation was not taken. No other member is to blame for it, and it may be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is of another group.
    OtherGroup,
    /// The log is full.
    Full,
    /// Its author has said more than it may. Only an author that gave several operations one number gets here.
    Quota,
}

/// An operation in the log. Its place is fixed when all before it are there, and so is the verdict.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub op: Op,
    /// The places of all that come before it.
    pub past: Bits,
    /// The place of its author's key.
    pub author: usize,
    /// Its effect, judged by its past alone.
    pub verdict: Result<Acts, Reason>,
    /// A removal may make it void.
    pub is_touched: bool,
}

/// A key that somebody named, and the operations that matter to it. All lists are in the order of places.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub key: PublicKey,
    /// The operations that it signed, with right numbers.
    pub ops: Vec<usize>,
    /// The operations that give it rights.
    pub grants: Vec<usize>,
    /// The operations that take them.
    pub removals: Vec<usize>,
    /// The operations in which it told its keys.
    pub told: Vec<usize>,
    /// It gave several operations one number.
    pub is_forked: bool,
}

/// The use of the cap of an invite.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses {
    pub claims: Vec<usize>,
    /// Claims, each with an operation that admits it.
    pub admitted: Vec<(usize, usize)>,
}

/// The operations of a group, and what they mean together.
///
/// ```
/// use larder_store_api::SecretKey;
/// use larder_sync_model::membership::{Added, Log, Op};
///
/// let root = SecretKey::from_bytes([7; 32]);
/// let genesis = Op::genesis(&root, [1; 32], 0)?;
/// let mut log = Log::new(genesis.clone())?;
/// assert_eq!(log.add(genesis), Added::Known);
/// assert!(log.state().members.is_empty());
/// # Ok::<(), larder_store_api::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Log {
    pub(super) nodes: Vec<Node>,
    pub(super) subjects: Vec<Subject>,
    pub(super) uses: HashMap<usize, Uses>,
    /// For a claim, the operations that admit it.
    pub(super) admissions: HashMap<usize, Vec<usize>>,
    /// Removals that are hard.
    pub(super) hard: Vec<usize>,
    /// Removals that take something from somebody.
    pub(super) removals: Vec<usize>,
    /// Operations that make epochs, and whether their recipients are right, once somebody asked.
    pub(super) epochs: Vec<(usize, OnceLock<bool>)>,
    /// Operations that name repos.
    pub(super) repos: Vec<usize>,
    /// Operations that a removal may make void.
    pub(super) touched: Vec<usize>,
    places: HashMap<OpId, usize>,
    keys: HashMap<PublicKey, usize>,
    heads: BTreeSet<OpId>,
    waiting: HashMap<OpId, Op>,
    /// For an operation that is not here, those that wait for it.
    awaited: HashMap<OpId, Vec<OpId>>,
}

impl Log {
    /// A log that has only the genesis; anything else is [`Kind::Invalid`].
    pub fn new(genesis: Op) -> Result<Self> {
        if !matches!(genesis.body(), Body::Genesis { .. }) {
            let message = "a log begins with the genesis of its group";
            return Err(Error::new(Kind::Invalid, "membership.log", message));
        }
        let mut log = Self {
            nodes: Vec::new(),
            subjects: Vec::new(),
            uses: HashMap::new(),
            admissions: HashMap::new(),
            hard: Vec::new(),
            removals: Vec::new(),
            epochs: Vec::new(),
            repos: Vec::new(),
            touched: Vec::new(),
            places: HashMap::new(),
            keys: HashMap::new(),
            heads: BTreeSet::new(),
            waiting: HashMap::new(),
            awaited: HashMap::new(),
        };
        log.place(genesis);
        Ok(log)
    }

    /// The group.
    pub fn group(&self) -> OpId {
        self.nodes[0].op.id()
    }

    /// The key that signed the genesis.
    pub fn root(&self) -> PublicKey {
        self.nodes[0].op.content().author
    }

    /// The number of operations, without those that wait.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is none, which is never so: a log has a genesis.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the operations, each after those before it.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.nodes.iter().map(|node| &node.op)
    }

    /// Returns an operation, unless it is not here or waits.
    pub fn get(&self, id: OpId) -> Option<&Op> {
        self.places.get(&id).map(|place| &self.nodes[*place].op)
    }

    /// The latest operations: those that no other comes after.
    pub fn heads(&self) -> &BTreeSet<OpId> {
        &self.heads
    }

    /// Returns the operations that are not here and that others wait for.
    pub fn missing(&self) -> BTreeSet<OpId> {
        let missing = self.awaited.keys();
        let missing = missing.filter(|id| !self.waiting.contains_key(id));
        missing.copied().collect()
    }

    /// Returns those of `known` that are not here, for who asks a peer for them.
    pub fn unknown(&self, known: &[OpId]) -> Vec<OpId> {
        let known = known.iter().copied();
        known.filter(|id| !self.places.contains_key(id)).collect()
    }

    /// Returns the operations that a peer lacks that has all up to `heads`, each after those before it.
    pub fn since(&self, heads: &[OpId]) -> Vec<&Op> {
        let mut theirs = Bits::default();
        for place in heads.iter().filter_map(|id| self.places.get(id)) {
            theirs.add(&self.nodes[*place].past);
            theirs.set(*place);
        }
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter(|(at, _)| !theirs.has(*at));
        nodes.map(|(_, node)| &node.op).collect()
    }

    /// Returns the reason why an operation that is in the log does nothing; `None` if it does something in its
    /// own past. A removal that its author did not know may still make it void: see [`State`](super::State).
    pub fn set_aside(&self, id: OpId) -> Option<Reason> {
        let node = &self.nodes[*self.places.get(&id)?];
        node.verdict.as_ref().err().copied()
    }

    /// Returns authors that gave several operations one number, with the first two of them: proof that somebody
    /// copied a device or its key, or has restored a backup.
    pub fn forks(&self) -> Vec<(PublicKey, [OpId; 2])> {
        let mut found = Vec::new();
        for subject in &self.subjects {
            let mut numbers: HashMap<u32, OpId> = HashMap::new();
            let mut forks = Vec::new();
            for at in &subject.ops {
                let op = &self.nodes[*at].op;
                match numbers.entry(op.content().seq) {
                    Entry::Occupied(mut first) => {
                        let two = [op.id(), *first.get()];
                        let two = [two[0].min(two[1]), two[0].max(two[1])];
                        first.insert(two[0]);
                        forks.push((op.content().seq, two));
                    }
                    Entry::Vacant(entry) => {
                        entry.insert(op.id());
                    }
                }
            }
            found.extend(forks.into_iter().min().map(|(_, two)| (subject.key, two)));
        }
        found.sort_unstable();
        found
    }

    /// Adds an operation whose signatures were checked. The order in which operations come makes no difference
    /// to what they mean.
    pub fn add(&mut self, op: Op) -> Added {
        let id = op.id();
        if self.places.contains_key(&id) {
            return Added::Known;
        }
        if op.group() != self.group() {
            return Added::Refused(Refused::OtherGroup);
        }
        if let Some(refused) = self.refuses(&op) {
            return Added::Refused(refused);
        }
        if let Some(missing) = self.first_missing(&op) {
            if !self.waiting.contains_key(&id) {
                if self.waiting.len() >= MAX_WAITING {
                    self.waiting.clear();
                    self.awaited.clear();
                }
                self.awaited.entry(missing).or_default().push(id);
                self.waiting.insert(id, op);
            }
            return Added::Waits;
        }
        let mut new = Vec::new();
        let mut ready = vec![op];
        while let Some(op) = ready.pop() {
            let id = op.id();
            if self.nodes.len() >= MAX_OPS {
                break;
            }
            self.place(op);
            new.push(id);
            for id in self.awaited.remove(&id).unwrap_or_default() {
                let Some(op) = self.waiting.remove(&id) else {
                    continue;
                };
                match self.first_missing(&op) {
                    Some(missing) => {
                        self.awaited.entry(missing).or_default().push(id);
                        self.waiting.insert(id, op);
                    }
                    None => ready.push(op),
                }
            }
        }
        Added::New(new)
    }

    fn first_missing(&self, op: &Op) -> Option<OpId> {
        let mut after = op.content().after.iter();
        after.find(|id| !self.places.contains_key(id)).copied()
    }

    /// The limits of the log. What an operation that waits names is taken in spite of its author's quota:
    /// otherwise an author who tells each member something else divides them.
    fn refuses(&self, op: &Op) -> Option<Refused> {
        let grant = self.places.get(&op.content().proof).and_then(|proof| {
            let acts = self.nodes[*proof].verdict.as_ref().ok()?;
            acts.grant.as_ref()
        });
        let may_remove = grant.is_some_and(|grant| grant.rights.covers(Rights::REMOVE));
        let room = if may_remove {
            MAX_OPS
        } else {
            MAX_OPS - RESERVED_OPS
        };
        if self.nodes.len() >= room {
            return Some(Refused::Full);
        }
        let author = self.keys.get(&op.content().author)?;
        let said = self.subjects[*author].ops.len();
        let quota = quota(grant.map_or(Rights::NONE, |grant| grant.rights)) as usize;
        let is_root = op.content().author == self.root();
        let over = said >= quota && !is_root && !self.awaited.contains_key(&op.id());
        over.then_some(Refused::Quota)
    }

    /// Puts an operation after all before it, which are there.
    fn place(&mut self, op: Op) {
        let at = self.nodes.len();
        let mut past = Bits::default();
        for id in &op.content().after {
            let before = self.places[id];
            past.add(&self.nodes[before].past);
            past.set(before);
            self.heads.remove(id);
        }
        self.heads.insert(op.id());
        self.places.insert(op.id(), at);
        let author = self.subject(op.content().author);
        if let Body::Cap(cap) = op.body() {
            self.subject(cap.key);
        }
        self.nodes.push(Node {
            op,
            past,
            author,
            verdict: Err(Reason::Number),
            is_touched: false,
        });
        if self.has_next_number(at) {
            let number = |at: usize| self.nodes[at].op.content().seq;
            let last = self.subjects[author].ops.last();
            let is_fork = last.is_some_and(|last| number(*last) >= number(at));
            self.subjects[author].is_forked |= is_fork;
            self.subjects[author].ops.push(at);
            let verdict = self.judge(at);
            self.nodes[at].verdict = verdict;
            self.note(at);
            self.touch(at);
        }
    }

    /// An author counts its operations. So a number tells how many came before, nobody uses numbers up, and two
    /// operations with one number are proof of a fork.
    fn has_next_number(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let own = self.subjects[node.author].ops.iter();
        let own = own.filter(|own| node.past.has(**own));
        let last = own.map(|own| self.nodes[*own].op.content().seq).max();
        node.op.content().seq == last.map_or(0, |last| last.saturating_add(1))
    }

    /// Returns the place of an operation.
    pub(super) fn place_of(&self, id: OpId) -> Option<usize> {
        self.places.get(&id).copied()
    }

    /// Returns the place of a key.
    pub(super) fn subject_of(&self, key: PublicKey) -> Option<usize> {
        self.keys.get(&key).copied()
    }

    /// Returns the place of a key, which it has from now on.
    pub(super) fn subject(&mut self, key: PublicKey) -> usize {
        let next = self.subjects.len();
        let at = *self.keys.entry(key).or_insert(next);
        if at == next {
            self.subjects.push(Subject {
                key,
                ops: Vec::new(),
                grants: Vec::new(),
                removals: Vec::new(),
                told: Vec::new(),
                is_forked: false,
            });
        }
        at
    }
}

/// The most operations of an author with these rights.
pub(super) fn quota(rights: Rights) -> u32 {
    if rights.covers(Rights::INVITE) {
        MAX_ADMIN_OPS
    } else {
        MAX_OWN_OPS
    }
}
