//! Stores below that fail: failure is never told as absence, and what was not stored is not claimed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh_blobs::{
    Hash,
    api::{Store, proto::BlobStatus},
    format::collection::Collection,
    store::mem::MemStore,
};
use larder_store_api::{BlobStore, CollectionStore, Kind};
use larder_store_engine::{Blobs, Root};
use larder_store_iroh::{
    FetchOptions, Shares, connect, fetch, iroh_store, serve, to_engine_hash, to_engine_root,
};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, When},
};

use crate::support::{KIB, MIB, bytes, connection, iroh_node, loopback};

async fn faulty() -> (Blobs, Faults) {
    let faults = Faults::seeded(1);
    let memory = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(memory, faults.clone()));
    let payloads: Arc<dyn BlobStore> = store.clone();
    let collections: Arc<dyn CollectionStore> = store;
    (Blobs::open(payloads, collections).await.unwrap(), faults)
}

#[tokio::test]
async fn a_failure_is_not_absence() {
    let (blobs, faults) = faulty().await;
    let store = iroh_store(&blobs);
    let data = bytes(1, 100 * KIB);
    let tag = store.add_slice(&data).temp_tag().await.unwrap();
    let hash = tag.hash();
    faults.inject(Operation::Get, When::Always, Fault::Error(Kind::Internal));
    faults.inject(Operation::Scan, When::Always, Fault::Error(Kind::Internal));
    // Their errors have no kinds: the text says whose failure it is.
    let text = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let get = "collection.get: internal error: injected by a test";
    let scan = "collection.scan: internal error: injected by a test";
    for (said, expected) in [
        // These two answers have no room for an error: they end without a value.
        (
            text(&store.status(hash).await.unwrap_err()),
            "Sender closed",
        ),
        (
            text(&store.observe(hash).await.unwrap_err()),
            "unexpected end of stream",
        ),
        (text(&store.get_bytes(hash).await.unwrap_err()), get),
        (text(&store.list().hashes().await.unwrap_err()), scan),
        (text(&store.tags().get("x").await.unwrap_err()), scan),
        (text(&store.tags().delete("x").await.unwrap_err()), scan),
    ] {
        assert!(said.contains(expected), "{said}");
    }
    faults.inject(Operation::Commit, When::Always, Fault::Error(Kind::Full));
    let full = "collection.commit: no space left: injected by a test";
    for said in [
        text(&store.add_slice(b"x").temp_tag().await.unwrap_err()),
        text(&store.tags().set("x", hash).await.unwrap_err()),
    ] {
        assert!(said.contains(full), "{said}");
    }
    faults.clear();
    let size = data.len() as u64;
    let status = store.status(hash).await.unwrap();
    assert_eq!(status, BlobStatus::Complete { size });
    assert_eq!(store.get_bytes(hash).await.unwrap(), data);
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused() {
    let (blobs, faults) = faulty().await;
    let pin = blobs.add(bytes(1, 100 * KIB)).await.unwrap();
    let shares = Shares::new(&blobs);
    let name = larder_store_engine::TagName::try_from("shared").unwrap();
    blobs.tags().set(name.clone(), pin.root()).await.unwrap();
    shares.allow_tag(name).unwrap();
    let node = serve(&loopback().await, &blobs, &shares);
    let endpoint = loopback().await;
    let limit = Duration::from_secs(20);
    let connection = connect(&endpoint, node.endpoint().addr(), limit).await;
    let connection = connection.unwrap();
    let other = crate::support::engine().await;
    faults.inject(Operation::Get, When::Always, Fault::Error(Kind::Internal));
    let options = FetchOptions::default();
    let error = fetch(&other, &connection, pin.root(), options.clone()).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    faults.clear();
    fetch(&other, &connection, pin.root(), options)
        .await
        .unwrap();
    node.shutdown().await.unwrap();
}

/// Damaged bytes are never served, and those before them are right.
#[tokio::test]
async fn a_flipped_bit_is_not_served() {
    let (blobs, faults) = faulty().await;
    let data = bytes(1, 4 * MIB);
    let pin = blobs.add(data).await.unwrap();
    let shares = Shares::new(&blobs);
    shares.allow(pin.root()).unwrap();
    let node = serve(&loopback().await, &blobs, &shares);
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    let other = crate::support::engine().await;
    faults.inject(Operation::Read, When::From(3), Fault::FlippedBit);
    let options = FetchOptions::default();
    let error = fetch(&other, &connection, pin.root(), options.clone()).await;
    // To a peer, what is damaged is what is not there.
    assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    faults.clear();
    fetch(&other, &connection, pin.root(), options)
        .await
        .unwrap();
    node.shutdown().await.unwrap();
}

async fn theirs(count: u32, len: usize) -> (Store, Root) {
    let store = Store::from(MemStore::new());
    let mut collection = Collection::default();
    let mut tags = Vec::new();
    for i in 0..count {
        let tag = store.add_bytes(bytes(u64::from(i), len)).temp_tag();
        let tag = tag.await.unwrap();
        collection.push(i.to_string(), tag.hash());
        tags.push(tag);
    }
    let mut tag = collection.store(&store).await.unwrap();
    tag.leak();
    tags.iter_mut().for_each(iroh_blobs::api::TempTag::leak);
    (store, to_engine_root(tag.hash_and_format()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_a_fetch_and_the_next_goes_on() {
    for (count, len) in [(500, KIB), (20, 100 * KIB), (2, 4 * MIB)] {
        let (store, root) = theirs(count, len).await;
        let node = iroh_node(&store).await;
        let endpoint = loopback().await;
        let connection = connection(&endpoint, node.endpoint()).await;
        let (blobs, faults) = faulty().await;
        let _kept = blobs.pin(root).await;
        faults.limit_space(Some(u64::from(count) * len as u64 / 2));
        let options = FetchOptions::default();
        let error = fetch(&blobs, &connection, root, options.clone()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Full, "{count} × {len}: {error:?}");
        faults.limit_space(None);
        fetch(&blobs, &connection, root, options).await.unwrap();
        let hash = to_engine_hash(Hash::new(bytes(0, len)));
        let read = blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
        assert!(read == bytes(0, len));
        node.shutdown().await.unwrap();
    }
}

/// A disk that hangs stops the network: what was taken in by then is bounded, whatever the peer has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_bounds_what_is_taken() {
    for (count, len, bound) in [
        // The sequence and the names, and 256 blobs on their way.
        (20_000, KIB, (256 + 32 + 20_000 * 40 / KIB) * KIB),
        // 16 MiB on their way, and as much again gathered by the engine.
        (600, 100 * KIB, 40 * MIB),
        (1, 128 * MIB, 40 * MIB),
    ] {
        let (store, root) = theirs(count, len).await;
        let node = iroh_node(&store).await;
        let endpoint = loopback().await;
        let connection = connection(&endpoint, node.endpoint()).await;
        let (blobs, faults) = faulty().await;
        // The sequence itself gets through.
        let options = FetchOptions::default();
        let sequence = Root::raw(root.hash);
        fetch(&blobs, &connection, sequence, options).await.unwrap();
        for hanging in [Operation::Commit, Operation::SyncBlobs, Operation::Write] {
            faults.inject(hanging, When::Always, Fault::Hang);
        }
        let taken = Arc::new(AtomicU64::new(0));
        let seen = taken.clone();
        let options = FetchOptions {
            progress: Some(Arc::new(move |progress| {
                seen.store(progress.bytes_received, Ordering::Relaxed);
            })),
            ..FetchOptions::default()
        };
        let fetching = fetch(&blobs, &connection, root, options);
        tokio::pin!(fetching);
        // Until nothing has come for a while.
        let mut last = u64::MAX;
        while last == 0 || last != taken.load(Ordering::Relaxed) {
            last = taken.load(Ordering::Relaxed);
            let moment = Duration::from_millis(500);
            tokio::time::timeout(moment, &mut fetching)
                .await
                .unwrap_err();
        }
        assert!(last <= bound as u64, "{count} × {len}: {last} > {bound}");
        node.shutdown().await.unwrap();
    }
}
