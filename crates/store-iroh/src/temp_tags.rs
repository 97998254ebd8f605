//! Temp tags: pins that iroh-blobs hands out. Their registry is private to that crate, so a memory
//! store that holds nothing else keeps them, and the engine asks it for them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures_util::StreamExt;
use iroh_blobs::{
    HashAndFormat,
    api::{
        Store, TempTag,
        proto::{Command, CreateTempTagRequest, Scope},
    },
    store::mem::MemStore,
};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Blobs, Root, Roots};
use tokio::time::Duration;

use crate::{
    adapter::{Client, client_of},
    convert::to_engine_root,
};

/// The interval at which an unused store looks if its last temp tag is gone.
const LINGER: Duration = Duration::from_secs(30);

/// Gives out temp tags, and tells the engine of them.
#[derive(Debug)]
pub(crate) struct TempTags {
    registry: Store,
    client: Client,
    blobs: Blobs,
}

impl TempTags {
    pub(crate) fn new(blobs: &Blobs) -> Arc<Self> {
        let registry = Store::from(MemStore::new());
        let tags = Arc::new(Self {
            client: client_of(registry.clone()),
            registry,
            blobs: blobs.clone(),
        });
        blobs.add_roots(Arc::new(EngineRoots(Arc::downgrade(&tags))));
        tags
    }

    /// A temp tag that already protects what it names: whatever its owner then finds stays.
    pub(crate) async fn create(&self, scope: Scope, value: HashAndFormat) -> Result<TempTag> {
        // The pin lasts until the tag is in the registry, which is where a collection looks after it
        // has looked at pins.
        let pin = self.blobs.pin(to_engine_root(value)).await;
        let tag = self
            .client
            .rpc(CreateTempTagRequest { scope, value })
            .await
            .map_err(registry_gone)?;
        drop(pin);
        Ok(tag)
    }

    /// Every temp tag that lives.
    pub(crate) async fn list(&self) -> Result<Vec<HashAndFormat>> {
        let tags = self.registry.tags().list_temp_tags().await;
        Ok(tags.map_err(registry_gone)?.collect().await)
    }

    /// Lets the registry answer: for batches, whose scopes it alone can make.
    pub(crate) async fn forward(&self, command: Command) -> Result<()> {
        let local = self
            .client
            .as_local()
            .expect("the registry is in this process");
        local.send_raw(command).await.map_err(registry_gone)
    }

    /// Keeps the registry until its last temp tag is dropped, so that one which outlives its store
    /// still protects.
    pub(crate) async fn linger(self: Arc<Self>) {
        while self.list().await.is_ok_and(|tags| !tags.is_empty()) {
            tokio::time::sleep(LINGER).await;
        }
    }
}

fn registry_gone(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(
        Kind::Closed,
        "temp_tags.ask",
        "the runtime that kept the temp tags has ended",
    )
    .because(error)
}

/// The roots that the engine asks for when it collects. Weak, so that a store can end before its
/// engine.
#[derive(Debug)]
struct EngineRoots(Weak<TempTags>);

#[async_trait]
impl Roots for EngineRoots {
    async fn roots(&self, _blobs: &Blobs) -> Result<Vec<Root>> {
        match self.0.upgrade() {
            Some(tags) => Ok(tags.list().await?.into_iter().map(to_engine_root).collect()),
            None => Ok(Vec::new()),
        }
    }
}
