//! The requests that run, and the bytes that they brought.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use larder_store_api::{PublicKey, RecordId};
use larder_store_engine::{
    Hash,
    metrics::{Counter, Sum},
};
use tokio::time::Instant;

use crate::replicate::{
    Replicator, lock,
    progress::{FileProgress, Incoming, Transferred},
};

/// The most peers for which the received bytes are remembered.
const MAX_COUNTED: usize = 4096;

/// A request that runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The group.
    pub group: RecordId,
    /// The key of the repo whose tree it is.
    pub repo: PublicKey,
    /// The page that is asked of.
    pub page: Hash,
    /// The file that a piece of is asked for, where it is a long one and can be read here.
    pub file: Option<FileProgress>,
    /// The peer that is asked.
    pub peer: PublicKey,
    /// The verified bytes that came.
    pub bytes: u64,
    /// The time since it was made.
    pub running: Duration,
}

#[derive(Debug, Default, Clone)]
pub(in crate::replicate) struct Requests(Arc<Table>);

/// A request, and what counts its file.
#[derive(Debug)]
struct Counted {
    request: Request,
    since: Instant,
    file: Option<Arc<Incoming>>,
}

#[derive(Debug, Default)]
struct Table {
    next: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    from: Mutex<BTreeMap<PublicKey, u64>>,
    requests: Mutex<BTreeMap<u64, Counted>>,
}

/// Keeps a request in the list until it is dropped, however it ends.
pub(in crate::replicate) struct Running {
    number: u64,
    table: Arc<Table>,
    moved: Option<Arc<Transferred>>,
    coming: Option<Arc<Incoming>>,
    peer: PublicKey,
    received: Sum,
}

impl Requests {
    pub(in crate::replicate) fn begin(
        &self,
        request: Request,
        moved: Option<Arc<Transferred>>,
        coming: Option<Arc<Incoming>>,
    ) -> Running {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let peer = request.peer;
        let counted = Counted {
            request,
            since: Instant::now(),
            file: coming.clone(),
        };
        lock(&self.0.requests).insert(number, counted);
        Running {
            number,
            table: Arc::clone(&self.0),
            moved,
            coming,
            peer,
            received: Sum::new(Counter::BytesReceived),
        }
    }

    /// So many bytes more were taken by a peer.
    pub(in crate::replicate) fn count_sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Running {
    /// So many more verified bytes came.
    pub(in crate::replicate) fn count(&mut self, bytes: u64) {
        self.received.add(bytes);
        self.table.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(moved) = &self.moved {
            moved.bytes_are_here(bytes);
        }
        if let Some(coming) = &self.coming {
            coming.bytes_are_here(bytes);
        }
        {
            let mut from = lock(&self.table.from);
            if from.len() >= MAX_COUNTED && !from.contains_key(&self.peer) {
                from.clear();
            }
            *from.entry(self.peer).or_default() += bytes;
        }
        if let Some(counted) = lock(&self.table.requests).get_mut(&self.number) {
            counted.request.bytes += bytes;
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
        let requests = lock(&self.0.requests.0.requests);
        let now = |counted: &Counted| Request {
            file: counted.file.as_ref().map(|file| file.now()),
            running: counted.since.elapsed(),
            ..counted.request.clone()
        };
        requests.values().map(now).collect()
    }

    /// The verified bytes that came from each peer since it was started.
    pub fn received_from(&self) -> BTreeMap<PublicKey, u64> {
        lock(&self.0.requests.0.from).clone()
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
