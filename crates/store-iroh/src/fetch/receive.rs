//! Receives the answers to requests on one stream after the other, and verifies what comes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bao_tree::{ChunkRanges, io::BaoContentItem};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use iroh_blobs::get::{
    GetError,
    fsm::{
        self, AtBlobContent, AtBlobHeader, AtConnected, AtEndBlob, BlobContentNext, ConnectedNext,
        EndBlobNext,
    },
};
use n0_future::time::Instant;
use store_api::{Error, GROUP_LEN, Kind, Result};
use store_engine::{Bitfield, Encoded, Format};
use tokio::{sync::watch, time::timeout};

use super::{
    Call, MAX_HASH_SEQ_LEN,
    buffered::Buffered,
    commit::{Commits, PART_LEN},
    failure::{connection_failed, lacked, peer_failed, stalled},
    observe::observe,
    plan::{Job, MIN_BATCH, batches, of_what_is_had, request},
};
use crate::convert::to_iroh_hash;

/// How many blobs a peer is asked about at once.
const OBSERVED: usize = 16;

/// One of the streams of a fetch.
pub(super) struct Receiver {
    call: Arc<Call>,
    commits: Commits,
}

/// The requests that nobody has taken yet.
pub(super) type Batches = Arc<Mutex<VecDeque<Vec<Job>>>>;

impl Receiver {
    pub(super) fn new(call: Arc<Call>) -> Self {
        let commits = Commits::new(call.clone());
        Self { call, commits }
    }

    /// Takes requests until there are none, or until told to stop; then waits until all that was
    /// received is durable. Returns the jobs that are not complete after it.
    pub(super) async fn run(
        mut self,
        batches: Batches,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Vec<Job>> {
        let received = tokio::select! {
            received = self.receive_all(&batches) => received,
            // The call that says so has the error.
            _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
        };
        let left = self.commits.finish().await;
        // What the disk says comes first: a failed import also ends its stream.
        match (left, received) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(left), Ok(())) => Ok(left),
        }
    }

    async fn receive_all(&mut self, batches: &Batches) -> Result<()> {
        loop {
            let batch = batches
                .lock()
                .expect("no code panics while it holds the requests")
                .pop_front();
            match batch {
                Some(batch) => self.receive_batch(batch).await?,
                None => return Ok(()),
            }
        }
    }

    /// Requests a batch; where the peer lacks some of it, what it has.
    async fn receive_batch(&mut self, batch: Vec<Job>) -> Result<()> {
        let mut done = 0;
        match self.request_jobs(&batch, &mut done).await {
            Err(error) if error.kind() == Kind::NotFound => {
                // The peer gave up the answer, and what it had sent before may be lost with it: so
                // nobody knows which blob it lacks.
                for jobs in batch[done.min(batch.len())..].chunks(MIN_BATCH) {
                    self.receive_what_there_is(jobs).await?;
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Asks what the peer has of these blobs, and requests just that.
    async fn receive_what_there_is(&mut self, jobs: &[Job]) -> Result<()> {
        let call = self.call.clone();
        let ask = |job: &Job| {
            let (call, job) = (call.clone(), job.clone());
            async move {
                let limit = call.options.idle_timeout;
                let asked = timeout(limit, observe(&call.connection, job.hash)).await;
                let had = asked.map_err(|_| stalled())?;
                if !job.ranges.is_subset(&had) {
                    call.lacks()?;
                }
                Ok::<_, Error>(of_what_is_had(&job, &had))
            }
        };
        let asks: Vec<_> = jobs.iter().map(ask).collect();
        let had: Vec<Vec<Job>> = stream::iter(asks).buffered(OBSERVED).try_collect().await?;
        let had: Vec<Job> = had.into_iter().flatten().collect();
        for batch in batches(had, 1) {
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let mut done = 0;
                match self.request_jobs(rest, &mut done).await {
                    // It cannot give what it says it has.
                    Err(error) if error.kind() == Kind::NotFound => {
                        self.call.lacks()?;
                        rest = &rest[rest.len().min(done + 1)..];
                    }
                    Err(error) => return Err(error),
                    Ok(()) => break,
                }
            }
        }
        Ok(())
    }

    /// Requests jobs, and counts those that were answered.
    async fn request_jobs(&mut self, batch: &[Job], done: &mut usize) -> Result<()> {
        let request = request(self.call.root.hash, batch);
        let opened = timeout(
            self.call.options.idle_timeout,
            self.call.connection.open_bi(),
        );
        let (send, recv) = opened
            .await
            .map_err(|_| stalled())?
            .map_err(connection_failed)?;
        let (recv, counters) = (Buffered::new(recv), fsm::RequestCounters::default());
        let connected = AtConnected::new(Instant::now(), recv, send, request, counters);
        let mut next = match self.in_time(connected.next()).await? {
            ConnectedNext::StartRoot(start) => Next::Blob(start.next()),
            ConnectedNext::StartChild(start) => Next::Child(start),
            ConnectedNext::Closing(closing) => Next::End(closing),
        };
        for job in batch {
            let header = match next {
                Next::Blob(header) => header,
                Next::Child(start) => start.next(to_iroh_hash(job.hash)),
                Next::End(_) => return Err(answers_differ()),
            };
            next = match self.receive_blob(header, job).await?.next() {
                EndBlobNext::MoreChildren(start) => Next::Child(start),
                EndBlobNext::Closing(closing) => Next::End(closing),
            };
            *done += 1;
        }
        match next {
            Next::End(closing) => self.in_time(closing.next()).await.map(|_| ()),
            _ => Err(answers_differ()),
        }
    }

    async fn receive_blob(
        &mut self,
        header: AtBlobHeader<Buffered>,
        job: &Job,
    ) -> Result<AtEndBlob<Buffered>> {
        let (content, size) = self.in_time(header.next()).await?;
        let sequence = job.offset == 0 && self.call.root.format != Format::Raw;
        if sequence && size > MAX_HASH_SEQ_LEN {
            return Err(self.call.sequence_too_long(size));
        }
        if size == 0 {
            // Nobody asks for the empty blob: this is how a peer says that it has nothing.
            return Err(lacked());
        }
        self.call.claim(job.hash, payload_len(&job.ranges, size))?;
        if size <= GROUP_LEN && job.ranges.is_all() {
            return self.receive_small(content, job).await;
        }
        self.receive_large(content, job, size).await
    }

    /// A blob that is written part by part, while the next part comes.
    async fn receive_large(
        &mut self,
        content: AtBlobContent<Buffered>,
        job: &Job,
        size: u64,
    ) -> Result<AtEndBlob<Buffered>> {
        let queue = self.commits.large(job.clone(), size).await?;
        let mut content = content;
        let mut part = Vec::new();
        let mut len = 0;
        let received = loop {
            match self.next_item(content).await {
                Ok(Received::Item(next, item)) => {
                    content = next;
                    if let Encoded::Leaf(leaf) = &item {
                        len += leaf.data.len();
                    }
                    part.push(item);
                }
                Ok(Received::End(end)) => break Ok(end),
                Err(error) => break Err(error),
            }
            if len >= PART_LEN {
                len = 0;
                let part = std::mem::take(&mut part);
                queue.send(part).await.map_err(|_| import_ended())?;
            }
        };
        // What was verified before an error stays.
        queue.send(part).await.map_err(|_| import_ended())?;
        received
    }

    /// A blob of one group, which one commit stores.
    async fn receive_small(
        &mut self,
        content: AtBlobContent<Buffered>,
        job: &Job,
    ) -> Result<AtEndBlob<Buffered>> {
        let mut content = content;
        let mut bytes = Bytes::new();
        loop {
            match self.next_item(content).await? {
                Received::Item(next, item) => {
                    content = next;
                    if let Encoded::Leaf(leaf) = item {
                        bytes = leaf.data;
                    }
                }
                Received::End(end) => {
                    self.commits.small(job.hash, bytes).await?;
                    return Ok(end);
                }
            }
        }
    }

    /// The next verified item of a blob.
    async fn next_item(&self, content: AtBlobContent<Buffered>) -> Result<Received> {
        let limit = self.call.options.idle_timeout;
        let next = timeout(limit, content.next()).await;
        match next.map_err(|_| stalled())? {
            BlobContentNext::Done(end) => Ok(Received::End(end)),
            BlobContentNext::More((next, item)) => {
                let item = match item.map_err(|error| peer_failed(error.into()))? {
                    BaoContentItem::Parent(parent) => Encoded::Parent(parent),
                    BaoContentItem::Leaf(leaf) => {
                        self.call.received(leaf.data.len() as u64);
                        Encoded::Leaf(leaf)
                    }
                };
                Ok(Received::Item(next, item))
            }
        }
    }

    async fn in_time<T, E: Into<GetError>>(
        &self,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        match timeout(self.call.options.idle_timeout, step).await {
            Ok(done) => done.map_err(|error| peer_failed(error.into())),
            Err(_) => Err(stalled()),
        }
    }
}

enum Next {
    Blob(AtBlobHeader<Buffered>),
    Child(fsm::AtStartChild<Buffered>),
    End(fsm::AtClosing<Buffered>),
}

enum Received {
    Item(AtBlobContent<Buffered>, Encoded),
    End(AtEndBlob<Buffered>),
}

/// How many payload bytes answer a request for `ranges` of a blob of `size` bytes.
pub(super) fn payload_len(ranges: &ChunkRanges, size: u64) -> u64 {
    Bitfield {
        size,
        ranges: ranges.clone(),
    }
    .present_bytes()
}

fn answers_differ() -> Error {
    let message = "the answer has not as many blobs as were asked for";
    Error::new(Kind::Internal, "blobs.fetch", message)
}

/// What it ended with comes when it is waited for, and says more.
fn import_ended() -> Error {
    Error::new(Kind::Internal, "blobs.fetch", "an import ended early")
}
