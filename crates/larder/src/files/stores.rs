//! Recognizes the folders of open stores, by whatever path they are reached.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use larder_store_api::{Error, Kind, Result};

use super::{OPERATION, cannot_read};

/// Tells whether two paths lead to one folder: also through links and bind mounts.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::canonicalize(path)
}

/// The folders of open stores, which must not be stored in themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenStores(Vec<Identity>);

impl OpenStores {
    /// Those of `folders` that are there.
    pub(super) fn new(folders: &[PathBuf]) -> Self {
        Self(folders.iter().filter_map(|f| identity(f).ok()).collect())
    }

    /// Returns true if `folder` is the folder of an open store.
    pub(super) fn have(&self, folder: &Path) -> Result<bool> {
        if self.0.is_empty() {
            return Ok(false);
        }
        let identity = identity(folder).map_err(|error| cannot_read(folder, error))?;
        Ok(self.0.contains(&identity))
    }

    /// Checks that `path` neither is the folder of an open store nor lies in one.
    pub(super) fn check_outside(&self, path: &Path) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let real = fs::canonicalize(path).map_err(|error| cannot_read(path, error))?;
        for folder in real.ancestors() {
            // We did not open a parent folder that cannot be looked at.
            if identity(folder).is_ok_and(|identity| self.0.contains(&identity)) {
                let message = format!(
                    "{} lies in the folder of an open store, which cannot hold itself",
                    path.display()
                );
                return Err(Error::new(Kind::Invalid, OPERATION, message));
            }
        }
        Ok(())
    }
}
