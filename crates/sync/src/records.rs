//! What the records of a group and of a repo have in their slots.
//!
//! ```text
//! group's record   owner: the group's key, 1024 slots
//!   0              name: version u8 = 1 | text                                     read key
//!   1..            a member's repo: version u8 = 1 | public key [32]               locate key
//!   960..          a value of the app's: version u8 = 1 | value                    read key
//! repo's record    owner: the repo's key, 64 slots
//!   0              profile: JSON {"name": text}                                    read key
//!   1              root: version u8 = 1 | hash [32] | level u8 | files u64 | bytes u64
//!                  | time i64 | earlier u8 | for each: hash [32], level u8, time i64
//!                                                                                  locate key
//!   2..            a route: version u8 = 1 | expires i64 | address                 locate key
//! ```
//!
//! Each value is sealed for its slot ([`value`](crate::seal::value)), under the key named. Times
//! are milliseconds since 1970.

mod app;

use std::{cmp::Reverse, collections::HashSet};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use store_api::{Error, Kind, PublicKey, RecordDescriptor, RecordId, Result, Slot};
use store_engine::{Hash, record_id};

use crate::{
    codec::Fields,
    keys::{LocateKey, ReadKey},
    seal::value::{open_value, seal_value},
    tree::{MAX_LEVEL, Root},
};

#[cfg(fuzzing)]
pub(crate) use self::app::decode_app_value;
pub use self::app::{APP_SLOTS, FIRST_APP, MAX_APP_VALUE_LEN, open_app_value, seal_app_value};

/// The version of every layout here.
pub const VERSION: u8 = 1;

/// How many slots a group's record has.
pub const GROUP_SLOTS: u16 = 1024;

/// How many slots a repo's record has.
pub const REPO_SLOTS: u16 = 64;

/// The slot of a group's name.
pub const GROUP_NAME: Slot = 0;

/// The first slot of a member's repo; they go to the first slot of the app's, [`FIRST_APP`].
pub const FIRST_MEMBER: Slot = 1;

/// The slot of a repo's profile.
pub const REPO_PROFILE: Slot = 0;

/// The slot of a repo's root.
pub const REPO_ROOT: Slot = 1;

/// The first slot of a repo's route; they go to the last slot of the repo's record.
pub const FIRST_ROUTE: Slot = 2;

/// The longest name of a group or of a member, in bytes.
pub const MAX_LABEL_LEN: usize = 1024;

/// The longest address of a route, in bytes.
pub const MAX_ADDRESS_LEN: usize = 1024;

/// The most earlier roots that a repo tells.
pub const MAX_EARLIER: usize = 64;

const NAME: &str = "sync.group.name";
const MEMBER: &str = "sync.group.member";
const PROFILE: &str = "sync.repo.profile";
const ROOT: &str = "sync.repo.root";
const ROUTE: &str = "sync.repo.route";

/// The descriptor of the record of the group with this key.
pub fn group_record(group: PublicKey) -> RecordDescriptor {
    descriptor(group, GROUP_SLOTS)
}

/// The descriptor of the record of the repo with this key.
pub fn repo_record(repo: PublicKey) -> RecordDescriptor {
    descriptor(repo, REPO_SLOTS)
}

/// The name of the group with this key: its record's id.
pub fn group_id(group: PublicKey) -> RecordId {
    id(&group_record(group))
}

/// The name of the repo with this key: its record's id.
pub fn repo_id(repo: PublicKey) -> RecordId {
    id(&repo_record(repo))
}

fn descriptor(owner: PublicKey, owner_slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner,
        owner_slots,
        members: Vec::new(),
    }
}

fn id(descriptor: &RecordDescriptor) -> RecordId {
    record_id(descriptor)
        .expect("a record with one writer and 1 to 1024 slots is within all limits")
}

fn check_label(operation: &'static str, label: &str) -> Result<()> {
    if label.len() <= MAX_LABEL_LEN {
        return Ok(());
    }
    let message = format!("a name has at most {MAX_LABEL_LEN} bytes");
    Err(Error::new(Kind::TooLarge, operation, message).with("len", label.len()))
}

fn check_slot(operation: &'static str, slot: Slot, first: Slot, slots: u16) -> Result<()> {
    if (first..slots).contains(&slot) {
        return Ok(());
    }
    let message = "the record has something else in this slot";
    Err(Error::new(Kind::Invalid, operation, message).with("slot", slot))
}

/// Seals a group's name for its slot.
pub fn seal_group_name(key: &ReadKey, group: RecordId, name: &str) -> Result<Bytes> {
    check_label(NAME, name)?;
    let plain = [&[VERSION], name.as_bytes()].concat();
    seal_value(key, group, GROUP_NAME, &plain)
}

/// Opens a group's name.
pub fn open_group_name(key: &ReadKey, group: RecordId, sealed: &[u8]) -> Result<String> {
    let plain = open_value(key, group, GROUP_NAME, sealed)?;
    decode_name(&plain)
}

pub(crate) fn decode_name(plain: &[u8]) -> Result<String> {
    let name = text(NAME, Fields::versioned(NAME, VERSION, plain)?)?;
    check_label(NAME, &name)?;
    Ok(name)
}

fn text(operation: &'static str, rest: Fields<'_>) -> Result<String> {
    String::from_utf8(rest.rest().to_vec()).map_err(|error| {
        Error::new(Kind::Invalid, operation, "the value is no text").because(error)
    })
}

/// Seals the public key of a member's repo for a slot of the group's record.
pub fn seal_member(key: &LocateKey, group: RecordId, slot: Slot, repo: PublicKey) -> Result<Bytes> {
    check_slot(MEMBER, slot, FIRST_MEMBER, GROUP_SLOTS)?;
    let plain = [&[VERSION], &repo.0[..]].concat();
    seal_value(key, group, slot, &plain)
}

/// Opens the public key of a member's repo.
pub fn open_member(
    key: &LocateKey,
    group: RecordId,
    slot: Slot,
    sealed: &[u8],
) -> Result<PublicKey> {
    check_slot(MEMBER, slot, FIRST_MEMBER, GROUP_SLOTS)?;
    decode_member(&open_value(key, group, slot, sealed)?)
}

pub(crate) fn decode_member(plain: &[u8]) -> Result<PublicKey> {
    let mut fields = Fields::versioned(MEMBER, VERSION, plain)?;
    let repo = PublicKey(fields.take()?);
    fields.end()?;
    Ok(repo)
}

/// What a member tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What it is called. Later versions may tell more.
    pub name: String,
}

impl Profile {
    /// Seals it for its slot.
    pub fn seal(&self, key: &ReadKey, repo: RecordId) -> Result<Bytes> {
        check_label(PROFILE, &self.name)?;
        let plain = serde_json::to_vec(self).map_err(|error| {
            Error::new(Kind::Internal, PROFILE, "it cannot be written").because(error)
        })?;
        seal_value(key, repo, REPO_PROFILE, &plain)
    }

    /// Opens one.
    pub fn open(key: &ReadKey, repo: RecordId, sealed: &[u8]) -> Result<Self> {
        Self::decode(&open_value(key, repo, REPO_PROFILE, sealed)?)
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self> {
        let profile: Self = serde_json::from_slice(plain).map_err(|error| {
            Error::new(Kind::Invalid, PROFILE, "the value is no profile").because(error)
        })?;
        check_label(PROFILE, &profile.name)?;
        Ok(profile)
    }
}

/// A root that a repo had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The sequence of its topmost page.
    pub hash: Hash,
    /// The level of that page.
    pub level: u8,
    /// When it became the root.
    pub time: i64,
}

/// What a repo points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRoot {
    /// The tree of its files.
    pub root: Root,
    /// When it became the root.
    pub time: i64,
    /// Roots before it, the latest first; at most [`MAX_EARLIER`].
    pub earlier: Vec<Earlier>,
}

impl RepoRoot {
    /// The next one: this one's root becomes the latest of the earlier ones, of which at most
    /// [`MAX_EARLIER`] are told. Those that were the root for long are told for longer, for that is
    /// what a device has that was away meanwhile.
    pub fn next(&self, root: Root, time: i64) -> Self {
        let last = Earlier {
            hash: self.root.hash,
            level: self.root.level,
            time: self.time,
        };
        let earlier = std::iter::once(last).chain(self.earlier.iter().copied());
        Self {
            root,
            time,
            earlier: thinned(earlier.collect()),
        }
    }

    /// What comes of two that went apart: both roots are among the earlier ones, so that whoever
    /// has one of them sees that this follows it. The same whichever is asked.
    pub fn merged(&self, other: &Self, root: Root, time: i64) -> Self {
        let (mut one, mut two) = (self.history(), other.history());
        let mut earlier = vec![one.remove(0), two.remove(0)];
        earlier.sort_by_key(newest_first);
        // What both have comes after what only one has, whatever the clocks said.
        let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
        let mut rest = Vec::new();
        while let Some(next) = match (one.peek(), two.peek()) {
            (Some(a), Some(b)) if newest_first(a) > newest_first(b) => two.next(),
            (Some(_), _) => one.next(),
            (None, _) => two.next(),
        } {
            rest.push(next);
        }
        let mut seen: HashSet<_> = earlier.iter().map(|root| root.hash).collect();
        rest.reverse();
        rest.retain(|root| seen.insert(root.hash));
        earlier.extend(rest.into_iter().rev());
        Self {
            root,
            time,
            earlier: thinned(earlier),
        }
    }

    /// Whether its root is that of `other`, or was made from it.
    pub fn follows(&self, other: &Self) -> bool {
        let mut history = self.history().into_iter();
        history.any(|root| root.hash == other.root.hash)
    }

    /// The roots that both had, those first that are the fewest steps back; the same whichever is
    /// asked, and whatever the clocks said.
    pub fn common(&self, other: &Self) -> Vec<Earlier> {
        let theirs = other.history();
        let mut found: Vec<(usize, Earlier)> = Vec::new();
        for (steps, root) in self.history().into_iter().enumerate() {
            let is_known = found.iter().any(|(_, found)| found.hash == root.hash);
            let there = theirs.iter().position(|theirs| theirs.hash == root.hash);
            if let Some(there) = there.filter(|_| !is_known) {
                found.push((steps + there, root));
            }
        }
        found.sort_by_key(|(steps, root)| (*steps, *root.hash.as_bytes()));
        found.into_iter().map(|(_, root)| root).collect()
    }

    /// Its root and the earlier ones.
    fn history(&self) -> Vec<Earlier> {
        let first = Earlier {
            hash: self.root.hash,
            level: self.root.level,
            time: self.time,
        };
        std::iter::once(first)
            .chain(self.earlier.iter().copied())
            .collect()
    }

    /// Seals it for its slot.
    pub fn seal(&self, key: &LocateKey, repo: RecordId) -> Result<Bytes> {
        seal_value(key, repo, REPO_ROOT, &self.encode()?)
    }

    /// Opens one.
    pub fn open(key: &LocateKey, repo: RecordId, sealed: &[u8]) -> Result<Self> {
        Self::decode(&open_value(key, repo, REPO_ROOT, sealed)?)
    }

    pub(crate) fn encode(&self) -> Result<Bytes> {
        self.check()?;
        let mut bytes = BytesMut::with_capacity(59 + 41 * self.earlier.len());
        bytes.put_u8(VERSION);
        bytes.put_slice(self.root.hash.as_bytes());
        bytes.put_u8(self.root.level);
        bytes.put_u64(self.root.files);
        bytes.put_u64(self.root.bytes);
        bytes.put_i64(self.time);
        bytes.put_u8(u8::try_from(self.earlier.len()).expect("checked: at most 64"));
        for earlier in &self.earlier {
            bytes.put_slice(earlier.hash.as_bytes());
            bytes.put_u8(earlier.level);
            bytes.put_i64(earlier.time);
        }
        Ok(bytes.freeze())
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(ROOT, VERSION, plain)?;
        let root = Root {
            hash: Hash::from(fields.take::<32>()?),
            level: fields.u8()?,
            files: fields.u64()?,
            bytes: fields.u64()?,
        };
        let time = fields.i64()?;
        let count = fields.u8()?;
        let mut earlier = Vec::with_capacity(usize::from(count).min(MAX_EARLIER));
        for _ in 0..count {
            earlier.push(Earlier {
                hash: Hash::from(fields.take::<32>()?),
                level: fields.u8()?,
                time: fields.i64()?,
            });
        }
        fields.end()?;
        let root = Self {
            root,
            time,
            earlier,
        };
        root.check()?;
        Ok(root)
    }

    fn check(&self) -> Result<()> {
        let wrong = |message| Err(Error::new(Kind::Invalid, ROOT, message));
        let (root, empty) = (&self.root, Root::EMPTY);
        if (root.is_empty() || root.hash == empty.hash) && *root != empty {
            return wrong("a tree without files has no other root than the empty one");
        }
        if self.earlier.len() > MAX_EARLIER {
            return wrong("there are too many earlier roots");
        }
        let mut levels = self.earlier.iter().map(|e| e.level);
        if root.level > MAX_LEVEL || levels.any(|level| level > MAX_LEVEL) {
            return wrong("a tree is not that deep");
        }
        Ok(())
    }
}

/// As many earlier roots as are told: the latest half, and of the others those that were the root for
/// the longest, the later ones where that is the same.
fn thinned(mut earlier: Vec<Earlier>) -> Vec<Earlier> {
    while earlier.len() > MAX_EARLIER {
        let lasted = |n: &usize| earlier[n - 1].time.saturating_sub(earlier[*n].time);
        let shortest = (MAX_EARLIER / 2..earlier.len()).rev().min_by_key(lasted);
        earlier.remove(shortest.expect("more than half are there"));
    }
    earlier
}

fn newest_first(root: &Earlier) -> (Reverse<i64>, [u8; 32]) {
    (Reverse(root.time), *root.hash.as_bytes())
}

/// Where a repo's device can be reached, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// An address, as a network understands it.
    pub address: String,
    /// Until when.
    pub expires: i64,
}

impl Route {
    /// Seals it for a slot of the repo's record.
    pub fn seal(&self, key: &LocateKey, repo: RecordId, slot: Slot) -> Result<Bytes> {
        check_slot(ROUTE, slot, FIRST_ROUTE, REPO_SLOTS)?;
        seal_value(key, repo, slot, &self.encode()?)
    }

    /// Opens one.
    pub fn open(key: &LocateKey, repo: RecordId, slot: Slot, sealed: &[u8]) -> Result<Self> {
        check_slot(ROUTE, slot, FIRST_ROUTE, REPO_SLOTS)?;
        Self::decode(&open_value(key, repo, slot, sealed)?)
    }

    pub(crate) fn encode(&self) -> Result<Bytes> {
        self.check()?;
        let mut bytes = BytesMut::with_capacity(9 + self.address.len());
        bytes.put_u8(VERSION);
        bytes.put_i64(self.expires);
        bytes.put_slice(self.address.as_bytes());
        Ok(bytes.freeze())
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(ROUTE, VERSION, plain)?;
        let expires = fields.i64()?;
        let address = text(ROUTE, fields)?;
        let route = Self { address, expires };
        route.check()?;
        Ok(route)
    }

    fn check(&self) -> Result<()> {
        if (1..=MAX_ADDRESS_LEN).contains(&self.address.len()) {
            return Ok(());
        }
        let message = format!("an address has 1 to {MAX_ADDRESS_LEN} bytes");
        Err(Error::new(Kind::Invalid, ROUTE, message).with("len", self.address.len()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::seal::value::seal_with;

    const REPO: RecordId = RecordId([3; 32]);

    fn locate() -> LocateKey {
        LocateKey::from_bytes([1; 32], 0)
    }

    fn read() -> ReadKey {
        ReadKey::from_bytes([2; 32], 0)
    }

    fn root() -> RepoRoot {
        let tree = Root {
            hash: Hash::from([7; 32]),
            level: 2,
            files: 1000,
            bytes: 1 << 40,
        };
        let first = RepoRoot {
            root: Root::EMPTY,
            time: 1,
            earlier: vec![],
        };
        first.next(tree, 1_700_000_000_000)
    }

    #[test]
    fn the_layouts_are_pinned() {
        let route = Route {
            address: "mem://a".to_owned(),
            expires: 5,
        };
        let lines = [root().encode().unwrap(), route.encode().unwrap()];
        crate::golden::check_hex("records.hex", &lines.each_ref().map(|line| &line[..]));
        let profile = Profile { name: "Ada".into() };
        assert_eq!(
            serde_json::to_string(&profile).unwrap(),
            r#"{"name":"Ada"}"#
        );
    }

    #[test]
    fn what_is_in_the_slots_is_pinned() {
        let (key, profile) = (PublicKey([9; 32]), Profile { name: "Ada".into() });
        let route = Route {
            address: "mem://a".to_owned(),
            expires: 5,
        };
        let seal = |key: &dyn Fn(Slot, &[u8]) -> Result<Bytes>, slot, plain: &[u8]| {
            key(slot, plain).unwrap()
        };
        let nonce = [4; crate::seal::value::NONCE_LEN];
        let by_read = |slot, plain: &[u8]| seal_with(&read(), REPO, slot, plain, nonce);
        let by_locate = |slot, plain: &[u8]| seal_with(&locate(), REPO, slot, plain, nonce);
        let lines = [
            seal(&by_read, GROUP_NAME, b"\x01Family"),
            seal(&by_locate, 7, &[&[VERSION], &key.0[..]].concat()),
            seal(&by_read, REPO_PROFILE, br#"{"name":"Ada"}"#),
            seal(&by_locate, REPO_ROOT, &root().encode().unwrap()),
            seal(&by_locate, FIRST_ROUTE, &route.encode().unwrap()),
        ];
        crate::golden::check_hex("slots.hex", &lines.each_ref().map(|line| &line[..]));
        let [name, member, sealed_profile, sealed_root, sealed_route] = &lines;
        assert_eq!(open_group_name(&read(), REPO, name).unwrap(), "Family");
        assert_eq!(open_member(&locate(), REPO, 7, member).unwrap(), key);
        let opened = Profile::open(&read(), REPO, sealed_profile).unwrap();
        assert_eq!(opened, profile);
        let opened = RepoRoot::open(&locate(), REPO, sealed_root).unwrap();
        assert_eq!(opened, root());
        let opened = Route::open(&locate(), REPO, FIRST_ROUTE, sealed_route).unwrap();
        assert_eq!(opened, route);
    }

    #[test]
    fn what_is_sealed_opens_in_its_slot() {
        let sealed = seal_group_name(&read(), REPO, "Family").unwrap();
        assert_eq!(open_group_name(&read(), REPO, &sealed).unwrap(), "Family");
        let key = PublicKey([9; 32]);
        let sealed = seal_member(&locate(), REPO, 1023, key).unwrap();
        assert_eq!(open_member(&locate(), REPO, 1023, &sealed).unwrap(), key);
        assert!(open_member(&locate(), REPO, 1022, &sealed).is_err());
        let profile = Profile { name: "Ada".into() };
        let sealed = profile.seal(&read(), REPO).unwrap();
        assert_eq!(Profile::open(&read(), REPO, &sealed).unwrap(), profile);
        let sealed = root().seal(&locate(), REPO).unwrap();
        assert_eq!(RepoRoot::open(&locate(), REPO, &sealed).unwrap(), root());
        let route = Route {
            address: "a".repeat(MAX_ADDRESS_LEN),
            expires: -1,
        };
        let sealed = route.seal(&locate(), REPO, 63).unwrap();
        assert_eq!(Route::open(&locate(), REPO, 63, &sealed).unwrap(), route);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let kind = |result: Result<Bytes>| result.unwrap_err().kind();
        let key = PublicKey([9; 32]);
        assert_eq!(kind(seal_member(&locate(), REPO, 0, key)), Kind::Invalid);
        assert_eq!(kind(seal_member(&locate(), REPO, 1024, key)), Kind::Invalid);
        let long = "x".repeat(MAX_LABEL_LEN + 1);
        assert_eq!(kind(seal_group_name(&read(), REPO, &long)), Kind::TooLarge);
        let route = |address: &str| Route {
            address: address.to_owned(),
            expires: 0,
        };
        assert_eq!(kind(route("a").seal(&locate(), REPO, 1)), Kind::Invalid);
        assert_eq!(kind(route("").seal(&locate(), REPO, 2)), Kind::Invalid);
        assert_eq!(kind(route(&long).seal(&locate(), REPO, 2)), Kind::Invalid);
        let mut deep = root();
        deep.root.level = MAX_LEVEL + 1;
        assert_eq!(kind(deep.seal(&locate(), REPO)), Kind::Invalid);
        let mut empty = root();
        empty.root.files = 0;
        assert_eq!(kind(empty.seal(&locate(), REPO)), Kind::Invalid);
    }

    #[test]
    fn what_is_merged_follows_both() {
        let tree = |n: u8| Root {
            hash: Hash::from([n; 32]),
            ..root().root
        };
        let base = root();
        let one = base.next(tree(1), 20).next(tree(2), 40);
        let mut other = base.next(tree(3), 30);
        assert!(one.follows(&base) && one.follows(&one) && !base.follows(&one));
        assert!(!one.follows(&other) && !other.follows(&one));
        let hashes = |roots: &[Earlier]| roots.iter().map(|root| root.hash).collect::<Vec<_>>();
        let common = [base.root.hash, Hash::EMPTY];
        assert_eq!(hashes(&one.common(&other)), common);
        assert_eq!(one.common(&other), other.common(&one));
        let late = base.next(tree(5), 7).next(tree(6), 7).next(tree(17), -3);
        let (left, right) = (late.next(tree(8), 0), late.next(tree(9), 9));
        let merged = left.merged(&right, tree(4), 50);
        assert_eq!(merged, right.merged(&left, tree(4), 50));
        for (one, other) in [(&left, &right), (&right, &left), (&merged, &late)] {
            let last = [tree(17), tree(6), tree(5), base.root, Root::EMPTY];
            assert_eq!(hashes(&one.common(other)), last.map(|root| root.hash));
        }
        let merged = one.merged(&other, tree(4), 50);
        assert_eq!(merged, other.merged(&one, tree(4), 50));
        assert!(merged.follows(&one) && merged.follows(&other) && merged.follows(&base));
        let expected = [tree(2), tree(3), tree(1), base.root, Root::EMPTY];
        assert_eq!(hashes(&merged.earlier), expected.map(|root| root.hash));
        // However long the histories, both roots stay.
        for time in 0..100 {
            other = other.next(tree(100 + time), 100 + i64::from(time));
        }
        let merged = one.merged(&other, tree(4), 300);
        assert!(merged.follows(&one) && merged.follows(&other));
        assert_eq!(merged.earlier.len(), MAX_EARLIER);
        merged.seal(&locate(), REPO).unwrap();
    }

    #[test]
    fn who_was_away_is_followed() {
        let tree = |n: u32| Root {
            hash: Hash::of(n.to_be_bytes()),
            ..root().root
        };
        let hour = 3_600_000;
        let mut now = root().next(tree(0), 0);
        let (away, mut time) = (now.clone(), hour);
        for n in 1..1000 {
            now = now.next(tree(n), time);
            time += 1000;
        }
        assert!(now.follows(&away));
        assert_eq!(now.earlier.len(), MAX_EARLIER);
        let latest = (1..=32).map(|back| tree(999 - back).hash);
        assert!(now.earlier.iter().map(|e| e.hash).take(32).eq(latest));
    }

    #[test]
    fn history_is_bounded() {
        let mut now = root();
        for time in 0..100 {
            now = now.next(now.root, time);
        }
        assert_eq!(now.earlier.len(), MAX_EARLIER);
        assert_eq!(now.earlier[0].time, 98);
        now.seal(&locate(), REPO).unwrap();
    }

    proptest! {
        #[test]
        fn decoding_anything_is_safe(bytes: Vec<u8>) {
            let versioned = [&[VERSION], &bytes[..]].concat();
            for bytes in [&bytes, &versioned] {
                if let Ok(root) = RepoRoot::decode(bytes) {
                    prop_assert_eq!(&root.encode().unwrap(), bytes);
                }
                if let Ok(route) = Route::decode(bytes) {
                    prop_assert_eq!(&route.encode().unwrap(), bytes);
                }
                decode_name(bytes).ok();
                decode_member(bytes).ok();
                Profile::decode(bytes).ok();
            }
        }

        #[test]
        fn what_is_encoded_decodes(
            hash in any::<[u8; 32]>(), level in 0..=MAX_LEVEL, files in 1..=u64::MAX, bytes: u64,
            time: i64, earlier in vec((any::<[u8; 32]>(), 0..=MAX_LEVEL, any::<i64>()), 0..=64),
            address in ".{1,200}",
        ) {
            let earlier = earlier.into_iter().map(|(hash, level, time)| Earlier {
                hash: hash.into(),
                level,
                time,
            });
            let root = RepoRoot {
                root: Root { hash: hash.into(), level, files, bytes },
                time,
                earlier: earlier.collect(),
            };
            prop_assert_eq!(&RepoRoot::decode(&root.encode().unwrap()).unwrap(), &root);
            let route = Route { address, expires: time };
            prop_assert_eq!(&Route::decode(&route.encode().unwrap()).unwrap(), &route);
        }
    }
}
