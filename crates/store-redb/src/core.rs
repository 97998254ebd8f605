//! The state that the store's threads share.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use larder_store_api::{Change, Error, Kind, Result};
use tokio::sync::{broadcast, mpsc};

use crate::{
    cache::Cache,
    disk::lock,
    folder::Folder,
    index::Snapshot,
    item::{Accounts, Applied},
    log::Log,
    overlay::Overlay,
    pages::PageState,
    request::Request,
    reserve::Reserve,
};

/// The number of changes that a watcher may lag behind before it is told to read again.
pub(crate) const WATCH_BACKLOG: usize = 256;

/// The collections' state, shared by the threads that commit, apply and read.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) log: Arc<Log>,
    pub(crate) overlay: Overlay,
    pub(crate) cache: Cache,
    pub(crate) pages: Arc<PageState>,
    pub(crate) reserve: Reserve,
    /// Of the thread that commits; gone once it ended.
    pub(crate) changes: broadcast::WeakSender<Change>,
    /// The queue of the thread that commits, once there is one.
    pub(crate) writer: OnceLock<mpsc::WeakSender<Request>>,
    /// Held until the store is closed.
    pub(crate) folder: Mutex<Option<Folder>>,
    applying: Mutex<Applying>,
    /// Whenever `applying` or the overlay's generations change.
    progress: Condvar,
}

/// The progress of the index.
#[derive(Debug)]
pub(crate) struct Applying {
    pub(crate) applied: Option<Applied>,
    pub(crate) accounts: Accounts,
    /// The index cannot be written any more.
    pub(crate) failed: Option<Error>,
    pub(crate) stop: Stop,
}

/// Says if the thread that applies shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It goes on.
    Not,
    /// The last handle was dropped: it ends soon.
    Dropped,
    /// The store is being closed: it leaves the index small.
    Closed,
}

impl Core {
    pub(crate) fn new(
        folder: Folder,
        log: Arc<Log>,
        snapshot: Snapshot,
        applied: Option<(Applied, Accounts)>,
        pages: Arc<PageState>,
        changes: broadcast::WeakSender<Change>,
    ) -> Self {
        let (applied, accounts) = applied.unzip();
        let reserve = Reserve::of(folder.path());
        Self {
            log,
            overlay: Overlay::new(snapshot),
            cache: Cache::new(),
            pages,
            reserve,
            changes,
            writer: OnceLock::new(),
            folder: Mutex::new(Some(folder)),
            applying: Mutex::new(Applying {
                applied,
                accounts: accounts.unwrap_or_default(),
                failed: None,
                stop: Stop::Not,
            }),
            progress: Condvar::new(),
        }
    }

    /// Gives the reserve up, and says if there was any.
    pub(crate) fn release_reserve(&self) -> bool {
        let released = self.reserve.release();
        if released {
            self.pages.full.store(false, Ordering::Release);
        }
        released
    }

    pub(crate) fn applying(&self) -> MutexGuard<'_, Applying> {
        lock(&self.applying)
    }

    /// Wakes whoever waits for the index, or for work on it.
    pub(crate) fn notify(&self) {
        // Taken so that nobody is between looking and waiting.
        drop(self.applying());
        self.progress.notify_all();
    }

    /// Waits for [`notify`](Self::notify), a while at most.
    pub(crate) fn wait<'a>(
        &self,
        guard: MutexGuard<'a, Applying>,
        at_most: Duration,
    ) -> MutexGuard<'a, Applying> {
        let waited = self.progress.wait_timeout(guard, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts a thread of the store.
pub(crate) fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| {
        Error::new(Kind::Unavailable, "store.open", "no thread can be started").because(error)
    })
}
