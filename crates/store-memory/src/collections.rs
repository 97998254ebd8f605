//! Collections: a map of maps, and a broadcast channel of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use larder_store_api::{
    Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Edit, Entry, Error,
    Expect, Kind, Listing, Order, Result, Revision, Scan,
};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{MemoryStore, PAGE, closed, paged};

/// The number of changes that a watcher may fall behind before it must resync.
const WATCH_CAPACITY: usize = 1024;

pub(super) struct Collections {
    maps: BTreeMap<CollectionId, BTreeMap<Bytes, Kept>>,
    last: Revision,
    changes: broadcast::Sender<Change>,
}

#[derive(Clone)]
struct Kept {
    value: Bytes,
    revision: Revision,
}

impl Default for Collections {
    fn default() -> Self {
        Self {
            maps: BTreeMap::new(),
            last: Revision(0),
            changes: broadcast::Sender::new(WATCH_CAPACITY),
        }
    }
}

impl Collections {
    fn kept(&self, collection: &CollectionId, key: &[u8]) -> Option<&Kept> {
        self.maps.get(collection)?.get(key)
    }

    /// Copies the content, without the watchers.
    pub(super) fn copy(&self) -> Self {
        Self {
            maps: self.maps.clone(),
            last: self.last,
            changes: broadcast::Sender::new(WATCH_CAPACITY),
        }
    }

    fn holds(&self, expect: &Expect) -> bool {
        match expect {
            Expect::Absent { collection, key } => self.kept(collection, key).is_none(),
            Expect::At {
                collection,
                key,
                revision,
            } => self
                .kept(collection, key)
                .is_some_and(|kept| kept.revision == *revision),
        }
    }

    pub(super) fn apply(&mut self, edits: Vec<Edit>) -> Revision {
        let revision = Revision(self.last.0 + 1);
        self.last = revision;
        let watched = self.changes.receiver_count() > 0;
        let mut changed: BTreeMap<CollectionId, BTreeSet<Bytes>> = BTreeMap::new();
        for edit in edits {
            let (collection, key, value) = match edit {
                Edit::Put {
                    collection,
                    key,
                    value,
                } => (collection, key, Some(value)),
                Edit::Delete { collection, key } => (collection, key, None),
            };
            let key = Bytes::copy_from_slice(&key);
            if watched {
                let keys = changed.entry(collection.clone()).or_default();
                keys.insert(key.clone());
            }
            match value {
                Some(value) => {
                    let value = Bytes::copy_from_slice(&value);
                    let map = self.maps.entry(collection).or_default();
                    map.insert(key, Kept { value, revision });
                }
                None => self.remove(&collection, &key),
            }
        }
        for (collection, keys) in changed {
            let change = Change::Keys {
                collection,
                keys: keys.into_iter().collect(),
                revision,
            };
            // This fails only if the last watcher has just been dropped.
            self.changes.send(change).ok();
        }
        revision
    }

    fn remove(&mut self, collection: &CollectionId, key: &[u8]) {
        if let Some(map) = self.maps.get_mut(collection) {
            map.remove(key);
            if map.is_empty() {
                self.maps.remove(collection);
            }
        }
    }

    /// Returns at most one page of the entries that `scan` asks for.
    fn page(&self, scan: &Scan) -> Vec<Entry> {
        let (start, end) = &scan.keys;
        let keys = (start.as_ref().map(|k| &**k), end.as_ref().map(|k| &**k));
        let Some(map) = self.maps.get(&scan.collection) else {
            return Vec::new();
        };
        if is_empty(&keys) {
            return Vec::new();
        }
        let entries = map.range::<[u8], _>(keys).map(|(key, kept)| Entry {
            key: key.clone(),
            value: kept.value.clone(),
            revision: kept.revision,
        });
        match scan.order {
            Order::Ascending => entries.take(PAGE).collect(),
            Order::Descending => entries.rev().take(PAGE).collect(),
        }
    }
}

// The synchronous form of the trait's method; stores built on this one call it under locks.
impl MemoryStore {
    /// Commits synchronously, as [`CollectionStore::commit`] does.
    pub fn commit_now(&self, batch: Batch) -> Result<Revision> {
        const OPERATION: &str = "collection.commit";
        self.0.collections.write(OPERATION, |collections| {
            self.0.facts.collections.check(&batch)?;
            let broken = |expect: &&Expect| !collections.holds(expect);
            match batch.expect.iter().find(broken) {
                Some(expect) => Err(conflict(expect, OPERATION)),
                None => Ok(collections.apply(batch.edits)),
            }
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CollectionStore for MemoryStore {
    fn name(&self) -> &str {
        "memory"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.0.facts.collections
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        self.0.collections.read("collection.get", |collections| {
            let kept = collections.kept(&collection, &key);
            Ok(kept.map(|kept| Entry {
                key: key.clone(),
                value: kept.value.clone(),
                revision: kept.revision,
            }))
        })
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let store = self.clone();
        paged(scan, move |mut scan| {
            let page = store
                .0
                .collections
                .read("collection.scan", |collections| Ok(collections.page(&scan)))?;
            let next = match page.last() {
                Some(last) if page.len() == PAGE => {
                    let beyond = Bound::Excluded(last.key.clone());
                    match scan.order {
                        Order::Ascending => scan.keys.0 = beyond,
                        Order::Descending => scan.keys.1 = beyond,
                    }
                    Some(scan)
                }
                _ => None,
            };
            Ok((page, next))
        })
    }

    fn collections(&self) -> Listing<CollectionId> {
        let store = self.clone();
        paged(Bound::Unbounded, move |start| {
            store.0.collections.read("collection.list", |collections| {
                let names = collections.maps.range((start, Bound::Unbounded));
                let page: Vec<_> = names.map(|(name, _)| name.clone()).take(PAGE).collect();
                let next = match page.last() {
                    Some(last) if page.len() == PAGE => Some(Bound::Excluded(last.clone())),
                    _ => None,
                };
                Ok((page, next))
            })
        })
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.commit_now(batch)
    }

    fn watch(&self) -> Option<Listing<Change>> {
        const OPERATION: &str = "collection.watch";
        let changes = self
            .0
            .collections
            .read(OPERATION, |collections| Ok(collections.changes.subscribe()));
        let listing = stream::try_unfold(changes, |changes| async move {
            let mut changes = changes?;
            let change = match changes.recv().await {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => Change::Resync,
                Err(RecvError::Closed) => return Err(closed(OPERATION)),
            };
            Ok(Some((change, Ok(changes))))
        });
        Some(Box::pin(listing))
    }

    async fn sync(&self) -> Result<()> {
        self.0.collections.read("collection.sync", |_| Ok(()))
    }
}

/// Returns true if no key can lie within these bounds; [`BTreeMap::range`] panics on some of them.
fn is_empty(keys: &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match *keys {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

fn conflict(broken: &Expect, operation: &'static str) -> Error {
    let (Expect::Absent { collection, key }
    | Expect::At {
        collection, key, ..
    }) = broken;
    Error::new(
        Kind::Conflict,
        operation,
        "the entry changed; read it again",
    )
    .with("collection", collection)
    .with("key", key.escape_ascii())
}
