//! Tests of adding blobs.

use larder_store_engine::{AddOptions, Hash, Hashed, Root, TagName};

use crate::{ALL, at_every_await, common::bytes};

const TAG: &str = "added";

async fn adding(len: usize) {
    at_every_await(
        &ALL,
        async |_| bytes(1, len),
        async |world, data| world.blobs.add(data.clone()).await,
        async |world, data| world.assert_has(Hash::of(data), data).await,
    )
    .await;
}

#[tokio::test]
async fn a_small_blob() {
    adding(100).await;
}

#[tokio::test]
async fn a_blob_with_a_payload() {
    adding(40_000).await;
}

#[tokio::test]
async fn a_blob_of_several_windows() {
    adding((2 << 20) + 5).await;
}

/// Adds an existing blob, with a tag.
#[tokio::test]
async fn a_blob_with_a_tag() {
    for len in [0, 100, 40_000] {
        for is_there in [false, true] {
            at_every_await(
                &ALL,
                async |world| {
                    let data = bytes(1, len);
                    if is_there {
                        world.blobs.add(data.clone()).await.unwrap();
                    }
                    data
                },
                async |world, data| {
                    let options = AddOptions::default().tag(TagName::try_from(TAG).unwrap());
                    world.blobs.add_with(data.clone(), options).await
                },
                async |world, data| {
                    let hash = Hash::of(data);
                    world.assert_has(hash, data).await;
                    let tag = TagName::try_from(TAG).unwrap();
                    let root = world.blobs.tags().get(&tag).await.unwrap();
                    assert_eq!(root, Some(Root::raw(hash)));
                },
            )
            .await;
        }
    }
}

#[tokio::test]
async fn many_blobs() {
    at_every_await(
        &ALL,
        async |world| {
            let mut all: Vec<_> = (0..70).map(|n| bytes(n, 50)).collect();
            all.extend((70..73).map(|n| bytes(n, 20_000 + n as usize)));
            // One blob exists already, so that the first commit of all finds a conflict.
            world.blobs.add(all[3].clone()).await.unwrap();
            all
        },
        async |world, all| {
            let all = all.iter().cloned().map(Hashed::new).collect();
            world.blobs.add_all(all).await
        },
        async |world, all| {
            for data in all {
                world.assert_has(Hash::of(data), data).await;
            }
        },
    )
    .await;
}
