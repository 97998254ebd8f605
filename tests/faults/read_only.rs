//! A store on a disk that is mounted read-only can be read, after a crash too, and not written.

use std::path::Path;

use futures_util::TryStreamExt;
use larder::{
    AddOptions, BlobStatus, Hash, Kind, Store, StoreBuilder, StoreUrl, TagName, Unlock,
    api::CollectionId,
};
use tests::{
    child,
    data::{KIB, MIB, bytes},
    store::{open_url, read, unsound},
};

const NOTES: CollectionId = CollectionId::from_static("notes");

fn tagged(tag: &str) -> AddOptions {
    AddOptions::default().tag(TagName::try_from(tag).unwrap())
}

/// Fills a store. What has no tag was not claimed when it ends.
async fn fill(store: &Store) -> Vec<Hash> {
    let mut kept = Vec::new();
    for i in 0..20 {
        let len = [100, 30 * KIB][i as usize % 2];
        let tag = tagged(&format!("kept {i}"));
        let added = store.blobs().add_with(bytes(i, len), tag).await.unwrap();
        kept.push(added.hash());
        store
            .collections()
            .put(NOTES, vec![i as u8], vec![7; 100])
            .await
            .unwrap();
    }
    kept
}

async fn check(store: &Store, kept: &[Hash]) {
    for hash in kept {
        let status = store.blobs().status(*hash).await.unwrap();
        assert!(
            matches!(status, Some(BlobStatus::Complete { .. })),
            "{hash}"
        );
        assert!(Hash::of(read(store.blobs(), *hash).await) == *hash);
    }
    assert_eq!(unsound(store.blobs()).await, []);
    let notes: Vec<_> = store
        .collections()
        .scan(larder::api::Scan::all(NOTES))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(notes.len(), 20);
    store.disk_usage().await.unwrap();

    let denied = [
        store.blobs().add(bytes(99, 100)).await.map(drop),
        store.blobs().add(bytes(98, MIB)).await.map(drop),
        store.blobs().tags().delete_one("kept 1").await.map(drop),
        store
            .collections()
            .put(NOTES, vec![1], vec![2])
            .await
            .map(drop),
        store.reclaim_space().await,
    ];
    for result in denied {
        let error = result.expect_err("nothing can be written");
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(error.to_string().contains("can only be read"), "{error}");
    }
}

/// Mounts the disk as it may be written, or may not.
fn mount(dir: &Path, how: &str) {
    let mut command = std::process::Command::new("mount");
    let options = format!("remount,{how}");
    let status = command.args(["-o", &options]).arg(dir).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "it is mounted {how}"
    );
}

async fn read_what_cannot_be_written(dir: &Path) {
    let url = StoreUrl::redb(dir.join("store"));
    let unlock = || Unlock::key_file(&dir.join("key")).unwrap();
    let open = async || {
        StoreBuilder::from_url(url.clone())
            .unlock(unlock())
            .open()
            .await
    };
    let store = open().await.unwrap();
    let kept = fill(&store).await;
    let me = store.identity().await.unwrap();
    store.close().await.unwrap();
    drop(store);

    mount(dir, "ro");
    let store = open().await.unwrap();
    check(&store, &kept).await;
    assert_eq!(store.identity().await.unwrap().expose(), me.expose());
    // Others may read too.
    let again = open().await.unwrap();
    check(&again, &kept).await;
    for store in [store, again] {
        store.close().await.unwrap();
    }

    // As after a crash: the index knows nothing of the newest commits.
    mount(dir, "rw");
    let store = open_url(&url).await;
    store
        .collections()
        .put(NOTES, vec![0], vec![8; 100])
        .await
        .unwrap();
    drop(store.blobs().add(bytes(50, 3 * MIB)).await.unwrap());
    drop(store);
    mount(dir, "ro");
    let store = open().await.unwrap();
    check(&store, &kept).await;
    let newest = store
        .collections()
        .get(NOTES, vec![0])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(newest.value, vec![8; 100]);
    store.close().await.unwrap();
    drop(store);

    // An index that is missing is made again in memory.
    mount(dir, "rw");
    std::fs::remove_file(dir.join("store/index.redb")).unwrap();
    mount(dir, "ro");
    let store = open().await.unwrap();
    check(&store, &kept).await;
    store.close().await.unwrap();
    drop(store);
    let nowhere = Store::open_url(&StoreUrl::redb(dir.join("other"))).await;
    assert_eq!(nowhere.expect_err("there is none").kind(), Kind::Denied);

    mount(dir, "rw");
    let store = open_url(&url).await;
    store.blobs().add(bytes(99, 100)).await.unwrap();
    store.close().await.unwrap();
    child::say("done");
}

#[test]
fn a_store_on_a_read_only_disk() {
    const TEST: &str = "read_only::a_store_on_a_read_only_disk";
    if child::job().is_some() {
        let dir = child::argument("DIR");
        return child::run(read_what_cannot_be_written(Path::new(&dir)));
    }
    crate::full::mounted(TEST, 64 * MIB);
}
