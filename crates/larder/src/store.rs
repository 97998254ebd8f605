//! An open store: a backend, and the engine over it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_store_api::{
    BlobStore, CollectionStore, Error, Kind, Result, Secret, SecretKey, SecretName, Secrets,
};
use larder_store_engine::{Blobs, Collections, Records};
#[cfg(feature = "groups")]
use larder_sync::groups::Groups;
use tokio::sync::OnceCell;

use crate::{
    backend::{Backend, DiskUsage, Unlocker},
    backends::Foreign,
    secrets::UntilClosed,
};

/// The name of the secret that identifies this store's device.
const IDENTITY: &str = "endpoint";

/// An open store. A cheap handle; its clones are the same store.
///
/// Close it at the end: a store that was only dropped opens again as after a crash, with nothing
/// lost, but a little slower.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Box<dyn Backend>,
    folder: Option<PathBuf>,
    unlock: Unlocker,
    blobs: Blobs,
    collections: Collections,
    records: Records,
    secrets: OnceCell<Arc<UntilClosed>>,
    #[cfg(feature = "groups")]
    groups: OnceCell<Groups>,
    closed: OnceCell<Result<()>>,
}

impl Store {
    /// Opens a store over stores of your own, which [`close`](Self::close) leaves open. Its keys are kept in
    /// `secrets`, so it must outlive the process if the stores do.
    ///
    /// # Errors
    /// The errors of [`Blobs::open`].
    pub async fn over(
        payloads: Arc<dyn BlobStore>,
        collections: Arc<dyn CollectionStore>,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self> {
        let backend = Foreign {
            payloads,
            collections,
            secrets,
        };
        Self::assemble(Box::new(backend), None, Unlocker::default()).await
    }

    pub(crate) async fn assemble(
        backend: Box<dyn Backend>,
        folder: Option<PathBuf>,
        unlock: Unlocker,
    ) -> Result<Self> {
        let blobs = match Blobs::open(backend.payloads(), backend.collections()).await {
            Ok(blobs) => blobs,
            Err(error) => {
                if let Err(also) = backend.close().await {
                    tracing::debug!(%also, "a backend that could not be used cannot be closed");
                }
                return Err(error);
            }
        };
        let collections = blobs.collections().clone();
        let records = Records::new(collections.clone());
        #[cfg(feature = "groups")]
        blobs.add_roots(Arc::new(crate::groups::OwnTrees::new(&collections)));
        Ok(Self(Arc::new(Inner {
            backend,
            folder,
            unlock,
            blobs,
            collections,
            records,
            secrets: OnceCell::new(),
            #[cfg(feature = "groups")]
            groups: OnceCell::new(),
            closed: OnceCell::new(),
        })))
    }

    /// Returns the backend's short name, for people.
    pub fn name(&self) -> &str {
        self.0.blobs.payload_store().name()
    }

    /// Returns the folder that the store lies in, or `None` if it lies in none.
    pub fn folder(&self) -> Option<&Path> {
        self.0.folder.as_deref()
    }

    /// Returns the blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Returns the collections.
    pub fn collections(&self) -> &Collections {
        &self.0.collections
    }

    /// Returns the records.
    pub fn records(&self) -> &Records {
        &self.0.records
    }

    /// Returns the place for keys that belong to this store, which it opens once: the protected store of a Veilid
    /// node; memory, for a store in memory; an encrypted file in the folder of a redb store, which is unlocked as the
    /// [`StoreBuilder`](crate::StoreBuilder) was told.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::Kind::Denied) if nothing, or the wrong key, was given to unlock them.
    pub async fn secrets(&self) -> Result<Arc<dyn Secrets>> {
        let open = async || {
            let secrets = self.0.backend.secrets(&self.0.unlock).await?;
            Ok(Arc::new(UntilClosed::new(secrets)))
        };
        let secrets = self.0.secrets.get_or_try_init(open).await?;
        Ok(Arc::clone(secrets) as Arc<dyn Secrets>)
    }

    /// Returns the groups, which are opened once.
    #[cfg(feature = "groups")]
    pub(crate) async fn opened_groups(
        &self,
        open: impl Future<Output = Result<Groups>>,
    ) -> Result<Groups> {
        self.0.groups.get_or_try_init(|| open).await.cloned()
    }

    /// Returns the secret key that identifies this store's device to others. It does not change, so that tickets and
    /// invites stay valid.
    ///
    /// # Errors
    /// The errors of [`secrets`](Self::secrets); [`Kind::Corrupt`](crate::Kind::Corrupt) if the key is
    /// damaged.
    pub async fn identity(&self) -> Result<SecretKey> {
        let secrets = self.secrets().await?;
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
        let key = larder_store_engine::generate_key()?;
        secrets
            .put(name, Secret::new(key.expose().as_slice())?)
            .await?;
        Ok(key)
    }

    /// Returns the space that the store takes on its disk, or `None` if it takes none or does not know.
    pub async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        self.0.backend.disk_usage().await
    }

    /// Frees at once the space that the backend would free little by little.
    pub async fn reclaim_space(&self) -> Result<()> {
        self.0.backend.reclaim_space().await
    }

    /// Waits for running work, makes it durable and closes the store. Later calls, of every clone, are
    /// [`Kind::Closed`](crate::Kind::Closed); closing again returns the result of the first time.
    pub async fn close(&self) -> Result<()> {
        let closed = self.0.closed.get_or_init(|| self.close_once());
        closed.await.clone()
    }

    async fn close_once(&self) -> Result<()> {
        let engine = self.0.blobs.close().await;
        let backend = self.0.backend.close().await;
        if let Some(secrets) = self.0.secrets.get() {
            secrets.close();
        }
        engine.and(backend)
    }
}
