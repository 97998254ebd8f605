//! How much space a store takes on its disk.

/// The space that a store takes on its disk, in bytes as the file system counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The log and the index: collections, tags, small blobs, and what is known of large ones.
    pub index: u64,
    /// The bytes of large blobs, and their hash trees.
    pub payloads: u64,
}

impl DiskUsage {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.index + self.payloads
    }
}

#[cfg(feature = "redb")]
mod redb {
    use std::{
        fs::{self, Metadata},
        io,
        path::{Path, PathBuf},
    };

    use store_api::{Error, Kind, Result};

    use super::DiskUsage;

    const OPERATION: &str = "store.disk_usage";

    impl DiskUsage {
        pub(crate) async fn of_redb(dir: PathBuf) -> Result<Self> {
            let measured = tokio::task::spawn_blocking(move || {
                let payloads = measure(&dir.join("payload"))?;
                let all = measure(&dir)?;
                Ok(Self {
                    index: all.saturating_sub(payloads),
                    payloads,
                })
            });
            measured
                .await
                .map_err(|error| Error::new(Kind::Internal, OPERATION, "").because(error))?
        }
    }

    /// The space of everything in a folder. What goes away meanwhile takes none.
    fn measure(dir: &Path) -> Result<u64> {
        let mut total = 0;
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            let fail = |error| Error::io(OPERATION, &folder, error);
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(fail)?,
            };
            for entry in entries {
                let entry = entry.map_err(fail)?;
                match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(fail(error)),
                    Ok(found) if found.is_dir() => folders.push(entry.path()),
                    Ok(found) => total += allocated(&found),
                }
            }
        }
        Ok(total)
    }

    #[cfg(unix)]
    fn allocated(file: &Metadata) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(file) * 512
    }

    #[cfg(not(unix))]
    fn allocated(file: &Metadata) -> u64 {
        file.len()
    }
}
