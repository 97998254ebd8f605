//! Tests of transactions, records and collections.

use larder_store_api::{
    Batch, CollectionId, Edit, Freshness, Kind, PutRecord, RecordDescriptor, RecordId, RecordStore,
    SecretKey, SeqExpect,
};
use larder_store_engine::{Hash, Hashed, Records, Root, TagName, public_key};

use crate::{ALL, World, at_every_await, common::bytes};

const NOTES: CollectionId = CollectionId::from_static("notes");

fn writer() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

fn descriptor(owner_slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner: public_key(&writer()),
        owner_slots,
        members: Vec::new(),
    }
}

fn records(world: &World) -> Records {
    Records::new(world.blobs.collections().clone())
}

fn write(value: &str) -> PutRecord {
    PutRecord::Write {
        value: value.to_owned().into(),
        writer: writer(),
        expect: SeqExpect::Any,
    }
}

async fn value(world: &World, id: RecordId, slot: u16) -> Option<String> {
    let found = records(world).get(id, slot, Freshness::Local).await;
    let found = found.unwrap()?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

async fn created(world: &World) -> RecordId {
    let created = records(world).create(descriptor(300)).await;
    created.unwrap()
}

/// A transaction is there as a whole or not at all; a later one is there.
#[tokio::test]
async fn a_transaction() {
    let tag = || TagName::try_from("page").unwrap();
    at_every_await(
        &ALL,
        async |world| created(world).await,
        async |world, id| {
            let records = records(world);
            let transaction = world.blobs.transaction()?;
            let file = transaction.add(bytes(1, 100_000)).await?;
            let page = Hashed::new(file.hash().as_bytes().to_vec());
            transaction.add_all(vec![page.clone()]).await?;
            let slot = records.slot(*id, 0).await?;
            transaction
                .set_tag(tag(), Root::hash_seq(page.hash()))
                .await?;
            let put = transaction.put_slot(&records, &slot, write("root"));
            put.await?;
            match transaction.commit().await {
                // The dropped transaction came first.
                Err(error) if error.kind() == Kind::Conflict => Ok(()),
                other => other.map(drop),
            }
        },
        async |world, id| {
            let file = Hash::of(bytes(1, 100_000));
            world.assert_has(file, &bytes(1, 100_000)).await;
            world
                .assert_has(Hash::of(file.as_bytes()), file.as_bytes())
                .await;
            let root = world.blobs.tags().get(&tag()).await.unwrap();
            assert_eq!(root, Some(Root::hash_seq(Hash::of(file.as_bytes()))));
            assert_eq!(value(world, *id, 0).await.as_deref(), Some("root"));
        },
    )
    .await;
}

/// Only the commit is dropped: the next call of it returns the outcome.
#[tokio::test]
async fn a_commit() {
    for round in 0..5 {
        let cuts = larder_store_testkit::cancel::at_every_await(async |mut cut| {
            let mut world = World::new(round * 100 + cut.polls() as u64).await;
            let transaction = world.blobs.transaction().unwrap();
            let large = transaction.add(bytes(1, 100_000)).await.unwrap();
            transaction.add(bytes(2, 100)).await.unwrap();
            cut.call(transaction.commit()).await;
            if round > 0 {
                assert!(transaction.commit().await.unwrap().is_some());
                world.assert_has(large.hash(), &bytes(1, 100_000)).await;
                world
                    .assert_has(Hash::of(bytes(2, 100)), &bytes(2, 100))
                    .await;
            }
            drop(transaction);
            world.close_and_open().await;
            world.assert_sound().await;
            cut
        })
        .await;
        assert!(cuts > 1);
    }
}

#[tokio::test]
async fn putting_into_a_record() {
    at_every_await(
        &ALL,
        async |world| created(world).await,
        async |world, id| records(world).put(*id, 7, write("value")).await,
        async |world, id| assert_eq!(value(world, *id, 7).await.as_deref(), Some("value")),
    )
    .await;
}

#[tokio::test]
async fn creating_a_record() {
    at_every_await(
        &ALL,
        async |_| (),
        async |world, ()| records(world).create(descriptor(300)).await,
        async |world, ()| assert_eq!(value(world, created(world).await, 7).await, None),
    )
    .await;
}

/// Forgets a record with more slots than a batch takes.
#[tokio::test]
async fn forgetting_a_record() {
    at_every_await(
        &ALL,
        async |world| {
            let id = created(world).await;
            for slot in 0..200 {
                records(world).put(id, slot, write("value")).await.unwrap();
            }
            id
        },
        async |world, id| records(world).forget(*id).await,
        async |world, id| {
            let found = records(world).get(*id, 0, Freshness::Local).await;
            assert_eq!(found.unwrap_err().kind(), Kind::NotFound);
            assert_eq!(value(world, created(world).await, 7).await, None);
            records(world).forget(*id).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn committing_entries() {
    at_every_await(
        &ALL,
        async |_| (),
        async |world, ()| {
            let put = |key: &'static str| Edit::Put {
                collection: NOTES,
                key: key.into(),
                value: "value".into(),
            };
            let batch = Batch::of(vec![put("one"), put("two")]);
            world.blobs.collections().commit(batch).await
        },
        async |world, ()| {
            for key in ["one", "two"] {
                let found = world.blobs.collections().get(NOTES, key).await;
                assert_eq!(found.unwrap().unwrap().value, "value");
            }
        },
    )
    .await;
}
