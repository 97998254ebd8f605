//! Helpers for the tests of this crate.
#![allow(dead_code)]

use std::{collections::BTreeMap, sync::Arc};

use futures_util::TryStreamExt;
use larder_store_engine::{Blobs, Hash};
use larder_store_testkit::MemoryStore;
use larder_sync_model::{
    keyring::Keyring,
    keys::ReadKey,
    seal::file::FileKey,
    tree::{FileEntry, Name, Root, Tree},
};

pub type Files = BTreeMap<Name, FileEntry>;

pub fn key() -> ReadKey {
    ReadKey::from_bytes([7; 32], 0)
}

pub async fn blobs() -> Blobs {
    let store = Arc::new(MemoryStore::new());
    Blobs::open(store.clone(), store).await.unwrap()
}

pub async fn tree() -> Tree {
    Tree::new(blobs().await, Keyring::of_read(key()))
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Returns a file; another version is another file.
pub fn entry(version: u64) -> FileEntry {
    let hash = Hash::of(version.to_be_bytes());
    FileEntry {
        size: version % 1000,
        modified: i64::try_from(version).unwrap(),
        hash,
        blob: Hash::of(hash.as_bytes()),
        key: FileKey::convergent(&key(), hash, version),
    }
}

/// Returns names as in a folder of photos; equal counts give equal names.
pub fn many(count: u64) -> impl Iterator<Item = (Name, FileEntry)> {
    (0..count).map(|i| {
        let text = format!("photos/{:04}/IMG_{:06}.jpeg", i / 500, i);
        (name(&text), entry(i))
    })
}

pub async fn contents(tree: &Tree, root: Root) -> Files {
    tree.list(root, "", None)
        .map_ok(|named| (named.name, named.entry))
        .try_collect()
        .await
        .unwrap()
}
