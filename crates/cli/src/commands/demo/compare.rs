//! Compares what members have with the folder on disk, and with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Hash, Unlock,
    files::{Found, Stored, is_same},
    groups::{FileEntry, Group, Named, Repo},
};

use super::{
    GROUP,
    member::{Member, secrets_key},
};
use crate::{app::App, output::Unit};

/// The number of files that are compared at once.
const IN_FLIGHT: usize = 8;

/// The result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Files that another program changed since they were put.
    pub(super) changed: BTreeSet<PathBuf>,
    /// The files of the members before, by repo and path.
    all: Option<BTreeMap<(String, String), Hash>>,
}

impl Compared {
    /// Returns the number of files, of so many, that are the same everywhere.
    pub(super) fn identical(&self, files: u64) -> u64 {
        files.saturating_sub(self.changed.len() as u64)
    }
}

/// Compares what one member has: every file of the folder, byte for byte; of all others the hashes,
/// which reading verified.
pub(super) async fn compare(
    app: &App,
    member: &Member,
    folder: &str,
    found: &[Found],
    mut compared: Compared,
) -> Result<Compared> {
    let dir = member
        .folder()
        .parent()
        .expect("it lies in the demo's folder");
    let key = secrets_key(dir);
    let store = app
        .open_with(&member.url, move || Unlock::key_file(&key))
        .await?;
    let groups = store.groups().await?;
    let [group]: [Group; 1] = groups
        .groups()
        .try_into()
        .map_err(|_| anyhow::anyhow!("{} is not in one group", member.name))?;
    if group.name().await?.as_deref() != Some(GROUP) {
        bail!("the group has another name for {}", member.name);
    }
    let mut all = BTreeMap::new();
    let mut of_ann = BTreeMap::new();
    for other in group.members().await? {
        let name = other.name.context("a member has no name")?;
        let mut files = other.repo.list("").await?;
        while let Some(Named { name: path, entry }) = files.try_next().await? {
            all.insert((name.clone(), path.as_str().to_owned()), entry.hash);
            if name == "ann" {
                of_ann.insert(path.as_str().to_owned(), (other.repo.clone(), entry));
            }
        }
    }
    if compared.all.as_ref().is_some_and(|before| *before != all) {
        bail!("{} has other files than the members before", member.name);
    }
    compared.all = Some(all);

    let bar = app
        .out
        .progress(Unit::Items, Some(found.len() as u64), "comparing");
    let blobs = store.blobs();
    let mut files = stream::iter(found)
        .map(|file| {
            let stored: Option<(Repo, FileEntry)> =
                of_ann.get(&format!("{folder}/{}", file.name)).cloned();
            async move {
                let same = match stored {
                    Some((repo, entry)) => {
                        let stored = Stored::Sealed(repo, Box::new(entry));
                        match is_same(blobs, &stored, &file.path).await {
                            Ok(same) => same,
                            // It may have been deleted meanwhile.
                            Err(_) if !file.path.exists() => false,
                            Err(error) => return Err(anyhow::Error::new(error)),
                        }
                    }
                    // A file that cannot be read was left out.
                    None => std::fs::File::open(&file.path).is_err(),
                };
                Ok((file, same))
            }
        })
        .buffered(IN_FLIGHT);
    while let Some((file, same)) = files.try_next().await? {
        bar.inc(1);
        if same {
            continue;
        }
        if file.is_unchanged() {
            bail!(
                "{} differs from what {} has",
                file.path.display(),
                member.name
            );
        }
        compared.changed.insert(file.path.clone());
    }
    bar.finish_and_clear();
    drop(files);
    drop((group, of_ann, groups, store));
    app.close_one(&member.url).await?;
    Ok(compared)
}
