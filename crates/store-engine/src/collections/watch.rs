//! Announces the engine's own commits, for stores that have no watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream;
use larder_store_api::{
    Batch, Change, CollectionId, CollectionStore, Edit, Listing, Result, Revision,
};
use tokio::sync::{
    Semaphore,
    broadcast::{self, error::RecvError},
};

use crate::to_end::ToEnd;

/// The number of changes that a watcher may lag behind before it misses some and is told to resync.
pub const WATCH_BACKLOG: usize = 256;

/// The most keys that one change lists; a commit of more is announced as a resync.
pub const MAX_ANNOUNCED_KEYS: usize = 1024;

/// The most commits that run at once to be announced; further ones wait.
pub const MAX_ANNOUNCED_COMMITS: usize = 256;

#[derive(Debug)]
pub(super) struct Announcer {
    changes: broadcast::Sender<Change>,
    running: Arc<Semaphore>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            changes: broadcast::Sender::new(WATCH_BACKLOG),
            running: Arc::new(Semaphore::new(MAX_ANNOUNCED_COMMITS)),
        }
    }

    /// Commits and announces, even if the caller goes away between the two: watchers would otherwise
    /// never hear of what is stored.
    pub(super) async fn commit(
        &self,
        store: &Arc<dyn CollectionStore>,
        batch: Batch,
    ) -> Result<Revision> {
        let permit = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .expect("nobody closes the semaphore");
        let (store, changes) = (Arc::clone(store), self.changes.clone());
        let commit = ToEnd::new(async move {
            let keys = changed(&batch);
            let revision = store.commit(batch).await?;
            for change in announcement(keys, revision) {
                // An error means that nobody watches.
                drop(changes.send(change));
            }
            drop(permit);
            Ok(revision)
        });
        commit.await
    }

    pub(super) fn watch(&self) -> Listing<Change> {
        let changes = self.changes.subscribe();
        Box::pin(stream::unfold(changes, |mut changes| async move {
            match changes.recv().await {
                Ok(change) => Some((Ok(change), changes)),
                Err(RecvError::Lagged(_)) => Some((Ok(Change::Resync), changes)),
                Err(RecvError::Closed) => None,
            }
        }))
    }
}

type Keys = BTreeMap<CollectionId, BTreeSet<Bytes>>;

fn changed(batch: &Batch) -> Keys {
    let mut keys = Keys::new();
    for edit in &batch.edits {
        let (Edit::Put {
            collection, key, ..
        }
        | Edit::Delete { collection, key }) = edit;
        keys.entry(collection.clone())
            .or_default()
            .insert(key.clone());
    }
    keys
}

fn announcement(keys: Keys, revision: Revision) -> Vec<Change> {
    if keys.values().map(BTreeSet::len).sum::<usize>() > MAX_ANNOUNCED_KEYS {
        return vec![Change::Resync];
    }
    keys.into_iter()
        .map(|(collection, keys)| Change::Keys {
            collection,
            keys: keys.into_iter().collect(),
            revision,
        })
        .collect()
}
