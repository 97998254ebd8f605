//! A layer that blocks calls: a process that sleeps or is killed while others work on the same store.

use std::{future::pending, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Entry, Listing, Part, PayloadId, Result, Revision, Scan,
};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Dead,
}

/// Stops and resumes the stores that it was given to.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<State>>);

impl Gate {
    /// Creates an open gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::Open)))
    }

    /// Makes calls wait from now on, like those of a sleeping process.
    pub fn close(&self) {
        self.set(State::Closed);
    }

    /// Lets calls continue.
    pub fn open(&self) {
        self.set(State::Open);
    }

    /// Makes calls wait for ever from now on, like those of a killed process.
    pub fn kill(&self) {
        self.set(State::Dead);
    }

    fn set(&self, state: State) {
        self.0.send_if_modified(|now| {
            let changes = *now != State::Dead && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
    }

    async fn pass(&self) {
        let mut state = self.0.subscribe();
        let found = state.wait_for(|state| *state != State::Closed).await;
        // The sender lives as long as the gate, so this is not an error.
        if found.is_ok_and(|state| *state == State::Open) {
            return;
        }
        pending().await
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A store whose calls pass a [`Gate`] before they do anything. Several stores may share a gate, like
/// the stores of one process, or share the wrapped store, like processes that share a store. Listings
/// and watches pass the gate whenever an item is requested.
#[derive(Debug, Clone)]
pub struct GatedStore<S> {
    inner: S,
    gate: Gate,
}

impl<S> GatedStore<S> {
    /// Wraps `inner` with `gate`.
    pub fn new(inner: S, gate: Gate) -> Self {
        Self { inner, gate }
    }

    /// Returns the wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn listing<T: Send + 'static>(&self, listing: Listing<T>) -> Listing<T> {
        use futures_util::StreamExt;
        let gate = self.gate.clone();
        Box::pin(listing.then(move |item| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                item
            }
        }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: BlobStore> BlobStore for GatedStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> BlobCapabilities {
        self.inner.capabilities()
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        self.gate.pass().await;
        self.inner.read(id, part, range).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        self.gate.pass().await;
        self.inner.write(id, blocks).await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        self.gate.pass().await;
        self.inner.delete(ids).await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        self.listing(self.inner.list(after))
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        self.gate.pass().await;
        self.inner.sync(ids).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CollectionStore> CollectionStore for GatedStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> CollectionCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        self.gate.pass().await;
        self.inner.get(collection, key).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        self.listing(self.inner.scan(scan))
    }

    fn collections(&self) -> Listing<CollectionId> {
        self.listing(self.inner.collections())
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.gate.pass().await;
        self.inner.commit(batch).await
    }

    fn watch(&self) -> Option<Listing<Change>> {
        Some(self.listing(self.inner.watch()?))
    }

    async fn sync(&self) -> Result<()> {
        self.gate.pass().await;
        self.inner.sync().await
    }
}
