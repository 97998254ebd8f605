//! Groups, repos and their files as lines of a list.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Blobs, Hash, Kind,
    api::{PublicKey, RecordId},
    groups::{FileEntry, Group, Member, Name, Named, Policy, Repo, RepoState},
};

use crate::item::{Item, ItemKind};

/// The number of files that are looked at at once.
const IN_FLIGHT: usize = 64;

/// The beginning of an id or a key, for people.
pub(crate) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(10).collect()
}

/// Returns the group's name, if this store may know it.
pub(crate) async fn name_of_group(group: &Group) -> Result<Option<String>> {
    match group.name().await {
        // A replica reads no names, and who has no name yet has none here.
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unavailable) => Ok(None),
        name => Ok(name?),
    }
}

/// Returns the group's name here.
pub(crate) async fn label(group: &Group) -> Result<String> {
    let name = name_of_group(group).await?;
    Ok(name.unwrap_or_else(|| short(&group.id())))
}

/// Returns the names of groups; where two have one name, each with the beginning of its id.
pub(crate) async fn labels(groups: &[Group]) -> Result<BTreeMap<RecordId, String>> {
    let mut names = BTreeMap::new();
    for group in groups {
        names.insert(group.id(), label(group).await?);
    }
    Ok(apart(names))
}

/// Returns the names of a group's members by their repos; where two have one name, each with the beginning of its key.
pub(crate) async fn member_names(group: &Group) -> Result<BTreeMap<PublicKey, String>> {
    let members = group.members().await?.into_iter();
    let names = members.map(|Member { repo, name, .. }| {
        let key = repo.key();
        (key, name.unwrap_or_else(|| short(&key)))
    });
    Ok(apart(names.collect()))
}

/// Adds the beginning of the key to each name that stands twice.
fn apart<K: Ord + ToString>(names: BTreeMap<K, String>) -> BTreeMap<K, String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names.values() {
        *counts.entry(name.clone()).or_default() += 1;
    }
    let names = names.into_iter().map(|(key, name)| match counts[&name] {
        1 => (key, name),
        _ => {
            let name = format!("{name} ({})", short(&key));
            (key, name)
        }
    });
    names.collect()
}

/// Returns the name of the member with this repo, with the beginning of its key if another one is called so too.
pub(crate) async fn told_apart(group: &Group, repo: PublicKey) -> Result<String> {
    let name = member_names(group).await?.remove(&repo);
    Ok(name.unwrap_or_else(|| short(&repo)))
}

/// A group as a line: what all its repos have.
pub(crate) async fn of_group(blobs: &Blobs, group: &Group) -> Result<Item> {
    let mut item = Item {
        name: label(group).await?,
        kind: ItemKind::Group,
        hash: Hash::from(group.id().0),
        size: 0,
        files: Some(0),
        present: 0,
        complete: true,
    };
    for member in group.members().await? {
        let repo = of_repo(blobs, &member).await?;
        item.size = item.size.saturating_add(repo.size);
        let files = item.files.zip(repo.files);
        item.files = files.map(|(all, files)| all.saturating_add(files));
        item.present = item.present.saturating_add(repo.present);
        item.complete &= repo.complete;
    }
    Ok(item)
}

/// A repo as a line.
pub(crate) async fn of_repo(blobs: &Blobs, member: &Member) -> Result<Item> {
    let repo = &member.repo;
    let state = repo.state(&Policy::Everything).await?;
    let newest = state.announced;
    let mut here = Here {
        bytes: newest.bytes,
        is_all: true,
    };
    if state.complete.hash != newest.hash {
        // The policy of this device, and what was read or let go, decide which files are here: so they are counted.
        here = match repo.group().can_read() {
            true => count_here(blobs, repo).await?,
            false => here_by_policy(repo, &state).await?,
        };
        here.is_all &= state.local.hash == newest.hash;
    }
    Ok(Item {
        name: member.name.clone().unwrap_or_else(|| short(&repo.key())),
        kind: ItemKind::Repo,
        hash: Hash::from(repo.key().0),
        size: newest.bytes,
        files: Some(newest.files),
        present: here.bytes.min(newest.bytes),
        complete: here.is_all,
    })
}

/// The part of some files that is here.
struct Here {
    bytes: u64,
    is_all: bool,
}

/// Counts what is here of the files of a repo, one by one, as listing them does.
async fn count_here(blobs: &Blobs, repo: &Repo) -> Result<Here> {
    let mut here = Here {
        bytes: 0,
        is_all: true,
    };
    let counted = async {
        let files = repo.list("").await?;
        let mut states = files
            .map_ok(|Named { entry, .. }| async move { of_entry(blobs, &entry).await })
            .try_buffer_unordered(IN_FLIGHT);
        while let Some(file) = states.try_next().await? {
            here.bytes = here.bytes.saturating_add(file.bytes);
            here.is_all &= file.is_all;
        }
        Ok::<_, larder::Error>(())
    };
    match counted.await {
        Ok(()) => {}
        // A part of the list is damaged: nobody knows what it named.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => here.is_all = false,
        Err(error) => return Err(error.into()),
    }
    Ok(here)
}

/// Tells what is here of a repo whose list cannot be read, from what was fetched last.
async fn here_by_policy(repo: &Repo, state: &RepoState) -> Result<Here> {
    let policy = match repo.policy().await? {
        Some(policy) => Some(policy),
        None => repo.group().policy().await?,
    };
    let wants_all = matches!(policy, None | Some(Policy::Everything));
    let mut bytes = state.complete.bytes;
    if wants_all && state.wanted.hash == state.announced.hash {
        // All of it but for what nobody could give.
        let missing = repo.missing(&Policy::Everything).await?;
        bytes = state.announced.bytes.saturating_sub(missing.bytes);
    }
    Ok(Here {
        bytes,
        is_all: false,
    })
}

/// Returns what is here of a file.
async fn of_entry(blobs: &Blobs, entry: &FileEntry) -> larder::Result<Here> {
    // Nothing is stored of an empty blob.
    if entry.blob == Hash::EMPTY {
        return Ok(Here {
            bytes: entry.size,
            is_all: true,
        });
    }
    let (bytes, is_all) = match blobs.status(entry.blob).await? {
        Some(BlobStatus::Complete { .. }) => (entry.size, true),
        Some(BlobStatus::Partial { present, .. }) => (present.min(entry.size), false),
        None => (0, false),
    };
    Ok(Here { bytes, is_all })
}

/// A file of a repo as a line.
pub(crate) async fn of_file(blobs: &Blobs, name: &Name, entry: &FileEntry) -> Result<Item> {
    let here = of_entry(blobs, entry).await?;
    Ok(Item {
        name: name.as_str().to_owned(),
        kind: ItemKind::File,
        hash: entry.hash,
        size: entry.size,
        files: None,
        present: here.bytes,
        complete: here.is_all,
    })
}

/// Returns the name of the member with this repo.
pub(crate) async fn member_name(group: &Group, repo: PublicKey) -> Result<String> {
    let name = match (group.repo(repo).await?, group.can_read()) {
        (Some(found), true) => found.name().await?,
        _ => None,
    };
    Ok(name.unwrap_or_else(|| short(&repo)))
}
