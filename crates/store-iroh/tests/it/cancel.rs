//! Calls of a store, and fetches, that are dropped at every one of their awaits, over stores that finish
//! what a dropped call began.

use std::sync::Arc;

use futures_util::TryStreamExt;
use iroh_blobs::HashAndFormat;
use larder_store_engine::{Blobs, Finding, Hash, Repair};
use larder_store_iroh::{iroh_store, to_engine_hash, to_iroh_hash};
use larder_store_testkit::{MemoryStore, cancel::at_every_await, stores::LateStore};

use super::support::bytes;

type Late = Arc<LateStore<MemoryStore>>;

async fn open(store: &Late) -> Blobs {
    Blobs::open(store.clone(), store.clone()).await.unwrap()
}

/// Checks, once it is opened again, that each stored blob is what it claims to be, and nothing else is stored.
async fn assert_sound(store: &Late, blobs: Blobs) -> Blobs {
    blobs.close().await.unwrap();
    store.settle().await;
    let blobs = open(store).await;
    let found = blobs.scrub(Repair::No);
    let found: Vec<_> = found.try_collect().await.unwrap();
    for scrubbed in found {
        assert_eq!(scrubbed.finding, Finding::Sound);
    }
    blobs
}

#[tokio::test]
async fn adding_and_tagging() {
    for len in [100, 40_000] {
        let data = bytes(1, len);
        for repeated in [true, false] {
            let cuts = at_every_await(async |mut cut| {
                let late: Late = Arc::new(LateStore::new(MemoryStore::new(), cut.polls() as u64));
                let blobs = open(&late).await;
                let store = iroh_store(&blobs);
                let add = async || {
                    let tag = store.add_slice(&data).temp_tag().await?;
                    store
                        .tags()
                        .set("name", HashAndFormat::raw(tag.hash()))
                        .await
                };
                cut.call(add()).await;
                if repeated {
                    add().await.unwrap();
                }
                store.shutdown().await.unwrap();
                late.settle().await;
                let blobs = assert_sound(&late, blobs).await;
                if repeated {
                    let read = blobs.read_to_bytes(Hash::of(&data), 0..u64::MAX);
                    assert!(read.await.unwrap() == data);
                    let name = "name";
                    let root = blobs.tags().get(name).await.unwrap().unwrap();
                    assert_eq!(root.hash, Hash::of(&data));
                }
                cut
            })
            .await;
            assert!(cuts > 1);
        }
    }
}

/// Another store's encoding comes in, and the caller goes away.
#[tokio::test]
async fn importing() {
    let data = bytes(1, 200_000);
    let from = Arc::new(MemoryStore::new());
    let from = Blobs::open(from.clone(), from).await.unwrap();
    let hash = from.add(data.clone()).await.unwrap().hash();
    let theirs = iroh_store(&from);
    let all = || iroh_blobs::protocol::ChunkRanges::all();
    let encoded = theirs.export_bao(to_iroh_hash(hash), all());
    let encoded = encoded.bao_to_vec().await.unwrap();
    let cuts = at_every_await(async |mut cut| {
        let late: Late = Arc::new(LateStore::new(MemoryStore::new(), cut.polls() as u64));
        let blobs = open(&late).await;
        let store = iroh_store(&blobs);
        let iroh_hash = to_iroh_hash(hash);
        assert_eq!(to_engine_hash(iroh_hash), hash);
        let import = || store.import_bao_bytes(iroh_hash, all(), encoded.clone());
        cut.call(import()).await;
        import().await.unwrap();
        store.shutdown().await.unwrap();
        late.settle().await;
        let blobs = assert_sound(&late, blobs).await;
        let read = blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
        assert!(read == data);
        cut
    })
    .await;
    assert!(cuts > 1);
}
