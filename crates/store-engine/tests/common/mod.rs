//! Helpers for the engine's tests.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;

use larder_store_engine::{Blobs, ChunkRanges, Encoded, Hash, Trust};
use larder_store_testkit::MemoryStore;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Lengths around the boundaries of chunks, groups, windows and segments.
pub const SIZES: [usize; 14] = [
    0,
    1,
    1023,
    1024,
    1025,
    16 * 1024 - 1,
    16 * 1024,
    16 * 1024 + 1,
    32 * 1024,
    100_000,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 16 * 1024 + 5,
    17 * (1 << 20) + 3,
];

pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Returns engines over memory, with short and with long blocks.
pub async fn engines() -> Vec<Blobs> {
    let mut engines = Vec::new();
    for block_len in [16 * 1024, 64 * 1024] {
        let store = Arc::new(MemoryStore::with_block_len(block_len));
        engines.push(Blobs::open(store.clone(), store).await.unwrap());
    }
    engines
}

pub async fn engine() -> (Blobs, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
    (blobs, store)
}

/// Returns everything that `from` exports of these ranges.
pub async fn export(from: &Blobs, hash: Hash, ranges: ChunkRanges) -> Vec<Encoded> {
    use futures_util::TryStreamExt;
    from.export(hash, ranges).try_collect().await.unwrap()
}

/// Transfers these ranges of a blob.
pub async fn transfer(from: &Blobs, to: &Blobs, hash: Hash, size: u64, ranges: ChunkRanges) {
    let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
    for item in export(from, hash, ranges).await {
        import.push(item).await.unwrap();
    }
    import.finish().await.unwrap();
}
