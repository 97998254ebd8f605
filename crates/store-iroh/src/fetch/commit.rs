//! Verified blobs on their way to the disk, in the background and bounded.

use std::sync::Arc;

use bytes::Bytes;
use store_api::{Error, Kind, Result};
use store_engine::{Encoded, Hash, Trust};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
};

use super::{Call, failure::import_failed, plan::Job};
use crate::fetch::plan::missing;

/// How many bytes may be received but not yet durable, in units of 1 KiB.
const BUDGET: u32 = 16 * 1024;

/// The least that a blob takes of it, so that at most 256 are under way. The engine commits many
/// waiting ones together.
const LEAST: u32 = 64;

/// The most that a blob takes of it: what its queue holds.
const MOST: u32 = 1024;

/// How many parts of a large blob may wait to be written, and how many bytes a part has: what is
/// handed over in parts wakes fewer tasks.
const QUEUE: usize = 3;
/// See [`QUEUE`].
pub(super) const PART_LEN: usize = 256 * 1024;

/// What all streams of a fetch have together.
pub(super) struct Limits(Arc<Semaphore>);

impl Default for Limits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET as usize)))
    }
}

impl Limits {
    /// Waits until there is room for so many bytes that are not durable.
    async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes / 1024).unwrap_or(MOST);
        let room = self.0.clone().acquire_many_owned(units.clamp(LEAST, MOST));
        room.await.expect("nobody closes the semaphore")
    }
}

/// The blobs of one stream that are not durable yet.
pub(super) struct Commits {
    call: Arc<Call>,
    tasks: JoinSet<Result<Option<Job>>>,
    /// What is not complete although all that was asked for came.
    left: Vec<Job>,
}

impl Commits {
    pub(super) fn new(call: Arc<Call>) -> Self {
        Self {
            call,
            tasks: JoinSet::new(),
            left: Vec::new(),
        }
    }

    /// Commits a whole small blob in the background. Waits only while too many are under way.
    pub(super) async fn small(&mut self, hash: Hash, bytes: Bytes) -> Result<()> {
        self.reap()?;
        let room = self.call.limits.room(bytes.len() as u64).await;
        let call = self.call.clone();
        self.tasks.spawn(async move {
            let pin = call.blobs.add(bytes).await?;
            drop(room);
            if pin.hash() != hash {
                let message = "a verified blob has another hash";
                return Err(Error::new(Kind::Internal, "blobs.fetch", message).with("hash", hash));
            }
            call.completed();
            Ok(None)
        });
        Ok(())
    }

    /// Begins a large blob: its items go into the queue in parts, and dropping that finishes it in
    /// the background.
    pub(super) async fn large(
        &mut self,
        job: Job,
        size: u64,
    ) -> Result<mpsc::Sender<Vec<Encoded>>> {
        self.reap()?;
        let room = self.call.limits.room(size).await;
        let (queue, mut parts) = mpsc::channel::<Vec<Encoded>>(QUEUE);
        let call = self.call.clone();
        self.tasks.spawn(async move {
            let mut import = call.blobs.import(job.hash, size, Trust::Verified).await?;
            while let Some(part) = parts.recv().await {
                for item in part {
                    import.push(item).await?;
                }
            }
            let here = import.finish().await?;
            drop(room);
            if here.is_complete() {
                call.completed();
                return Ok(None);
            }
            let ranges = missing(&call.blobs, job.hash).await?;
            Ok(ranges.map(|ranges| Job { ranges, ..job }))
        });
        Ok(queue)
    }

    /// Fails where something could not be stored.
    fn reap(&mut self) -> Result<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended)?;
        }
        Ok(())
    }

    /// Waits until all is durable, whatever fails; returns what is not complete.
    pub(super) async fn finish(&mut self) -> Result<Vec<Job>> {
        let mut first_error = None;
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = self.ended(ended) {
                first_error.get_or_insert(error);
            }
        }
        match first_error {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.left)),
        }
    }

    fn ended(&mut self, ended: Result<Result<Option<Job>>, JoinError>) -> Result<()> {
        let ended = ended.unwrap_or_else(|error| {
            let message = "a task of the fetch ended";
            Err(Error::new(Kind::Internal, "blobs.fetch", message).because(error))
        });
        self.left.extend(ended.map_err(import_failed)?);
        Ok(())
    }
}
