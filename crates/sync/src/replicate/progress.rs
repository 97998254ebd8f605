//! How far fetching a tree is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[cfg(doc)]
use store_api::Kind;
use store_api::{RecordId, Result};

use super::{
    Replicator, Shared,
    fetch::{Fetched, nobody_has},
    lock,
};
use crate::{
    groups::{Repo, Wants},
    tree::{Name, Root},
};

/// How often it is said how far something is.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Of how many repos it is remembered.
pub(super) const MAX_COUNTED: usize = 4096;

/// How far fetching a tree is. What is to come grows while the tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The files that are to come, as far as is known.
    pub files: u64,
    /// Those of them that are here.
    pub files_here: u64,
    /// The bytes that are to come, as far as is known; those of sealed files, which are a little longer.
    pub bytes: u64,
    /// Those of them that are here.
    pub bytes_here: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub(super) struct Moved {
    files: AtomicU64,
    files_here: AtomicU64,
    bytes: AtomicU64,
    bytes_here: AtomicU64,
}

impl Moved {
    /// So many more are to come. An author may claim any number of bytes.
    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        let add = |known: u64| Some(known.saturating_add(bytes));
        let ordering = Ordering::Relaxed;
        // It never gives `None`, and so never fails.
        self.bytes.fetch_update(ordering, ordering, add).ok();
    }

    pub(super) fn file_is_here(&self) {
        self.files_here.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_are_here(&self, bytes: u64) {
        self.bytes_here.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Progress {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (files_here, bytes_here) = (get(&self.files_here), get(&self.bytes_here));
        Progress {
            files: get(&self.files).max(files_here),
            files_here,
            bytes: get(&self.bytes).max(bytes_here),
            bytes_here,
        }
    }
}

/// A long file that comes in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProgress {
    /// Its path.
    pub path: String,
    /// How long it is, sealed.
    pub len: u64,
    /// How much of that is here.
    pub here: u64,
}

/// Counts what of a file is here.
#[derive(Debug)]
pub(super) struct Coming {
    path: Name,
    len: u64,
    here: AtomicU64,
}

impl Coming {
    pub(super) fn new(path: Name, len: u64) -> Arc<Self> {
        Arc::new(Self {
            path,
            len,
            here: AtomicU64::new(0),
        })
    }

    /// So much was here before.
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
            // Two members may have given the same piece.
            here: self.here.load(Ordering::Relaxed).min(self.len),
        }
    }
}

impl Replicator {
    /// How far fetching a repo's tree is, or was when it ended.
    pub fn progress(&self, repo: RecordId) -> Progress {
        let moved = lock(&self.0.moved).get(&repo).cloned();
        moved.map_or(Progress::default(), |moved| moved.now())
    }

    /// Fetches all of a repo's newest tree that is known here, whatever the
    /// [policy](crate::groups::Policy), and says now and then how far it is. What has come stays if it
    /// is dropped, or fails. Nothing is to be fetched of a repo of ours.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where nobody who is connected can give what is missing.
    pub async fn sync_all(&self, repo: &Repo, mut progress: impl FnMut(Progress)) -> Result<Root> {
        let telling = async {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                progress(self.progress(repo.id()));
            }
        };
        let root = tokio::select! {
            biased;
            root = self.0.fetch_everything(repo) => root?,
            () = telling => unreachable!("it never ends"),
        };
        progress(self.progress(repo.id()));
        Ok(root)
    }
}

impl Shared {
    async fn fetch_everything(&self, repo: &Repo) -> Result<Root> {
        let _one = repo.fetching().await;
        if repo.is_ours() {
            return repo.root().await;
        }
        loop {
            let Some(known) = repo.readable_root().await? else {
                return Ok(Root::EMPTY);
            };
            let everything = Wants::EVERYTHING;
            match self.fetch_root(repo, known.root, &everything).await? {
                Fetched::All => return Ok(known.root),
                Fetched::Some => return Err(nobody_has("sync.fetch").with("repo", repo.key())),
                Fetched::Again => {}
            }
        }
    }

    /// A new count of how far fetching a repo's tree is.
    pub(super) fn begin_moving(&self, repo: &Repo) -> Arc<Moved> {
        let moved = Arc::<Moved>::default();
        let mut all = lock(&self.moved);
        if all.len() >= MAX_COUNTED {
            all.clear();
        }
        all.insert(repo.id(), Arc::clone(&moved));
        moved
    }
}
