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

/// How many small blobs may be received but not yet durable: each is of up to 16 KiB. The engine
/// commits many waiting ones together.
const MAX_SMALL: usize = 256;

/// How many large blobs may be unfinished at once, each with up to [`QUEUE`] groups of 16 KiB.
const MAX_LARGE: usize = 8;

/// How many items of a large blob may wait to be written.
const QUEUE: usize = 64;

/// What all streams of a fetch have together.
pub(super) struct Limits {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            small: Arc::new(Semaphore::new(MAX_SMALL)),
            large: Arc::new(Semaphore::new(MAX_LARGE)),
        }
    }
}

async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = of.clone().acquire_owned().await;
    permit.expect("nobody closes the semaphore")
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
        let permit = permit(&self.call.limits.small).await;
        let call = self.call.clone();
        self.tasks.spawn(async move {
            let pin = call.blobs.add(bytes).await?;
            drop(permit);
            if pin.hash() != hash {
                let message = "a verified blob has another hash";
                return Err(Error::new(Kind::Internal, "blobs.fetch", message).with("hash", hash));
            }
            call.completed();
            Ok(None)
        });
        Ok(())
    }

    /// Begins a large blob: its items go into the queue, and dropping that finishes it in the
    /// background.
    pub(super) async fn large(&mut self, job: Job, size: u64) -> Result<mpsc::Sender<Encoded>> {
        self.reap()?;
        let permit = permit(&self.call.limits.large).await;
        let (queue, mut items) = mpsc::channel(QUEUE);
        let call = self.call.clone();
        self.tasks.spawn(async move {
            let mut import = call.blobs.import(job.hash, size, Trust::Verified).await?;
            while let Some(item) = items.recv().await {
                import.push(item).await?;
            }
            let here = import.finish().await?;
            drop(permit);
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
