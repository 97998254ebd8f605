//! The data of the loads.

use bytes::Bytes;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Returns different small blobs, generated quickly.
pub fn small(n: u64, len: usize) -> Vec<Bytes> {
    let mut data = bytes(n, len);
    let one = |i: u64| {
        data[..8].copy_from_slice(&i.to_le_bytes());
        Bytes::copy_from_slice(&data)
    };
    (0..n).map(one).collect()
}

/// Returns the stream that both systems add: pieces of 1 MiB, each different.
pub fn pieces(len: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut piece = bytes(0, 1 << 20);
    (0..len >> 20).map(move |i| {
        piece[..8].copy_from_slice(&i.to_le_bytes());
        Bytes::copy_from_slice(&piece)
    })
}
