//! The group that a folder is shared with.

use std::path::Path;

use bytes::Bytes;
use larder_store_api::{CollectionId, RecordId, Result};
use larder_store_engine::Hash;
use larder_sync::groups::{Group, Repo};

use super::cannot_read;
use crate::Store;

/// The collection that says which group was made for which folder: a hash of the folder's path -> the group's id.
const SHARES: CollectionId = CollectionId::from_static("larder-files/shares");

/// Returns the group that was made for a folder before, with our repo in it. Another group of the folder's name is not
/// taken: its members were not invited to this folder.
///
/// # Errors
/// [`Kind::NotFound`](crate::Kind::NotFound) if there is no such folder; those of the store.
pub async fn shared_group(store: &Store, folder: &Path) -> Result<Option<(Group, Repo)>> {
    let key = key(folder).await?;
    let shared = store.collections().get(SHARES, key).await?;
    let id = shared.and_then(|entry| <[u8; 32]>::try_from(&entry.value[..]).ok());
    let groups = store.groups().await?;
    let Some(group) = id.and_then(|id| groups.group(RecordId(id))) else {
        return Ok(None);
    };
    let own = group.own_repo().await?;
    Ok(own.map(|repo| (group, repo)))
}

/// Remembers the group that was made for a folder.
///
/// # Errors
/// [`Kind::NotFound`](crate::Kind::NotFound) if there is no such folder; those of the store.
pub async fn set_shared_group(store: &Store, folder: &Path, group: &Group) -> Result<()> {
    let id = Bytes::copy_from_slice(&group.id().0);
    store
        .collections()
        .put(SHARES, key(folder).await?, id)
        .await?;
    Ok(())
}

/// The key of a folder, whatever path leads to it.
async fn key(folder: &Path) -> Result<Bytes> {
    let real = tokio::fs::canonicalize(folder)
        .await
        .map_err(|error| cannot_read(folder, error))?;
    let key = Hash::of(real.as_os_str().as_encoded_bytes());
    Ok(Bytes::copy_from_slice(key.as_bytes()))
}
