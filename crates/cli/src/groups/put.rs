//! Files of this machine, put into a repo.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::groups::{Changes, Content, Name, Repo};
use serde::Serialize;

use crate::{
    app::App,
    ingest::{IN_FLIGHT, blocking, default_name, is_about},
    output::Unit,
    problem::Problem,
    walk::{Found, Skipped, Walk, WalkOptions, walk},
};

/// The number of files that become visible together. Files that were put before an interruption
/// stay.
const TOGETHER: usize = 4096;

/// The options for putting files.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PutOptions {
    /// Leave out files that cannot be read or whose names are not Unicode, and say how many
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// Take folders too that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    pub(crate) include_caches: bool,
    /// Read files too whose length and time are those of the file in the repo
    #[arg(long)]
    pub(crate) read_all: bool,
}

/// The result of putting files.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Put {
    /// New or changed files, and their bytes.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Files that were in the repo already.
    pub(crate) unchanged: u64,
    pub(crate) skipped: Skipped,
}

/// Puts the file or folder at `path` into `repo`, below `folder`. Durable when it returns.
pub(crate) async fn put(
    app: &App,
    repo: &Repo,
    path: &Path,
    folder: Option<&str>,
    how: &PutOptions,
) -> Result<Put> {
    let own = default_name(path)?;
    let top = match folder.map(|folder| folder.trim_end_matches('/')) {
        None | Some("") => own,
        Some(folder) => format!("{folder}/{own}"),
    };
    let walk = find(app, path, &top, how).await?;
    let mut done = Put {
        skipped: walk.skipped.clone(),
        ..Put::default()
    };
    let bar = app.out.progress(Unit::Bytes, Some(walk.size()), "sealing");
    for some in walk.files.chunks(TOGETHER) {
        let mut staged = stream::iter(some)
            .map(|file| async move {
                let staged = stage(repo, file, how.read_all).await;
                staged.map(|staged| (file, staged))
            })
            .buffer_unordered(IN_FLIGHT);
        let mut changes = Changes::new();
        loop {
            let (file, staged) = match staged.try_next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err((path, error)) if how.skip_unreadable && is_about(&error, &path) => {
                    tracing::warn!(path = %path.display(), "left out: {error:#}");
                    done.skipped.unreadable += 1;
                    continue;
                }
                Err((path, error)) => {
                    return Err(error).with_context(|| format!("cannot put {}", path.display()));
                }
            };
            bar.inc(file.size);
            match staged {
                Some((name, staged)) => {
                    done.files += 1;
                    done.bytes += staged.entry.size;
                    changes.put(name, staged);
                }
                None => done.unchanged += 1,
            }
        }
        repo.change(changes).await?;
    }
    bar.finish_and_clear();
    Ok(done)
}

async fn find(app: &App, path: &Path, top: &str, how: &PutOptions) -> Result<Walk> {
    let metadata = tokio::fs::metadata(path)
        .await
        .with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.is_file() {
        let file = Found {
            path: path.to_owned(),
            name: top.to_owned(),
            size: metadata.len(),
            modified: metadata.modified().ok(),
        };
        return Ok(Walk {
            files: vec![file],
            skipped: Skipped::default(),
        });
    }
    if !metadata.is_dir() {
        return Err(Problem::usage(
            format!("{} is neither a file nor a folder", path.display()),
            "name files and folders",
        )
        .into());
    }
    let options = WalkOptions {
        include_caches: how.include_caches,
        skip_unreadable: how.skip_unreadable,
        never: app.open_folders(),
    };
    let root = path.to_owned();
    let mut found = blocking(move || walk(&root, &options)).await?;
    for file in &mut found.files {
        file.name = format!("{top}/{}", file.name);
    }
    Ok(found)
}

type Staged = Option<(Name, larder::groups::Staged)>;

/// Seals a file, unless it is in the repo as it is, and its bytes are here.
async fn stage(
    repo: &Repo,
    file: &Found,
    read_all: bool,
) -> Result<Staged, (PathBuf, larder::Error)> {
    let stage = async {
        let name = Name::new(&file.name)?;
        let modified = file.modified.map_or(0, millis);
        let known = repo.entry(name.as_str()).await?;
        let is_same = |known: &larder::groups::FileEntry| {
            (known.size, known.modified) == (file.size, modified)
        };
        let is_here = match &known {
            Some(known) => repo.has(known).await?,
            None => false,
        };
        if is_here && !read_all && known.as_ref().is_some_and(is_same) {
            return Ok(None);
        }
        let staged = repo
            .stage(Content::Path(file.path.clone()), modified)
            .await?;
        let is_equal = known.is_some_and(|known| known == staged.entry);
        // What was lost is put again, though the tree has named it all along.
        Ok((!is_equal || !is_here).then_some((name, staged)))
    };
    stage.await.map_err(|error| (file.path.clone(), error))
}

/// In milliseconds since 1970.
fn millis(time: SystemTime) -> i64 {
    let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}
