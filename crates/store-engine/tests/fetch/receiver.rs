//! Tests of the receiver of one answer.

use std::time::Duration;

use futures_util::TryStreamExt;
use larder_store_engine::{
    ChunkNum, ChunkRanges, Encoded, Hash,
    fetch::{Fault, Misconduct, Receiver},
};

use crate::{
    common::{SIZES, bytes, engine},
    peers::{ABSENT, Body},
};

fn receiver(bytes: Vec<u8>) -> Receiver<Body> {
    Receiver::new(Body::of(bytes), Duration::from_secs(1))
}

async fn encoded(data: &[u8], ranges: &ChunkRanges) -> (Hash, Vec<u8>) {
    let (blobs, _) = engine().await;
    let pin = blobs.add(data.to_vec()).await.unwrap();
    let mut out = Vec::new();
    let items = blobs.export(pin.hash(), ranges.clone());
    let items: Vec<Encoded> = items.try_collect().await.unwrap();
    for item in items {
        match item {
            Encoded::Size(size) => out.extend(size.to_le_bytes()),
            Encoded::Parent(parent) => {
                out.extend(parent.pair.0.as_bytes());
                out.extend(parent.pair.1.as_bytes());
            }
            Encoded::Leaf(leaf) => out.extend(leaf.data),
        }
    }
    (pin.hash(), out)
}

/// Returns all leaves of the next blob.
async fn leaves(
    receiver: &mut Receiver<Body>,
    hash: Hash,
    ranges: &ChunkRanges,
) -> Result<Option<Vec<(u64, Vec<u8>)>>, Fault> {
    let Some(size) = receiver.size(hash).await? else {
        return Ok(None);
    };
    let mut items = receiver.items(hash, size, ranges);
    let mut leaves = Vec::new();
    while let Some(item) = items.next().await? {
        if let Encoded::Leaf(leaf) = item {
            leaves.push((leaf.offset, leaf.data.to_vec()));
        }
    }
    Ok(Some(leaves))
}

#[tokio::test]
async fn blobs_come_one_after_the_other_and_absent_ones_between_them() {
    let ranges = [
        ChunkRanges::all(),
        ChunkRanges::from(ChunkNum(3)..ChunkNum(70)),
        ChunkRanges::from(ChunkNum(1 << 40)..),
        ChunkRanges::from(..ChunkNum(8192)),
    ];
    for ranges in ranges {
        let mut answer = Vec::new();
        let mut blobs = Vec::new();
        for (seed, size) in (0..).zip(SIZES) {
            let data = bytes(seed, size);
            let (hash, encoded) = encoded(&data, &ranges).await;
            answer.extend(encoded);
            answer.extend(ABSENT.to_le_bytes());
            blobs.push((hash, data));
        }
        let mut receiver = receiver(answer);
        for (hash, data) in blobs {
            let got = leaves(&mut receiver, hash, &ranges).await.unwrap().unwrap();
            for (offset, leaf) in &got {
                let at = *offset as usize;
                assert!(data[at..at + leaf.len()] == leaf[..]);
            }
            if ranges.is_all() {
                assert_eq!(
                    got.iter().map(|(_, leaf)| leaf.len()).sum::<usize>(),
                    data.len()
                );
            }
            let absent = leaves(&mut receiver, Hash::of(b"absent"), &ranges).await;
            assert!(absent.unwrap().is_none());
        }
    }
}

/// A flipped bit is detected before the data around it is returned; an answer that ends early is the
/// fault that the stream reports.
#[tokio::test]
async fn every_flipped_bit_is_a_lie() {
    // The end is included, which proves the size.
    let ranges = ChunkRanges::from(ChunkNum(5)..ChunkNum(40)) | ChunkRanges::from(ChunkNum(97)..);
    let data = bytes(1, 100_000);
    let (hash, encoded) = encoded(&data, &ranges).await;
    for at in (0..encoded.len())
        .step_by(97)
        .chain([0, 1, 7, 8, 9, 71, 72])
    {
        let mut flipped = encoded.clone();
        flipped[at] ^= 16;
        let mut receiver = receiver(flipped);
        let fault = leaves(&mut receiver, hash, &ranges).await.unwrap_err();
        // A wrong size may also require more bytes than there are.
        let is_lie = fault.is_peers(Misconduct::Lies);
        let is_short = at < 8 && fault.is_peers(Misconduct::Lacks);
        assert!(is_lie || is_short, "byte {at}: {fault:?}");
        let mut receiver = self::receiver(encoded[..at].to_vec());
        let fault = leaves(&mut receiver, hash, &ranges).await.unwrap_err();
        assert!(fault.is_peers(Misconduct::Lacks), "end at {at}: {fault:?}");
    }
}

#[tokio::test]
async fn only_the_empty_blob_is_empty() {
    let mut answer = receiver(0_u64.to_le_bytes().repeat(2));
    assert_eq!(answer.size(Hash::EMPTY).await.unwrap(), Some(0));
    let fault = answer.size(Hash::of(b"x")).await.unwrap_err();
    assert!(fault.is_peers(Misconduct::Lies), "{fault:?}");
    let mut answer = receiver(5_u64.to_le_bytes().to_vec());
    let fault = answer.size(Hash::EMPTY).await.unwrap_err();
    assert!(fault.is_peers(Misconduct::Lies), "{fault:?}");
}
