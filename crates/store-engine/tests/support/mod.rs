//! The most limited store of collections that the contract allows, and a way to disturb it.
#![allow(
    missing_docs,
    dead_code,
    reason = "each test binary uses a part of this"
)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::{StreamExt, future::ready, stream};
use larder_store_api::{
    Batch, Bytes, Change, CollectionCapabilities, CollectionId, CollectionStore, Entry, Error,
    Kind, Listing, Result, Revision, Scan,
};
use larder_store_testkit::MemoryStore;
use tokio::sync::Semaphore;

/// A store without a watch, and with the smallest limits.
#[derive(Debug, Clone)]
pub struct BareStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryStore,
    limits: CollectionCapabilities,
    /// The number of commits that reached the store.
    commits: AtomicUsize,
    scans: AtomicUsize,
    /// The number of further commits that may pass.
    gate: Semaphore,
    fail_scans: AtomicBool,
    /// The number of commits after which the following ones fail with `Unavailable`.
    fail_commits_after: AtomicUsize,
}

impl BareStore {
    pub fn new() -> Self {
        Self::with_limits(|_| {})
    }

    pub fn with_limits(change: impl FnOnce(&mut CollectionCapabilities)) -> Self {
        let memory = MemoryStore::new();
        let mut limits = CollectionCapabilities::least();
        change(&mut limits);
        Self(Arc::new(Inner {
            memory,
            limits,
            commits: AtomicUsize::new(0),
            scans: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            fail_scans: AtomicBool::new(false),
            fail_commits_after: AtomicUsize::new(usize::MAX),
        }))
    }

    pub fn commits(&self) -> usize {
        self.0.commits.load(Ordering::SeqCst)
    }

    pub fn scans(&self) -> usize {
        self.0.scans.load(Ordering::SeqCst)
    }

    /// Makes commits wait from now on, until `open_gate`.
    pub fn close_gate(&self) {
        let forgotten = self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
        assert!(forgotten > 0);
    }

    pub fn open_gate(&self) {
        self.0.gate.add_permits(1024);
    }

    /// Makes scans fail after their first entry.
    pub fn fail_scans(&self) {
        self.0.fail_scans.store(true, Ordering::SeqCst);
    }

    /// Makes commits fail once `more` have succeeded; `usize::MAX` for never.
    pub fn fail_commits_after(&self, more: usize) {
        let after = self.commits().saturating_add(more);
        self.0.fail_commits_after.store(after, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl CollectionStore for BareStore {
    fn name(&self) -> &str {
        "bare"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.0.limits
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        self.0.memory.get(collection, key).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        self.0.scans.fetch_add(1, Ordering::SeqCst);
        let inner = self.0.memory.scan(scan);
        let failing = self.0.fail_scans.load(Ordering::SeqCst);
        if !failing {
            return inner;
        }
        let error = Error::new(Kind::Unavailable, "bare.scan", "as told");
        let failure = stream::once(ready(Err(error)));
        inner.take(1).chain(failure).boxed()
    }

    fn collections(&self) -> Listing<CollectionId> {
        self.0.memory.collections()
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let permit = self.0.gate.acquire().await.expect("never closed");
        permit.forget();
        self.0.gate.add_permits(1);
        if self.commits() >= self.0.fail_commits_after.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Unavailable, "bare.commit", "as told"));
        }
        // Lets others run between a caller's read and its commit.
        tokio::task::yield_now().await;
        let revision = self.0.memory.commit(batch).await?;
        self.0.commits.fetch_add(1, Ordering::SeqCst);
        Ok(revision)
    }

    fn watch(&self) -> Option<Listing<Change>> {
        None
    }

    async fn sync(&self) -> Result<()> {
        self.0.memory.sync().await
    }
}

/// Returns the next item of the stream without waiting, or `None` if it has nothing or has ended.
pub async fn now<T>(listing: &mut Listing<T>) -> Option<Result<T>> {
    tokio::select! {
        biased;
        item = listing.next() => item,
        () = ready(()) => None,
    }
}
