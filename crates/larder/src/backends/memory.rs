//! Stores in memory: `mem:`.

use std::sync::Arc;

use async_trait::async_trait;
use larder_store_api::{BlobStore, CollectionStore, Error, Kind, Result, Secrets};
use larder_store_memory::{MemorySecrets, MemoryStore};

use crate::{
    StoreUrl,
    backend::{Backend, Driver, Recovered, Unlocker},
};

#[derive(Debug)]
pub(super) struct Memory;

#[derive(Debug)]
struct Open {
    store: Arc<MemoryStore>,
    secrets: Arc<MemorySecrets>,
}

#[async_trait]
impl Driver for Memory {
    fn schemes(&self) -> &[&str] {
        &["mem"]
    }

    fn syntax(&self, scheme: &str) -> String {
        format!("{scheme}:")
    }

    fn check(&self, url: &StoreUrl) -> Result<()> {
        if url.rest().is_empty() {
            return Ok(());
        }
        let message = "a store in memory has no name: write mem:";
        Err(Error::new(Kind::Invalid, "store.url", message).with("url", url))
    }

    async fn open(&self, url: &StoreUrl) -> Result<Box<dyn Backend>> {
        self.check(url)?;
        Ok(Box::new(Open {
            store: Arc::new(MemoryStore::new()),
            secrets: Arc::new(MemorySecrets::new()),
        }))
    }

    async fn recover(&self, _url: &StoreUrl) -> Result<Recovered> {
        Ok(Recovered::new())
    }
}

#[async_trait]
impl Backend for Open {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.store.clone()
    }

    async fn secrets(&self, _unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        Ok(self.secrets.clone())
    }

    async fn close(&self) -> Result<()> {
        self.store.close();
        Ok(())
    }
}
