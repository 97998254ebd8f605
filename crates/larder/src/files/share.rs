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

/// Returns the group that was made for a folder before, with our repo in it; a new group called `name`, and a new
/// repo called `member`, where there is none. Another group of that name is not taken: its members were not invited
/// to this folder.
///
/// # Errors
/// [`Kind::NotFound`](crate::Kind::NotFound) if there is no such folder; those of the store.
pub async fn shared_group(
    store: &Store,
    folder: &Path,
    name: &str,
    member: &str,
) -> Result<(Group, Repo)> {
    let groups = store.groups().await?;
    let real = tokio::fs::canonicalize(folder)
        .await
        .map_err(|error| cannot_read(folder, error))?;
    let key = Hash::of(real.as_os_str().as_encoded_bytes());
    let key = Bytes::copy_from_slice(key.as_bytes());
    let shared = store.collections().get(SHARES, key.clone()).await?;
    let id = shared.and_then(|entry| <[u8; 32]>::try_from(&entry.value[..]).ok());
    if let Some(group) = id.and_then(|id| groups.group(RecordId(id))) {
        let repos = group.repos().await?;
        if let Some(repo) = repos.into_iter().find(Repo::is_ours) {
            return Ok((group, repo));
        }
    }
    let group = groups.create_group(name).await?;
    let repo = group.create_repo(member).await?;
    let id = Bytes::copy_from_slice(&group.id().0);
    store.collections().put(SHARES, key, id).await?;
    Ok((group, repo))
}
