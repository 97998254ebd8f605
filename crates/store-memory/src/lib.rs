//! An in-memory store: blobs, collections and secrets that need no disk and no runtime, and are gone
//! with their last handle.
//!
//! [`MemoryStore`] is also the reference implementation: the smallest store that keeps every contract
//! of `store-api`. Test stores are built on it. For them it offers, besides the traits, synchronous
//! forms of the same steps ([`write_now`](MemoryStore::write_now) and others), and configurable
//! [`Facts`].

mod blobs;
mod collections;
mod crash;
mod secrets;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures_util::{TryStreamExt, future, stream};
use larder_store_api::{
    BlobCapabilities, CollectionCapabilities, Durability, Error, GROUP_LEN, Kind, Listing, Result,
};

pub use self::{blobs::split, secrets::MemorySecrets};

/// The default length of a block, in bytes.
const BLOCK_LEN: u32 = GROUP_LEN as u32;
/// The longest part, in bytes: enough for anything, and far from where offsets overflow.
const MAX_PART_LEN: u64 = 1 << 48;
/// The longest key, in bytes.
const MAX_KEY_LEN: u32 = 4 * 1024;
/// The most expectations and edits in one batch.
const MAX_VALUE_LEN: u32 = 16 * 1024 * 1024;
/// The most expectations and edits in one batch.
const MAX_BATCH_LEN: u32 = 64 * 1024;
/// The most items that a listing copies at once under the lock.
const PAGE: usize = 256;

/// An in-memory store: blobs and collections that are gone when its last clone is dropped.
///
/// Clones are cheap and share their content. The store needs no async runtime, its calls never block,
/// and it copies its input, so that it does not keep larger buffers alive.
///
/// ```
/// use larder_store_api::{BlobStore, Block, Bytes, Part, PayloadId};
/// use larder_store_memory::MemoryStore;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// let store = MemoryStore::new();
/// let id = PayloadId([7; 16]);
/// let block = Block { part: Part::Data, index: 0, bytes: Bytes::from_static(b"hello") };
/// store.write(id, vec![block]).await?;
/// assert_eq!(store.read(id, Part::Data, 1..4).await?, "ell");
/// # larder_store_api::Result::<()>::Ok(()) })?;
/// # larder_store_api::Result::<()>::Ok(())
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

/// The capabilities of an in-memory store.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The capabilities of its blobs.
    pub blobs: BlobCapabilities,
    /// The capabilities of its collections.
    pub collections: CollectionCapabilities,
}

struct Shared {
    facts: Facts,
    blobs: Guarded<blobs::Payloads>,
    collections: Guarded<collections::Collections>,
}

impl MemoryStore {
    /// Creates an empty store with blocks of 16 KiB.
    pub fn new() -> Self {
        Self::with_block_len(BLOCK_LEN)
    }

    /// Creates an empty store with blocks of `block_len` bytes.
    ///
    /// # Panics
    /// If `block_len` is not a positive multiple of [`GROUP_LEN`].
    pub fn with_block_len(block_len: u32) -> Self {
        assert!(
            block_len > 0 && u64::from(block_len).is_multiple_of(GROUP_LEN),
            "a block's length is a positive multiple of {GROUP_LEN}"
        );
        let mut collections = CollectionCapabilities::least();
        collections.max_key_len = MAX_KEY_LEN;
        collections.max_value_len = MAX_VALUE_LEN;
        collections.max_batch_len = MAX_BATCH_LEN;
        Self::with_facts(Facts {
            blobs: {
                let mut facts = BlobCapabilities::least();
                facts.block_len = block_len;
                facts.max_part_len = MAX_PART_LEN;
                facts.durability = Durability::Memory;
                facts.concurrency = 1;
                facts
            },
            collections,
        })
    }

    /// Creates an empty store with these capabilities.
    pub fn with_facts(facts: Facts) -> Self {
        Self(Arc::new(Shared {
            facts,
            blobs: Guarded::new(blobs::Payloads::default()),
            collections: Guarded::new(collections::Collections::default()),
        }))
    }

    /// Closes the store for all its clones and frees its content. Later calls, and watchers, return
    /// [`Kind::Closed`]; closing it again does nothing.
    pub fn close(&self) {
        self.0.blobs.close();
        self.0.collections.close();
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("block_len", &self.0.facts.blobs.block_len)
            .finish_non_exhaustive()
    }
}

/// State behind a lock, until the store is closed.
struct Guarded<T>(RwLock<Option<T>>);

// A poisoned lock is used as it is: every change is checked first and then applied by steps that cannot
// panic, so the state is consistent.
impl<T> Guarded<T> {
    fn new(state: T) -> Self {
        Self(RwLock::new(Some(state)))
    }

    fn read<R>(&self, operation: &'static str, f: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        let guard: RwLockReadGuard<'_, _> = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f(guard.as_ref().ok_or_else(|| closed(operation))?)
    }

    fn write<R>(&self, operation: &'static str, f: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let mut guard: RwLockWriteGuard<'_, _> =
            self.0.write().unwrap_or_else(PoisonError::into_inner);
        f(guard.as_mut().ok_or_else(|| closed(operation))?)
    }

    fn close(&self) {
        let state = self
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Freed after the lock is released, so that others need not wait.
        drop(state);
    }
}

fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Closed, operation, "the store was closed")
}

/// A listing that fetches one page after another. `fetch` gets the cursor that the previous page
/// returned, and returns the next one, or `None` after the last page.
fn paged<T, C>(
    first: C,
    mut fetch: impl FnMut(C) -> Result<(Vec<T>, Option<C>)> + Send + 'static,
) -> Listing<T>
where
    T: Send + 'static,
    C: Send + 'static,
{
    let pages =
        stream::try_unfold(Some(first), move |cursor| {
            future::ready(cursor.map(&mut fetch).transpose().map(|page| {
                page.map(|(items, next)| (stream::iter(items.into_iter().map(Ok)), next))
            }))
        });
    Box::pin(pages.try_flatten())
}
