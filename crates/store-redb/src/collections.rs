//! The store as a [`CollectionStore`].

use std::{collections::VecDeque, ops::Bound};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use larder_store_api::{
    Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Durability, Entry,
    Listing, Order, Result, Revision, Scan, Sharing,
};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    cache::Cached,
    error::closed,
    key::{self, KeyRange},
    read::{Job, ScanPage},
    request::Request,
    store::RedbStore,
};

/// The longest key.
const MAX_KEY_LEN: u32 = 1024;
/// The longest value.
const MAX_VALUE_LEN: u32 = 256 << 10;
/// The most expectations and edits in a batch.
const MAX_BATCH_LEN: u32 = 1024;

#[async_trait]
impl CollectionStore for RedbStore {
    fn name(&self) -> &str {
        "redb"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut facts = CollectionCapabilities::least();
        facts.max_key_len = MAX_KEY_LEN;
        facts.max_value_len = MAX_VALUE_LEN;
        facts.max_batch_len = MAX_BATCH_LEN;
        facts.durability = Durability::OnWrite;
        // The folder is locked.
        facts.sharing = Sharing::Exclusive;
        facts
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        const OPERATION: &str = "collection.get";
        self.check_open(OPERATION)?;
        let composite = key::encode(&collection, &key);
        let found = match self.inner.core.cache.get(&composite) {
            Cached::Value(value, revision) => Some((value, revision)),
            Cached::Absent => None,
            // No entry has such a key.
            Cached::Unknown if key.len() > MAX_KEY_LEN as usize => None,
            Cached::Unknown => {
                let job = |reply| Job::Get {
                    key: composite,
                    reply,
                };
                self.ask_reader(OPERATION, job).await?
            }
        };
        Ok(found.map(|(value, revision)| Entry {
            key,
            value,
            revision: Revision(revision),
        }))
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let pages = Pages {
            store: self.clone(),
            range: Some(key::range(&scan.collection, &scan.keys)),
            order: scan.order,
            entries: VecDeque::new(),
        };
        Box::pin(stream::try_unfold(pages, |mut pages| async move {
            let next = pages.next().await?;
            Ok(next.map(|entry| (entry, pages)))
        }))
    }

    fn collections(&self) -> Listing<CollectionId> {
        let start = (self.clone(), Bound::Unbounded);
        Box::pin(stream::try_unfold(start, |(store, from)| async move {
            const OPERATION: &str = "collection.list";
            store.check_open(OPERATION)?;
            let range = (from, Bound::Unbounded);
            let job = |reply| Job::Collection { range, reply };
            let found: Option<CollectionId> = store.ask_reader(OPERATION, job).await?;
            Ok(found.map(|collection| {
                let next = Bound::Included(key::after(&collection));
                (collection, (store, next))
            }))
        }))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        const OPERATION: &str = "collection.commit";
        self.check_writable(OPERATION)?;
        CollectionStore::capabilities(self).check(&batch)?;
        self.ask(OPERATION, |reply| Request::Commit(batch, reply))
            .await
    }

    fn watch(&self) -> Option<Listing<Change>> {
        let changes = self
            .inner
            .core
            .changes
            .upgrade()
            .map(|changes| changes.subscribe());
        let Some(changes) = changes else {
            let error = closed("collection.watch");
            return Some(Box::pin(stream::once(async { Err(error) })));
        };
        Some(Box::pin(stream::unfold(
            Some(changes),
            |changes| async move {
                let mut changes = changes?;
                Some(match changes.recv().await {
                    Ok(change) => (Ok(change), Some(changes)),
                    Err(RecvError::Lagged(_)) => (Ok(Change::Resync), Some(changes)),
                    Err(RecvError::Closed) => (Err(closed("collection.watch")), None),
                })
            },
        )))
    }

    async fn sync(&self) -> Result<()> {
        const OPERATION: &str = "collection.sync";
        self.check_open(OPERATION)?;
        if self.is_read_only() {
            return Ok(());
        }
        self.ask(OPERATION, Request::Sync).await
    }
}

/// A scan under way: the range that is left, and the entries of the current page.
struct Pages {
    store: RedbStore,
    range: Option<KeyRange>,
    order: Order,
    entries: VecDeque<Entry>,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Entry>> {
        const OPERATION: &str = "collection.scan";
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Some(entry));
            }
            let Some(range) = self.range.clone() else {
                return Ok(None);
            };
            self.store.check_open(OPERATION)?;
            let order = self.order;
            let job = |reply| Job::Scan {
                range,
                order,
                reply,
            };
            let page: ScanPage = self.store.ask_reader(OPERATION, job).await?;
            self.entries = page.entries.into();
            self.range = match (self.range.take(), page.next) {
                (Some((low, high)), Some(next)) => Some(match order {
                    Order::Ascending => (Bound::Excluded(next), high),
                    Order::Descending => (low, Bound::Excluded(next)),
                }),
                _ => None,
            };
        }
    }
}
