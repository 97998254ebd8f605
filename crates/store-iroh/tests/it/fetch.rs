//! Fetching: large and many blobs, progress, limits, cancelling.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh_blobs::{
    Hash, HashAndFormat,
    api::{Store, TempTag},
    format::collection::Collection,
    store::mem::MemStore,
};
use larder_store_engine::{BlobStatus, Root};
use larder_store_iroh::{
    FetchOptions, FetchProgress, fetch, load_collection, to_engine_hash, to_engine_root,
};

use crate::support::{KIB, MIB, bytes, collect_all, connection, engine, iroh_node, loopback};

async fn many(store: &Store, count: u32) -> TempTag {
    let mut collection = Collection::default();
    let mut tags = Vec::new();
    for i in 0..count {
        let data = [&i.to_le_bytes()[..], &bytes(1, 1020)].concat();
        let tag = store.add_bytes(data).temp_tag().await.unwrap();
        collection.push(i.to_string(), tag.hash());
        tags.push(tag);
    }
    collection.store(store).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blobs_over_any_number_of_streams() {
    let theirs = Store::from(MemStore::new());
    let tag = many(&theirs, 3000).await;
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    for streams in [1, 2, 7, 100] {
        let blobs = engine().await;
        let progress = Arc::new(Mutex::new(Vec::new()));
        let seen = progress.clone();
        let options = FetchOptions {
            streams: NonZeroUsize::new(streams).unwrap(),
            progress: Some(Arc::new(move |progress| {
                seen.lock().unwrap().push(progress)
            })),
            ..FetchOptions::default()
        };
        let root = to_engine_root(tag.hash_and_format());
        let fetched = fetch(&blobs, &connection, root, options).await.unwrap();
        assert_eq!((fetched.blobs, fetched.blobs_fetched), (3002, 3002));
        let entries = load_collection(&blobs, root.hash).await.unwrap();
        for (_, hash) in &entries {
            let status = blobs.status(*hash).await.unwrap();
            assert_eq!(status, Some(BlobStatus::Complete { size: 1024 }));
        }
        let progress = std::mem::take(&mut *progress.lock().unwrap());
        let most = |of: fn(&FetchProgress) -> u64| progress.iter().map(of).max().unwrap();
        assert_eq!(most(|p| p.blobs_done), 3002);
        assert_eq!(most(|p| p.bytes_received), fetched.bytes_received);
        assert_eq!(progress.last().unwrap().blobs_total, Some(3002));
        // The pin keeps all of it.
        collect_all(&blobs).await;
        assert!(blobs.status(entries[7].1).await.unwrap().is_some());
        drop(fetched);
        collect_all(&blobs).await;
        assert!(blobs.status(entries[7].1).await.unwrap().is_none());
    }
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_missing_is_asked_for() {
    let theirs = Store::from(MemStore::new());
    let tag = many(&theirs, 1000).await;
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    let blobs = engine().await;
    let mut pins = Vec::new();
    // Every third is here: the request skips them.
    for i in (0..1000_u32).step_by(3) {
        let data = [&i.to_le_bytes()[..], &bytes(1, 1020)].concat();
        pins.push(blobs.add(data).await.unwrap());
    }
    let root = to_engine_root(tag.hash_and_format());
    let options = FetchOptions::default();
    let fetched = fetch(&blobs, &connection, root, options).await.unwrap();
    assert_eq!(fetched.blobs_fetched, 1002 - 334);
    for (_, hash) in load_collection(&blobs, root.hash).await.unwrap() {
        assert!(blobs.status(hash).await.unwrap().is_some());
    }
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_tells_how_much_there_is() {
    let theirs = Store::from(MemStore::new());
    let data = bytes(2, 40 * MIB + 77);
    let tag = theirs.add_slice(&data).temp_tag().await.unwrap();
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    let blobs = engine().await;
    let last = Arc::new(Mutex::new(FetchProgress::default()));
    let seen = last.clone();
    let options = FetchOptions {
        progress: Some(Arc::new(move |progress| *seen.lock().unwrap() = progress)),
        ..FetchOptions::default()
    };
    let root = to_engine_root(tag.hash_and_format());
    fetch(&blobs, &connection, root, options).await.unwrap();
    let size = data.len() as u64;
    assert_eq!(
        *last.lock().unwrap(),
        FetchProgress {
            blobs_done: 1,
            blobs_total: Some(1),
            bytes_received: size,
            bytes_total: Some(size),
        }
    );
    assert!(blobs.read_to_bytes(root.hash, 0..size).await.unwrap() == data);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_keeps_what_was_recorded() {
    let theirs = Store::from(MemStore::new());
    let data = bytes(3, 64 * MIB);
    let tag = theirs.add_slice(&data).temp_tag().await.unwrap();
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    let blobs = engine().await;
    let root = to_engine_root(tag.hash_and_format());
    let _kept = blobs.pin(root).await;
    let some = async {
        loop {
            let present = blobs.bitfield(root.hash).await.unwrap().present_bytes();
            if present >= 16 * MIB as u64 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        fetched = fetch(&blobs, &connection, root, FetchOptions::default()) => drop(fetched),
        () = some => {}
    }
    let present = blobs.bitfield(root.hash).await.unwrap().present_bytes();
    assert!(present >= 16 * MIB as u64, "{present}");
    let options = FetchOptions::default();
    let fetched = fetch(&blobs, &connection, root, options).await.unwrap();
    assert!(fetched.bytes_received <= data.len() as u64 - present);
    let read = blobs.read_to_bytes(root.hash, 0..data.len() as u64).await;
    assert!(read.unwrap() == data);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_fetches_of_one_root_at_once() {
    let theirs = Store::from(MemStore::new());
    let data = bytes(4, 10 * MIB);
    let large = theirs.add_slice(&data).temp_tag().await.unwrap();
    let mut collection = Collection::default();
    collection.push("large".into(), large.hash());
    collection.push("again".into(), large.hash());
    let tag = collection.store(&theirs).await.unwrap();
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let blobs = engine().await;
    let root = to_engine_root(tag.hash_and_format());
    let fetches = (0..4).map(|_| async {
        let connection = connection(&endpoint, node.endpoint()).await;
        fetch(&blobs, &connection, root, FetchOptions::default()).await
    });
    for fetched in futures_util::future::join_all(fetches).await {
        assert_eq!(fetched.unwrap().blobs, 3);
    }
    let hash = to_engine_hash(large.hash());
    let read = blobs.read_to_bytes(hash, 0..data.len() as u64).await;
    assert!(read.unwrap() == data);
    node.shutdown().await.unwrap();
}

/// A blob with more holes than one request names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_full_of_holes_is_completed() {
    use bao_tree::{ChunkNum, ChunkRanges};
    let theirs = Store::from(MemStore::new());
    let groups = 4096_u64;
    let data = bytes(5, 16 * KIB * groups as usize);
    let tag = theirs.add_slice(&data).temp_tag().await.unwrap();
    let mut here = ChunkRanges::empty();
    for group in (0..groups).step_by(2) {
        here |= ChunkRanges::from(ChunkNum(group * 16)..ChunkNum(group * 16 + 16));
    }
    let part = theirs.export_bao(tag.hash(), here.clone()).bao_to_vec();
    let part = part.await.unwrap();
    let blobs = engine().await;
    let store = larder_store_iroh::iroh_store(&blobs);
    store
        .import_bao_bytes(tag.hash(), here, part)
        .await
        .unwrap();
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    let root = Root::raw(to_engine_hash(tag.hash()));
    let options = FetchOptions::default();
    let fetched = fetch(&blobs, &connection, root, options).await.unwrap();
    assert_eq!(fetched.bytes_received, data.len() as u64 / 2);
    let read = blobs.read_to_bytes(root.hash, 0..u64::MAX).await.unwrap();
    assert!(read == data);
    node.shutdown().await.unwrap();
}

/// Tests that blobs that are already here cost no request: the peer may even be gone.
#[tokio::test]
async fn nothing_is_asked_for_where_all_is_here() {
    let theirs = Store::from(MemStore::new());
    let node = iroh_node(&theirs).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    node.shutdown().await.unwrap();
    let blobs = engine().await;
    let pin = blobs.add("here").await.unwrap();
    let options = FetchOptions {
        idle_timeout: Duration::from_millis(200),
        ..FetchOptions::default()
    };
    let fetched = fetch(&blobs, &connection, pin.root(), options.clone()).await;
    assert_eq!(fetched.unwrap().bytes_received, 0);
    let empty = to_engine_root(HashAndFormat::hash_seq(Hash::EMPTY));
    let fetched = fetch(&blobs, &connection, empty, options).await;
    assert_eq!(fetched.unwrap().blobs, 1);
}
