//! The root of a repo: its current tree, and the earlier ones.

use std::{cmp::Reverse, collections::HashSet};

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, RecordId, Result};
use larder_store_engine::Hash;

use super::{MAX_EARLIER, REPO_ROOT, VERSION};
use crate::{
    codec::Fields,
    keys::LocateKey,
    root::{MAX_LEVEL, Root},
    seal::value::{open_value, seal_value},
};

const ROOT: &str = "sync.repo.root";

/// A root that a repo had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The sequence of its topmost page.
    pub hash: Hash,
    /// The level of that page.
    pub level: u8,
    /// The time at which it became the root.
    pub time: i64,
}

/// The root of a repo, with its recent history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRoot {
    /// The tree of its files.
    pub root: Root,
    /// The time at which it became the root.
    pub time: i64,
    /// Roots before it, the latest first; at most [`MAX_EARLIER`].
    pub earlier: Vec<Earlier>,
}

impl RepoRoot {
    /// Returns the next root: this one's root becomes the latest of the earlier ones, of which at most
    /// [`MAX_EARLIER`] are listed. Roots that were current for a long time are kept longer, because a
    /// device that was away is likely to have one of those.
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

    /// Returns the result of merging two diverged roots: both are among the earlier ones, so that a
    /// device that has one of them sees that this follows it. Both orders of arguments give the same
    /// result.
    pub fn merged(&self, other: &Self, root: Root, time: i64) -> Self {
        let (mut one, mut two) = (self.history(), other.history());
        let mut earlier = vec![one.remove(0), two.remove(0)];
        earlier.sort_by_key(newest_first);
        // Common roots come after roots of one side only, whatever the clocks said.
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

    /// Returns true if its root is that of `other`, or a successor of it.
    pub fn follows(&self, other: &Self) -> bool {
        let mut history = self.history().into_iter();
        history.any(|root| root.hash == other.root.hash)
    }

    /// Returns the roots that both had, those with the fewest steps back first. The result does not
    /// depend on the order of the two, nor on any clock.
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

    /// Returns its root and the earlier ones.
    pub fn history(&self) -> Vec<Earlier> {
        let first = Earlier {
            hash: self.root.hash,
            level: self.root.level,
            time: self.time,
        };
        std::iter::once(first)
            .chain(self.earlier.iter().copied())
            .collect()
    }

    /// Seals the root for its slot.
    pub fn seal(&self, key: &LocateKey, repo: RecordId) -> Result<Bytes> {
        seal_value(key, repo, REPO_ROOT, &self.encode()?)
    }

    /// Opens a root.
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

/// Returns as many earlier roots as are listed: the latest half, and of the others those that were
/// current for the longest; of equals the later ones.
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

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{locate, root},
        *,
    };

    const REPO: RecordId = RecordId([3; 32]);

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
        // Both roots stay, however long the histories are.
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
}
