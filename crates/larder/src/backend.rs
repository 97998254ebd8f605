//! The interface of a backend that URLs can name.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use larder_store_api::{BlobStore, CollectionStore, Error, Kind, Result, Secrets};
use larder_store_engine::Unlock;

use crate::StoreUrl;

/// A kind of backend, which opens the stores whose URLs have one of its schemes.
///
/// Register one with [`StoreBuilder::backend`](crate::StoreBuilder::backend), or put it into the
/// [`Backends`](crate::Backends) that a program uses for all stores.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Returns the schemes of its URLs, such as `redb`: letters, digits and `+`, more than one of them.
    fn schemes(&self) -> &[&str];

    /// Returns the way to write a URL of this scheme, for people, such as `redb:DIR`.
    fn syntax(&self, scheme: &str) -> String;

    /// Checks a URL without opening anything.
    ///
    /// # Errors
    /// [`Kind::Invalid`], with a message that says how to write it.
    fn check(&self, url: &StoreUrl) -> Result<()>;

    /// Returns the folder that a store lies in, or `None` if it lies in none. A program that only reads looks there
    /// first, so that a typing error makes no new store.
    fn folder(&self, url: &StoreUrl) -> Option<PathBuf> {
        let _ = url;
        None
    }

    /// Opens a store, and makes a new one if there is none.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if another process has it open and it cannot be shared, [`Kind::Unsupported`] if a newer
    /// version wrote it, [`Kind::Invalid`] if something else is in its place.
    async fn open(&self, url: &StoreUrl) -> Result<Box<dyn Backend>>;

    /// Repairs a store that no process has open and that cannot be opened or read whole.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] unless the backend can.
    async fn recover(&self, url: &StoreUrl) -> Result<Recovered> {
        let message = "stores of this kind have no repair; bring a backup back";
        Err(Error::new(Kind::Unsupported, "store.recover", message).with("url", url))
    }
}

/// An open backend: a place for payloads, collections and secrets.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Returns the store of payloads.
    fn payloads(&self) -> Arc<dyn BlobStore>;

    /// Returns the store of collections; often the same object.
    fn collections(&self) -> Arc<dyn CollectionStore>;

    /// Opens the place for keys that belong to the store. It is called once, when they are first needed, and again if
    /// that fails. Keys that lie on a disk are encrypted under `unlock`.
    async fn secrets(&self, unlock: &Unlocker) -> Result<Arc<dyn Secrets>>;

    /// Returns the space that the store takes, or `None` if it takes none or does not know.
    async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        Ok(None)
    }

    /// Frees at once the space that would be freed little by little.
    async fn reclaim_space(&self) -> Result<()> {
        Ok(())
    }

    /// Closes the backend: makes durable all that was written, ends its threads, and releases what keeps others out,
    /// such as a lock, although handles of its stores live. The same URL can be opened again when it returns. Calls on
    /// those handles are [`Kind::Closed`] from then on. Closing it again does nothing.
    async fn close(&self) -> Result<()>;
}

/// The space that a store takes on its disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Collections, tags, small blobs, and the entries of large ones.
    pub index: u64,
    /// The bytes of large blobs, and their hash trees.
    pub payloads: u64,
}

impl DiskUsage {
    /// Makes a usage from the space for the index and for payloads.
    pub fn new(index: u64, payloads: u64) -> Self {
        Self { index, payloads }
    }

    /// Returns the sum of both.
    pub fn total(&self) -> u64 {
        self.index.saturating_add(self.payloads)
    }
}

/// The outcome of recovering a store that could not be read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The number of lost entries of the index, as far as it is known.
    pub lost_entries: u64,
    /// The number of bytes that could not be identified.
    pub lost_bytes: u64,
    /// The damaged files as they were found. Remove them when you no longer need them.
    pub kept: Vec<PathBuf>,
}

impl Recovered {
    /// Makes the outcome of a recovery that lost nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

type Ask = dyn Fn() -> Result<Unlock> + Send + Sync;

/// The way to unlock a store's keys, as the [`StoreBuilder`](crate::StoreBuilder) was told.
#[derive(Clone, Default)]
pub struct Unlocker(Option<Arc<Ask>>);

impl Unlocker {
    /// Makes an unlocker that always gives this key or password.
    pub fn value(unlock: Unlock) -> Self {
        Self::ask(move || Ok(unlock.clone()))
    }

    /// Makes an unlocker that asks each time that keys are opened: once for an open store, unless that fails.
    pub fn ask(ask: impl Fn() -> Result<Unlock> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    /// Returns the key or password.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the builder has no key or password; else the errors of asking.
    pub fn unlock(&self) -> Result<Unlock> {
        match &self.0 {
            Some(ask) => ask(),
            None => {
                let message = "the keys of this store are encrypted; give StoreBuilder::unlock a key or password";
                Err(Error::new(Kind::Denied, "store.secrets", message))
            }
        }
    }
}

impl fmt::Debug for Unlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "Unlocker(…)",
            None => "Unlocker(none)",
        })
    }
}
