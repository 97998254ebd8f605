//! The bytes that loads store: the same in every run, and no two blobs alike.

use bytes::{Bytes, BytesMut};
use rand::{RngCore, SeedableRng, rngs::StdRng};

/// The length of the pieces that a stream gives.
const PIECE: usize = 1024 * 1024;
/// The distance between the bytes that make each piece different.
const STAMP_EVERY: usize = 1024;

/// The source of the loads' bytes, and their number.
#[derive(Debug, Clone)]
pub struct Data {
    noise: Bytes,
    /// The number of small blobs.
    pub small: u64,
    /// The number of blobs of 16 KiB.
    pub medium: u64,
    /// The length of the large blob, in bytes.
    pub large: u64,
    /// The number of random reads.
    pub reads: u64,
}

impl Data {
    /// Loads of this size; 1.0 is the full one. At least one of everything.
    pub fn new(scale: f64) -> Self {
        let mut noise = vec![0; PIECE];
        StdRng::seed_from_u64(1).fill_bytes(&mut noise);
        let count = |full: u64| ((full as f64 * scale) as u64).max(1);
        Self {
            noise: noise.into(),
            small: count(10_000),
            medium: count(10_000),
            large: count(1024).max(1) * PIECE as u64,
            reads: count(20_000),
        }
    }

    /// Blob number `index` of `len` bytes, at most 1 MiB.
    pub fn blob(&self, index: u64, len: usize) -> Bytes {
        let mut bytes = BytesMut::from(&self.noise[..len]);
        // The length too, so that blobs of two lengths do not begin alike.
        let stamp = index ^ ((len as u64) << 40);
        for chunk in bytes.chunks_mut(STAMP_EVERY) {
            let stamp = &stamp.to_le_bytes()[..chunk.len().min(8)];
            chunk[..stamp.len()].copy_from_slice(stamp);
        }
        bytes.freeze()
    }

    /// The pieces of the large blob.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + 'static {
        let data = self.clone();
        (0..self.large / PIECE as u64).map(move |index| data.blob(index, PIECE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_blobs_are_alike_and_every_run_has_the_same() {
        let data = Data::new(0.01);
        assert_eq!((data.small, data.large), (100, 10 << 20));
        let mut all: Vec<_> = (0..50)
            .flat_map(|i| [data.blob(i, 1024), data.blob(i, 16 * 1024), data.blob(i, 5)])
            .collect();
        all.extend(data.pieces());
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(Data::new(0.01).blob(7, 1024), data.blob(7, 1024));
        assert_eq!(
            data.pieces().map(|p| p.len() as u64).sum::<u64>(),
            data.large
        );
    }

    #[test]
    fn the_smallest_scale_still_has_one_of_everything() {
        let data = Data::new(0.0);
        assert_eq!((data.small, data.medium, data.reads), (1, 1, 1));
        assert_eq!(data.large, PIECE as u64);
    }
}
