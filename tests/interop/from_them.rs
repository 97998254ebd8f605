//! Tests that fetch from nodes of iroh-blobs.

use std::collections::BTreeSet;

use bao_tree::{ChunkNum, ChunkRanges};
use iroh_blobs::Hash as TheirHash;
use larder::{
    Format, Hash, Kind, Root,
    iroh::{iroh_store, load_collection, to_engine_hash, to_engine_root},
};
use tests::{
    data::{KIB, MIB, SIZES, bytes},
    node::get,
    store::{claimed_payloads, read, stored_payloads, unsound},
};

use crate::nodes::{Backend, Ours, Theirs};

async fn single_blobs(backend: Backend) {
    for theirs in Theirs::both().await {
        let mut ours = Ours::new(backend).await;
        let mut roots = Vec::new();
        for (seed, size) in (0..).zip(SIZES) {
            let tag = theirs
                .store
                .add_bytes(bytes(seed, size))
                .temp_tag()
                .await
                .unwrap();
            let root = to_engine_root(tag.hash_and_format());
            let fetched = get(ours.store.blobs(), &theirs.node, root).await.unwrap();
            assert_eq!(fetched.bytes_received, size as u64, "{}", theirs.kind);
            let again = get(ours.store.blobs(), &theirs.node, root).await.unwrap();
            assert_eq!((again.bytes_received, again.blobs_fetched), (0, 0));
            roots.push((root, seed, size));
        }
        ours.reopen().await;
        for (root, seed, size) in roots {
            assert!(read(ours.store.blobs(), root.hash).await == bytes(seed, size));
        }
        assert_eq!(unsound(ours.store.blobs()).await, []);
        theirs.end().await;
    }
}

async fn collections(backend: Backend) {
    for theirs in Theirs::both().await {
        let mut ours = Ours::new(backend).await;
        let (tag, files) = theirs.collection().await;
        let root = to_engine_root(tag.hash_and_format());
        assert_eq!(root.format, Format::HashSeq);
        let fetched = get(ours.store.blobs(), &theirs.node, root).await.unwrap();
        // The root, its names, and each size once.
        assert_eq!(fetched.blobs, 2 + SIZES.len() as u64);
        drop(fetched);
        ours.reopen().await;
        let entries = load_collection(ours.store.blobs(), root.hash)
            .await
            .unwrap();
        let names: Vec<&String> = entries.iter().map(|(name, _)| name).collect();
        assert!(names.into_iter().eq(files.iter().map(|(name, _)| name)));
        for ((name, hash), (_, data)) in entries.into_iter().zip(files) {
            assert!(read(ours.store.blobs(), hash).await == data, "{name}");
        }
        theirs.end().await;
    }
}

/// Tests that existing data, even within a blob, is not transferred again.
async fn what_is_not_here_yet(backend: Backend) {
    for theirs in Theirs::both().await {
        let mut ours = Ours::new(backend).await;
        let (tag, files) = theirs.collection().await;
        let root = to_engine_root(tag.hash_and_format());
        let (_, large) = files.iter().max_by_key(|(_, data)| data.len()).unwrap();
        let hash = TheirHash::new(large);
        // Some groups in the middle, through iroh-blobs' own interface to a store.
        let here = ChunkRanges::from(ChunkNum(160)..ChunkNum(1600));
        let part = theirs.store.export_bao(hash, here.clone()).bao_to_vec();
        let part = part.await.unwrap();
        let store = iroh_store(ours.store.blobs());
        store.import_bao_bytes(hash, here, part).await.unwrap();
        let small = ours.store.blobs().add(bytes(5, 3 * KIB + 7)).await.unwrap();
        drop(store);
        ours.reopen().await;

        let blobs = ours.store.blobs();
        let fetched = get(blobs, &theirs.node, root).await.unwrap();
        let entries = load_collection(blobs, root.hash).await.unwrap();
        let links = read(blobs, root.hash).await;
        let names = Hash::from(<[u8; 32]>::try_from(&links[..32]).unwrap());
        let names = read(blobs, names).await.len();
        let distinct: BTreeSet<&[u8]> = files.iter().map(|(_, data)| &data[..]).collect();
        let all: usize = distinct.iter().map(|data| data.len()).sum();
        let already = 1440 * KIB + small.size().expect("it was just added") as usize;
        assert_eq!(
            fetched.bytes_received as usize,
            all + links.len() + names - already
        );
        for ((_, hash), (_, data)) in entries.into_iter().zip(&files) {
            assert!(read(blobs, hash).await == *data);
        }
        assert_eq!(unsound(blobs).await, []);
        assert_eq!(stored_payloads(blobs).await, claimed_payloads(blobs).await);
        theirs.end().await;
    }
}

async fn what_they_have_in_part(backend: Backend) {
    for (whole, part) in [
        (Theirs::in_memory().await, Theirs::in_files().await),
        (Theirs::in_files().await, Theirs::in_memory().await),
    ] {
        let mut ours = Ours::new(backend).await;
        let data = bytes(1, 4 * MIB);
        let tag = whole
            .store
            .add_bytes(data.clone())
            .temp_tag()
            .await
            .unwrap();
        let first = ChunkRanges::from(..ChunkNum(1024));
        let encoded = whole
            .store
            .export_bao(tag.hash(), first.clone())
            .bao_to_vec();
        let encoded = encoded.await.unwrap();
        let imported = part
            .store
            .import_bao_bytes(tag.hash(), first.clone(), encoded);
        imported.await.unwrap();
        let root = Root::raw(to_engine_hash(tag.hash()));
        let error = get(ours.store.blobs(), &part.node, root).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        ours.reopen().await;
        let blobs = ours.store.blobs();
        // Their abort may overtake the data that they sent before.
        let here = blobs.bitfield(root.hash).await.unwrap();
        assert!(here.ranges.is_subset(&first));
        // Another node has the rest.
        let fetched = get(blobs, &whole.node, root).await.unwrap();
        assert_eq!(
            fetched.bytes_received,
            data.len() as u64 - here.present_bytes()
        );
        assert!(read(blobs, root.hash).await == data);
        whole.end().await;
        part.end().await;
    }
}

async fn what_they_do_not_have(backend: Backend) {
    for theirs in Theirs::both().await {
        let ours = Ours::new(backend).await;
        let hash = Hash::of(b"nobody has this");
        for root in [Root::raw(hash), Root::hash_seq(hash)] {
            let error = get(ours.store.blobs(), &theirs.node, root)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{}: {error}", theirs.kind);
            assert_eq!(ours.store.blobs().status(hash).await.unwrap(), None);
        }
        theirs.end().await;
    }
}

crate::on_each_backend!(
    single_blobs,
    collections,
    what_is_not_here_yet,
    what_they_have_in_part,
    what_they_do_not_have
);
