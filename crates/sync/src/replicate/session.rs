//! A session: one group on one connection, after both sides have proven who they are. First each side sends the
//! operations that the other lacks; members then announce what they have, and send what the other one lacks.

mod exchange;
mod handshake;
mod operations;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use larder_store_api::{PublicKey, Slot};
use tokio::sync::Notify;

use super::{
    Link,
    index::Versions,
    lock,
    proof::Who,
    wire::{Version, Which},
};
use crate::{
    groups::{Group, Holding, Standing},
    membership::{OpId, Rights},
    records::FIRST_ROUTE,
};

/// The most repos for which a peer's holdings are remembered.
const MAX_HOLDINGS: usize = 4096;

/// The most records of which a peer's versions are remembered: two for each member of a large group.
const MAX_RECORDS: usize = 4096;

/// The most sessions of one group on one connection: both sides may begin one at the same time, and one that
/// ends may be replaced before that is noticed.
pub(super) const MAX_SESSIONS: usize = 4;

/// The first pause after a store of ours failed; it doubles each time.
const RETRY: Duration = Duration::from_secs(2);
/// The longest pause.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The trust that a peer has in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is a member: it gets everything.
    Member,
    /// It may say operations and hear them: whoever was let in elsewhere is known by those.
    Related,
    /// It has an invite, or the root: it hears operations, and may use what it has.
    Guest,
    /// It was removed: it hears of that, and of nothing later.
    Gone,
    /// Nothing is known of it.
    Stranger,
}

/// One group on one connection.
pub(crate) struct Session {
    pub(super) id: u64,
    pub(super) link: Arc<Link>,
    pub(super) group: Group,
    who: Who,
    /// True while the peer is a member.
    full: AtomicBool,
    told: Mutex<Told>,
    peer: Mutex<Peer>,
    /// True once the peer has announced everything that it has.
    compared: AtomicBool,
    /// The time at which the peer was last heard from, by the clock of the groups.
    heard: AtomicI64,
    to_say: Mutex<ToSay>,
    wake: Notify,
    /// Notified when the group is gone.
    over: Notify,
    retry: Mutex<Retry>,
}

/// The known facts about a peer.
#[derive(Default)]
struct Peer {
    /// The versions of the values that it has.
    known: Versions,
    /// The slots in which it has other values than we have, in records that are known here.
    differ: BTreeSet<(Which, Slot)>,
    /// The values of it that are beyond their bounds, and are not taken: they make no difference.
    refused: BTreeMap<(Which, Slot), Version>,
    /// The trees that it holds.
    holds: BTreeMap<PublicKey, Holding>,
    /// The holdings of ours that were announced to the peer.
    told: BTreeMap<PublicKey, Holding>,
}

impl Peer {
    fn compare(&mut self, which: Which, slot: Slot, ours: Option<Version>) {
        let theirs = self.known.get(&which).and_then(|slots| slots.get(&slot));
        let refused = self.refused.get(&(which, slot));
        let is_level = theirs == ours.as_ref() || (theirs.is_some() && theirs == refused);
        match is_level {
            true => self.differ.remove(&(which, slot)),
            false => self.differ.insert((which, slot)),
        };
    }

    fn compare_record(&mut self, which: Which, ours: &BTreeMap<Slot, Version>) {
        let all = (which, 0)..=(which, Slot::MAX);
        let before: Vec<_> = self.differ.range(all).copied().collect();
        for differed in before {
            self.differ.remove(&differed);
        }
        let theirs = self.known.get(&which);
        let theirs = theirs.into_iter().flat_map(BTreeMap::keys);
        let slots: BTreeSet<Slot> = theirs.chain(ours.keys()).copied().collect();
        for slot in slots {
            self.compare(which, slot, ours.get(&slot).copied());
        }
    }
}

/// The operations and boxes that went to and fro.
#[derive(Default)]
struct Told {
    /// The number of our operations that the peer was told or has said that it has; `None` before it said what it
    /// has.
    ops: Option<usize>,
    /// Those of later ones that came from it.
    from_peer: BTreeSet<OpId>,
    /// The epochs whose boxes it was asked for.
    asked: BTreeSet<(OpId, bool)>,
    /// Boxes that come in parts.
    coming: BTreeMap<OpId, Vec<u8>>,
}

/// The messages that are waiting to be sent to a peer.
#[derive(Default)]
struct ToSay {
    /// True if it is to be told which operations are here.
    known: bool,
    /// The operations that it has.
    since: Option<Vec<OpId>>,
    /// The epochs whose boxes it wants.
    boxes: BTreeSet<OpId>,
    /// True if everything that we have is to be announced.
    all: bool,
    /// Set if a digest of our state is to be sent; true if it answers the peer's.
    state: Option<bool>,
    /// The slots whose values it may lack; no more than a group has.
    slots: BTreeSet<(Which, Slot)>,
    /// The repos of which we have more or less than was announced to the peer.
    repos: BTreeSet<PublicKey>,
}

/// The next attempt to ask the peer again for values that could not be stored.
#[derive(Debug, Default)]
struct Retry {
    waits: bool,
    pause: Duration,
}

impl Session {
    /// Requests a full comparison.
    pub(super) fn compare(&self) {
        lock(&self.told).asked.clear();
        let mut to_say = lock(&self.to_say);
        to_say.known = true;
        to_say.all = true;
        drop(to_say);
        self.wake.notify_one();
    }

    /// Requests a comparison of digests.
    pub(super) fn compare_state(&self) {
        match self.is_full() {
            true => lock(&self.to_say).state = Some(false),
            false => lock(&self.to_say).known = true,
        }
        self.wake.notify_one();
    }

    /// The key of the peer's device in the group.
    pub(super) fn device(&self) -> PublicKey {
        self.who.device
    }

    /// Returns the trust that the peer has now.
    pub(super) fn trust(&self) -> Trust {
        trust(&self.group, &self.who)
    }

    /// Returns true while the peer is a member.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Looks again who the peer is, after more is known of the members; returns true if it is a member now and was
    /// not, or the other way.
    pub(super) fn look_again(&self) -> bool {
        let is_full = self.trust() == Trust::Member;
        let was_full = self.full.swap(is_full, Ordering::SeqCst);
        if is_full && !was_full {
            self.compare();
        }
        self.wake.notify_one();
        is_full != was_full
    }

    /// Ends the session.
    pub(super) fn end(&self) {
        self.over.notify_one();
    }

    /// Handles a slot that has another value here.
    pub(super) fn slot_changed(&self, which: Which, slot: Slot, ours: Option<Version>, push: bool) {
        let differs = {
            let mut peer = lock(&self.peer);
            peer.compare(which, slot, ours);
            peer.differ.contains(&(which, slot))
        };
        if push && differs {
            lock(&self.to_say).slots.insert((which, slot));
            self.wake.notify_one();
        }
    }

    /// Sets the versions of all our values.
    pub(super) fn versions_are(&self, ours: &Versions) {
        let mut peer = lock(&self.peer);
        peer.differ.retain(|(which, _)| ours.contains_key(which));
        for (which, slots) in ours {
            peer.compare_record(*which, slots);
        }
    }

    /// Notes that the peer has exactly our values, which are `ours`. Returns true if that is news.
    fn has_what_we_have(&self, ours: &Versions) -> bool {
        let mut peer = lock(&self.peer);
        let is_news = !peer.differ.is_empty();
        if is_news {
            peer.known.clone_from(ours);
            peer.differ.clear();
        }
        is_news
    }

    /// Sets the versions of a record's values.
    pub(super) fn record_is(&self, which: Which, ours: &BTreeMap<Slot, Version>) {
        lock(&self.peer).compare_record(which, ours);
    }

    /// Sends these values if the peer lacks them.
    pub(super) fn push(&self, slots: impl IntoIterator<Item = (Which, Slot)>) {
        lock(&self.to_say).slots.extend(slots);
        self.wake.notify_one();
    }

    /// Announces that more or less of these repos is here.
    pub(super) fn repos_changed(&self, repos: impl IntoIterator<Item = PublicKey>) {
        lock(&self.to_say).repos.extend(repos);
        self.wake.notify_one();
    }

    /// Returns true if the peer has announced everything that it has.
    pub(super) fn has_compared(&self) -> bool {
        self.compared.load(Ordering::SeqCst)
    }

    /// Returns the part of a repo's tree that the peer holds.
    pub(super) fn holds(&self, repo: PublicKey) -> Option<Holding> {
        lock(&self.peer).holds.get(&repo).copied()
    }

    /// Returns the peer's holdings, by repo.
    pub(super) fn holdings(&self) -> BTreeMap<PublicKey, Holding> {
        lock(&self.peer).holds.clone()
    }

    /// Returns the time at which the peer was last heard from, in milliseconds since 1970.
    pub(super) fn heard(&self) -> i64 {
        self.heard.load(Ordering::SeqCst)
    }

    /// Returns true if both sides have the same values.
    pub(super) fn is_level(&self, slots: Slots) -> bool {
        let peer = lock(&self.peer);
        let mut differ = peer.differ.iter();
        !differ.any(|(which, slot)| slots.contain(*which, *slot))
    }

    /// Returns true if the peer lacks this value, as far as is known: it has no value, an older one, or
    /// a different one with the same number.
    fn lacks(&self, record: Which, slot: Slot, version: Version) -> bool {
        let peer = lock(&self.peer);
        let theirs = peer.known.get(&record).and_then(|slots| slots.get(&slot));
        theirs.is_none_or(|theirs| theirs.seq <= version.seq && *theirs != version)
    }

    /// Notes that the peer has this value, or claims to. If it claims two values with one number, the
    /// latest claim counts: if that is the lesser one, the peer sends the greater one itself.
    fn note(&self, record: Which, slot: Slot, version: Version, ours: Option<Version>) {
        let mut peer = lock(&self.peer);
        let theirs = peer.known.entry(record).or_default().entry(slot);
        let theirs = theirs.or_insert(version);
        if theirs.seq <= version.seq {
            *theirs = version;
        }
        peer.compare(record, slot, ours);
    }
}

impl Session {
    /// Notes that a value of the peer is not taken.
    fn refuse(&self, record: Which, slot: Slot, version: Version, ours: Option<Version>) {
        lock(&self.peer).refused.insert((record, slot), version);
        self.note(record, slot, version, ours);
    }
}

/// The slots that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    /// Everything.
    All,
    /// The members' data, without their routes, which are announced again although nothing changed.
    Data,
}

impl Slots {
    fn contain(self, which: Which, slot: Slot) -> bool {
        self == Self::All || matches!(which, Which::Values(_)) || slot < FIRST_ROUTE
    }
}

/// Returns the trust that a peer has in a group by what it has proven.
fn trust(group: &Group, who: &Who) -> Trust {
    let state = group.state();
    if group.rights_of(who.device).covers(Rights::REPLICA) {
        return Trust::Member;
    }
    let now = group.inner().now();
    let is_invite = |key: &PublicKey| {
        let mut invites = state.invites.values();
        invites.any(|invite| invite.key == *key && invite.is_open(now))
    };
    let is_root = |key: &PublicKey| group.with_log(|log| log.root()) == Some(*key);
    // Whoever was removed may be invited again.
    if who.keys.iter().any(|key| is_invite(key) || is_root(key)) {
        Trust::Guest
    } else if state.gone.contains_key(&who.device) {
        Trust::Gone
    } else if who.has_epoch || group.standing() == Standing::Waiting {
        // While we wait, somebody leads us in; what it says is signed.
        Trust::Related
    } else {
        Trust::Stranger
    }
}
