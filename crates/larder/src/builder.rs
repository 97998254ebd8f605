//! Opening a store with more than its URL.

use std::sync::Arc;

use larder_store_api::Result;
use larder_store_engine::Unlock;

use crate::{
    Store, StoreUrl,
    backend::{Driver, Recovered, Unlocker},
    backends::Backends,
};

/// A builder that opens a store: by its URL, with the way to unlock its keys, and with backends of the app.
///
/// ```
/// use larder::{StoreBuilder, Unlock};
///
/// # async fn example() -> larder::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// # let (url, key) = (format!("redb:{}", dir.path().join("store").display()), dir.path().join("key"));
/// let store = StoreBuilder::new(&url).unlock(Unlock::key_file(&key)?).open().await?;
/// let me = store.identity().await?; // kept encrypted under that key
/// # drop(me);
/// store.close().await
/// # }
/// # tokio::runtime::Runtime::new().expect("a runtime").block_on(example())?;
/// # larder::Result::<()>::Ok(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "it opens nothing until `open`"]
pub struct StoreBuilder {
    url: Result<StoreUrl>,
    unlock: Unlocker,
    backends: Backends,
}

impl StoreBuilder {
    /// A builder for the store at `url`; see [`StoreUrl`]. An error in it is returned by [`open`](Self::open).
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::with(url.as_ref().parse())
    }

    /// A builder for the store at a URL that was parsed before.
    pub fn from_url(url: StoreUrl) -> Self {
        Self::with(Ok(url))
    }

    fn with(url: Result<StoreUrl>) -> Self {
        Self {
            url,
            unlock: Unlocker::default(),
            backends: Backends::default(),
        }
    }

    /// Sets the key or password of the store's keys, for backends that keep them encrypted in a file.
    pub fn unlock(mut self, unlock: Unlock) -> Self {
        self.unlock = Unlocker::value(unlock);
        self
    }

    /// Sets a function that asks for the key or password when keys are first needed: never for a store of blobs alone.
    pub fn unlock_with(mut self, ask: impl Fn() -> Result<Unlock> + Send + Sync + 'static) -> Self {
        self.unlock = Unlocker::ask(ask);
        self
    }

    /// Adds a backend of the app.
    pub fn backend(mut self, driver: impl Driver) -> Self {
        self.backends.add(Arc::new(driver));
        self
    }

    /// Sets all backends that the URL may name.
    pub fn backends(mut self, backends: Backends) -> Self {
        self.backends = backends;
        self
    }

    /// Opens the store, and makes a new one if there is none.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::Kind::Unavailable) if another process has it open,
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if a newer version wrote it or no backend has its scheme,
    /// [`Kind::Invalid`](crate::Kind::Invalid) for a malformed URL, or a folder with something else
    /// in it.
    pub async fn open(self) -> Result<Store> {
        let url = self.url?;
        let driver = self.backends.driver(&url)?;
        driver.check(&url)?;
        let backend = driver.open(&url).await?;
        Store::assemble(backend, driver.folder(&url), self.unlock).await
    }

    /// Repairs a store that returns [`Kind::Corrupt`](crate::Kind::Corrupt) when it is opened or listed, and that
    /// no process has open: all that can still be read of its index is kept, the rest is lost. Then scrub it, which
    /// checks the blobs.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the backend has no repair.
    pub async fn recover(self) -> Result<Recovered> {
        let url = self.url?;
        let driver = self.backends.driver(&url)?;
        driver.check(&url)?;
        driver.recover(&url).await
    }
}

impl Store {
    /// Opens the store at `url` (see [`StoreUrl`]), and makes a new one if there is none. To use the store's keys too,
    /// open it with a [`StoreBuilder`], which is told how to unlock them.
    ///
    /// # Errors
    /// The errors of [`StoreBuilder::open`].
    pub async fn open(url: impl AsRef<str>) -> Result<Self> {
        StoreBuilder::new(url).open().await
    }

    /// Opens a store, as [`open`](Self::open) does, with a URL that was parsed before.
    ///
    /// # Errors
    /// The errors of [`StoreBuilder::open`].
    pub async fn open_url(url: &StoreUrl) -> Result<Self> {
        StoreBuilder::from_url(url.clone()).open().await
    }

    /// Repairs a store, as [`StoreBuilder::recover`] does.
    ///
    /// # Errors
    /// The errors of [`StoreBuilder::recover`].
    pub async fn recover(url: &StoreUrl) -> Result<Recovered> {
        StoreBuilder::from_url(url.clone()).recover().await
    }
}
