//! The progress of fetching a tree.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Replicator, Shared, lock};
use crate::{groups::Repo, tree::Name};

/// The most repos whose progress is remembered.
pub(super) const MAX_COUNTED: usize = 4096;

/// The progress of fetching a tree. The totals grow while the tree is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RepoProgress {
    /// The files that are to come, as far as is known.
    pub files: u64,
    /// The number of those files that are here.
    pub files_here: u64,
    /// The number of bytes to fetch, as far as is known. These are the bytes of sealed files, which are
    /// a little longer.
    pub bytes: u64,
    /// The number of those bytes that are here.
    pub bytes_here: u64,
}

/// Counts the files and bytes that a fetch has transferred.
#[derive(Debug, Default)]
pub(super) struct Transferred {
    files: AtomicU64,
    files_here: AtomicU64,
    bytes: AtomicU64,
    bytes_here: AtomicU64,
}

impl Transferred {
    /// Adds to the totals. An author may claim any number of bytes.
    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        let add = |known: u64| Some(known.saturating_add(bytes));
        let ordering = Ordering::Relaxed;
        // The closure never returns `None`, so this never fails.
        self.bytes.fetch_update(ordering, ordering, add).ok();
    }

    pub(super) fn file_is_here(&self) {
        self.files_here.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_are_here(&self, bytes: u64) {
        self.bytes_here.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> RepoProgress {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (files_here, bytes_here) = (get(&self.files_here), get(&self.bytes_here));
        RepoProgress {
            files: get(&self.files).max(files_here),
            files_here,
            bytes: get(&self.bytes).max(bytes_here),
            bytes_here,
        }
    }
}

/// The progress of a long file that arrives in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileProgress {
    /// The path of the file.
    pub path: String,
    /// The length of the sealed file.
    pub len: u64,
    /// The number of those bytes that are here.
    pub here: u64,
}

/// Counts how much of a file is here.
#[derive(Debug)]
pub(super) struct Incoming {
    path: Name,
    len: u64,
    here: AtomicU64,
}

impl Incoming {
    pub(super) fn new(path: Name, len: u64) -> Arc<Self> {
        Arc::new(Self {
            path,
            len,
            here: AtomicU64::new(0),
        })
    }

    /// Sets the number of bytes that were here before the fetch.
    pub(super) fn begin_at(&self, here: u64) {
        self.here.store(here, Ordering::Relaxed);
    }

    pub(super) fn bytes_are_here(&self, bytes: u64) {
        self.here.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> FileProgress {
        FileProgress {
            path: self.path.as_str().to_owned(),
            len: self.len,
            // Two members may have sent the same piece.
            here: self.here.load(Ordering::Relaxed).min(self.len),
        }
    }
}

impl Replicator {
    /// Returns the progress of fetching a repo's tree, or the last state of a finished fetch.
    pub fn progress(&self, repo: &Repo) -> RepoProgress {
        let moved = lock(&self.0.moved).get(&repo.id()).cloned();
        moved.map_or(RepoProgress::default(), |moved| moved.now())
    }
}

impl Shared {
    /// Makes this counter the progress of fetching a repo's tree, now that something is to be fetched.
    pub(super) fn show_progress(&self, repo: &Repo, moved: &Arc<Transferred>) {
        let mut all = lock(&self.moved);
        if all.len() >= MAX_COUNTED {
            all.clear();
        }
        all.insert(repo.id(), Arc::clone(moved));
    }
}
