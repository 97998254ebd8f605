//! The requests to the thread that commits.

use larder_store_api::{Batch, Result, Revision};
use tokio::sync::oneshot;

/// The number of requests that may wait; further callers wait for room.
pub(crate) const QUEUE_LEN: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request to the writer.
#[derive(Debug)]
pub(crate) enum Request {
    Commit(Batch, Reply<Revision>),
    Sync(Reply<()>),
    /// Answered when the index is up to date and compaction has nothing left to do.
    Settle(Reply<()>),
    /// Answered when all is in the log and the index; the thread then ends.
    Close(Reply<()>),
    /// The index made progress: look for work.
    Nudge,
    /// Nothing was committed for a while: hand what there is to the index.
    Idle,
}
