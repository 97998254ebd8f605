//! Temp tags and batches protect from the engine's collection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use iroh_blobs::{Hash, HashAndFormat, hashseq::HashSeq};
use larder_store_engine::Blobs;
use larder_store_iroh::{iroh_store, to_engine_hash};

use crate::support::{bytes, collect_all, engine};

async fn has(blobs: &Blobs, hash: Hash) -> bool {
    blobs.status(to_engine_hash(hash)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_temp_tag_protects_until_it_is_dropped() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let small = store.add_slice(b"small").temp_tag().await.unwrap();
    let large = store.add_slice(bytes(1, 100_000)).temp_tag().await.unwrap();
    let hashes = [small.hash(), large.hash()];
    collect_all(&blobs).await;
    for hash in hashes {
        assert!(has(&blobs, hash).await);
    }
    drop(small);
    collect_all(&blobs).await;
    assert!(!has(&blobs, hashes[0]).await);
    assert!(has(&blobs, hashes[1]).await);
    drop(large);
    collect_all(&blobs).await;
    assert!(!has(&blobs, hashes[1]).await);
}

#[tokio::test]
async fn a_temp_tag_of_a_sequence_protects_what_it_names() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let child = store.add_slice(b"child").temp_tag().await.unwrap();
    let sequence = HashSeq::from_iter([child.hash()]).into_inner();
    let options = (sequence, iroh_blobs::BlobFormat::HashSeq);
    let root = store.add_bytes_with_opts(options).temp_tag().await.unwrap();
    let hash = child.hash();
    drop(child);
    collect_all(&blobs).await;
    assert!(has(&blobs, hash).await);
    drop(root);
    collect_all(&blobs).await;
    assert!(!has(&blobs, hash).await);
}

#[tokio::test]
async fn a_temp_tag_can_come_before_its_blob() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let hash = Hash::new(b"later");
    let tag = store.tags().temp_tag(hash).await.unwrap();
    let added = store.add_slice(b"later").temp_tag().await.unwrap();
    drop(added);
    collect_all(&blobs).await;
    assert!(has(&blobs, hash).await);
    let listed: Vec<HashAndFormat> = {
        use futures_util::StreamExt;
        store.tags().list_temp_tags().await.unwrap().collect().await
    };
    assert_eq!(listed, [HashAndFormat::raw(hash)]);
    drop(tag);
    collect_all(&blobs).await;
    assert!(!has(&blobs, hash).await);
}

#[tokio::test]
async fn a_batch_ends_all_its_temp_tags() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let batch = store.batch().await.unwrap();
    let mut first = batch.add_slice(b"first").await.unwrap();
    let second = batch.temp_tag(Hash::new(b"second")).await.unwrap();
    drop(store.add_slice(b"second").temp_tag().await.unwrap());
    let outside = store.add_slice(b"outside").temp_tag().await.unwrap();
    collect_all(&blobs).await;
    for name in ["first", "second", "outside"] {
        assert!(has(&blobs, Hash::new(name)).await, "{name}");
    }
    // Kept until the batch ends, though nobody can drop it any more.
    first.leak();
    drop(first);
    collect_all(&blobs).await;
    assert!(has(&blobs, Hash::new(b"first")).await);
    drop(batch);
    // The batch's end travels through two actors.
    let gone = async {
        while has(&blobs, Hash::new(b"first")).await {
            tokio::task::yield_now().await;
            collect_all(&blobs).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
    gone.expect("the temp tags end with their batch");
    assert!(!has(&blobs, second.hash()).await);
    assert!(has(&blobs, outside.hash()).await);
}

#[tokio::test]
async fn temp_tags_outlive_their_store() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let tag = store.add_slice(b"kept").temp_tag().await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    collect_all(&blobs).await;
    assert!(has(&blobs, tag.hash()).await);
    let again = iroh_store(&blobs);
    assert!(again.has(tag.hash()).await.unwrap());
    let hash = tag.hash();
    drop(tag);
    collect_all(&blobs).await;
    assert!(!has(&blobs, hash).await);
}

/// The fewest blobs that each adder adds.
const LEAST: u32 = 250;

/// Tests that a blob that was given out is never collected, whatever the moment: with temp tags
/// that come too late, about one in fifty is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_given_out_is_collected() {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    // The number of collections that deleted something while there were adders.
    let busy = Arc::new(AtomicU32::new(0));
    let collector = tokio::spawn({
        let (blobs, busy) = (blobs.clone(), busy.clone());
        async move {
            loop {
                if collect_all(&blobs).await.deleted > 0 {
                    busy.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let adders: Vec<_> = (0..8_u32)
        .map(|adder| {
            let (store, busy) = (store.clone(), busy.clone());
            tokio::spawn(async move {
                let mut added = 0..;
                // At least so many, and on until the collections have met them often enough.
                while added.start < LEAST || busy.load(Ordering::SeqCst) < 20 {
                    let i = added.next().expect("there are more numbers than that");
                    let data = [adder.to_le_bytes(), i.to_le_bytes()].concat();
                    let tag = if i % 2 == 0 {
                        store.add_slice(&data).temp_tag().await.unwrap()
                    } else {
                        let batch = store.batch().await.unwrap();
                        let tag = batch.add_slice(&data).await.unwrap();
                        assert!(store.has(tag.hash()).await.unwrap());
                        tag
                    };
                    if i % 2 == 0 {
                        assert!(store.has(tag.hash()).await.unwrap());
                        let name = format!("{adder}-{i}");
                        store.tags().set(&name, tag.hash()).await.unwrap();
                        drop(tag);
                        assert!(store.has(Hash::new(&data)).await.unwrap());
                    }
                }
                added.start
            })
        })
        .collect();
    let deadline = Duration::from_secs(120);
    let added = tokio::time::timeout(deadline, try_join_all(adders)).await;
    let added = added
        .expect("the collections delete what nothing keeps")
        .unwrap();
    collector.abort();
    assert!(collector.await.unwrap_err().is_cancelled());
    for (adder, added) in (0..8_u32).zip(added) {
        for i in (0..added).step_by(2) {
            let data = [adder.to_le_bytes(), i.to_le_bytes()].concat();
            assert!(has(&blobs, Hash::new(&data)).await);
        }
    }
}
