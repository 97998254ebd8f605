//! Tests that unclaimed payloads do not stay.

mod common;

use std::{sync::Arc, time::Duration};

use bao_tree::{ChunkNum, ChunkRanges};
use common::{bytes, engine, export};
use futures_util::StreamExt;
use larder_store_api::{BlobStore, Block, Bytes, Kind, Part};
use larder_store_engine::{Blobs, Trust};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, PowerStore, When},
};

async fn open(store: &PowerStore) -> Blobs {
    let store = Arc::new(store.clone());
    Blobs::open(store.clone(), store).await.unwrap()
}

/// If an orphan was swept, or a blob deleted, and this was recorded, its payload stays gone, even after
/// a loss of power.
#[tokio::test]
async fn deleted_payloads_stay_deleted() {
    for seed in 0..20 {
        let store = PowerStore::new();
        let blobs = open(&store).await;
        let hash = blobs.add(bytes(1, 100_000)).await.unwrap().hash();
        let mut ids = BlobStore::list(&store, None);
        let mut id = ids.next().await.unwrap().unwrap();
        blobs.delete(vec![hash]).await.unwrap();
        // The remains of a crash.
        id.0[15] += 7;
        let bytes = Bytes::from(vec![1; 100]);
        let (part, index) = (Part::Data, 0);
        let block = Block { part, index, bytes };
        store.write(id, vec![block]).await.unwrap();
        store.sync(vec![id]).await.unwrap();
        let store = store.lose_power(seed);
        drop(open(&store).await);
        let store = store.lose_power(seed);
        open(&store).await;
        let left = BlobStore::list(&store, None).count().await;
        assert_eq!(left, 0, "seed {seed}");
    }
}

/// An import continues although the blob was added meanwhile, which deleted the import's payload.
#[tokio::test]
async fn an_import_that_came_too_late_leaves_nothing() {
    const LEN: usize = 4 << 20;
    let (from, _) = engine().await;
    let hash = from.add(bytes(1, LEN)).await.unwrap().hash();
    for finishes in [true, false] {
        let (to, store) = engine().await;
        let size = LEN as u64;
        let first = export(&from, hash, ChunkRanges::from(..ChunkNum(1024))).await;
        let rest = export(&from, hash, ChunkRanges::from(ChunkNum(1024)..)).await;
        let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
        for item in first {
            import.push(item).await.unwrap();
        }
        import.finish().await.unwrap();
        let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
        to.add(bytes(1, LEN)).await.unwrap();
        for item in rest {
            import.push(item).await.unwrap();
        }
        if finishes {
            assert!(import.finish().await.unwrap().is_complete());
        } else {
            drop(import);
        }
        to.close().await.unwrap();
        assert_eq!(BlobStore::list(&*store, None).count().await, 1);
        let to = Blobs::open(store.clone(), store).await.unwrap();
        let read = to.read_to_bytes(hash, 0..size).await.unwrap();
        assert!(read == bytes(1, LEN));
    }
}

/// An import is dropped while its verified data is being recorded, and resumed at once.
#[tokio::test(start_paused = true)]
async fn an_import_that_is_begun_again_goes_on() {
    const LEN: usize = 12 << 20;
    let (from, _) = engine().await;
    let hash = from.add(bytes(1, LEN)).await.unwrap().hash();
    let faults = Faults::seeded(1);
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
    let to = Blobs::open(store.clone(), store.clone()).await.unwrap();
    let slow = Fault::Delay(Duration::from_millis(100));
    faults.inject(Operation::Commit, When::Always, slow);
    let size = LEN as u64;
    // Enough for one record, which is in progress when the import ends.
    let some = export(&from, hash, ChunkRanges::from(..ChunkNum(9 << 10))).await;
    let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
    for item in some {
        import.push(item).await.unwrap();
    }
    drop(import);
    let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
    for item in export(&from, hash, ChunkRanges::all()).await {
        import.push(item).await.unwrap();
    }
    assert!(import.finish().await.unwrap().is_complete());
    to.close().await.unwrap();
    assert_eq!(BlobStore::list(&*store, None).count().await, 1);
    let to = Blobs::open(store.clone(), store).await.unwrap();
    let read = to.read_to_bytes(hash, 0..size).await.unwrap();
    assert!(read == bytes(1, LEN));
}

/// A commit that claims a payload is applied, and its answer is lost: the payload stays.
#[tokio::test]
async fn a_lost_answer_loses_no_payload() {
    let (from, _) = engine().await;
    let data = bytes(1, 100_000);
    let hash = from.add(data.clone()).await.unwrap().hash();
    for imports in [false, true] {
        let faults = Faults::seeded(1);
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
        let to = Blobs::open(store.clone(), store.clone()).await.unwrap();
        // The first commit opens the session.
        let lost = Fault::LostAnswer(Kind::Unavailable);
        faults.inject(Operation::Commit, When::Nth(2), lost);
        let failed = if imports {
            let size = data.len() as u64;
            let mut import = to.import(hash, size, Trust::Untrusted).await.unwrap();
            for item in export(&from, hash, ChunkRanges::all()).await {
                import.push(item).await.unwrap();
            }
            import.finish().await.map(drop)
        } else {
            to.add(data.clone()).await.map(drop)
        };
        assert_eq!(failed.unwrap_err().kind(), Kind::Unavailable);
        to.close().await.unwrap();
        faults.reopen();
        let to = Blobs::open(store.clone(), store.clone()).await.unwrap();
        let read = to.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
        assert!(read == data, "imports: {imports}");
    }
}

/// A commit that claims a payload fails: the unclaimed payload is deleted.
#[tokio::test]
async fn a_refused_claim_leaves_nothing() {
    for kind in [Kind::Full, Kind::Unavailable, Kind::Internal] {
        let faults = Faults::seeded(1);
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        faults.inject(Operation::Commit, When::Nth(2), Fault::Error(kind));
        let failed = blobs.add(bytes(1, 100_000)).await.unwrap_err();
        assert_eq!(failed.kind(), kind);
        blobs.close().await.unwrap();
        assert_eq!(BlobStore::list(&*store, None).count().await, 0);
    }
}
