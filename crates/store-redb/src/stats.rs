//! The space that a store takes, for people.

use std::{fs, io, path::Path};

use larder_store_api::{Error, Result};

use crate::store::RedbStore;

/// The space that a store takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The log: all entries of all collections, and what compaction has not freed yet.
    pub log: u64,
    /// The number of bytes of the log in entries that are still there, counted when the index was
    /// last brought up to date.
    pub live: u64,
    /// The index.
    pub index: u64,
    /// The payloads' files, by their lengths.
    pub payload: u64,
    /// The number of those files.
    pub payload_files: u64,
}

impl RedbStore {
    /// Returns the space that the store takes. Walks over all payload files.
    pub async fn stats(&self) -> Result<Stats> {
        let (log, live) = {
            let core = &self.inner.core;
            let log = core.log.segments().values().sum();
            (
                log,
                core.applying()
                    .accounts
                    .values()
                    .map(|account| account.live)
                    .sum(),
            )
        };
        let dir = self.inner.dir.clone();
        self.blocking("store.stats", move |_| {
            let mut stats = Stats {
                log,
                live,
                index: len(&dir.join("index.redb"))?,
                ..Stats::default()
            };
            add_files(&dir.join("payload"), &mut stats)?;
            Ok(stats)
        })
        .await
    }
}

/// The length of a file; none where it is absent, as an index is that had to be made in memory.
fn len(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("store.stats", path, error)),
    }
}

/// Adds the payload files below `dir`. Files that are removed meanwhile are passed over.
fn add_files(dir: &Path, stats: &mut Stats) -> Result<()> {
    let fail = |error| Error::io("store.stats", dir, error);
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other.map_err(fail)?,
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        match entry.metadata() {
            Ok(data) if data.is_dir() => add_files(&entry.path(), stats)?,
            Ok(data) => {
                stats.payload += data.len();
                stats.payload_files += 1;
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(())
}
