//! Stores in a folder, for servers and desktops: `redb:DIR`.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use larder_store_api::{BlobStore, CollectionStore, Result, Secrets};
use larder_store_engine::FileSecrets;
use larder_store_redb::{Options, RedbStore};

use super::folder;
use crate::{
    StoreUrl,
    backend::{Backend, DiskUsage, Driver, Recovered, Unlocker},
};

/// The file of keys in the folder.
const SECRETS_FILE: &str = "secrets";

#[derive(Debug)]
pub(super) struct Redb;

#[derive(Debug)]
struct Open {
    store: Arc<RedbStore>,
    secrets: PathBuf,
}

#[async_trait]
impl Driver for Redb {
    fn schemes(&self) -> &[&str] {
        &["redb"]
    }

    fn syntax(&self, scheme: &str) -> String {
        format!("{scheme}:DIR")
    }

    fn check(&self, url: &StoreUrl) -> Result<()> {
        folder(url).map(drop)
    }

    fn folder(&self, url: &StoreUrl) -> Option<PathBuf> {
        folder(url).ok()
    }

    async fn open(&self, url: &StoreUrl) -> Result<Box<dyn Backend>> {
        let dir = folder(url)?;
        let store = RedbStore::open(&dir, Options::default()).await?;
        Ok(Box::new(Open {
            store: Arc::new(store),
            secrets: dir.join(SECRETS_FILE),
        }))
    }

    async fn recover(&self, url: &StoreUrl) -> Result<Recovered> {
        let repaired = RedbStore::repair(&folder(url)?, Options::default()).await?;
        Ok(Recovered {
            lost_entries: repaired.lost_records,
            lost_bytes: repaired.lost_bytes,
            kept: repaired.kept,
        })
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

    async fn secrets(&self, unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        let secrets = FileSecrets::open(&self.secrets, unlock.unlock()?).await?;
        Ok(Arc::new(secrets))
    }

    async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        let stats = self.store.stats().await?;
        Ok(Some(DiskUsage::new(stats.log + stats.index, stats.payload)))
    }

    async fn reclaim_space(&self) -> Result<()> {
        self.store.settle().await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
