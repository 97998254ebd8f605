//! A store, opened by its URL: a backend and what the engine makes of it.

use std::{path::PathBuf, sync::Arc};

use store_api::{BlobStore, CollectionStore, Result};
use store_engine::{Blobs, Collections, Records};
use store_testkit::MemoryStore;
use tokio::sync::OnceCell;

use crate::{DiskUsage, StoreUrl};

/// An open store. A cheap handle; its clones are the same store.
///
/// Close it at the end: a store that was only dropped opens again as after a crash, with nothing
/// lost, but a little slower.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    blobs: Blobs,
    collections: Collections,
    records: Records,
    closed: OnceCell<Result<()>>,
}

#[derive(Debug)]
enum Backend {
    Memory(MemoryStore),
    #[cfg(feature = "redb")]
    Redb {
        store: Arc<store_redb::RedbStore>,
        dir: PathBuf,
    },
    /// Opened, and closed, by somebody else.
    Foreign,
}

impl Store {
    /// Opens the store at `url` (see [`StoreUrl`]), and makes a new one where there is none.
    ///
    /// A store that another process has open is [`Kind::Unavailable`](crate::Kind::Unavailable), one that a newer version
    /// wrote or whose backend is not built in is [`Kind::Unsupported`](crate::Kind::Unsupported), a folder with something else
    /// in it [`Kind::Invalid`](crate::Kind::Invalid).
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_url(&url.parse()?).await
    }

    /// As [`open`](Self::open), with a URL that was read before.
    pub async fn open_url(url: &StoreUrl) -> Result<Self> {
        match url {
            StoreUrl::Memory => {
                let store = MemoryStore::new();
                let shared = Arc::new(store.clone());
                Self::assemble(shared.clone(), shared, Backend::Memory(store)).await
            }
            #[cfg(feature = "redb")]
            StoreUrl::Redb(dir) => {
                let options = store_redb::Options::default();
                let store = Arc::new(store_redb::RedbStore::open(dir, options).await?);
                let backend = Backend::Redb {
                    store: store.clone(),
                    dir: dir.clone(),
                };
                Self::assemble(store.clone(), store, backend).await
            }
            #[cfg(not(feature = "redb"))]
            StoreUrl::Redb(_) => Err(store_api::Error::new(
                store_api::Kind::Unsupported,
                "store.open",
                "this program was built without the redb backend",
            )),
        }
    }

    /// A store over a backend of your own. [`close`](Self::close) leaves the backend open.
    pub async fn over(
        payloads: Arc<dyn BlobStore>,
        collections: Arc<dyn CollectionStore>,
    ) -> Result<Self> {
        Self::assemble(payloads, collections, Backend::Foreign).await
    }

    async fn assemble(
        payloads: Arc<dyn BlobStore>,
        collections: Arc<dyn CollectionStore>,
        backend: Backend,
    ) -> Result<Self> {
        let blobs = Blobs::open(payloads, collections.clone()).await?;
        let collections = Collections::new(collections);
        let records = Records::new(collections.clone());
        Ok(Self(Arc::new(Inner {
            backend,
            blobs,
            collections,
            records,
            closed: OnceCell::new(),
        })))
    }

    /// The backend's short name, for people.
    pub fn name(&self) -> &str {
        self.0.blobs.payload_store().name()
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// The collections.
    pub fn collections(&self) -> &Collections {
        &self.0.collections
    }

    /// The records.
    pub fn records(&self) -> &Records {
        &self.0.records
    }

    /// The space that the store takes on its disk; `None` where it takes none, or does not know.
    pub async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        match &self.0.backend {
            #[cfg(feature = "redb")]
            Backend::Redb { dir, .. } => DiskUsage::of_redb(dir.clone()).await.map(Some),
            Backend::Memory(_) | Backend::Foreign => Ok(None),
        }
    }

    /// Gives back at once the space that the backend would free little by little.
    pub async fn settle(&self) -> Result<()> {
        match &self.0.backend {
            #[cfg(feature = "redb")]
            Backend::Redb { store, .. } => store.settle().await,
            Backend::Memory(_) | Backend::Foreign => Ok(()),
        }
    }

    /// Waits for what runs, makes it durable and closes the store. Later calls, of every clone, are
    /// [`Kind::Closed`](crate::Kind::Closed); closing again says the same as the first time.
    pub async fn close(&self) -> Result<()> {
        let closed = self.0.closed.get_or_init(|| self.close_once());
        closed.await.clone()
    }

    async fn close_once(&self) -> Result<()> {
        let engine = self.0.blobs.close().await;
        let backend = match &self.0.backend {
            Backend::Memory(store) => {
                store.close();
                Ok(())
            }
            #[cfg(feature = "redb")]
            Backend::Redb { store, .. } => store.close().await,
            Backend::Foreign => Ok(()),
        };
        engine.and(backend)
    }
}
