//! Writes stored files to disk: every name is checked first, no file appears half-written, and none
//! is replaced unless that was asked for.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    BlobStatus, Blobs, Hash, Listing,
    descriptors::Descriptors,
    groups::{FileEntry, Repo},
};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    app::App,
    args::OutputHow,
    ingest::blocking,
    names::{Rules, to_paths},
    output::{self, Count, Unit},
    problem::Problem,
};

/// The number of files that are looked at or written at once.
const IN_FLIGHT: usize = 8;
/// The number of files that a message names.
const MAX_SHOWN: usize = 10;
/// The number of bytes of a file that are compared at once.
const PIECE: usize = 256 * 1024;

/// The result of writing files.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Written {
    folder: String,
    /// Files written.
    files: u64,
    bytes: u64,
    /// Files that were there before, with the same content.
    already_there: u64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, bytes) = (Count(self.files), output::Bytes(self.bytes));
        write!(f, "wrote {files} file(s), {bytes}, to {}", self.folder)?;
        if self.already_there > 0 {
            write!(f, "; {} already there", Count(self.already_there))?;
        }
        Ok(())
    }
}

/// The place of a file's bytes.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// In a blob, as they are.
    Plain(Hash),
    /// In a group, sealed.
    Sealed(Repo, Box<FileEntry>),
}

impl From<Hash> for Stored {
    fn from(hash: Hash) -> Self {
        Self::Plain(hash)
    }
}

impl Stored {
    /// Returns the length of the file; `None` if it is not here completely.
    async fn size(&self, blobs: &Blobs) -> larder::Result<Option<u64>> {
        let (blob, size) = match self {
            Self::Plain(hash) => (*hash, None),
            Self::Sealed(_, entry) => (entry.blob, Some(entry.size)),
        };
        Ok(match blobs.status(blob).await? {
            Some(BlobStatus::Complete { size: stored }) => Some(size.unwrap_or(stored)),
            Some(BlobStatus::Partial { .. }) | None => None,
        })
    }

    fn read(&self, blobs: &Blobs) -> Listing<larder::Bytes> {
        match self {
            Self::Plain(hash) => blobs.read(*hash, 0..u64::MAX),
            Self::Sealed(repo, entry) => repo.read_entry(entry, 0..u64::MAX),
        }
    }
}

/// A file to write.
struct Planned {
    path: PathBuf,
    stored: Stored,
    size: u64,
}

/// The object in a file's place.
enum Place {
    Free,
    /// The very same content.
    Same,
    /// Another file.
    Taken,
    /// A folder or a link, which is never replaced; or a link or file where a folder must be.
    Blocked(PathBuf),
}

/// Writes `files` below `dir`. Durable when it returns.
pub(crate) async fn write_out(
    app: &App,
    blobs: &Blobs,
    files: Vec<(String, Stored)>,
    dir: &Path,
    how: OutputHow,
) -> Result<Written> {
    let mut written = Written {
        folder: dir.display().to_string(),
        ..Written::default()
    };
    let planned = plan(blobs, files, dir, how).await?;
    let planned = look(blobs, planned, dir, how, &mut written).await?;
    written.files = planned.len() as u64;
    let sizes = planned.iter().map(|file| file.size);
    written.bytes = sizes.fold(0, u64::saturating_add);
    let folders: BTreeSet<PathBuf> = planned
        .iter()
        .flat_map(|file| file.path.ancestors().skip(1))
        .take_while_inside(dir)
        .collect();
    let made = folders.clone();
    let target = dir.to_owned();
    blocking(move || {
        fs::create_dir_all(&target).with_context(|| cannot_write(&target))?;
        made.iter()
            .try_for_each(|folder| make_folder(folder).with_context(|| cannot_write(folder)))
    })
    .await?;
    let bar = app
        .out
        .progress(Unit::Bytes, Some(written.bytes), "writing");
    let mut writes = stream::iter(planned)
        .map(|file| {
            let bar = bar.clone();
            async move {
                write_one(blobs, &file, how.overwrite, &bar)
                    .await
                    .with_context(|| cannot_write(&file.path))
            }
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(()) = writes.try_next().await? {}
    bar.finish_and_clear();
    let target = dir.to_owned();
    blocking(move || {
        for folder in folders.iter().chain([&target]) {
            sync_folder(folder).with_context(|| cannot_write(folder))?;
        }
        Ok(())
    })
    .await?;
    Ok(written)
}

/// Iterators over paths that stop climbing at a folder.
trait TakeInside<'a>: Iterator<Item = &'a Path> + Sized {
    fn take_while_inside(self, dir: &Path) -> impl Iterator<Item = PathBuf> {
        self.filter(move |path| path.starts_with(dir) && *path != dir)
            .map(Path::to_owned)
    }
}

impl<'a, I: Iterator<Item = &'a Path>> TakeInside<'a> for I {}

/// Checks every name, and that every file is here.
async fn plan(
    blobs: &Blobs,
    files: Vec<(String, Stored)>,
    dir: &Path,
    how: OutputHow,
) -> Result<Vec<Planned>> {
    let rules = if how.any_name {
        Rules::Here
    } else {
        Rules::Portable
    };
    let names = files.iter().map(|(name, _)| name.as_str());
    let paths = to_paths(names, rules).map_err(|refused| {
        let advice = if refused.is_about_portability() && !cfg!(windows) {
            "these names are safe on this system, but not on every other: --any-name accepts them"
        } else {
            "`larder cat HASH` writes one file to a name of your choice; `larder ls NAME` shows \
             the hashes"
        };
        Problem::new(refused.to_string(), advice)
    })?;
    let total = files.len();
    let planned: Vec<Option<Planned>> = stream::iter(files.into_iter().zip(paths))
        .map(|((_, stored), path)| async move {
            let size = stored.size(blobs).await?;
            Ok::<_, larder::Error>(size.map(|size| Planned {
                path: dir.join(path),
                stored,
                size,
            }))
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    let planned: Vec<_> = planned.into_iter().flatten().collect();
    if planned.len() < total {
        return Err(Problem::new(
            format!(
                "{} of {total} file(s) are not here completely, nothing was written",
                total - planned.len()
            ),
            "fetch it again: what is here is not fetched twice",
        )
        .into());
    }
    Ok(planned)
}

/// Looks at every place before anything is written, and leaves out what is there already.
async fn look(
    blobs: &Blobs,
    planned: Vec<Planned>,
    dir: &Path,
    how: OutputHow,
    written: &mut Written,
) -> Result<Vec<Planned>> {
    let mut places = stream::iter(planned)
        .map(|file| async move {
            let place = place_of(blobs, &file, dir).await?;
            Ok::<_, anyhow::Error>((file, place))
        })
        .buffered(IN_FLIGHT);
    let mut left = Vec::new();
    let mut refused: Vec<PathBuf> = Vec::new();
    let mut count = 0;
    let mut blocked = false;
    while let Some((file, place)) = places.try_next().await? {
        let refuse = match place {
            Place::Same => {
                written.already_there += 1;
                continue;
            }
            Place::Free => None,
            Place::Taken if how.overwrite => None,
            Place::Taken => Some(file.path.clone()),
            Place::Blocked(path) => {
                blocked = true;
                Some(path)
            }
        };
        match refuse {
            None => left.push(file),
            Some(path) => {
                count += 1;
                if refused.len() < MAX_SHOWN && !refused.contains(&path) {
                    refused.push(path);
                }
            }
        }
    }
    if count == 0 {
        return Ok(left);
    }
    let mut what = format!("{count} file(s) are in the way, nothing was written");
    for path in refused {
        what.push_str(&format!("\n  {}", path.display()));
    }
    let advice = if blocked {
        "folders and links are never replaced: choose another folder, or move them away"
    } else {
        "choose another folder, or replace them with --overwrite"
    };
    Err(Problem::new(what, advice).into())
}

async fn place_of(blobs: &Blobs, file: &Planned, dir: &Path) -> Result<Place> {
    // Through a link, a file could come to lie outside.
    let inside = file.path.ancestors().skip(1);
    for folder in inside.take_while(|path| path.starts_with(dir) && *path != dir) {
        match tokio::fs::symlink_metadata(folder).await {
            Ok(found) if found.is_dir() => break,
            Ok(_) => return Ok(Place::Blocked(folder.to_owned())),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error).with_context(|| cannot_write(folder)),
        }
    }
    match tokio::fs::symlink_metadata(&file.path).await {
        Err(error) if is_absent(&error) => Ok(Place::Free),
        Err(error) => Err(error).with_context(|| cannot_write(&file.path)),
        Ok(found) if !found.is_file() => Ok(Place::Blocked(file.path.clone())),
        Ok(found) if found.len() != file.size => Ok(Place::Taken),
        Ok(_) => Ok(match is_same(blobs, &file.stored, &file.path).await? {
            true => Place::Same,
            false => Place::Taken,
        }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns true if the file at `path` has the very bytes that are stored.
pub(crate) async fn is_same(blobs: &Blobs, stored: &Stored, path: &Path) -> Result<bool> {
    let cannot_read = || format!("cannot read {}", path.display());
    // Held until both are read, while only calls into the store are waited for.
    let _permit = Descriptors::of_process().file().await;
    let mut file = tokio::fs::File::open(path)
        .await
        .with_context(cannot_read)?;
    let mut buffer = vec![0; PIECE];
    let mut pieces = stored.read(blobs);
    while let Some(piece) = pieces.try_next().await? {
        for part in piece.chunks(PIECE) {
            let found = &mut buffer[..part.len()];
            match file.read_exact(found).await {
                Ok(_) if found == part => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error).with_context(cannot_read),
            }
        }
    }
    let rest = file.read(&mut buffer).await.with_context(cannot_read)?;
    Ok(rest == 0)
}

/// Makes one folder. One that is there is right, a link to one is not.
fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

/// A file under a temporary name, which goes away unless it is given its own.
struct Temporary(Option<PathBuf>);

impl Temporary {
    /// It has its own name now.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // A leftover has a name that says what it is; there is nobody to tell here.
            drop(fs::remove_file(path));
        }
    }
}

async fn write_one(
    blobs: &Blobs,
    file: &Planned,
    overwrite: bool,
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    let folder = file.path.parent().expect("it was joined to a folder");
    let path = folder.join(format!(".larder-{:016x}.tmp", rand::random::<u64>()));
    let mut options = tokio::fs::OpenOptions::new();
    let _permit = Descriptors::of_process().file().await;
    let mut out = options.write(true).create_new(true).open(&path).await?;
    let temporary = Temporary(Some(path.clone()));
    let mut pieces = file.stored.read(blobs);
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece).await?;
        bar.inc(piece.len() as u64);
    }
    out.flush().await?;
    out.sync_all().await?;
    drop(out);
    let target = file.path.clone();
    blocking(move || {
        if overwrite {
            fs::rename(&path, &target)?;
        } else {
            rename_new(&path, &target)?;
        }
        temporary.keep();
        Ok(())
    })
    .await
}

/// Renames a file, unless something has its new name.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without hard links: an empty file of our own holds the place.
        Err(_) => {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(to)?;
            fs::rename(from, to)
        }
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        let error = rename_new(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"old");
        fs::remove_file(&to).unwrap();
        rename_new(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(!from.exists());
    }
}
