//! A store, opened by its URL: a backend and what the engine makes of it.

use std::{path::PathBuf, sync::Arc};

use store_api::{
    BlobStore, CollectionStore, Error, Kind, Result, Secret, SecretKey, SecretName, Secrets,
};
use store_engine::{Blobs, Collections, Records, Unlock};
use store_memory::{MemorySecrets, MemoryStore};
use tokio::sync::OnceCell;

#[cfg(feature = "veilid")]
use crate::veilid_folder;
use crate::{StoreUrl, secrets::UntilClosed};

/// In the folder of a store whose backend keeps no secrets.
#[cfg(feature = "redb")]
const SECRETS_FILE: &str = "secrets";

/// The secret that says who this store's device is.
const IDENTITY: &str = "endpoint";

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
    secrets: OnceCell<Arc<UntilClosed>>,
    closed: OnceCell<Result<()>>,
}

#[derive(Debug)]
enum Backend {
    Memory(MemoryStore),
    #[cfg(feature = "redb")]
    Redb(Arc<store_redb::RedbStore>, PathBuf),
    #[cfg(feature = "veilid")]
    Veilid(store_veilid::VeilidStore),
    /// Opened, and closed, by somebody else.
    Foreign,
}

/// The space that a store takes on its disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Collections, tags, small blobs, and what is known of large ones.
    pub index: u64,
    /// The bytes of large blobs, and their hash trees.
    pub payloads: u64,
}

impl DiskUsage {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.index + self.payloads
    }
}

/// The outcome of recovering a store that could not be read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The number of lost entries of the index, as far as it is known.
    pub lost_entries: u64,
    /// The number of bytes that could not be identified.
    pub lost_bytes: u64,
    /// The damaged files as they were found. Remove them when they are of no more use.
    pub kept: Vec<PathBuf>,
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

    /// Opens a store, as [`open`](Self::open) does, with a URL that was read before.
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
                let backend = Backend::Redb(store.clone(), dir.join(SECRETS_FILE));
                Self::assemble(store.clone(), store, backend).await
            }
            #[cfg(not(feature = "redb"))]
            StoreUrl::Redb(_) => Err(not_built_in("redb")),
            #[cfg(feature = "veilid")]
            StoreUrl::Veilid(dir, key) => {
                let store = veilid_folder::open(dir, key.protection()).await?;
                let shared = Arc::new(store.clone());
                Self::assemble(shared.clone(), shared, Backend::Veilid(store)).await
            }
            #[cfg(not(feature = "veilid"))]
            StoreUrl::Veilid(..) => Err(not_built_in("veilid")),
        }
    }

    /// Repairs a store that answers [`Kind::Corrupt`](crate::Kind::Corrupt) when it is opened or
    /// listed, and that nobody has open: what can still be read of its index is kept, the rest is
    /// lost. Then scrub it, which judges the blobs.
    pub async fn recover(url: &StoreUrl) -> Result<Recovered> {
        match url {
            StoreUrl::Memory => Ok(Recovered::default()),
            #[cfg(feature = "redb")]
            StoreUrl::Redb(dir) => {
                let options = store_redb::Options::default();
                let repaired = store_redb::RedbStore::repair(dir, options).await?;
                Ok(Recovered {
                    lost_entries: repaired.lost_records,
                    lost_bytes: repaired.lost_bytes,
                    kept: repaired.kept,
                })
            }
            #[cfg(not(feature = "redb"))]
            StoreUrl::Redb(_) => Err(not_built_in("redb")),
            #[cfg(feature = "veilid")]
            StoreUrl::Veilid(dir, key) => {
                let node = veilid_folder::start(dir, key.protection()).await?;
                let repaired = store_veilid::VeilidStore::repair(node.clone(), "").await;
                node.shutdown().await;
                let repaired = repaired?;
                Ok(Recovered {
                    lost_entries: repaired.lost_entries,
                    lost_bytes: 0,
                    kept: repaired.kept.into_iter().collect(),
                })
            }
            #[cfg(not(feature = "veilid"))]
            StoreUrl::Veilid(..) => Err(not_built_in("veilid")),
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
        let blobs = Blobs::open(payloads, collections).await?;
        let collections = blobs.collections().clone();
        let records = Records::new(collections.clone());
        Ok(Self(Arc::new(Inner {
            backend,
            blobs,
            collections,
            records,
            secrets: OnceCell::new(),
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

    /// Returns the place for keys that belong to this store: the protected store of its Veilid
    /// node; memory, for a store in memory and for one [over a backend of yours](Self::over); else
    /// an encrypted file in the store's folder, which `unlock` opens. It is asked only then, and
    /// once.
    ///
    /// # Errors
    /// The errors of [`FileSecrets::open`](crate::engine::FileSecrets::open), and those of `unlock`.
    pub async fn secrets(
        &self,
        unlock: impl FnOnce() -> Result<Unlock> + Send,
    ) -> Result<Arc<dyn Secrets>> {
        let open = async || {
            let secrets: Arc<dyn Secrets> = match &self.0.backend {
                Backend::Memory(_) | Backend::Foreign => Arc::new(MemorySecrets::new()),
                #[cfg(feature = "redb")]
                Backend::Redb(_, path) => {
                    Arc::new(store_engine::FileSecrets::open(path, unlock()?).await?)
                }
                #[cfg(feature = "veilid")]
                Backend::Veilid(store) => {
                    Arc::new(store_veilid::VeilidSecrets::new(store.node().clone()))
                }
            };
            Ok(Arc::new(UntilClosed::new(secrets)))
        };
        let secrets = self.0.secrets.get_or_try_init(open).await?;
        Ok(Arc::clone(secrets) as Arc<dyn Secrets>)
    }

    /// Returns the identity of this store's device to others: the same key each time, so that names
    /// made from it stay valid.
    ///
    /// # Errors
    /// The errors of [`secrets`](Self::secrets); [`Kind::Corrupt`](crate::Kind::Corrupt) where the key is
    /// damaged.
    pub async fn identity(
        &self,
        unlock: impl FnOnce() -> Result<Unlock> + Send,
    ) -> Result<SecretKey> {
        let secrets = self.secrets(unlock).await?;
        let name = SecretName::new(IDENTITY)?;
        if let Some(secret) = secrets.get(name.clone()).await? {
            return secret
                .expose()
                .try_into()
                .map(SecretKey::from_bytes)
                .map_err(|_| {
                    let message = "the key of this store's identity is damaged";
                    Error::new(Kind::Corrupt, "store.identity", message)
                });
        }
        let key = store_engine::generate_key()?;
        secrets
            .put(name, Secret::new(key.expose().as_slice())?)
            .await?;
        Ok(key)
    }

    /// The space that the store takes on its disk; `None` where it takes none, or does not know.
    pub async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        match &self.0.backend {
            #[cfg(feature = "redb")]
            Backend::Redb(store, _) => {
                let stats = store.stats().await?;
                Ok(Some(DiskUsage {
                    index: stats.log + stats.index,
                    payloads: stats.payload,
                }))
            }
            #[cfg(feature = "veilid")]
            Backend::Veilid(store) => {
                let usage = store.disk_usage().await?;
                Ok(Some(DiskUsage {
                    index: usage.entries,
                    payloads: usage.blocks,
                }))
            }
            Backend::Memory(_) | Backend::Foreign => Ok(None),
        }
    }

    /// Gives back at once the space that the backend would free little by little.
    pub async fn settle(&self) -> Result<()> {
        match &self.0.backend {
            #[cfg(feature = "redb")]
            Backend::Redb(store, _) => store.settle().await,
            // What is freed there is used again, and never given back.
            #[cfg(feature = "veilid")]
            Backend::Veilid(_) => Ok(()),
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
            Backend::Redb(store, _) => store.close().await,
            #[cfg(feature = "veilid")]
            Backend::Veilid(store) => {
                let closed = store.close().await;
                store.node().shutdown().await;
                closed
            }
            Backend::Foreign => Ok(()),
        };
        if let Some(secrets) = self.0.secrets.get() {
            secrets.close();
        }
        engine.and(backend)
    }
}

#[cfg(not(all(feature = "redb", feature = "veilid")))]
fn not_built_in(backend: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        "store.open",
        format!("this program was built without the {backend} backend"),
    )
}
