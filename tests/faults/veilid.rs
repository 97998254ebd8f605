//! Tests of a disk that decays below a Veilid node, whose tables are encrypted but not authenticated:
//! the engine finds the damage, no wrong bytes are served, and a fetch restores the data that a repair
//! removed.

use std::fs;

use larder::{DeviceKey, Hash, Repair, Root, StoreUrl, TagName, engine::Finding};
use rand::Rng as _;
use tests::{
    data::{Seed, bytes, rng},
    node::{get, our_node},
    store::{files, open, open_url, scrub},
};

use crate::damage::{LEN, check_serving, groups, whole};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_blocks() {
    let mut rng = rng(Seed::or(73).number());
    let other = tempfile::tempdir().unwrap();
    let other = open(other.path()).await;
    let root = other.blobs().add(bytes(1, LEN)).await.unwrap().root();
    let node = our_node(other.blobs(), &[root]).await;
    let mut damaged = 0;
    for round in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::veilid(folder.path().join("store"), DeviceKey::InsecureFile);
        let hash = fill(&url).await;
        // The table of blocks is by far the largest file.
        let mut files = files(folder.path());
        files.sort_by_key(|file| fs::metadata(file).unwrap().len());
        let file = files.last().unwrap();
        let mut image = fs::read(file).unwrap();
        assert!(image.len() > LEN);
        let at = rng.random_range(0..image.len());
        image[at] ^= 1 << rng.random_range(0..8);
        fs::write(file, image).unwrap();

        let store = open_url(&url).await;
        let blobs = store.blobs();
        if groups(blobs, hash).await == whole() {
            store.close().await.unwrap();
            continue;
        }
        damaged += 1;
        check_serving(blobs, hash).await;
        let found = scrub(blobs, Repair::Yes).await;
        let found = found.into_iter().find(|found| found.hash == Some(hash));
        let found = found.unwrap().finding;
        assert!(
            matches!(
                found,
                Finding::Damaged { .. } | Finding::Lost | Finding::Outboard
            ),
            "{round}: {found:?}"
        );
        get(blobs, &node, root).await.unwrap();
        for found in scrub(blobs, Repair::No).await {
            assert_eq!(found.finding, Finding::Sound, "{round}: {:?}", found.hash);
        }
        assert_eq!(groups(blobs, hash).await, whole());
        store.close().await.unwrap();
    }
    assert!(damaged > 0, "no bit mattered");
    node.shutdown().await.unwrap();
    other.close().await.unwrap();
}

async fn fill(url: &StoreUrl) -> Hash {
    let store = open_url(url).await;
    let hash = store.blobs().add(bytes(1, LEN)).await.unwrap().hash();
    let tag = TagName::try_from("large").unwrap();
    let tags = store.blobs().tags();
    tags.set(tag, Root::raw(hash)).await.unwrap();
    store.close().await.unwrap();
    hash
}
