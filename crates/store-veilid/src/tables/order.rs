//! The keys of all entries in order, in memory: a table can look up keys, but has no order of its own.
//!
//! Uses about a hundred bytes per entry. It is read from the table when the store is opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use larder_store_api::{Bytes, Order as Direction};

use super::row::{self, Head};

/// The number of keys that are copied out at once for a scan.
const CHUNK: usize = 256;

type Keys = BTreeSet<Box<[u8]>>;

/// The keys of the entries. The collection without a name belongs to the store itself.
#[derive(Debug, Default)]
pub(crate) struct Order(RwLock<BTreeMap<Box<[u8]>, Keys>>);

/// Tells whether a change adds or removes an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    Gone,
}

impl Order {
    /// Makes the order from the keys of the rows, and returns the head that would match them. A foreign
    /// key counts too, so that the head then differs.
    pub(crate) fn read(rows: Vec<Bytes>) -> (Self, Head) {
        let mut head = Head::default();
        let mut collections = BTreeMap::<Box<[u8]>, Keys>::new();
        for row in rows {
            head.add(&row);
            if let Some((name, key)) = row::split_key(&row) {
                insert(&mut collections, name, key);
            }
        }
        (Self(RwLock::new(collections)), head)
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, BTreeMap<Box<[u8]>, Keys>> {
        self.0.read().expect("nothing panics while it is locked")
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, BTreeMap<Box<[u8]>, Keys>> {
        self.0.write().expect("nothing panics while it is locked")
    }

    pub(crate) fn contains(&self, name: &[u8], key: &[u8]) -> bool {
        self.read_lock()
            .get(name)
            .is_some_and(|keys| keys.contains(key))
    }

    /// Applies changes atomically for readers.
    pub(crate) fn change<'a>(&self, rows: impl Iterator<Item = (&'a Bytes, Presence)>) {
        let mut collections = self.write_lock();
        for (row, presence) in rows {
            let Some((name, key)) = row::split_key(row) else {
                continue;
            };
            match presence {
                Presence::Here => insert(&mut collections, name, key),
                Presence::Gone => {
                    if let Some(keys) = collections.get_mut(name) {
                        keys.remove(key);
                        if keys.is_empty() {
                            collections.remove(name);
                        }
                    }
                }
            }
        }
    }

    /// Returns the first keys within the bounds; fewer than [`CHUNK`] only if there are no more.
    pub(crate) fn chunk(
        &self,
        name: &[u8],
        bounds: &(Bound<Bytes>, Bound<Bytes>),
        direction: Direction,
    ) -> Vec<Bytes> {
        if is_empty(bounds) {
            return Vec::new();
        }
        let collections = self.read_lock();
        let Some(keys) = collections.get(name) else {
            return Vec::new();
        };
        let within = keys.range::<[u8], _>((borrowed(&bounds.0), borrowed(&bounds.1)));
        let within = within.map(|key| Bytes::copy_from_slice(key));
        match direction {
            Direction::Ascending => within.take(CHUNK).collect(),
            Direction::Descending => within.rev().take(CHUNK).collect(),
        }
    }

    /// Returns true if a chunk with this many keys was the last.
    pub(crate) fn is_last(len: usize) -> bool {
        len < CHUNK
    }

    /// Returns the name of the next collection after `after`.
    pub(crate) fn next_collection(&self, after: &[u8]) -> Option<Bytes> {
        let collections = self.read_lock();
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let mut names = collections.range::<[u8], _>(range);
        names.next().map(|(name, _)| Bytes::copy_from_slice(name))
    }
}

fn insert(collections: &mut BTreeMap<Box<[u8]>, Keys>, name: &[u8], key: &[u8]) {
    match collections.get_mut(name) {
        Some(keys) => {
            keys.insert(key.into());
        }
        None => {
            collections.insert(name.into(), Keys::from([key.into()]));
        }
    }
}

fn borrowed(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|bytes| &bytes[..])
}

/// Returns true if nothing can be within the bounds; the range function of a map panics for some of
/// those.
fn is_empty((start, end): &(Bound<Bytes>, Bound<Bytes>)) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_one_another_in_both_directions() {
        let rows: Vec<_> = (0..600_u16)
            .map(|n| row::entry_key(b"c", &n.to_be_bytes()))
            .collect();
        let (order, head) = Order::read(rows);
        assert_eq!(head.entries, 600);
        let first = order.chunk(
            b"c",
            &(Bound::Unbounded, Bound::Unbounded),
            Direction::Ascending,
        );
        assert_eq!(first.len(), CHUNK);
        let rest = (Bound::Excluded(first[CHUNK - 1].clone()), Bound::Unbounded);
        let second = order.chunk(b"c", &rest, Direction::Ascending);
        assert_eq!(second[0], 256_u16.to_be_bytes().to_vec());
        let last = order.chunk(b"c", &rest, Direction::Descending);
        assert_eq!(last[0], 599_u16.to_be_bytes().to_vec());
        assert!(
            order
                .chunk(b"other", &rest, Direction::Ascending)
                .is_empty()
        );
    }

    #[test]
    fn what_is_gone_leaves_no_collection() {
        let row = row::entry_key(b"c", b"k");
        let (order, _) = Order::read(vec![row.clone()]);
        assert_eq!(order.next_collection(b""), Some("c".into()));
        order.change([(&row, Presence::Gone)].into_iter());
        assert!(!order.contains(b"c", b"k"));
        assert_eq!(order.next_collection(b""), None);
    }
}
