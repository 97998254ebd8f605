//! Copies what is not a blob: names, an app's collections, records.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{
    Blobs, Error, Kind, Store, Tag,
    api::{
        Batch, CollectionId, Edit, Entry, Expect, Freshness, PutRecord, RecordId, RecordStore,
        Revision, Scan,
    },
    engine::RESERVED,
    groups::{Groups, REPO_ROOT, Repo, TAG_PREFIX},
};

use super::Copied;
use crate::{groups::known, output::Shown, problem::Problem};

/// The number of entries in one commit.
const BATCH: usize = 64;
/// The engine's list of records: its keys are their ids.
const RECORDS: CollectionId = CollectionId::from_static("larder/records");
/// The number of names that a message shows.
const MAX_SHOWN: usize = 10;

/// Refuses two stores that use one name for two things.
pub(super) async fn check_names(from: &Blobs, to: &Blobs) -> Result<()> {
    let mut clashes = Vec::new();
    let mut count = 0;
    let mut tags = from.tags().list(..);
    while let Some(Tag { name, root }) = tags.try_next().await? {
        // Both are in the same group, and each keeps what it has.
        if name.as_bytes().starts_with(TAG_PREFIX.as_bytes()) {
            continue;
        }
        if to
            .tags()
            .get(&name)
            .await?
            .is_some_and(|there| there != root)
        {
            count += 1;
            if clashes.len() < MAX_SHOWN {
                clashes.push(Shown(&name.to_string()).to_string());
            }
        }
    }
    if count == 0 {
        return Ok(());
    }
    Err(Problem::new(
        format!(
            "{count} name(s) stand for other content in TO, nothing was copied\n  {}",
            clashes.join("\n  ")
        ),
        "rename or remove them in one of the stores, or take those of FROM with --overwrite",
    )
    .into())
}

pub(super) async fn copy_names(from: &Blobs, to: &Blobs, copied: &mut Copied) -> Result<()> {
    let mut tags = from.tags().list(..);
    while let Some(tag) = tags.try_next().await? {
        let beside = Groups::tag_beside(&to.tags(), &tag).await?;
        let (name, root) = (beside.unwrap_or(tag.name), tag.root);
        if to.tags().get(&name).await? != Some(root) {
            to.tags().set(name, root).await?;
            copied.names += 1;
        }
    }
    Ok(())
}

/// Copies the keys of groups.
pub(super) async fn copy_keys(from: &Store, to: &Store) -> Result<u64> {
    let (from, to) = (from.secrets().await?, to.secrets().await?);
    Ok(Groups::copy_keys(&*from, &*to).await?)
}

/// Copies the collections that apps made.
pub(super) async fn copy_entries(
    from: &Store,
    to: &Store,
    overwrite: bool,
    copied: &mut Copied,
) -> Result<()> {
    let mut ids = from.collections().list();
    while let Some(id) = ids.try_next().await? {
        if id.as_bytes().starts_with(RESERVED) {
            continue;
        }
        let mut batch = Vec::with_capacity(BATCH);
        let mut entries = from.collections().scan(Scan::all(id.clone()));
        while let Some(entry) = entries.try_next().await? {
            batch.push(entry);
            if batch.len() == BATCH {
                copied.entries += put(to, &id, std::mem::take(&mut batch), overwrite).await?;
            }
        }
        copied.entries += put(to, &id, batch, overwrite).await?;
    }
    Ok(())
}

/// Puts those entries that differ in one commit, and says how many.
async fn put(to: &Store, id: &CollectionId, entries: Vec<Entry>, overwrite: bool) -> Result<u64> {
    let mut batch = Batch::of(Vec::with_capacity(entries.len()));
    for Entry { key, value, .. } in entries {
        let there = to.collections().get(id.clone(), key.clone()).await?;
        match &there {
            Some(there) if there.value == value => continue,
            // Both are in the same group, and each knows how far it is.
            Some(_) if id.as_bytes().starts_with(TAG_PREFIX.as_bytes()) => continue,
            Some(_) if !overwrite => {
                return Err(Problem::new(
                    format!(
                        "the collection {id} has another value under the key {} in TO",
                        key.escape_ascii()
                    ),
                    "change it in one of the stores, or take those of FROM with --overwrite",
                )
                .into());
            }
            _ => {}
        }
        batch
            .expect
            .push(unchanged(id, &key, there.map(|there| there.revision)));
        batch.edits.push(Edit::Put {
            collection: id.clone(),
            key,
            value,
        });
    }
    let count = batch.edits.len() as u64;
    if count > 0 {
        to.collections().commit(batch).await?;
    }
    Ok(count)
}

fn unchanged(id: &CollectionId, key: &larder::Bytes, revision: Option<Revision>) -> Expect {
    let (collection, key) = (id.clone(), key.clone());
    match revision {
        Some(revision) => Expect::At {
            collection,
            key,
            revision,
        },
        None => Expect::Absent { collection, key },
    }
}

/// The records of the repos that TO writes already.
pub(super) async fn own_repos(to: &Store) -> Result<BTreeSet<RecordId>> {
    let mut ours = BTreeSet::new();
    if let Some(groups) = known(to).await? {
        for group in groups.groups() {
            let repos = group.repos().await?.into_iter();
            ours.extend(repos.filter(Repo::is_ours).map(|repo| repo.id()));
        }
    }
    Ok(ours)
}

/// Copies records, slot by verified slot; if TO has a newer value, that stays.
pub(super) async fn copy_records(
    from: &Store,
    to: &Store,
    ours: &BTreeSet<RecordId>,
    copied: &mut Copied,
) -> Result<()> {
    let mut entries = from.collections().scan(Scan::all(RECORDS));
    while let Some(entry) = entries.try_next().await? {
        let id = RecordId(entry.key.as_ref().try_into().map_err(|_| {
            Error::new(Kind::Corrupt, "records.list", "this is not a record's id")
                .with("key", entry.key.escape_ascii())
        })?);
        // One that is being forgotten is not copied.
        let Some(descriptor) = from.records().descriptor(id).await? else {
            continue;
        };
        let slots = u16::try_from(descriptor.slots()).unwrap_or(u16::MAX);
        to.records().create(descriptor).await?;
        for found in from
            .records()
            .inspect(id, 0..slots, Freshness::Local)
            .await?
        {
            // Each of two devices keeps its own root. They merge both when they meet, so that nothing is lost.
            if ours.contains(&id) && found.slot == REPO_ROOT {
                let there = to.records().get(id, found.slot, Freshness::Local).await?;
                if there.is_some() {
                    continue;
                }
            }
            let value = from.records().get(id, found.slot, Freshness::Local).await?;
            if let Some(value) = value {
                to.records()
                    .put(id, found.slot, PutRecord::Import(value))
                    .await?;
            }
        }
        copied.records += 1;
    }
    Ok(())
}
