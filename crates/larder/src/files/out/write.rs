//! Writes one file: under a temporary name first, so that it appears whole.

use std::{
    fs,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use larder_descriptors::Descriptors;
use larder_store_api::Result;
use larder_store_engine::Blobs;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::Planned;
use crate::files::{Observer, blocking, cannot_write, temporary_name};

/// The shortest run of zeros, in bytes, that becomes a hole: a block of the usual file systems.
const HOLE: usize = 64 * 1024;

/// A file under a temporary name, which goes away unless it is given its own.
struct Temporary(Option<PathBuf>);

impl Temporary {
    /// Has its own name now.
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

pub(super) async fn write_one(
    blobs: &Blobs,
    file: &Planned,
    overwrite: bool,
    observer: &Observer,
) -> Result<()> {
    let fail = |error| cannot_write(&file.path, error);
    let folder = file.path.parent().expect("it was joined to a folder");
    let path = folder.join(temporary_name()?);
    let _permit = Descriptors::of_process().file().await;
    let (name, target) = (path.clone(), file.path.clone());
    // Made and guarded in one step, so that a caller that does not wait for it leaves nothing.
    let made = blocking(move || {
        let out = fs::File::create_new(&name).map_err(|error| cannot_write(&target, error))?;
        Ok((out, Temporary(Some(name))))
    });
    let (out, temporary) = made.await?;
    let mut out = tokio::fs::File::from_std(out);
    let mut pieces = file.stored.read(blobs);
    let mut hole = 0;
    while let Some(piece) = pieces.try_next().await? {
        for part in piece.chunks(HOLE) {
            if part.len() == HOLE && is_zero(part) {
                hole += part.len() as u64;
                continue;
            }
            if hole > 0 {
                let distance = i64::try_from(hole)
                    .map_err(io::Error::other)
                    .map_err(fail)?;
                out.seek(SeekFrom::Current(distance)).await.map_err(fail)?;
                hole = 0;
            }
            out.write_all(part).await.map_err(fail)?;
        }
        observer.moved(piece.len() as u64);
    }
    out.flush().await.map_err(fail)?;
    if hole > 0 {
        let end = out.stream_position().await.map_err(fail)?;
        out.set_len(end + hole).await.map_err(fail)?;
    }
    out.sync_all().await.map_err(fail)?;
    drop(out);
    let target = file.path.clone();
    blocking(move || {
        let renamed = match overwrite {
            true => fs::rename(&path, &target),
            false => rename_new(&path, &target),
        };
        renamed.map_err(|error| cannot_write(&target, error))?;
        temporary.keep();
        Ok(())
    })
    .await
}

/// Returns true if all bytes are zero, as in the holes of a sparse file.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
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
            fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(to)))
        }
    }
}

/// Makes one folder. One that is there is right, a link to one is not.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
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

/// Returns true if the file system of a folder gives one file to names that differ only in case. It makes the folder
/// if it is missing.
pub(super) fn folds_case(dir: &Path) -> Result<bool> {
    let name = temporary_name()?;
    let probe = || {
        fs::create_dir_all(dir)?;
        let path = dir.join(&name);
        fs::File::create_new(&path)?;
        let _temporary = Temporary(Some(path));
        match fs::symlink_metadata(dir.join(name.to_uppercase())) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    probe().map_err(|error| cannot_write(dir, error))
}

#[cfg(unix)]
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
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

    #[test]
    fn the_probe_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folds = folds_case(dir.path()).unwrap();
        assert_eq!(folds, cfg!(any(windows, target_os = "macos")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
