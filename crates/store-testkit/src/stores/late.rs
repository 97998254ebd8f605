//! A layer whose operations end later than the calls that began them.

use std::{
    fmt,
    future::poll_fn,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;
use bytes::Bytes;
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Entry, Listing, Part, PayloadId, Result, Revision, Scan,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::yield_now;

/// The most turns of the runtime before an operation takes effect.
const TURNS_BEFORE: usize = 6;
/// The most turns between the effect of an operation and its answer.
const TURNS_AFTER: usize = 3;
/// The number of turns without any operation after which a store counts as settled.
const QUIET_TURNS: usize = 64;

/// A store that completes every operation that was begun, even if its caller is dropped, like a store
/// with threads of its own or behind a network.
///
/// Each operation is a task. It waits for some turns of the runtime, takes effect, waits for more
/// turns, and answers; the seed determines how many. Commits take effect in the order in which they
/// were begun; reads, writes, deletions and syncs of payloads do not.
#[derive(Clone)]
pub struct LateStore<S> {
    inner: S,
    lags: Arc<Lags>,
}

struct Lags {
    random: Mutex<ChaCha8Rng>,
    under_way: AtomicUsize,
    /// Commits take their turns in order.
    commits: Arc<tokio::sync::Mutex<()>>,
}

impl<S> LateStore<S> {
    /// Wraps `inner` with delays that depend on `seed`.
    pub fn new(inner: S, seed: u64) -> Self {
        Self {
            inner,
            lags: Arc::new(Lags {
                random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
                under_way: AtomicUsize::new(0),
                commits: Arc::default(),
            }),
        }
    }

    /// Returns the wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Waits until no operation is running, and none begins for a while.
    pub async fn settle(&self) {
        let mut quiet = 0;
        while quiet < QUIET_TURNS {
            yield_now().await;
            quiet = match self.lags.under_way.load(Ordering::SeqCst) {
                0 => quiet + 1,
                _ => 0,
            };
        }
    }

    fn turns(&self, most: usize) -> usize {
        let random = self.lags.random.lock();
        let mut random = random.unwrap_or_else(PoisonError::into_inner);
        random.random_range(0..=most)
    }

    /// Runs `operation` in a task of its own.
    async fn late<T: Send + 'static>(
        &self,
        is_commit: bool,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (before, after) = (self.turns(TURNS_BEFORE), self.turns(TURNS_AFTER));
        let under_way = UnderWay::begin(&self.lags);
        let mut turn = is_commit.then(|| Box::pin(self.lags.commits.clone().lock_owned()));
        let mut taken = None;
        if let Some(turn) = &mut turn {
            // It must queue now: on several threads, a task that is spawned later may start earlier.
            taken = match poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await {
                Poll::Ready(taken) => Some(taken),
                Poll::Pending => None,
            };
        }
        let task = tokio::spawn(async move {
            let turn = match (taken, turn) {
                (None, Some(turn)) => Some(turn.await),
                (taken, _) => taken,
            };
            pass(before).await;
            let result = operation.await;
            drop(turn);
            pass(after).await;
            drop(under_way);
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn pass(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

struct UnderWay(Arc<Lags>);

impl UnderWay {
    fn begin(lags: &Arc<Lags>) -> Self {
        lags.under_way.fetch_add(1, Ordering::SeqCst);
        Self(lags.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: fmt::Debug> fmt::Debug for LateStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateStore")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: BlobStore + Clone> BlobStore for LateStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> BlobCapabilities {
        self.inner.capabilities()
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        let inner = self.inner.clone();
        self.late(false, async move { inner.read(id, part, range).await })
            .await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let inner = self.inner.clone();
        self.late(false, async move { inner.write(id, blocks).await })
            .await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        let inner = self.inner.clone();
        self.late(false, async move { inner.delete(ids).await })
            .await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        self.inner.list(after)
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        let inner = self.inner.clone();
        self.late(false, async move { BlobStore::sync(&inner, ids).await })
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CollectionStore + Clone> CollectionStore for LateStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        let inner = self.inner.clone();
        self.late(false, async move { inner.get(collection, key).await })
            .await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        self.inner.scan(scan)
    }

    fn collections(&self) -> Listing<CollectionId> {
        self.inner.collections()
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let inner = self.inner.clone();
        self.late(true, async move { inner.commit(batch).await })
            .await
    }

    fn watch(&self) -> Option<Listing<Change>> {
        self.inner.watch()
    }

    async fn sync(&self) -> Result<()> {
        let inner = self.inner.clone();
        self.late(true, async move { CollectionStore::sync(&inner).await })
            .await
    }
}
