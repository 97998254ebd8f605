//! iroh-blobs' own file store.

use std::{ops::Range, path::Path};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use iroh_blobs::{api::blobs::EncodedItem, protocol::ChunkRangesExt, store::fs::FsStore};
use larder_store_engine::ChunkRanges;
use tokio::io::AsyncReadExt;

use crate::{
    data::pieces,
    system::{Hash, System},
};

#[derive(Clone)]
pub struct IrohFs(pub FsStore);

impl System for IrohFs {
    async fn open(dir: &Path) -> Self {
        Self(FsStore::load(dir).await.unwrap())
    }

    async fn add_tagged(&self, name: String, data: Bytes) -> Hash {
        let added = self.0.blobs().add_bytes(data).with_named_tag(name).await;
        *added.unwrap().hash.as_bytes()
    }

    async fn add_stream(&self, len: u64) -> Hash {
        let pieces = stream::iter(pieces(len).map(Ok));
        let progress = self.0.blobs().add_stream(pieces).await;
        *progress.temp_tag().await.unwrap().hash().as_bytes()
    }

    async fn get(&self, hash: Hash) -> Bytes {
        self.0.blobs().get_bytes(hash).await.unwrap()
    }

    async fn read_all(&self, hash: Hash) -> u64 {
        let mut reader = self.0.blobs().reader(hash);
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
        let ranges = ChunkRanges::bytes(range);
        let data = self.0.blobs().export_bao(hash, ranges).data_to_bytes();
        data.await.unwrap().len() as u64
    }

    async fn export(&self, hash: Hash) -> u64 {
        let mut items = self.0.blobs().export_bao(hash, ChunkRanges::all()).stream();
        let mut total = 0;
        while let Some(item) = items.next().await {
            match item {
                EncodedItem::Leaf(leaf) => total += leaf.data.len() as u64,
                EncodedItem::Error(error) => panic!("{error}"),
                _ => {}
            }
        }
        total
    }

    async fn close(self) {
        self.0.shutdown().await.unwrap();
    }
}
