//! Larder on redb.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use store_engine::{AddOptions, Blobs, ChunkRanges, Encoded, Source, TagName};
use store_redb::{Options, RedbStore};
use tokio::io::AsyncReadExt;

use crate::system::{Hash, System, pieces};

#[derive(Clone)]
pub struct Larder {
    pub store: RedbStore,
    pub blobs: Blobs,
}

impl System for Larder {
    async fn open(dir: &Path) -> Self {
        let store = RedbStore::open(dir, Options::default()).await.unwrap();
        let shared = Arc::new(store.clone());
        let blobs = Blobs::open(shared.clone(), shared).await.unwrap();
        Self { store, blobs }
    }

    async fn add_tagged(&self, name: String, data: Bytes) -> Hash {
        let options = AddOptions {
            tag: Some(TagName::try_from(name.as_str()).unwrap()),
            ..AddOptions::default()
        };
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
        self.store.close().await.unwrap();
    }
}
