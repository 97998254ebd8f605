//! A layer that makes any store fail on demand: errors, torn writes, delays, a full disk.

mod plan;
mod space;

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Entry, Kind, Listing, Part, PayloadId, Result, Revision, Scan,
};

use plan::Verdict;
pub use plan::{Fault, Faults, Operation, When};

use larder_store_memory::split;

use super::power::tear;

/// A store whose calls fail as its [`Faults`] define.
///
/// It wraps a blob store, a collection store, or one that is both. Several stores may share one
/// [`Faults`], as the payloads and the index of one disk do; and [`Faults::blobs`] and
/// [`Faults::collections`] wrap whatever they are given. It keeps the contracts of what it wraps, except where a fault is about breaking them.
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultyStore<S> {
    /// Wraps `inner`, which then fails as `faults` defines.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// Returns the wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl Faults {
    /// Wraps a blob store.
    pub fn blobs(&self, inner: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        Arc::new(FaultyStore::new(inner, self.clone()))
    }

    /// Wraps a collection store.
    pub fn collections(&self, inner: Arc<dyn CollectionStore>) -> Arc<dyn CollectionStore> {
        Arc::new(FaultyStore::new(inner, self.clone()))
    }
}

impl<S: BlobStore> FaultyStore<S> {
    /// Writes only some of `blocks`, as a crash in the middle does: all before a random block, and that
    /// one torn.
    async fn write_torn(&self, id: PayloadId, blocks: &[Block]) -> Result<()> {
        let block_len = self.inner.capabilities().block_len;
        let pieces = split(blocks, block_len);
        if pieces.is_empty() {
            return Ok(());
        }
        let last = self.faults.chance(pieces.len());
        for (n, (part, index, bytes)) in pieces.into_iter().enumerate().take(last + 1) {
            let bytes = match n == last {
                false => bytes,
                true => {
                    let start = index * u64::from(block_len);
                    let range = start..start + bytes.len() as u64;
                    let old = match self.inner.read(id, part, range).await {
                        Ok(old) => old,
                        Err(error) if error.kind() == Kind::NotFound => Bytes::new(),
                        Err(error) => return Err(error),
                    };
                    tear(&bytes, &old, self.faults.chance(bytes.len()))
                }
            };
            let block = Block { part, index, bytes };
            self.inner.write(id, vec![block]).await?;
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: BlobStore> BlobStore for FaultyStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> BlobCapabilities {
        self.inner.capabilities()
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        let verdict = self.faults.verdict(Operation::Read).await;
        let read = match verdict {
            Verdict::Fail(error) | Verdict::Tear(error) => return Err(error),
            _ => self.inner.read(id, part, range).await?,
        };
        match verdict {
            Verdict::Lose(error) => Err(error),
            Verdict::Flip if !read.is_empty() => {
                let mut flipped = read.to_vec();
                let bit = self.faults.chance(flipped.len() * 8);
                flipped[bit / 8] ^= 1 << (bit % 8);
                Ok(flipped.into())
            }
            _ => Ok(read),
        }
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let verdict = self.faults.verdict(Operation::Write).await;
        match verdict {
            Verdict::Fail(error) => return Err(error),
            Verdict::Tear(error) => {
                self.write_torn(id, &blocks).await?;
                return Err(error);
            }
            _ => {}
        }
        let block_len = self.inner.capabilities().block_len;
        let fitting = self.faults.space().write(id, blocks, block_len);
        self.inner.write(id, fitting.blocks).await?;
        self.faults.space().written(fitting.taken);
        match (fitting.full, verdict) {
            (Some(error), _) | (None, Verdict::Lose(error)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(&self, mut ids: Vec<PayloadId>) -> Result<()> {
        let verdict = self.faults.verdict(Operation::Delete).await;
        match &verdict {
            Verdict::Fail(error) => return Err(error.clone()),
            Verdict::Tear(_) => ids.truncate(self.faults.chance(ids.len() + 1)),
            _ => {}
        }
        self.inner.delete(ids.clone()).await?;
        self.faults.space().delete(&ids);
        match verdict {
            Verdict::Tear(error) | Verdict::Lose(error) => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        listing(&self.faults, Operation::List, self.inner.list(after))
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        match self.faults.verdict(Operation::SyncBlobs).await {
            Verdict::Fail(error) | Verdict::Tear(error) => Err(error),
            Verdict::Lose(error) => self.inner.sync(ids).await.and(Err(error)),
            Verdict::Skip => Ok(()),
            Verdict::Do | Verdict::Flip => self.inner.sync(ids).await,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CollectionStore> CollectionStore for FaultyStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        self.faults.verdict(Operation::Get).await.or_fail()?;
        self.inner.get(collection, key).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        listing(&self.faults, Operation::Scan, self.inner.scan(scan))
    }

    fn collections(&self) -> Listing<CollectionId> {
        listing(
            &self.faults,
            Operation::Collections,
            self.inner.collections(),
        )
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        const OPERATION: &str = "collection.commit";
        let verdict = self.faults.verdict(Operation::Commit).await;
        self.faults.check_unbroken(OPERATION)?;
        match verdict {
            Verdict::Fail(error) | Verdict::Tear(error) => Err(error),
            Verdict::Lose(error) => {
                self.inner.commit(batch).await?;
                self.faults.break_commits();
                Err(error)
            }
            Verdict::Do | Verdict::Skip | Verdict::Flip => {
                let held = self.faults.space().commit(&batch.edits)?;
                let revision = self.inner.commit(batch).await?;
                self.faults.space().applied(held);
                Ok(revision)
            }
        }
    }

    fn watch(&self) -> Option<Listing<Change>> {
        self.inner.watch()
    }

    async fn sync(&self) -> Result<()> {
        let verdict = self.faults.verdict(Operation::SyncCollections).await;
        self.faults.check_unbroken("collection.sync")?;
        match verdict {
            Verdict::Skip => Ok(()),
            Verdict::Lose(error) => self.inner.sync().await.and(Err(error)),
            verdict => {
                verdict.or_fail()?;
                self.inner.sync().await
            }
        }
    }
}

/// The most items that a listing yields before it fails.
const ITEMS_BEFORE_ERROR: usize = 8;

/// Wraps a listing; one that is to fail does so after a random number of items.
fn listing<T: Send + 'static>(
    faults: &Faults,
    operation: Operation,
    inner: Listing<T>,
) -> Listing<T> {
    let faults = faults.clone();
    let listing = stream::once(async move {
        let (items, end) = match faults.verdict(operation).await.or_fail() {
            Ok(()) => (usize::MAX, None),
            Err(error) => (faults.chance(ITEMS_BEFORE_ERROR + 1), Some(Err(error))),
        };
        Ok(inner.take(items).chain(stream::iter(end)))
    });
    Box::pin(listing.try_flatten())
}
