//! Tests of adding many blobs at once, over memory.

mod common;

use common::{SIZES, bytes, engine, engines, transfer};
use futures_util::StreamExt;
use larder_store_api::{Change, CollectionStore};
use larder_store_engine::{BlobStatus, ChunkNum, ChunkRanges, Hash, Hashed};

#[tokio::test]
async fn what_is_added_together_is_read_back() {
    let mut all: Vec<_> = (0..150).map(|n| bytes(n, 50)).collect();
    all.extend(SIZES[..9].iter().map(|size| bytes(0, *size)));
    let each = all.len();
    all.push(all[0].clone());
    for blobs in engines().await {
        // The second time all of them exist already.
        for _ in 0..2 {
            let hashed = all.iter().cloned().map(Hashed::new).collect();
            let pins = blobs.add_all(hashed).await.unwrap();
            assert_eq!(pins.len(), each);
            for data in &all {
                let hash = Hash::of(data);
                let pin = pins.iter().find(|pin| pin.hash() == hash).unwrap();
                assert_eq!(pin.size(), Some(data.len() as u64));
                let read = blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
                assert_eq!(read, data[..]);
            }
        }
    }
}

#[tokio::test]
async fn small_ones_are_added_in_one_commit() {
    let (blobs, store) = engine().await;
    let mut changes = store.watch().unwrap();
    let all = (0..64).map(|n| Hashed::new(bytes(n, 50))).collect();
    blobs.add_all(all).await.unwrap();
    let Change::Keys { keys, .. } = changes.next().await.unwrap().unwrap() else {
        panic!("the watcher is not behind");
    };
    assert_eq!(keys.len(), 64);
}

#[tokio::test]
async fn one_that_is_there_in_part_becomes_whole_with_the_others() {
    let ((from, _), (to, _)) = (engine().await, engine().await);
    let blob = bytes(1, 16 * 1024);
    let pin = from.add(blob.clone()).await.unwrap();
    let part = ChunkRanges::from(ChunkNum(0)..ChunkNum(3));
    transfer(&from, &to, pin.hash(), pin.size().unwrap(), part).await;
    let status = to.status(pin.hash()).await.unwrap();
    assert!(matches!(status, Some(BlobStatus::Partial { .. })));
    let all = [blob, bytes(2, 100)].map(Hashed::new);
    for pin in to.add_all(all.to_vec()).await.unwrap() {
        let size = pin.size().unwrap();
        let status = to.status(pin.hash()).await.unwrap();
        assert_eq!(status, Some(BlobStatus::Complete { size }));
    }
}
