//! Tests of opening and closing, and of what must not be lost in between.

mod support;

use std::{path::Path, path::PathBuf};

use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, BlobStore, Block, Bytes, CollectionId, CollectionStore, Edit, Kind, Part, PayloadId,
    Result, Scan,
};
use larder_store_veilid::VeilidStore;
use support::{name, node};

const C: CollectionId = CollectionId::from_static("c");

fn put(key: &str, value: &str) -> Batch {
    Batch::of(vec![Edit::Put {
        collection: C,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }])
}

async fn get(store: &VeilidStore, key: &'static str) -> Option<Bytes> {
    let found = store.get(C, key.into()).await.expect("it reads");
    found.map(|entry| entry.value)
}

fn tables(dir: &Path) -> PathBuf {
    dir.join("table_store")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[tokio::test]
async fn namespaces_of_one_node_are_apart() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &name()).await?;
    let one = VeilidStore::open(node.clone(), "one").await?;
    let two = VeilidStore::open(node.clone(), "two").await?;
    one.commit(put("k", "of one")).await?;
    two.commit(put("k", "of two")).await?;
    assert_eq!(get(&one, "k").await, Some("of one".into()));
    assert_eq!(get(&two, "k").await, Some("of two".into()));
    let error = VeilidStore::open(node.clone(), "one").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "store.open: unavailable: the store is already open; use the one that is, or close it first \
         (table=larder_one_entries)"
    );
    one.close().await?;
    let one = VeilidStore::open(node.clone(), "one").await?;
    assert_eq!(get(&one, "k").await, Some("of one".into()));
    let error = VeilidStore::open(node.clone(), "no/slash")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_second_node_in_the_folder_is_refused() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let namespace = name();
    let first = node(dir.path(), &namespace).await?;
    let error = node(dir.path(), &namespace).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    first.shutdown().await;
    node(dir.path(), &namespace).await?.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn after_a_shutdown_every_call_says_closed() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &name()).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    store.commit(put("k", "v")).await?;
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => store.commit(put(&n.to_string(), "v")).await.map(drop),
                    1 => store.get(C, "k".into()).await.map(drop),
                    _ => {
                        let block = Block {
                            part: Part::Data,
                            index: 0,
                            bytes: vec![1; 70_000].into(),
                        };
                        store.write(PayloadId([n; 16]), vec![block]).await
                    }
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    node.shutdown().await;
    for call in calls {
        match call.await.expect("no panic") {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), Kind::Closed, "{error:?}"),
        }
    }
    let kinds = [
        store.commit(put("k", "v")).await.unwrap_err(),
        store.get(C, "k".into()).await.unwrap_err(),
        store
            .scan(Scan::all(C))
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err(),
        store
            .read(PayloadId([0; 16]), Part::Data, 0..1)
            .await
            .unwrap_err(),
        store.delete(vec![PayloadId([0; 16])]).await.unwrap_err(),
        BlobStore::sync(&store, vec![]).await.unwrap_err(),
        CollectionStore::sync(&store).await.unwrap_err(),
    ]
    .map(|error| error.kind());
    assert_eq!(kinds, [Kind::Closed; 7]);
    Ok(())
}

/// Everything is encrypted: the raw files have no byte of what was stored.
#[tokio::test]
async fn nothing_is_in_the_clear_on_the_disk() -> Result<()> {
    const CANARY: &str = "canary-in-a-coal-mine";
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &name()).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    store.commit(put(CANARY, &CANARY.repeat(100))).await?;
    let block = Block {
        part: Part::Data,
        index: 0,
        bytes: CANARY.repeat(10_000).into(),
    };
    store
        .write(PayloadId(*b"canary-in-a-coal"), vec![block])
        .await?;
    store.close().await?;
    let check = || {
        let mut bytes = 0;
        for file in files(&tables(dir.path())) {
            let content = std::fs::read(&file).expect("a file");
            bytes += content.len();
            for needle in [&CANARY.as_bytes()[..12], &hex(&CANARY.as_bytes()[..12])] {
                let found = content.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{}", file.display());
            }
        }
        assert!(bytes > CANARY.len() * 10_000, "the files were read");
    };
    check();
    node.shutdown().await;
    check();
    Ok(())
}

/// SQLite stores keys as text even if they are not valid text.
fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect()
}

#[tokio::test]
async fn deleting_makes_room_for_what_comes() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &name()).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    let fill = async |id: u8| {
        for index in 0..64 {
            let block = Block {
                part: Part::Data,
                index,
                bytes: vec![id; 65_536].into(),
            };
            store.write(PayloadId([id; 16]), vec![block]).await?;
        }
        Result::<()>::Ok(())
    };
    fill(0).await?;
    let once = store.disk_usage().await?.blocks;
    for id in 0..4 {
        store.delete(vec![PayloadId([id; 16])]).await?;
        fill(id + 1).await?;
    }
    let after = store.disk_usage().await?.blocks;
    assert!(after < once * 5 / 4, "{after} bytes after {once}");
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_missing_device_key_erases_nothing() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let namespace = name();
    let first = node(dir.path(), &namespace).await?;
    let store = VeilidStore::open(first.clone(), "").await?;
    store.commit(put("k", "v")).await?;
    store.close().await?;
    first.shutdown().await;
    let protected = dir.path().join("protected_store");
    let aside = dir.path().join("aside");
    std::fs::rename(&protected, &aside).expect("it moves");
    let error = node(dir.path(), &namespace).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    assert!(error.to_string().contains("nothing was erased"), "{error}");
    if protected.exists() {
        std::fs::remove_dir_all(&protected).expect("a new one may be there");
    }
    std::fs::rename(&aside, &protected).expect("it moves back");
    let again = node(dir.path(), &namespace).await?;
    let store = VeilidStore::open(again.clone(), "").await?;
    assert_eq!(get(&store, "k").await, Some("v".into()));
    again.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_foreign_device_key_erases_nothing() -> Result<()> {
    let (dir, other) = (tempfile::tempdir(), tempfile::tempdir());
    let (dir, other) = (dir.expect("a folder"), other.expect("a folder"));
    let namespace = name();
    for (dir, value) in [(&dir, "ours"), (&other, "theirs")] {
        let node = node(dir.path(), &namespace).await?;
        let store = VeilidStore::open(node.clone(), "").await?;
        store.commit(put("k", value)).await?;
        store.close().await?;
        node.shutdown().await;
    }
    let protected = dir.path().join("protected_store");
    let aside = dir.path().join("aside");
    std::fs::rename(&protected, &aside).expect("it moves");
    std::fs::rename(other.path().join("protected_store"), &protected).expect("it moves");
    let error = node(dir.path(), &namespace).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    assert!(error.to_string().contains("nothing was erased"), "{error}");
    std::fs::remove_dir_all(&protected).expect("it goes");
    std::fs::rename(&aside, &protected).expect("it moves back");
    let again = node(dir.path(), &namespace).await?;
    let store = VeilidStore::open(again.clone(), "").await?;
    assert_eq!(get(&store, "k").await, Some("ours".into()));
    again.shutdown().await;
    Ok(())
}

/// Veilid forgets the name of a table that it cannot open, and creates an empty one the next time.
#[tokio::test]
async fn a_table_that_veilid_has_forgotten_is_missed() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), &name()).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    store.commit(put("k", "v")).await?;
    store.close().await?;
    drop(store);
    node.api()
        .rename_table_db("larder__entries", "elsewhere")
        .await
        .expect("it is closed");
    let error = VeilidStore::open(node.clone(), "").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("still in the file"), "{error}");
    node.shutdown().await;
    Ok(())
}
