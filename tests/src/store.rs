//! Stores in folders, and checks of their contents.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Blobs, Bytes, Hash, Repair, Store, StoreUrl,
    api::GROUP_LEN,
    engine::{Finding, Scrubbed},
};

/// Opens the store in a folder.
///
/// # Panics
/// If it does not open.
pub async fn open(dir: &Path) -> Store {
    try_open(dir).await.expect("the store opens")
}

/// Opens a store, as [`open`] does, but returns the error.
pub async fn try_open(dir: &Path) -> larder::Result<Store> {
    Store::open_url(&StoreUrl::redb(dir.to_owned())).await
}

/// Opens the store at a URL.
///
/// # Panics
/// If it does not open.
pub async fn open_url(url: &StoreUrl) -> Store {
    Store::open_url(url).await.expect("the store opens")
}

/// Returns the number of payloads that a store has, claimed or not.
///
/// # Panics
/// If they cannot be listed.
pub async fn stored_payloads(blobs: &Blobs) -> usize {
    let ids = blobs.payload_store().list(None).try_collect::<Vec<_>>();
    ids.await.expect("the payloads can be listed").len()
}

/// Returns all of a blob that must be here.
///
/// # Panics
/// If it cannot be read.
pub async fn read(blobs: &Blobs, hash: Hash) -> Bytes {
    let read = blobs.read_to_bytes(hash, 0..u64::MAX).await;
    read.unwrap_or_else(|error| panic!("{hash}: {error:?}"))
}

/// Returns the results of a scrub.
///
/// # Panics
/// If it fails.
pub async fn scrub(blobs: &Blobs, repair: Repair) -> Vec<Scrubbed> {
    blobs
        .scrub(repair)
        .try_collect()
        .await
        .expect("the store can be scrubbed")
}

/// Returns the results of a scrub that are not sound.
pub async fn unsound(blobs: &Blobs) -> Vec<Scrubbed> {
    let mut found = scrub(blobs, Repair::No).await;
    found.retain(|found| found.finding != Finding::Sound);
    found
}

/// Returns the payload files in a store's folder, without the difference between data and outboard.
///
/// # Panics
/// If the folder contains other files.
pub fn payloads(dir: &Path) -> BTreeSet<PathBuf> {
    let mut payloads = BTreeSet::new();
    for file in files(&dir.join("payload")) {
        let extension = file.extension().and_then(|extension| extension.to_str());
        assert!(
            matches!(extension, Some("data" | "outboard")),
            "{}",
            file.display()
        );
        payloads.insert(file.with_extension(""));
    }
    payloads
}

/// Returns all files under a folder, sorted.
///
/// # Panics
/// If it cannot be listed.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the number of payloads that the blobs of a store claim: each blob that is longer than a
/// group or incomplete claims one.
///
/// # Panics
/// If the store cannot be listed.
pub async fn claimed_payloads(blobs: &Blobs) -> usize {
    let all: Vec<_> = blobs
        .list()
        .try_collect()
        .await
        .expect("the store can be listed");
    let claims = |status: &BlobStatus| match status {
        BlobStatus::Complete { size } => *size > GROUP_LEN,
        BlobStatus::Partial { .. } => true,
    };
    all.iter().filter(|(_, status)| claims(status)).count()
}
