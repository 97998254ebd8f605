//! The targets of loads: kinds of stores that can be made, filled, read and opened again.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use larder::{
    AddOptions, ChunkRanges, Encoded, Hash, Source, Store, StoreBuilder, StoreUrl, TagName,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Data;
use crate::backends::backends;

/// The number of bytes that a reader is asked for at once.
const READ_LEN: usize = 256 * 1024;

/// Reads all that a reader gives, and says how much that is.
pub(super) async fn read_through(mut reader: impl AsyncRead + Unpin) -> Result<u64> {
    let mut buffer = vec![0; READ_LEN];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer).await.context("cannot read")? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

/// A kind of store.
#[async_trait]
pub trait Target: fmt::Debug + Send + Sync {
    /// Its name in tables.
    fn name(&self) -> &str;
    /// Returns what holds when the store says that something is stored.
    fn durability(&self) -> &'static str;
    /// The folder to make stores in; `None` for one that needs none.
    fn folder(&self) -> Option<&Path>;
    /// Opens the store in `dir`, which is empty or was filled by this kind of store.
    async fn open(&self, dir: &Path) -> Result<Arc<dyn TargetStore>>;
    /// Returns true if stored data are there after closing.
    fn persists(&self) -> bool;
}

/// An open store of a kind.
#[async_trait]
pub trait TargetStore: Send + Sync {
    /// Stores a blob under a tag.
    async fn add(&self, bytes: Bytes, tag: &str) -> Result<[u8; 32]>;
    /// Stores the large blob of `data` from a stream, under a tag.
    async fn add_stream(&self, data: &Data, tag: &str) -> Result<[u8; 32]>;
    /// A whole small blob, and its length.
    async fn get(&self, hash: [u8; 32]) -> Result<u64>;
    /// Reads a blob to its end through AsyncRead, and says its length.
    async fn read_all(&self, hash: [u8; 32]) -> Result<u64>;
    /// A range of a blob, verified, and its length.
    async fn read_range(&self, hash: [u8; 32], range: Range<u64>) -> Result<u64>;
    /// The verified encoding of a blob, as for a peer; says how many bytes of the blob it had.
    async fn export(&self, hash: [u8; 32]) -> Result<u64>;
    /// Waits for all that is still to be written, and closes the store.
    async fn close(&self) -> Result<()>;
}

/// A store of ours: of the kind of this URL, below its folder.
#[derive(Debug)]
pub struct LarderStore {
    url: StoreUrl,
    folder: Option<PathBuf>,
}

impl LarderStore {
    /// The kind of store at `url`; new ones are made below its folder.
    pub fn new(url: &StoreUrl) -> Self {
        Self {
            url: url.clone(),
            folder: backends().folder(url),
        }
    }
}

#[async_trait]
impl Target for LarderStore {
    fn name(&self) -> &str {
        self.url.scheme()
    }

    fn durability(&self) -> &'static str {
        match &self.folder {
            Some(_) => "durable",
            None => "in memory",
        }
    }

    fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    async fn open(&self, dir: &Path) -> Result<Arc<dyn TargetStore>> {
        let url = match &self.folder {
            Some(_) => StoreUrl::new(self.url.scheme(), dir.join("store"))?,
            None => self.url.clone(),
        };
        let builder = StoreBuilder::from_url(url).backends(backends().clone());
        Ok(Arc::new(OpenLarder(builder.open().await?)))
    }

    fn persists(&self) -> bool {
        self.folder.is_some()
    }
}

struct OpenLarder(Store);

#[async_trait]
impl TargetStore for OpenLarder {
    async fn add(&self, bytes: Bytes, tag: &str) -> Result<[u8; 32]> {
        let options = AddOptions::default().tag(TagName::try_from(tag)?);
        let pin = self.0.blobs().add_with(bytes, options).await?;
        Ok(*pin.hash().as_bytes())
    }

    async fn add_stream(&self, data: &Data, tag: &str) -> Result<[u8; 32]> {
        let options = AddOptions::default().tag(TagName::try_from(tag)?);
        let pieces = stream::iter(data.pieces().map(Ok));
        let source = Source::Stream(Box::pin(pieces));
        let pin = self.0.blobs().add_with(source, options).await?;
        Ok(*pin.hash().as_bytes())
    }

    async fn get(&self, hash: [u8; 32]) -> Result<u64> {
        self.read_range(hash, 0..u64::MAX).await
    }

    async fn read_all(&self, hash: [u8; 32]) -> Result<u64> {
        read_through(self.0.blobs().reader(Hash::from(hash)).await?).await
    }

    async fn read_range(&self, hash: [u8; 32], range: Range<u64>) -> Result<u64> {
        let bytes = self
            .0
            .blobs()
            .read_to_bytes(Hash::from(hash), range)
            .await?;
        Ok(bytes.len() as u64)
    }

    async fn export(&self, hash: [u8; 32]) -> Result<u64> {
        let mut items = self.0.blobs().export(Hash::from(hash), ChunkRanges::all());
        let mut total = 0;
        let mut claimed = None;
        while let Some(item) = items.try_next().await? {
            match item {
                Encoded::Size(size) => claimed = Some(size),
                Encoded::Parent(_) => {}
                Encoded::Leaf(leaf) => total += leaf.data.len() as u64,
            }
        }
        if claimed != Some(total) {
            bail!("the export was not complete");
        }
        Ok(total)
    }

    async fn close(&self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
