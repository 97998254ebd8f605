//! Stores files and folders: a file as a blob, a folder as an iroh collection.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use larder::{
    AddOptions, Blobs, Pin, TagName,
    api::is_out_of_descriptors,
    iroh::{MAX_ENTRIES, store_collection},
};
use tokio::sync::Semaphore;

use crate::{
    app::App,
    item::{Item, ItemKind},
    output::Unit,
    problem::Problem,
    walk::{Found, Skipped, Walk, WalkOptions, walk},
};

/// The number of files that are read at once: so many small ones share a commit.
pub(crate) const IN_FLIGHT: usize = 64;
/// The number of small files for which a large one counts, as it needs more memory.
const LARGE_COUNTS: u32 = 8;
/// From this length on, in bytes, a file is large.
const LARGE: u64 = 1024 * 1024;

/// The result of storing a folder.
#[derive(Debug)]
pub(crate) struct Ingested {
    pub(crate) item: Item,
    /// The items of the folder that were not stored.
    pub(crate) skipped: Skipped,
}

/// The name that `path` is stored under unless another is given: its last component.
pub(crate) fn default_name(path: &Path) -> Result<String> {
    // Resolved, so that `.` has a name.
    let real = std::fs::canonicalize(path).with_context(|| cannot_read(path))?;
    // A link has the name that was typed, not that of what it points to.
    let named = path.file_name().or(real.file_name());
    match named.map(|name| name.to_str()) {
        Some(Some(name)) => Ok(name.to_owned()),
        Some(None) => Err(Problem::usage(
            format!("{}: the name is not Unicode", path.display()),
            "give it one with --name",
        )
        .into()),
        None => Err(Problem::usage(
            format!("{} has no name of its own", path.display()),
            "give it one with --name",
        )
        .into()),
    }
}

/// Stores the file or folder at `path` under `name`. The name and the content become visible
/// together, at the end.
pub(crate) async fn ingest(
    app: &App,
    blobs: &Blobs,
    path: &Path,
    name: &str,
    mut options: WalkOptions,
) -> Result<Ingested> {
    let tag = TagName::try_from(name)?;
    // A path that was typed is followed, unlike the links inside a folder.
    let metadata = tokio::fs::metadata(path)
        .await
        .with_context(|| cannot_read(path))?;
    if metadata.is_dir() {
        options.never = app.open_folders();
        let root = path.to_owned();
        let walk = blocking(move || walk(&root, &options).map(|walk| (walk, options))).await?;
        ingest_folder(app, blobs, walk.0, name, tag, walk.1.skip_unreadable).await
    } else if metadata.is_file() {
        let bar = app
            .out
            .progress(Unit::Bytes, Some(metadata.len()), "storing");
        let options = AddOptions::default().tag(tag).progress(report_to(&bar));
        let pin = blobs
            .add_with(path, options)
            .await
            .with_context(|| format!("cannot store {}", path.display()))?;
        bar.finish_and_clear();
        Ok(Ingested {
            item: item(&pin, name, ItemKind::File, None, pin.size().unwrap_or(0)),
            skipped: Skipped::default(),
        })
    } else {
        Err(Problem::new(
            format!("{} is neither a file nor a folder", path.display()),
            "store what it carries through standard input: `larder add - --name NAME`",
        )
        .into())
    }
}

async fn ingest_folder(
    app: &App,
    blobs: &Blobs,
    walk: Walk,
    name: &str,
    tag: TagName,
    skip_unreadable: bool,
) -> Result<Ingested> {
    if walk.files.len() > MAX_ENTRIES {
        return Err(Problem::new(
            format!(
                "the folder has more than {MAX_ENTRIES} files, the most that one name can have"
            ),
            "store its folders one by one",
        )
        .into());
    }
    let bar = app.out.progress(Unit::Bytes, Some(walk.size()), "storing");
    let Walk { files, mut skipped } = walk;
    let places = Semaphore::new(IN_FLIGHT);
    let stored: Vec<(Found, Option<Pin>)> = stream::iter(files)
        .map(|file| {
            let (bar, places) = (&bar, &places);
            async move {
                let weight = if file.size < LARGE { 1 } else { LARGE_COUNTS };
                let _place = places
                    .acquire_many(weight)
                    .await
                    .expect("the semaphore is never closed");
                match add_file(blobs, &file.path, bar).await {
                    Ok(pin) => Ok((file, Some(pin))),
                    Err(error) if skip_unreadable && is_about(&error, &file.path) => {
                        tracing::warn!(path = %file.path.display(), "left out: {error}");
                        Ok((file, None))
                    }
                    Err(error) => {
                        Err(error).with_context(|| format!("cannot store {}", file.path.display()))
                    }
                }
            }
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    let mut entries = Vec::with_capacity(stored.len());
    let mut size = 0;
    for (file, pin) in &stored {
        match pin {
            Some(pin) => {
                size += pin.size().unwrap_or(0);
                entries.push((file.name.clone(), pin.hash()));
            }
            None => skipped.unreadable += 1,
        }
    }
    let files = entries.len() as u64;
    // The pins keep the files until the tag does.
    let pin = store_collection(blobs, entries, Some(tag)).await?;
    drop(stored);
    bar.finish_and_clear();
    Ok(Ingested {
        item: item(&pin, name, ItemKind::Folder, Some(files), size),
        skipped,
    })
}

async fn add_file(blobs: &Blobs, path: &Path, bar: &ProgressBar) -> larder::Result<Pin> {
    let options = AddOptions::default().progress(report_to(bar));
    blobs.add_with(path, options).await
}

/// Returns true if it was the file that failed, and not the store or the whole process.
pub(crate) fn is_about(error: &larder::Error, path: &Path) -> bool {
    if is_out_of_descriptors(error) {
        return false;
    }
    let path = path.display().to_string();
    error
        .context()
        .any(|(key, value)| key == "path" && value == path)
}

fn item(pin: &Pin, name: &str, kind: ItemKind, files: Option<u64>, size: u64) -> Item {
    Item {
        name: name.to_owned(),
        kind,
        hash: pin.hash(),
        size,
        files,
        present: size,
        complete: true,
    }
}

/// Moves `bar` by what is reported, which counts from the start of each file.
pub(crate) fn report_to(bar: &ProgressBar) -> impl Fn(u64) + Send + Sync + use<> {
    let (bar, last) = (bar.clone(), AtomicU64::new(0));
    move |bytes| bar.inc(bytes.saturating_sub(last.swap(bytes, Ordering::Relaxed)))
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread of ours failed")?
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", PathBuf::from(path).display())
}
