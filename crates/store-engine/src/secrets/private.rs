//! Files that only their owner can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Returns options that create a file that only its owner can read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns the file's bytes; refuses a file that others could read.
pub(super) fn read_private(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let facts = file.metadata()?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&facts.permissions()) & 0o077 != 0 {
        let message =
            "others can read this file; `chmod 600` it, and think of its secrets as known";
        return Err(io::Error::new(ErrorKind::PermissionDenied, message));
    }
    if facts.len() > limit {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the file is too long",
        ));
    }
    let len = usize::try_from(facts.len()).map_err(io::Error::other)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    Read::take(&mut file, facts.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Stays,
    Replaced,
}

/// Writes a file that only its owner can read, durably and atomically.
pub(super) fn write_private(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let new = match existing {
        Existing::Replaced => beside(path, "new"),
        // There is no lock: each process that creates it at the same time has a temporary file of its
        // own.
        Existing::Stays => beside(path, &format!("{}.new", std::process::id())),
    };
    let written = (|| {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).write(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match existing {
            Existing::Replaced => fs::rename(&new, path),
            Existing::Stays => fs::hard_link(&new, path).and_then(|()| fs::remove_file(&new)),
        }
    })();
    if written.is_err() {
        // A leftover does no harm: the next write starts it again.
        drop(fs::remove_file(&new));
    }
    written?;
    #[cfg(unix)]
    File::open(parent(path))?.sync_all()?;
    Ok(())
}
