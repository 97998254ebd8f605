//! Stores in a Veilid node, for phones: `veilid:DIR` and `veilid+insecure:DIR`.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use larder_store_api::{BlobStore, CollectionStore, Result, Secrets};
use larder_store_veilid::{VeilidSecrets, VeilidStore};
use larder_veilid_node::Protection;

use super::{folder, veilid_folder};
use crate::{
    StoreUrl,
    backend::{Backend, DiskUsage, Driver, Recovered, Unlocker},
};

const KEYCHAIN: &str = "veilid";
const INSECURE_FILE: &str = "veilid+insecure";

#[derive(Debug)]
pub(super) struct Veilid;

#[derive(Debug)]
struct Open(Arc<VeilidStore>);

fn protection(url: &StoreUrl) -> Protection {
    match url.scheme() == INSECURE_FILE {
        true => Protection::InsecureFile,
        false => Protection::Keychain,
    }
}

#[async_trait]
impl Driver for Veilid {
    fn schemes(&self) -> &[&str] {
        &[KEYCHAIN, INSECURE_FILE]
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
        let store = veilid_folder::open(&folder(url)?, protection(url)).await?;
        Ok(Box::new(Open(Arc::new(store))))
    }

    async fn recover(&self, url: &StoreUrl) -> Result<Recovered> {
        let node = veilid_folder::start(&folder(url)?, protection(url)).await?;
        let repaired = VeilidStore::repair(node.clone(), "").await;
        node.shutdown().await;
        let repaired = repaired?;
        Ok(Recovered {
            lost_entries: repaired.lost_entries,
            lost_bytes: 0,
            kept: repaired.kept.into_iter().collect(),
        })
    }
}

#[async_trait]
impl Backend for Open {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.0.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.0.clone()
    }

    async fn secrets(&self, _unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        Ok(Arc::new(VeilidSecrets::new(self.0.node().clone())))
    }

    async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        let usage = self.0.disk_usage().await?;
        Ok(Some(DiskUsage::new(usage.entries, usage.blocks)))
    }

    async fn close(&self) -> Result<()> {
        let closed = self.0.close().await;
        self.0.node().shutdown().await;
        closed
    }
}
