//! A store that is as strict as the contracts allow, and reports wrong use.

use std::{
    collections::BTreeSet,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Durability, Entry, Error, Kind, Listing, Part, PayloadId, Result, Revision,
    Scan,
};
use tokio::task::yield_now;

use larder_store_memory::{Facts, MemoryStore};

/// Larger than most callers assume.
const BLOCK_LEN: u32 = 64 * 1024;
/// Short enough to be reached in a test.
const MAX_PART_LEN: u64 = 1 << 30;
/// The smallest limits that a store may have.
const MAX_KEY_LEN: u32 = 256;
const MAX_VALUE_LEN: u32 = 64 * 1024;
const MAX_BATCH_LEN: u32 = 128;
/// The most violations that are remembered.
const MAX_VIOLATIONS: usize = 100;

/// A store that detects wrong assumptions of its callers.
///
/// It has the smallest limits that are allowed and blocks of 64 KiB, and yields to other tasks in the
/// middle of every call and between any two items of a listing. It refuses the following with
/// [`Kind::Internal`], and remembers it in [`violations`](Self::violations):
///
/// * writing a block that another call is writing, because its content would be undefined;
/// * deleting a payload that is being written, and writing one that is being deleted;
/// * writing a payload that was deleted, whose old blocks might come back after a crash.
///
/// Missing bytes are never read as zeros. A test ends by asserting that there were no violations.
#[derive(Clone)]
pub struct StrictStore {
    inner: MemoryStore,
    rules: Rules,
    uses: Arc<Mutex<Uses>>,
}

#[derive(Clone, Copy)]
struct Rules {
    reuse: Reuse,
    watch: Watch,
}

/// Tells whether the id of a deleted payload may be used again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Refused,
    Allowed,
}

/// Tells whether the store announces changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Told,
    Untold,
}

#[derive(Default)]
struct Uses {
    writing: BTreeSet<(PayloadId, Part, u64)>,
    deleting: BTreeSet<PayloadId>,
    deleted: BTreeSet<PayloadId>,
    violations: Vec<String>,
}

impl StrictStore {
    /// Creates an empty store that scans in order and has a watch.
    pub fn new() -> Self {
        let mut collections = CollectionCapabilities::least();
        collections.max_key_len = MAX_KEY_LEN;
        collections.max_value_len = MAX_VALUE_LEN;
        collections.max_batch_len = MAX_BATCH_LEN;
        let facts = Facts {
            blobs: {
                let mut facts = BlobCapabilities::least();
                facts.block_len = BLOCK_LEN;
                facts.max_part_len = MAX_PART_LEN;
                facts.durability = Durability::Memory;
                facts.concurrency = 1;
                facts
            },
            collections,
        };
        Self {
            inner: MemoryStore::with_facts(facts),
            rules: Rules {
                reuse: Reuse::Refused,
                watch: Watch::Told,
            },
            uses: Arc::default(),
        }
    }

    /// Removes the watch from the store.
    #[must_use]
    pub fn without_watch(mut self) -> Self {
        self.rules.watch = Watch::Untold;
        self
    }

    /// Lets the id of a deleted payload be used again, as the contract allows.
    #[must_use]
    pub fn reusing_ids(mut self) -> Self {
        self.rules.reuse = Reuse::Allowed;
        self
    }

    /// Closes the store for all its clones, as [`MemoryStore::close`] does.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Returns the first violations so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.uses().violations.clone()
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the blocks of a write as in use until the guard is dropped.
    fn begin_write(&self, id: PayloadId, blocks: &[Block]) -> Result<Writing> {
        let touched: BTreeSet<_> = blocks
            .iter()
            .flat_map(|block| {
                let count = block.bytes.len().div_ceil(BLOCK_LEN as usize) as u64;
                let end = block.index.saturating_add(count);
                (block.index..end).map(|index| (id, block.part, index))
            })
            .collect();
        let mut uses = self.uses();
        let problem = if !touched.is_disjoint(&uses.writing) {
            Some("a block is written by two calls at once")
        } else if uses.deleting.contains(&id) {
            Some("a payload is written while it is deleted")
        } else if self.rules.reuse == Reuse::Refused && uses.deleted.contains(&id) {
            Some("a payload is written after it was deleted")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(uses.violated("blobs.write", problem, id));
        }
        uses.writing.extend(&touched);
        Ok(Writing {
            uses: self.uses.clone(),
            touched,
        })
    }

    fn begin_delete(&self, ids: &[PayloadId]) -> Result<Deleting> {
        let mut uses = self.uses();
        let written = |id: &&PayloadId| uses.writing.iter().any(|(writing, ..)| writing == *id);
        if let Some(id) = ids.iter().find(written) {
            let problem = "a payload is deleted while it is written";
            return Err(uses.violated("blobs.delete", problem, *id));
        }
        uses.deleting.extend(ids);
        uses.deleted.extend(ids);
        Ok(Deleting {
            uses: self.uses.clone(),
            ids: ids.to_vec(),
        })
    }
}

impl Uses {
    fn violated(&mut self, operation: &'static str, problem: &'static str, id: PayloadId) -> Error {
        let error = Error::new(Kind::Internal, operation, problem).with("payload", id);
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(error.to_string());
        }
        error
    }
}

/// A running write; ends when it is dropped, for example when the call is cancelled.
struct Writing {
    uses: Arc<Mutex<Uses>>,
    touched: BTreeSet<(PayloadId, Part, u64)>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for block in &self.touched {
            uses.writing.remove(block);
        }
    }
}

/// A running delete; ends when it is dropped, for example when the call is cancelled.
struct Deleting {
    uses: Arc<Mutex<Uses>>,
    ids: Vec<PayloadId>,
}

impl Drop for Deleting {
    fn drop(&mut self) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            uses.deleting.remove(id);
        }
    }
}

/// Wraps a listing, so that it yields before every item.
fn giving_way<T: Send + 'static>(listing: Listing<T>) -> Listing<T> {
    Box::pin(listing.then(|item| async move {
        yield_now().await;
        item
    }))
}

impl Default for StrictStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StrictStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictStore")
            .field("violations", &self.uses().violations)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlobStore for StrictStore {
    fn name(&self) -> &str {
        "strict"
    }

    fn capabilities(&self) -> BlobCapabilities {
        BlobStore::capabilities(&self.inner)
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        yield_now().await;
        self.inner.read(id, part, range).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let writing = self.begin_write(id, &blocks)?;
        yield_now().await;
        self.inner.write(id, blocks).await?;
        yield_now().await;
        drop(writing);
        Ok(())
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        let deleting = self.begin_delete(&ids)?;
        yield_now().await;
        self.inner.delete(ids).await?;
        yield_now().await;
        drop(deleting);
        Ok(())
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        giving_way(self.inner.list(after))
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        yield_now().await;
        BlobStore::sync(&self.inner, ids).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CollectionStore for StrictStore {
    fn name(&self) -> &str {
        "strict"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        CollectionStore::capabilities(&self.inner)
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        yield_now().await;
        self.inner.get(collection, key).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        giving_way(self.inner.scan(scan))
    }

    fn collections(&self) -> Listing<CollectionId> {
        giving_way(self.inner.collections())
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        yield_now().await;
        let revision = self.inner.commit(batch).await;
        yield_now().await;
        revision
    }

    fn watch(&self) -> Option<Listing<Change>> {
        match self.rules.watch {
            Watch::Told => self.inner.watch(),
            Watch::Untold => None,
        }
    }

    async fn sync(&self) -> Result<()> {
        yield_now().await;
        CollectionStore::sync(&self.inner).await
    }
}
