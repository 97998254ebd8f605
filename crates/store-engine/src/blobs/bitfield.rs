//! The chunks of a blob that are here.

use std::ops::Range;

use bao_tree::{ChunkNum, ChunkRanges};

/// The chunks of 1 KiB of a blob that are verified and durable here, and the blob's size as far as
/// it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitfield {
    /// The size in bytes: certain where [`size_is_proven`](Self::size_is_proven), else what a peer
    /// claims. Zero where nothing is here.
    pub size: u64,
    /// The chunks; open-ended where the last chunk is here.
    pub ranges: ChunkRanges,
}

impl Bitfield {
    /// Nothing.
    pub fn empty() -> Self {
        Self {
            size: 0,
            ranges: ChunkRanges::empty(),
        }
    }

    /// All of `size` bytes.
    pub fn complete(size: u64) -> Self {
        Self {
            size,
            ranges: ChunkRanges::all(),
        }
    }

    pub(crate) fn new(mut ranges: ChunkRanges, size: u64) -> Self {
        let end = ChunkNum::chunks(size);
        if ranges.contains(&ChunkNum(end.0.saturating_sub(1))) {
            ranges |= ChunkRanges::from(end..);
        }
        Self { size, ranges }
    }

    /// Returns true if every byte is here.
    pub fn is_complete(&self) -> bool {
        self.ranges.is_all()
    }

    /// Returns true if the last chunk is here, which proves the size.
    pub fn size_is_proven(&self) -> bool {
        let chunks = ChunkNum::chunks(self.size).0;
        self.ranges.contains(&ChunkNum(chunks.saturating_sub(1)))
    }

    /// Returns the ranges of bytes that are here, ascending.
    pub fn present(&self) -> impl Iterator<Item = Range<u64>> {
        // A peer may name chunks beyond what any blob has.
        let offset = |chunk: &ChunkNum| chunk.0.saturating_mul(1024).min(self.size);
        let ranges = self.ranges.boundaries().chunks(2);
        let bytes = ranges.map(move |pair| offset(&pair[0])..pair.get(1).map_or(self.size, offset));
        bytes.filter(|range| !range.is_empty())
    }

    /// Returns the number of bytes that are here.
    pub fn present_bytes(&self) -> u64 {
        self.present().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_short_last_chunk() {
        let half = Bitfield::new(ChunkRanges::from(..ChunkNum(1)), 1500);
        assert_eq!((half.present_bytes(), half.size_is_proven()), (1024, false));
        let last = Bitfield::new(ChunkRanges::from(ChunkNum(1)..ChunkNum(2)), 1500);
        assert_eq!((last.present_bytes(), last.size_is_proven()), (476, true));
        assert!(last.present().eq(std::iter::once(1024..1500)));
        let all = Bitfield::new(ChunkRanges::from(..ChunkNum(2)), 1500);
        assert_eq!(all, Bitfield::complete(1500));
        assert_eq!(Bitfield::empty().present_bytes(), 0);
        let far = ChunkRanges::from(ChunkNum(u64::MAX - 1)..ChunkNum(u64::MAX));
        assert_eq!(Bitfield::new(far, 1500).present_bytes(), 0);
    }
}
