//! Stores that somebody else opens and closes.

use std::sync::Arc;

use async_trait::async_trait;
use larder_store_api::{BlobStore, CollectionStore, Result, Secrets};

use crate::backend::{Backend, Unlocker};

#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) payloads: Arc<dyn BlobStore>,
    pub(crate) collections: Arc<dyn CollectionStore>,
    pub(crate) secrets: Arc<dyn Secrets>,
}

#[async_trait]
impl Backend for Foreign {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.payloads.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.collections.clone()
    }

    async fn secrets(&self, _unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        Ok(self.secrets.clone())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
