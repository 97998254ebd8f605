//! iroh-blobs' own store in a folder, to compare with.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use iroh_blobs::{
    Hash,
    protocol::{ChunkRanges, ChunkRangesExt},
    store::fs::FsStore,
};

use super::{
    Data,
    target::{Target, TargetStore, read_through},
};

/// iroh-blobs' `FsStore`.
#[derive(Debug)]
pub struct IrohFs {
    folder: PathBuf,
}

impl IrohFs {
    /// Stores are made below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }
}

#[async_trait]
impl Target for IrohFs {
    fn name(&self) -> &str {
        "iroh-fs"
    }

    fn durability(&self) -> &'static str {
        "not durable"
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    async fn open(&self, dir: &Path) -> Result<Arc<dyn TargetStore>> {
        let store = FsStore::load(dir.join("store"))
            .await
            .map_err(|error| anyhow!("cannot open iroh's store: {error}"))?;
        Ok(Arc::new(OpenIrohFs(store)))
    }

    fn persists(&self) -> bool {
        true
    }
}

struct OpenIrohFs(FsStore);

#[async_trait]
impl TargetStore for OpenIrohFs {
    async fn add(&self, bytes: Bytes, tag: &str) -> Result<[u8; 32]> {
        let added = self.0.blobs().add_bytes(bytes).with_named_tag(tag).await?;
        Ok(*added.hash.as_bytes())
    }

    async fn add_stream(&self, data: &Data, tag: &str) -> Result<[u8; 32]> {
        let pieces = stream::iter(data.pieces().map(Ok));
        let progress = self.0.blobs().add_stream(pieces).await;
        Ok(*progress.with_named_tag(tag).await?.hash.as_bytes())
    }

    async fn get(&self, hash: [u8; 32]) -> Result<u64> {
        let bytes = self.0.blobs().get_bytes(Hash::from(hash)).await?;
        Ok(bytes.len() as u64)
    }

    async fn read_all(&self, hash: [u8; 32]) -> Result<u64> {
        read_through(self.0.blobs().reader(Hash::from(hash))).await
    }

    async fn read_range(&self, hash: [u8; 32], range: Range<u64>) -> Result<u64> {
        let ranges = ChunkRanges::bytes(range);
        let export = self.0.blobs().export_bao(Hash::from(hash), ranges);
        Ok(export.data_to_bytes().await?.len() as u64)
    }

    async fn export(&self, hash: [u8; 32]) -> Result<u64> {
        use bao_tree::io::mixed::EncodedItem;
        let export = self
            .0
            .blobs()
            .export_bao(Hash::from(hash), ChunkRanges::all());
        let mut items = std::pin::pin!(export.stream());
        let mut total = 0;
        while let Some(item) = items.next().await {
            match item {
                EncodedItem::Leaf(leaf) => total += leaf.data.len() as u64,
                EncodedItem::Error(error) => bail!("cannot export: {error}"),
                EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Done => {}
            }
        }
        Ok(total)
    }

    async fn close(&self) -> Result<()> {
        // Acknowledged changes may still have to be committed.
        self.0.sync_db().await?;
        Ok(self.0.shutdown().await?)
    }
}
