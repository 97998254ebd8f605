//! A store keeps what it was given, whatever its URL, until it is closed, and beyond.

use larder::{BlobStatus, Kind, Root, Store, TagName, api::CollectionId};

const LEN: usize = 100_000;

async fn fill(store: &Store) -> Root {
    let blobs = store.blobs();
    let pin = blobs.add(vec![7; LEN]).await.unwrap();
    let name = TagName::try_from("sevens").unwrap();
    blobs.tags().set(name, pin.root()).await.unwrap();
    let notes = CollectionId::from_static("notes");
    store.collections().put(notes, "a", "b").await.unwrap();
    pin.root()
}

async fn check(store: &Store, root: Root) {
    let name = TagName::try_from("sevens").unwrap();
    assert_eq!(store.blobs().tags().get(&name).await.unwrap(), Some(root));
    let status = store.blobs().status(root.hash).await.unwrap();
    assert_eq!(status, Some(BlobStatus::Complete { size: LEN as u64 }));
    let notes = CollectionId::from_static("notes");
    let entry = store.collections().get(notes, "a").await.unwrap();
    assert_eq!(entry.unwrap().value, "b");
}

#[tokio::test]
async fn a_store_in_memory_ends_with_its_last_handle() {
    let store = Store::open("mem:").await.unwrap();
    let root = fill(&store).await;
    check(&store.clone(), root).await;
    assert_eq!(store.disk_usage().await.unwrap(), None);
    store.reclaim_space().await.unwrap();
    store.close().await.unwrap();
    let error = store.blobs().status(root.hash).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(Store::open("mem:").await.unwrap().blobs().pins(), []);
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn a_store_in_a_folder_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("redb:{}", dir.path().join("store").display());
    let store = Store::open(&url).await.unwrap();
    let root = fill(&store).await;
    let error = Store::open(&url).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    store.close().await.unwrap();
    store.close().await.unwrap();

    let store = Store::open(&url).await.unwrap();
    check(&store, root).await;
    store.reclaim_space().await.unwrap();
    let used = store.disk_usage().await.unwrap().unwrap();
    assert!(used.payloads >= LEN as u64, "{used:?}");
    assert!(used.index > 0, "{used:?}");
    assert_eq!(used.total(), used.payloads + used.index);
    store.close().await.unwrap();
}

#[cfg(all(feature = "redb", feature = "groups"))]
#[tokio::test]
async fn the_groups_of_a_closed_store_open_again_whoever_still_has_handles() {
    use larder::{StoreBuilder, Unlock, api::SecretName};

    let dir = tempfile::tempdir().unwrap();
    let url = format!("redb:{}", dir.path().join("store").display());
    let unlock = Unlock::key_file(&dir.path().join("key")).unwrap();
    let builder = StoreBuilder::new(&url).unlock(unlock);
    let store = builder.clone().open().await.unwrap();
    let secrets = store.secrets().await.unwrap();
    let groups = store.groups().await.unwrap();
    let group = groups.create_group("g").await.unwrap();
    // Whoever asks again has the same groups.
    assert_eq!(store.groups().await.unwrap().groups().len(), 1);
    group.create_repo("me").await.unwrap();
    let members = group.members().await.unwrap();
    store.close().await.unwrap();

    // Nobody says how to unlock its keys.
    let locked = Store::open(&url).await.unwrap();
    let error = locked.groups().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert_eq!(locked.blobs().pins(), []);
    locked.close().await.unwrap();

    let again = builder.open().await.unwrap();
    let groups = again.groups().await.unwrap();
    assert_eq!(groups.groups().remove(0).id(), group.id());
    let name = SecretName::new("x").unwrap();
    let error = secrets.get(name).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed, "{error}");
    assert_eq!(members.len(), 1);
    again.close().await.unwrap();
}
