//! The files that need a damaged blob, by their names.

use std::collections::HashSet;

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Blobs, Error, Format, Hash, Kind, Store,
    groups::{Member, Named, TAG_PREFIX},
    iroh::load_folder,
};
use serde::Serialize;

use crate::{
    commands::fetch::INCOMPLETE,
    groups::{known, label, member_name, short},
    output::{Output, Shown},
    problem::Report,
};

/// The most damaged blobs that are looked up by name.
pub(super) const MAX_NAMED: usize = 10_000;

/// The stored files that are shown beside those that are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    /// Those that are not here as a whole.
    Incomplete,
    Nothing,
}

/// A stored file that is damaged, or not here as a whole.
#[derive(Debug, Serialize)]
struct Affected {
    affected: String,
    path: Option<String>,
    hash: String,
    /// True if this run found it damaged.
    damaged: bool,
}

/// Shows which stored files need what is damaged, and which are not here as a whole if that is asked for; counts the
/// latter. What is being fetched, and what groups have, is for others to say.
pub(super) async fn show(
    out: Output,
    blobs: &Blobs,
    damaged: &HashSet<Hash>,
    also: Also,
) -> Result<u64> {
    let mut incomplete = 0;
    let mut tags = blobs.tags().list(..);
    while let Some(tag) = tags.try_next().await? {
        let name = tag.name.to_string();
        let is_elsewhere =
            also == Also::Nothing || name.starts_with(INCOMPLETE) || name.starts_with(TAG_PREFIX);
        let mut look = async |path: Option<&str>, hash: Hash| -> Result<()> {
            let is_damaged = damaged.contains(&hash);
            let is_missing = !is_elsewhere && !is_here(blobs, hash).await?;
            incomplete += u64::from(is_missing);
            if is_damaged || is_missing {
                say(out, &name, path, hash, is_damaged)?;
            }
            Ok(())
        };
        look(None, tag.root.hash).await?;
        if tag.root.format != Format::HashSeq || damaged.contains(&tag.root.hash) {
            continue;
        }
        match load_folder(blobs, tag.root.hash).await {
            Ok(entries) => {
                for (path, hash) in entries {
                    look(Some(&path), hash).await?;
                }
            }
            // Its list of names is itself damaged, or not here.
            Err(error) if is_expected(&error) => {
                if !is_elsewhere
                    && error.kind() != Kind::Invalid
                    && is_here(blobs, tag.root.hash).await?
                {
                    incomplete += 1;
                    say(out, &name, None, tag.root.hash, !damaged.is_empty())?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(incomplete)
}

/// Shows which files of groups need what is damaged, as far as this store can read their lists; at most [`MAX_NAMED`].
pub(super) async fn show_of_groups(
    out: Output,
    store: &Store,
    damaged: &HashSet<Hash>,
) -> Result<()> {
    let groups = match known(store).await {
        Ok(groups) => groups.map_or(Vec::new(), |groups| groups.groups()),
        // The blobs are verified without the keys, too.
        Err(error) => {
            let report = Report::of(&error);
            out.note(format_args!(
                "files of groups that need what is damaged are not named: their keys cannot be read ({})",
                Shown(&report.error)
            ));
            if let Some(advice) = report.advice {
                out.note(format_args!("  {advice}"));
            }
            return Ok(());
        }
    };
    let mut left = MAX_NAMED;
    for group in groups {
        if !group.can_read() {
            out.note(format_args!(
                "files of the group {} are not named: this store is a replica, which cannot read their names",
                short(&group.id())
            ));
            continue;
        }
        let members = match group.members().await {
            Err(error) if is_expected(&error) => continue,
            members => members?,
        };
        for Member { repo, .. } in members {
            let mut files = match repo.list("").await {
                Err(error) if is_expected(&error) => continue,
                files => files?,
            };
            let mut name = String::new();
            loop {
                let Named { name: path, entry } = match files.try_next().await {
                    Ok(Some(file)) => file,
                    Ok(None) => break,
                    Err(error) if is_expected(&error) => break,
                    Err(error) => return Err(error.into()),
                };
                if !damaged.contains(&entry.blob) {
                    continue;
                }
                if name.is_empty() {
                    let member = member_name(&group, repo.key()).await?;
                    name = format!("{}/{member}", label(&group).await?);
                }
                say(out, &name, Some(path.as_str()), entry.blob, true)?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn say(out: Output, name: &str, path: Option<&str>, hash: Hash, damaged: bool) -> Result<()> {
    let word = if damaged { "affected" } else { "incomplete" };
    let text = match path {
        Some(path) => format!("{word:<9}  {}/{}", Shown(name), Shown(path)),
        None => format!("{word:<9}  {}", Shown(name)),
    };
    let affected = Affected {
        affected: name.to_owned(),
        path: path.map(str::to_owned),
        hash: hash.to_string(),
        damaged,
    };
    Ok(out.result(&affected, text)?)
}

/// Returns true if a list of names is not here, or none.
fn is_expected(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Corrupt | Kind::Invalid)
}

async fn is_here(blobs: &Blobs, hash: Hash) -> larder::Result<bool> {
    Ok(matches!(
        blobs.status(hash).await?,
        Some(BlobStatus::Complete { .. })
    ))
}
