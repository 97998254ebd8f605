//! The store in memory: blobs, collections and secrets that need no disk and no runtime, and are gone with
//! their last handle.
//!
//! [`MemoryStore`] is the reference, too: the smallest store that keeps every contract of `store-api`.
//! Stores for tests are built on it; for them it offers, beside the traits, the same steps without a
//! future ([`write_now`](MemoryStore::write_now) and others), and [`Facts`] to choose.

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

/// The length of a block unless another is asked for, in bytes.
const BLOCK_LEN: u32 = GROUP_LEN as u32;
/// The longest part, in bytes: enough for anything, and far from where offsets overflow.
const MAX_PART_LEN: u64 = 1 << 48;
/// The longest key, in bytes.
const MAX_KEY_LEN: u32 = 4 * 1024;
/// The longest value, in bytes.
const MAX_VALUE_LEN: u32 = 16 * 1024 * 1024;
/// The most expectations and edits in one batch.
const MAX_BATCH_LEN: u32 = 64 * 1024;
/// The most items that a listing takes out under the lock at once.
const PAGE: usize = 256;

/// A store in memory: blobs and collections that are gone when its last clone is dropped.
///
/// It is cheap to clone, and clones share what they keep. It needs no async runtime, its calls never
/// wait, and it copies what it is given, so that it keeps no larger buffer alive.
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

/// The capabilities that a store in memory has.
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
    /// An empty store whose blocks have 16 KiB.
    pub fn new() -> Self {
        Self::with_block_len(BLOCK_LEN)
    }

    /// An empty store whose blocks have `block_len` bytes.
    ///
    /// # Panics
    /// Where `block_len` is not a positive multiple of [`GROUP_LEN`].
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

    /// An empty store with these capabilities.
    pub fn with_facts(facts: Facts) -> Self {
        Self(Arc::new(Shared {
            facts,
            blobs: Guarded::new(blobs::Payloads::default()),
            collections: Guarded::new(collections::Collections::default()),
        }))
    }

    /// Closes the store for all its clones and frees what it kept. Later calls, and watchers, answer
    /// [`Kind::Closed`]; closing again does nothing.
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

/// State behind a lock, until it is closed.
struct Guarded<T>(RwLock<Option<T>>);

// A poisoned lock is taken as it is: every change is checked first and applied without a step that
// can panic, so that the state behind it is whole.
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
        // Freed after the lock, which others may wait for.
        drop(state);
    }
}

fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Closed, operation, "the store was closed")
}

/// A listing that fetches page after page. `fetch` gets what the page before it said, and says where
/// the next one goes on, or `None` after the last.
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
