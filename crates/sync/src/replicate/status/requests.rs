//! The requests that run, and the bytes that they brought.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use store_api::{PublicKey, RecordId};
use store_engine::Hash;
use tokio::time::Instant;

use crate::replicate::{Replicator, lock, progress::Moved};

/// A request that runs.
#[derive(Debug, Clone)]
pub struct Request {
    /// The group.
    pub group: RecordId,
    /// Whose tree.
    pub repo: PublicKey,
    /// The page that is asked of.
    pub page: Hash,
    /// The path and the sealed length of the file that a piece of is asked for, where it is a long one
    /// and can be read here.
    pub file: Option<(String, u64)>,
    /// Who is asked.
    pub peer: PublicKey,
    /// The verified bytes that came.
    pub bytes: u64,
    /// Since when.
    pub since: Instant,
}

#[derive(Debug, Default)]
pub(in crate::replicate) struct Requests(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    next: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    requests: Mutex<BTreeMap<u64, Request>>,
}

/// Keeps a request in the list until it is dropped, however it ends.
pub(in crate::replicate) struct Running {
    number: u64,
    table: Arc<Table>,
    moved: Option<Arc<Moved>>,
}

impl Requests {
    pub(in crate::replicate) fn begin(
        &self,
        request: Request,
        moved: Option<Arc<Moved>>,
    ) -> Running {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.requests).insert(number, request);
        Running {
            number,
            table: Arc::clone(&self.0),
            moved,
        }
    }

    /// So many bytes more were taken by a peer.
    pub(in crate::replicate) fn count_sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Running {
    /// So many more verified bytes came.
    pub(in crate::replicate) fn count(&self, bytes: u64) {
        self.table.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(moved) = &self.moved {
            moved.bytes_are_here(bytes);
        }
        if let Some(request) = lock(&self.table.requests).get_mut(&self.number) {
            request.bytes += bytes;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.table.requests).remove(&self.number);
    }
}

impl Replicator {
    /// The requests that run.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.0.requests.0.requests)
            .values()
            .cloned()
            .collect()
    }

    /// The verified bytes that came since it was started.
    pub fn received(&self) -> u64 {
        self.0.requests.0.received.load(Ordering::Relaxed)
    }

    /// The bytes of blobs that others took since it was started.
    pub fn sent(&self) -> u64 {
        self.0.requests.0.sent.load(Ordering::Relaxed)
    }
}
