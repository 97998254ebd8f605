//! Exports are byte for byte what iroh-blobs' own stores send.

use bao_tree::{ChunkNum, ChunkRanges};
use iroh_blobs::{api::Store, protocol::ChunkRangesExt, store::mem::MemStore};
use larder_store_iroh::iroh_store;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use range_collections::RangeSet2;

use crate::support::{SIZES, bytes, engine};

fn cases(size: usize) -> Vec<ChunkRanges> {
    let chunks = |range: std::ops::Range<u64>| ChunkRanges::chunks(range);
    let last = (size as u64).div_ceil(1024).saturating_sub(1);
    let mut cases = vec![
        ChunkRanges::empty(),
        ChunkRanges::all(),
        ChunkRanges::last_chunk(),
        chunks(0..1),
        chunks(3..4),
        chunks(0..16),
        chunks(15..17),
        chunks(16..32),
        chunks(17..18),
        chunks(10..40),
        chunks(last..last + 1),
        chunks(1_000_000..1_000_001),
        ChunkRanges::chunks(last..),
        ChunkRanges::chunks(20..),
        &chunks(0..1) | &ChunkRanges::last_chunk(),
        &chunks(2..3) | &chunks(5..6),
        &chunks(0..16) | &chunks(48..64),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(size as u64);
    for _ in 0..20 {
        let mut ranges = ChunkRanges::empty();
        for _ in 0..rng.random_range(1..6) {
            let start = rng.random_range(0..last + 3);
            let len = rng.random_range(1..40);
            ranges |= ChunkRanges::from(ChunkNum(start)..ChunkNum(start + len));
        }
        cases.push(ranges);
    }
    cases
}

#[tokio::test]
async fn encodings_are_those_of_iroh_blobs() {
    let theirs = Store::from(MemStore::new());
    let ours = iroh_store(&engine().await);
    for (seed, size) in (0..).zip(SIZES) {
        let data = bytes(seed, size);
        let tag = ours.add_slice(&data).temp_tag().await.unwrap();
        let _kept = theirs.add_slice(&data).temp_tag().await.unwrap();
        for ranges in cases(size) {
            let expected = theirs.export_bao(tag.hash(), ranges.clone()).bao_to_vec();
            let found = ours.export_bao(tag.hash(), ranges.clone()).bao_to_vec();
            let (found, expected) = (found.await.unwrap(), expected.await.unwrap());
            assert!(found == expected, "size {size}, ranges {ranges:?}");
        }
    }
}

#[tokio::test]
async fn ranges_are_those_of_iroh_blobs_in_larger_pieces() {
    let theirs = Store::from(MemStore::new());
    let ours = iroh_store(&engine().await);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (seed, size) in (0..).zip(SIZES) {
        let data = bytes(seed, size);
        let tag = ours.add_slice(&data).temp_tag().await.unwrap();
        let _kept = theirs.add_slice(&data).temp_tag().await.unwrap();
        let end = size as u64;
        let mut cases = vec![
            RangeSet2::empty(),
            RangeSet2::all(),
            RangeSet2::from(0..1),
            RangeSet2::from(100..2000),
            RangeSet2::from(end..),
            RangeSet2::from(end + 10..end + 20),
            &RangeSet2::from(0..10) | &RangeSet2::from(3000..),
            &RangeSet2::from(10..20) | &RangeSet2::from(end + 1..end + 2),
        ];
        for _ in 0..10 {
            let start = rng.random_range(0..end + 2);
            cases.push(RangeSet2::from(start..start + rng.random_range(1..200_000)));
        }
        for ranges in cases {
            let expected = theirs.export_ranges(tag.hash(), ranges.clone());
            let found = ours.export_ranges(tag.hash(), ranges.clone());
            let expected = expected.concatenate().await.unwrap();
            let found = found.concatenate().await.unwrap();
            assert!(found == expected, "size {size}, ranges {ranges:?}");
        }
    }
}

/// Tests that blobs that are here in part, to the chunk, are exported as iroh-blobs exports them
/// from the whole. (Its own store fails where a chunk group is here in part.)
#[tokio::test]
async fn encodings_of_what_is_here_in_part_are_those_of_iroh_blobs() {
    let whole = Store::from(MemStore::new());
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for seed in 0..20 {
        let chunks = rng.random_range(1..200);
        let data = bytes(
            seed,
            chunks as usize * 1024 + rng.random_range(0..1024_usize),
        );
        let tag = whole.add_slice(&data).temp_tag().await.unwrap();
        let hash = tag.hash();
        let ours = iroh_store(&engine().await);
        let mut here = ChunkRanges::empty();
        for _ in 0..rng.random_range(1..5) {
            let start = rng.random_range(0..=chunks);
            let part =
                ChunkRanges::from(ChunkNum(start)..ChunkNum(start + rng.random_range(1..40)));
            let encoded = whole.export_bao(hash, part.clone()).bao_to_vec();
            let encoded = encoded.await.unwrap();
            let import = ours.import_bao_bytes(hash, part.clone(), encoded);
            import.await.unwrap();
            here |= part;
        }
        for _ in 0..20 {
            let start = rng.random_range(0..=chunks);
            let end = start + rng.random_range(1..30);
            let ranges = &here & &ChunkRanges::from(ChunkNum(start)..ChunkNum(end));
            let expected = whole.export_bao(hash, ranges.clone()).bao_to_vec();
            let found = ours.export_bao(hash, ranges.clone()).bao_to_vec();
            let (expected, found) = (expected.await.unwrap(), found.await.unwrap());
            assert!(
                found == expected,
                "seed {seed}, here {here:?}, ranges {ranges:?}"
            );
        }
    }
}
