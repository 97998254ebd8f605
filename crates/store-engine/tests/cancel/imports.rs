//! Tests of verified imports.

use larder_store_api::Kind;
use larder_store_engine::{ChunkNum, ChunkRanges, Encoded, Hash, Leaf, Parent, Trust};
use larder_store_testkit::cancel;

use crate::{
    ALL, World, at_every_await,
    common::{bytes, engine, export},
};

struct Incoming {
    hash: Hash,
    data: Vec<u8>,
    items: Vec<Encoded>,
}

async fn incoming(len: usize) -> Incoming {
    let data = bytes(1, len);
    let (from, _) = engine().await;
    let hash = from.add(data.clone()).await.unwrap().hash();
    let items = export(&from, hash, ChunkRanges::all()).await;
    Incoming { hash, data, items }
}

fn copy(item: &Encoded) -> Encoded {
    match item {
        Encoded::Size(size) => Encoded::Size(*size),
        Encoded::Parent(Parent { node, pair }) => Encoded::Parent(Parent {
            node: *node,
            pair: *pair,
        }),
        Encoded::Leaf(Leaf { offset, data }) => Encoded::Leaf(Leaf {
            offset: *offset,
            data: data.clone(),
        }),
    }
}

async fn import(world: &World, incoming: &Incoming) -> larder_store_api::Result<()> {
    let size = incoming.data.len() as u64;
    let import = world.blobs.import(incoming.hash, size, Trust::Untrusted);
    let mut import = import.await?;
    for item in incoming.items.iter().map(copy) {
        import.push(item).await?;
    }
    assert!(import.finish().await?.is_complete());
    Ok(())
}

async fn importing(len: usize) {
    at_every_await(
        &ALL,
        async |_| incoming(len).await,
        async |world, incoming| import(world, incoming).await,
        async |world, incoming| world.assert_has(incoming.hash, &incoming.data).await,
    )
    .await;
}

#[tokio::test]
async fn a_small_blob() {
    importing(5_000).await;
}

#[tokio::test]
async fn a_blob_with_a_payload() {
    importing(100_000).await;
}

/// Only a part of the blob arrives, and then the rest.
#[tokio::test]
async fn a_part_of_a_blob() {
    at_every_await(
        &ALL,
        async |world| {
            let incoming = incoming(200_000).await;
            let (from, _) = engine().await;
            from.add(incoming.data.clone()).await.unwrap();
            let some = ChunkRanges::from(ChunkNum(3)..ChunkNum(70));
            let some = export(&from, incoming.hash, some).await;
            let size = incoming.data.len() as u64;
            let import = world.blobs.import(incoming.hash, size, Trust::Untrusted);
            let mut import = import.await.unwrap();
            for item in some {
                import.push(item).await.unwrap();
            }
            import.finish().await.unwrap();
            incoming
        },
        async |world, incoming| import(world, incoming).await,
        async |world, incoming| world.assert_has(incoming.hash, &incoming.data).await,
    )
    .await;
}

/// One push is dropped, and the same import continues: writes that the push had begun must not undo
/// later ones.
#[tokio::test]
async fn a_push() {
    const LEN: usize = (9 << 20) + 5;
    let incoming = incoming(LEN).await;
    // The first nodes and leaves, those that fill a block or a run, and those that begin a record.
    for victim in [3, 8, 64, 70, 140, 260, 1_030, 1_100] {
        let cuts = cancel::at_every_await(async |mut cut| {
            let mut world = World::new((victim * 100 + cut.polls()) as u64).await;
            let import = world
                .blobs
                .import(incoming.hash, LEN as u64, Trust::Untrusted);
            let mut import = import.await.unwrap();
            for (n, item) in incoming.items.iter().map(copy).enumerate() {
                if n == victim {
                    cut.call(import.push(item)).await;
                    continue;
                }
                match import.push(item).await {
                    // Its parent node was lost.
                    Err(error) if error.kind() == Kind::Invalid => {}
                    other => other.unwrap(),
                }
            }
            import.finish().await.unwrap();
            world.store.settle().await;
            self::import(&world, &incoming).await.unwrap();
            world.close_and_open().await;
            world.assert_sound().await;
            world.assert_has(incoming.hash, &incoming.data).await;
            cut
        })
        .await;
        assert!(cuts > 0);
    }
}

/// The end of an import is dropped, while a record of it may be in progress.
#[tokio::test]
async fn finishing() {
    for len in [5_000, 200_000, 9 << 20] {
        let incoming = incoming(len).await;
        for round in 0..3 {
            let cuts = cancel::at_every_await(async |mut cut| {
                let mut world = World::new(round * 100 + cut.polls() as u64).await;
                let import = world
                    .blobs
                    .import(incoming.hash, len as u64, Trust::Untrusted);
                let mut import = import.await.unwrap();
                for item in incoming.items.iter().map(copy) {
                    import.push(item).await.unwrap();
                }
                cut.call(import.finish()).await;
                if round > 0 {
                    self::import(&world, &incoming).await.unwrap();
                    world.assert_has(incoming.hash, &incoming.data).await;
                }
                world.close_and_open().await;
                world.assert_sound().await;
                cut
            })
            .await;
            assert!(cuts > 1);
        }
    }
}
