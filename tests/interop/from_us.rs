//! Tests that nodes of iroh-blobs fetch from us.

use bao_tree::{ChunkNum, ChunkRanges};
use futures_util::StreamExt;
use iroh_blobs::{
    HashAndFormat,
    api::blobs::BlobStatus,
    format::collection::Collection,
    protocol::{GetManyRequest, GetRequest, ObserveRequest},
};
use larder::{Root, Trust};
use tests::{
    data::{MIB, bytes},
    store::read,
};

use crate::nodes::{Backend, Ours, Theirs, their_hash};

async fn collections_and_single_blobs(backend: Backend) {
    let mut ours = Ours::new(backend).await;
    let (root, files) = ours.collection().await;
    ours.reopen().await;
    let hash = their_hash(root.hash);
    for theirs in Theirs::both().await {
        let (node, endpoint, connection) = ours.serve(root).await;
        let remote = theirs.store.remote();
        let fetch = remote.fetch(connection.clone(), HashAndFormat::hash_seq(hash));
        fetch.await.unwrap();
        let collection = Collection::load(hash, &theirs.store).await.unwrap();
        for ((name, hash), (expected, data)) in collection.into_iter().zip(&files) {
            assert_eq!(name, *expected);
            assert!(
                theirs.store.get_bytes(hash).await.unwrap() == *data,
                "{name}"
            );
        }
        endpoint.close().await;
        theirs.end().await;

        // Each blob is fetched alone, by its own hash, which serving the collection allows too.
        let theirs = Theirs::in_memory().await;
        let endpoint = tests::node::loopback().await;
        let connection = tests::node::connection(&endpoint, node.endpoint()).await;
        for (_, data) in &files {
            let hash = iroh_blobs::Hash::new(data);
            let remote = theirs.store.remote();
            remote.fetch(connection.clone(), hash).await.unwrap();
            assert!(theirs.store.get_bytes(hash).await.unwrap() == *data);
        }
        endpoint.close().await;
        theirs.end().await;
        node.shutdown().await.unwrap();
    }
}

async fn ranges_several_blobs_and_where_we_are(backend: Backend) {
    let ours = Ours::new(backend).await;
    let (root, files) = ours.collection().await;
    for theirs in Theirs::both().await {
        let (node, endpoint, connection) = ours.serve(root).await;
        let (_, data) = files.last().unwrap();
        let hash = iroh_blobs::Hash::new(data);
        let middle = ChunkRanges::from(ChunkNum(100)..ChunkNum(200));
        let request = GetRequest::blob_ranges(hash, middle);
        let get = theirs
            .store
            .remote()
            .execute_get(connection.clone(), request);
        get.await.unwrap();
        let status = theirs.store.status(hash).await.unwrap();
        assert!(
            matches!(status, BlobStatus::Partial { .. }),
            "{}",
            theirs.kind
        );
        let part = theirs
            .store
            .export_ranges(hash, 102_400..204_800)
            .concatenate();
        assert!(part.await.unwrap() == data[102_400..204_800]);

        let hashes = files[3..6]
            .iter()
            .map(|(_, data)| iroh_blobs::Hash::new(data));
        let many = GetManyRequest::from_iter(hashes.clone());
        let get = theirs
            .store
            .remote()
            .execute_get_many(connection.clone(), many);
        get.await.unwrap();
        for hash in hashes {
            assert!(theirs.store.has(hash).await.unwrap());
        }
        let mut states = Box::pin(
            theirs
                .store
                .remote()
                .observe(connection, ObserveRequest::new(hash)),
        );
        assert!(states.next().await.unwrap().unwrap().is_complete());
        endpoint.close().await;
        theirs.end().await;
        node.shutdown().await.unwrap();
    }
}

/// They get the part of a blob that we have, and the rest once we have it.
async fn what_we_have_in_part(backend: Backend) {
    let data = bytes(1, 4 * MIB);
    for theirs in Theirs::both().await {
        let (mut ours, whole) = (Ours::new(backend).await, Ours::new(backend).await);
        let root = whole.store.blobs().add(data.clone()).await.unwrap().root();
        let halves = [
            ChunkRanges::from(..ChunkNum(1500)),
            ChunkRanges::from(ChunkNum(1500)..),
        ];
        for (ranges, completes) in halves.into_iter().zip([false, true]) {
            let blobs = ours.store.blobs();
            let import = blobs
                .import(root.hash, data.len() as u64, Trust::Untrusted)
                .await;
            let mut import = import.unwrap();
            let mut items = whole.store.blobs().export(root.hash, ranges.clone());
            while let Some(item) = items.next().await {
                import.push(item.unwrap()).await.unwrap();
            }
            import.finish().await.unwrap();
            ours.reopen().await;

            let (node, endpoint, connection) = ours.serve(root).await;
            let remote = theirs.store.remote();
            let request = GetRequest::blob_ranges(their_hash(root.hash), ranges.clone());
            remote
                .execute_get(connection.clone(), request)
                .await
                .unwrap();
            let theirs_here = theirs.store.observe(their_hash(root.hash)).await.unwrap();
            assert!(ranges.is_subset(&theirs_here.ranges), "{}", theirs.kind);
            let all = remote.fetch(connection, their_hash(root.hash)).await;
            assert_eq!(all.is_ok(), completes, "{}: {all:?}", theirs.kind);
            endpoint.close().await;
            node.shutdown().await.unwrap();
        }
        let fetched = theirs.store.get_bytes(their_hash(root.hash)).await.unwrap();
        assert!(fetched == data && read(ours.store.blobs(), root.hash).await == data);
        theirs.end().await;
    }
}

/// Strangers get nothing that is not served, in whatever way they ask.
async fn nothing_that_is_not_open(backend: Backend) {
    let ours = Ours::new(backend).await;
    let (root, files) = ours.collection().await;
    let other = ours.store.blobs().add(bytes(99, MIB)).await.unwrap();
    let (node, endpoint, connection) = ours.serve(other.root()).await;
    let theirs = Theirs::in_memory().await;
    let remote = theirs.store.remote();
    let hash = their_hash(root.hash);
    assert!(
        remote
            .fetch(connection.clone(), HashAndFormat::hash_seq(hash))
            .await
            .is_err()
    );
    for (_, data) in files.iter().filter(|(_, data)| !data.is_empty()) {
        let hash = iroh_blobs::Hash::new(data);
        assert!(remote.fetch(connection.clone(), hash).await.is_err());
        assert!(!theirs.store.has(hash).await.unwrap());
    }
    // One blob is served, but not the blobs that its bytes might name.
    let other = Root::raw(other.hash());
    remote
        .fetch(connection, their_hash(other.hash))
        .await
        .unwrap();
    endpoint.close().await;
    theirs.end().await;
    node.shutdown().await.unwrap();
}

crate::on_each_backend!(
    collections_and_single_blobs,
    ranges_several_blobs_and_where_we_are,
    what_we_have_in_part,
    nothing_that_is_not_open
);
