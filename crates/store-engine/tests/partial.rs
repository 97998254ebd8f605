//! Tests of reading blobs that contain a partial group.

mod common;

use common::{bytes, engine, transfer};
use larder_store_api::Kind;
use larder_store_engine::{ChunkNum, ChunkRanges};

#[tokio::test]
async fn what_is_missing_of_a_group_is_not_found() {
    for size in [16 * 1024, 40 * 1024, 100_000] {
        let blob = bytes(1, size);
        for part in [0..1, 0..3, 0..8, 0..15, 1..2, 5..9, 8..16, 15..16] {
            let ((from, _), (to, _)) = (engine().await, engine().await);
            let pin = from.add(blob.clone()).await.unwrap();
            let chunks = ChunkRanges::from(ChunkNum(part.start)..ChunkNum(part.end));
            transfer(&from, &to, pin.hash(), pin.size().unwrap(), chunks).await;
            let error = to.read_to_bytes(pin.hash(), 0..u64::MAX).await.unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{size} {part:?}: {error}");
            let (start, end) = (part.start * 1024, part.end * 1024);
            let read = to.read_to_bytes(pin.hash(), start..end).await.unwrap();
            assert_eq!(read, blob[start as usize..end as usize]);
        }
    }
}
