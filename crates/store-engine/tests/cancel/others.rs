//! Tests of tags, deletion, collection, scrubbing, opening and closing.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use larder_store_api::{BlobStore, Block, Kind, Part};
use larder_store_engine::{Blobs, Finding, Hash, Repair, Root, Scrubbed, TagName};

use crate::{ALL, After, World, at_every_await, common::bytes};

fn name(name: &str) -> TagName {
    TagName::try_from(name).unwrap()
}

fn root() -> Root {
    Root::raw(Hash::of(bytes(91, 40_000)))
}

#[tokio::test]
async fn setting_a_tag() {
    at_every_await(
        &ALL,
        async |_| (),
        async |world, ()| world.blobs.tags().set(name("one"), root()).await,
        async |world, ()| {
            let tag = world.blobs.tags().get(&name("one")).await.unwrap();
            assert_eq!(tag, Some(root()));
        },
    )
    .await;
}

#[tokio::test]
async fn creating_a_tag() {
    at_every_await(
        &ALL,
        async |_| (),
        async |world, ()| world.blobs.tags().create(root()).await,
        async |world, ()| {
            let tags: Vec<_> = world.blobs.tags().list(..).try_collect().await.unwrap();
            let created = tags
                .iter()
                .filter(|tag| tag.name.as_bytes().starts_with(b"auto-"));
            assert!(created.count() >= 1);
        },
    )
    .await;
}

#[tokio::test]
async fn renaming_a_tag() {
    at_every_await(
        &ALL,
        async |world| world.blobs.tags().set(name("old"), root()).await.unwrap(),
        async |world, ()| {
            match world.blobs.tags().rename(&name("old"), name("new")).await {
                // It was renamed after the drop.
                Err(error) if error.kind() == Kind::NotFound => Ok(()),
                other => other,
            }
        },
        async |world, ()| {
            let tags = world.blobs.tags();
            assert_eq!(tags.get(&name("old")).await.unwrap(), None);
            assert_eq!(tags.get(&name("new")).await.unwrap(), Some(root()));
        },
    )
    .await;
}

#[tokio::test]
async fn deleting_tags() {
    at_every_await(
        &ALL,
        async |world| {
            for n in 0..70 {
                let name = TagName::new(format!("zz{n:02}")).unwrap();
                world.blobs.tags().set(name, root()).await.unwrap();
            }
        },
        async |world, ()| world.blobs.tags().delete("zz"..).await,
        async |world, ()| {
            let tags: Vec<_> = world.blobs.tags().list(..).try_collect().await.unwrap();
            assert_eq!(tags.len(), 2);
        },
    )
    .await;
}

async fn doomed(world: &World) -> Vec<Hash> {
    let mut hashes = Vec::new();
    for n in 0..5 {
        let data = bytes(n, 10 + 10_000 * n as usize);
        hashes.push(world.blobs.add(data).await.unwrap().hash());
    }
    hashes
}

async fn assert_gone(world: &World, hashes: &[Hash]) {
    for hash in hashes {
        assert_eq!(world.blobs.status(*hash).await.unwrap(), None);
    }
}

#[tokio::test]
async fn deleting_blobs() {
    at_every_await(
        &ALL,
        async |world| doomed(world).await,
        async |world, hashes| world.blobs.delete(hashes.clone()).await,
        async |world, hashes| assert_gone(world, hashes).await,
    )
    .await;
}

#[tokio::test]
async fn collecting() {
    at_every_await(
        &ALL,
        async |world| {
            let hashes = doomed(world).await;
            // A collection spares blobs that were added in the same millisecond.
            std::thread::sleep(Duration::from_millis(2));
            hashes
        },
        async |world, _| world.blobs.collect(SystemTime::now()).await,
        async |world, hashes| assert_gone(world, hashes).await,
    )
    .await;
}

/// A blob that is being deleted is pinned, and found, after the deleting call was dropped: then it
/// stays.
#[tokio::test]
async fn what_is_pinned_after_the_drop_stays() {
    for round in 0..20 {
        larder_store_testkit::cancel::at_every_await(async |mut cut| {
            let seed = round * 100 + cut.polls() as u64;
            let world = World::new(seed).await;
            let data = bytes(1, 40_000);
            let hash = world.blobs.add(data.clone()).await.unwrap().hash();
            cut.call(world.blobs.delete(vec![hash])).await;
            let pin = world.blobs.pin(Root::raw(hash)).await;
            let found = world.blobs.status(hash).await.unwrap();
            world.store.settle().await;
            assert_eq!(world.blobs.status(hash).await.unwrap(), found);
            if found.is_some() {
                world.assert_has(hash, &data).await;
            }
            drop(pin);
            cut
        })
        .await;
    }
}

/// Tests that a blob is not collected if it is there and a call that was dropped tags it.
#[tokio::test]
async fn what_is_tagged_after_the_drop_stays() {
    for round in 0..20 {
        larder_store_testkit::cancel::at_every_await(async |mut cut| {
            let seed = round * 100 + cut.polls() as u64;
            let world = World::new(seed).await;
            let hash = world.blobs.add(bytes(1, 100)).await.unwrap().hash();
            std::thread::sleep(Duration::from_millis(2));
            let tags = world.blobs.tags();
            cut.call(tags.set(name("late"), Root::raw(hash))).await;
            world.blobs.collect(SystemTime::now()).await.unwrap();
            world.store.settle().await;
            if tags.get(&name("late")).await.unwrap().is_some() {
                assert!(world.blobs.status(hash).await.unwrap().is_some());
            }
            cut
        })
        .await;
    }
}

#[tokio::test]
async fn scrubbing() {
    at_every_await(
        &[After::Again, After::Settled, After::Reopened],
        async |world| {
            let damage = async |len: usize, part, index| {
                let data = bytes(len as u64, len);
                let before: Vec<_> = payloads(world).await;
                let hash = world.blobs.add(data).await.unwrap().hash();
                let mut after = payloads(world).await;
                after.retain(|id| !before.contains(id));
                let bytes = vec![7; 64].into();
                let block = Block { part, index, bytes };
                let bytes = larder_store_api::Bytes::from(vec![7; 16 * 1024]);
                let block = match part {
                    Part::Data => Block { bytes, ..block },
                    Part::Outboard => block,
                };
                world
                    .store
                    .inner()
                    .write(after[0], vec![block])
                    .await
                    .unwrap();
                hash
            };
            let lost = damage(20_000, Part::Data, 0).await;
            let partly = damage(100_000, Part::Data, 1).await;
            // Too long to have its hash tree in its entry.
            let tree = damage(1_100_000, Part::Outboard, 0).await;
            let stray = larder_store_api::PayloadId([0; 16]);
            let block = Block {
                part: Part::Data,
                index: 0,
                bytes: vec![1; 10].into(),
            };
            world.store.inner().write(stray, vec![block]).await.unwrap();
            [lost, partly, tree]
        },
        async |world, _| {
            let found = world.blobs.scrub(Repair::Yes);
            found.try_collect::<Vec<_>>().await
        },
        async |world, [_, partly, tree]| {
            let found = world.blobs.scrub(Repair::No);
            let found: Vec<Scrubbed> = found.try_collect().await.unwrap();
            for scrubbed in found {
                assert_eq!(scrubbed.finding, Finding::Sound, "{:?}", scrubbed.hash);
            }
            world.assert_has(*tree, &bytes(1_100_000, 1_100_000)).await;
            let end = world.blobs.read_to_bytes(*partly, 32 * 1024..100_000).await;
            assert!(end.unwrap() == bytes(100_000, 100_000)[32 * 1024..]);
        },
    )
    .await;
}

async fn payloads(world: &World) -> Vec<larder_store_api::PayloadId> {
    BlobStore::list(world.store.inner(), None)
        .try_collect()
        .await
        .unwrap()
}

#[tokio::test]
async fn opening_after_a_crash() {
    at_every_await(
        &ALL,
        async |world| {
            // The payload of an add that was never completed.
            world.drop_engine().await;
            let mut stray = payloads(world).await.pop().unwrap();
            stray.0[15] += 9;
            let block = Block {
                part: Part::Data,
                index: 0,
                bytes: vec![1; 10].into(),
            };
            world.store.inner().write(stray, vec![block]).await.unwrap();
            stray
        },
        async |world, _| Blobs::open(world.store.clone(), world.store.clone()).await,
        async |world, stray| assert!(!payloads(world).await.contains(stray)),
    )
    .await;
}

#[tokio::test]
async fn closing() {
    at_every_await(
        &ALL,
        async |world| world.blobs.add(bytes(1, 40_000)).await.unwrap().hash(),
        async |world, _| world.blobs.close().await,
        async |_, _| (),
    )
    .await;
}
