//! Groups, repos and their files as lines of a list.

use anyhow::Result;
use larder::{
    BlobStatus, Blobs, Hash,
    api::PublicKey,
    groups::{FileEntry, Group, Member, Name, Policy},
};

use crate::item::{Item, ItemKind};

/// The beginning of an id or a key, for people.
pub(crate) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(10).collect()
}

/// Returns the group's name here.
pub(crate) async fn label(group: &Group) -> Result<String> {
    let name = match group.keys().read() {
        Some(_) => group.name().await?,
        None => None,
    };
    Ok(name.unwrap_or_else(|| short(&group.id())))
}

/// A group as a line: what all its repos have.
pub(crate) async fn of_group(group: &Group) -> Result<Item> {
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
        let repo = of_repo(&member).await?;
        item.size = item.size.saturating_add(repo.size);
        let files = item.files.zip(repo.files);
        item.files = files.map(|(all, files)| all.saturating_add(files));
        item.present = item.present.saturating_add(repo.present);
        item.complete &= repo.complete;
    }
    Ok(item)
}

/// A repo as a line.
pub(crate) async fn of_repo(member: &Member) -> Result<Item> {
    let repo = &member.repo;
    let state = repo.state(&Policy::Everything).await?;
    let (here, newest) = (state.complete, state.announced);
    let policy = match repo.policy().await? {
        Some(policy) => Some(policy),
        None => repo.group().policy().await?,
    };
    let wants_all = matches!(policy, None | Some(Policy::Everything));
    let mut present = here.bytes;
    if (wants_all || repo.is_ours()) && state.wanted.hash == newest.hash {
        // All of it but for what nobody could give.
        let missing = repo.missing(&Policy::Everything).await?;
        present = newest.bytes.saturating_sub(missing.bytes);
    }
    Ok(Item {
        name: member.name.clone().unwrap_or_else(|| short(&repo.key())),
        kind: ItemKind::Repo,
        hash: Hash::from(repo.key().0),
        size: newest.bytes,
        files: Some(newest.files),
        present: present.min(newest.bytes),
        complete: here.hash == newest.hash,
    })
}

/// A file of a repo as a line.
pub(crate) async fn of_file(blobs: &Blobs, name: &Name, entry: &FileEntry) -> Result<Item> {
    let complete = matches!(
        blobs.status(entry.blob).await?,
        Some(BlobStatus::Complete { .. })
    );
    Ok(Item {
        name: name.as_str().to_owned(),
        kind: ItemKind::File,
        hash: entry.hash,
        size: entry.size,
        files: None,
        present: if complete { entry.size } else { 0 },
        complete,
    })
}

/// Returns the name of the member with this repo.
pub(crate) async fn member_name(group: &Group, repo: PublicKey) -> Result<String> {
    let name = match (group.repo(repo).await?, group.keys().read()) {
        (Some(found), Some(_)) => found.name().await?,
        _ => None,
    };
    Ok(name.unwrap_or_else(|| short(&repo)))
}
