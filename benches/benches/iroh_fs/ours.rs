//! Larder on its backends.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use larder_store_api::{BlobStore, CollectionStore};
use larder_store_engine::{AddOptions, Blobs, ChunkRanges, Encoded, Source, TagName};
use larder_store_redb::{Options, RedbStore};
use larder_store_veilid::VeilidStore;
use larder_veilid_node::{Node, NodeConfig, Protection};
use tokio::io::AsyncReadExt;

use crate::{
    data::pieces,
    system::{Hash, System},
};

/// The backend that stores the bytes.
pub trait Backend: BlobStore + CollectionStore + Clone {
    fn open(dir: &Path) -> impl Future<Output = Self> + Send;
    fn close(&self) -> impl Future<Output = ()> + Send;
}

impl Backend for RedbStore {
    async fn open(dir: &Path) -> Self {
        RedbStore::open(dir, Options::default()).await.unwrap()
    }

    async fn close(&self) {
        RedbStore::close(self).await.unwrap();
    }
}

impl Backend for VeilidStore {
    async fn open(dir: &Path) -> Self {
        // A process runs one node of each name.
        let namespace = dir.file_name().unwrap().to_str().unwrap();
        let mut config = NodeConfig::new(dir, Protection::InsecureFile);
        config.namespace = namespace.replace(|c: char| !c.is_alphanumeric(), "");
        let node = Node::start(config).await.unwrap();
        VeilidStore::open(node, "").await.unwrap()
    }

    async fn close(&self) {
        VeilidStore::close(self).await.unwrap();
        self.node().shutdown().await;
    }
}

#[derive(Clone)]
pub struct Larder<B> {
    pub backend: B,
    pub blobs: Blobs,
}

impl<B: Backend> System for Larder<B> {
    async fn open(dir: &Path) -> Self {
        let backend = B::open(dir).await;
        let shared = Arc::new(backend.clone());
        let blobs = Blobs::open(shared.clone(), shared).await.unwrap();
        Self { backend, blobs }
    }

    async fn add_tagged(&self, name: String, data: Bytes) -> Hash {
        let options = AddOptions::default().tag(TagName::try_from(name.as_str()).unwrap());
        let pin = self.blobs.add_with(data, options).await.unwrap();
        *pin.hash().as_bytes()
    }

    async fn add_stream(&self, len: u64) -> Hash {
        let source = Source::Stream(Box::pin(stream::iter(pieces(len).map(Ok))));
        *self.blobs.add(source).await.unwrap().hash().as_bytes()
    }

    async fn get(&self, hash: Hash) -> Bytes {
        self.blobs
            .read_to_bytes(hash.into(), 0..u64::MAX)
            .await
            .unwrap()
    }

    async fn read_all(&self, hash: Hash) -> u64 {
        let mut reader = self.blobs.reader(hash.into()).await.unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                0 => return total,
                len => total += len as u64,
            }
        }
    }

    async fn read_verified(&self, hash: Hash, range: Range<u64>) -> u64 {
        self.blobs
            .read_to_bytes(hash.into(), range)
            .await
            .unwrap()
            .len() as u64
    }

    async fn export(&self, hash: Hash) -> u64 {
        let items = self.blobs.export(hash.into(), ChunkRanges::all());
        items
            .try_fold(0, async |total, item| {
                Ok(match item {
                    Encoded::Leaf(leaf) => total + leaf.data.len() as u64,
                    _ => total,
                })
            })
            .await
            .unwrap()
    }

    async fn close(self) {
        self.blobs.close().await.unwrap();
        self.backend.close().await;
    }
}
