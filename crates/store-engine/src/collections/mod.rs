//! Collections: what an app holds over any [`CollectionStore`].
//!
//! The handle keeps the store's contract and adds what every store would otherwise do for itself:
//! requests over a limit are refused before they have any effect, a watch works even where the store has none, and collections whose name begins
//! with [`RESERVED`] belong to the engine.

mod durable;
mod handle;
mod limits;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::ready, stream};
use larder_store_api::{
    Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Durability, Edit, Entry,
    Error, Expect, IntoBytes, IntoCollectionId, KeyRange, Kind, Listing, Order, Result, Revision,
    Scan,
};

use crate::metrics::Counter;
use durable::Durable;
pub use handle::Collection;
pub use watch::{MAX_ANNOUNCED_COMMITS, MAX_ANNOUNCED_KEYS, WATCH_BACKLOG};

/// Collections whose name begins with this belong to the engine: an app may read, but not write
/// them.
pub const RESERVED: &[u8] = b"larder/";

/// Named, ordered maps from key to small value, over any store.
///
/// A clone is cheap and the same collections. Give clones of one handle to everybody who shares a
/// store: where the store has no watch of its own, a watcher hears of the commits that went through
/// its handle's clones, and of no others. [`Blobs::collections`](crate::Blobs::collections) is the
/// handle through which blobs commit.
///
/// Everything that a [`CollectionStore`] promises holds here too. Cancelling a call is safe: a
/// commit is then applied whole or not at all.
#[derive(Debug, Clone)]
pub struct Collections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn CollectionStore>,
    capabilities: CollectionCapabilities,
    /// Announces changes if the store has no watch of its own.
    announcer: Option<watch::Announcer>,
    durable: Durable,
}

/// The outcome of a [`Collections::compare_and_swap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The key has the new value, since this commit.
    Done(Revision),
    /// Not written: the key's entry was another than expected.
    Superseded {
        /// The entry, as read just after; `None` if there is none.
        current: Option<Entry>,
    },
}

impl From<Arc<dyn CollectionStore>> for Collections {
    fn from(store: Arc<dyn CollectionStore>) -> Self {
        Self::new(store)
    }
}

impl<S: CollectionStore> From<Arc<S>> for Collections {
    fn from(store: Arc<S>) -> Self {
        Self::new(store)
    }
}

impl Collections {
    /// The collections of `store`.
    pub fn new(store: Arc<dyn CollectionStore>) -> Self {
        let announcer = match store.watch() {
            Some(_) => None,
            None => Some(watch::Announcer::new()),
        };
        Self(Arc::new(Inner {
            capabilities: store.capabilities(),
            store,
            announcer,
            durable: Durable::default(),
        }))
    }

    /// The store's short name, for people.
    pub fn name(&self) -> &str {
        self.0.store.name()
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn CollectionStore> {
        &self.0.store
    }

    /// Returns true if both are clones of one handle.
    pub(crate) fn is(&self, other: &Collections) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Facts about the store.
    pub fn capabilities(&self) -> CollectionCapabilities {
        self.0.capabilities
    }

    /// The key's entry, or `None` if there is none. Sees every commit that returned before the
    /// call. A key over the store's limit is [`Kind::TooLarge`].
    pub async fn get(
        &self,
        collection: impl IntoCollectionId,
        key: impl IntoBytes,
    ) -> Result<Option<Entry>> {
        let (collection, key) = (collection.into_collection_id()?, key.into_bytes());
        limits::check_key(&self.0.capabilities, "collections.get", &collection, &key)?;
        self.0.store.get(collection, key).await
    }

    /// The entries that `scan` asks for, each key at most once, in the order it asks for.
    ///
    /// An entry that is not changed while the scan runs appears.
    pub fn scan(&self, scan: Scan) -> Listing<Entry> {
        self.0.store.scan(scan)
    }

    /// The entries whose key begins with `prefix`, ascending. See [`scan`](Self::scan).
    pub fn scan_prefix(
        &self,
        collection: impl IntoCollectionId,
        prefix: impl IntoBytes,
    ) -> Listing<Entry> {
        match collection.into_collection_id() {
            Ok(collection) => self.scan(Scan::prefix(collection, prefix)),
            Err(error) => failed(error),
        }
    }

    /// The entries whose key lies in `keys`, ascending; `..` is all of them. See
    /// [`scan`](Self::scan).
    pub fn scan_range(
        &self,
        collection: impl IntoCollectionId,
        keys: impl KeyRange,
    ) -> Listing<Entry> {
        match collection.into_collection_id() {
            Ok(collection) => self.scan(Scan {
                collection,
                keys: keys.into_bounds(),
                order: Order::Ascending,
            }),
            Err(error) => failed(error),
        }
    }

    /// Returns a handle of one collection, so that its name need not be given to each call.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a name that is empty or too long.
    pub fn open(&self, collection: impl IntoCollectionId) -> Result<Collection> {
        Ok(Collection::new(
            self.clone(),
            collection.into_collection_id()?,
        ))
    }

    /// The collections that have entries, the engine's among them, in ascending order.
    pub fn list(&self) -> Listing<CollectionId> {
        self.0.store.collections()
    }

    /// Sets the key's value, whatever it was. Durable when it returns.
    pub async fn put(
        &self,
        collection: impl IntoCollectionId,
        key: impl IntoBytes,
        value: impl IntoBytes,
    ) -> Result<Revision> {
        let edit = Edit::Put {
            collection: collection.into_collection_id()?,
            key: key.into_bytes(),
            value: value.into_bytes(),
        };
        self.commit(Batch::of(vec![edit])).await
    }

    /// Removes the key's entry; no error where there is none. Durable when it returns.
    pub async fn delete(
        &self,
        collection: impl IntoCollectionId,
        key: impl IntoBytes,
    ) -> Result<Revision> {
        let edit = Edit::Delete {
            collection: collection.into_collection_id()?,
            key: key.into_bytes(),
        };
        self.commit(Batch::of(vec![edit])).await
    }

    /// Sets the key's value (`None` removes it) if its entry was last put by the commit `expected`
    /// (`None`: if it has no entry), in one atomic step. Durable when it returns.
    pub async fn compare_and_swap(
        &self,
        collection: impl IntoCollectionId,
        key: impl IntoBytes,
        expected: Option<Revision>,
        value: Option<Bytes>,
    ) -> Result<Swap> {
        let (collection, key) = (collection.into_collection_id()?, key.into_bytes());
        let expect = expect(&collection, &key, expected);
        let edit = match value {
            Some(value) => Edit::Put {
                collection: collection.clone(),
                key: key.clone(),
                value,
            },
            None => Edit::Delete {
                collection: collection.clone(),
                key: key.clone(),
            },
        };
        match self.commit(Batch::of(vec![edit]).expecting(expect)).await {
            Ok(revision) => Ok(Swap::Done(revision)),
            Err(error) if error.kind() == Kind::Conflict => Ok(Swap::Superseded {
                current: self.get(collection, key).await?,
            }),
            Err(error) => Err(error),
        }
    }

    /// Applies `batch`, all or nothing, and returns its revision.
    ///
    /// A failed expectation is [`Kind::Conflict`], a batch over a limit [`Kind::TooLarge`], an edit
    /// of a [`RESERVED`] collection [`Kind::Denied`]; nothing changes then.
    pub async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.edits.iter().try_for_each(deny_reserved)?;
        self.commit_reserved(batch).await
    }

    /// [`commit`](Self::commit) for the engine itself: reserved collections too.
    pub(crate) async fn commit_reserved(&self, batch: Batch) -> Result<Revision> {
        let durability = batch.durability;
        let commit = async {
            limits::check_batch(&self.0.capabilities, &batch)?;
            match &self.0.announcer {
                None => self.0.store.commit(batch).await,
                Some(announcer) => announcer.commit(&self.0.store, batch).await,
            }
        };
        let committed = self.0.durable.commit(durability, commit).await;
        match &committed {
            Ok(_) => Counter::Commits.add(1),
            Err(error) if error.kind() == Kind::Conflict => {}
            Err(_) => Counter::CommitFailures.add(1),
        }
        committed
    }

    /// Makes every commit that returned before this call survive the loss of power, where one may not.
    pub(crate) async fn make_durable(&self) -> Result<()> {
        match self.0.durable.is_all() {
            true => Ok(()),
            false => self.sync().await,
        }
    }

    /// Changes of any collection from now on, as a hint. A watcher that lags gets
    /// [`Change::Resync`], never silence.
    ///
    /// If the store has no watch, this tells of the commits through clones of this handle, and
    /// ends when the last of them is dropped.
    pub fn watch(&self) -> Listing<Change> {
        match &self.0.announcer {
            Some(announcer) => announcer.watch(),
            None => self.0.store.watch().unwrap_or_else(|| {
                // It had a watch when the handle was made. Silence would be worse than an error.
                let error = Error::new(
                    Kind::Internal,
                    "collections.watch",
                    "the store no longer has the watch that it had",
                )
                .with("store", self.name());
                failed(error)
            }),
        }
    }

    /// [`watch`](Self::watch), of one collection.
    pub fn watch_collection(&self, collection: impl IntoCollectionId) -> Listing<Change> {
        let collection = match collection.into_collection_id() {
            Ok(collection) => collection,
            Err(error) => return failed(error),
        };
        let changes = self.watch();
        Box::pin(changes.try_filter(move |change| {
            ready(match change {
                Change::Keys { collection: id, .. } => *id == collection,
                // A resync, or a change of which it is not known what it changes.
                _ => true,
            })
        }))
    }

    /// Makes every commit that returned before this call survive the loss of power.
    pub async fn sync(&self) -> Result<()> {
        let sync = self.0.store.sync();
        self.0.durable.commit(Durability::OnWrite, sync).await
    }
}

fn failed<T: Send + 'static>(error: Error) -> Listing<T> {
    stream::once(ready(Err(error))).boxed()
}

/// Returns the expectation that the key's entry is the one last put by `revision`, or that there is
/// none.
pub(crate) fn expect(collection: &CollectionId, key: &Bytes, revision: Option<Revision>) -> Expect {
    let (collection, key) = (collection.clone(), key.clone());
    match revision {
        Some(revision) => Expect::At {
            collection,
            key,
            revision,
        },
        None => Expect::Absent { collection, key },
    }
}

/// Returns true if `found`, the entry of the key that the expectation names, meets it.
pub(crate) fn holds(expect: &Expect, found: Option<&Entry>) -> bool {
    match expect {
        Expect::Absent { .. } => found.is_none(),
        Expect::At { revision, .. } => found.is_some_and(|found| found.revision == *revision),
    }
}

/// Refuses to edit what belongs to the engine.
pub(crate) fn deny_reserved(edit: &Edit) -> Result<()> {
    let (Edit::Put { collection, .. } | Edit::Delete { collection, .. }) = edit;
    if !collection.as_bytes().starts_with(RESERVED) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Denied,
        "collections.commit",
        "collections whose name begins with \"larder/\" belong to the engine",
    )
    .with("collection", collection))
}
