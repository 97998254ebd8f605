//! Fetching from a peer, pipelined: the network never waits for the disk to commit one blob before
//! the next one comes, and nothing is acknowledged before all is durable.

mod buffered;
mod commit;
mod failure;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod observe;
mod plan;
mod receive;

use std::{
    collections::HashSet,
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::endpoint::Connection;
use store_api::{Error, Kind, Result};
use store_engine::{Blobs, Format, Hash, Pin, Root, Status};
use tokio::{sync::watch, task::JoinSet};

use self::{
    commit::Limits,
    failure::LACKED,
    plan::{Job, batches, missing},
    receive::Receiver,
};

/// The longest hash sequence that can be fetched with what it names: two million hashes.
pub const MAX_HASH_SEQ_LEN: u64 = 64 * 1024 * 1024;

/// How many bytes may have come over a connection without having been read: 1 Gbit/s sends as many
/// in 133 ms.
const RECEIVE_WINDOW: u32 = 16 * 1024 * 1024;

/// How many blobs a peer may lack before the fetch gives up; what it has of the others is fetched.
const MAX_LACKING: u64 = 64;

/// The most request streams at once.
pub const MAX_STREAMS: usize = 16;

/// Where a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchProgress {
    /// How many of the blobs that the root names, itself included, are here.
    pub blobs_done: u64,
    /// How many there are, once it is known.
    pub blobs_total: Option<u64>,
    /// Payload bytes that came over the network in this call.
    pub bytes_received: u64,
    /// Payload bytes that will have come, once it is known: for a raw root.
    pub bytes_total: Option<u64>,
}

/// Told of progress, often and from several tasks at once; must not block.
pub type FetchProgressFn = Arc<dyn Fn(FetchProgress) + Send + Sync>;

/// How to fetch.
#[derive(Clone)]
pub struct FetchOptions {
    /// Told of progress.
    pub progress: Option<FetchProgressFn>,
    /// How many requests run at once, each for other children; at most [`MAX_STREAMS`].
    pub streams: NonZeroUsize,
    /// The most payload bytes to take, as the peer claims them: beyond it, the fetch ends with
    /// [`Kind::TooLarge`] before they are received.
    pub max_bytes: Option<u64>,
    /// How long the peer may take for a group of 16 KiB: then the fetch ends with
    /// [`Kind::Unavailable`].
    pub idle_timeout: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            progress: None,
            streams: NonZeroUsize::new(2).expect("two is not zero"),
            max_bytes: None,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for FetchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchOptions")
            .field("streams", &self.streams)
            .field("max_bytes", &self.max_bytes)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

/// What a fetch did.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Keeps what was fetched until it is dropped: set a tag before.
    pub pin: Pin,
    /// How many distinct blobs the root names, itself included.
    pub blobs: u64,
    /// How many of them were fetched, or completed, by this call.
    pub blobs_fetched: u64,
    /// Payload bytes that came over the network.
    pub bytes_received: u64,
}

/// Fetches `root`, and where it is a hash sequence all that it names, from a peer: only what is not
/// here. Everything is here, verified and durable, when this returns.
///
/// After an error, and when the call is dropped, what was verified and recorded stays, and the next
/// call goes on from there: the engine records every 8 MiB or second, and each small blob.
///
/// Memory is bounded, whatever the peer sends. Errors say what the peer did:
/// * [`Kind::Denied`]: it refuses to give this.
/// * [`Kind::NotFound`]: it does not have all of it; what it has was fetched, unless it lacks many.
/// * [`Kind::Corrupt`]: it sent bytes that are not those of the hash; ask another peer.
/// * [`Kind::Invalid`]: the root is no hash sequence.
/// * [`Kind::TooLarge`]: it claims more than `max_bytes`, or a sequence over [`MAX_HASH_SEQ_LEN`].
/// * [`Kind::Unavailable`]: the connection was lost, or the peer stalls; try again.
pub async fn fetch(
    blobs: &Blobs,
    connection: &Connection,
    root: Root,
    options: FetchOptions,
) -> Result<Fetched> {
    connection.set_receive_window(RECEIVE_WINDOW.into());
    let _first = blobs.pin(root).await;
    let call = Arc::new(Call {
        blobs: blobs.clone(),
        connection: connection.clone(),
        root,
        limits: Limits::default(),
        counters: Counters::default(),
        options,
    });
    call.clone().fetch_root().await?;
    // Once more, now that the sequence is here: a collection that runs learns what it names, and
    // what is found from here on stays.
    let pin = blobs.pin(root).await;
    let total = match root.format {
        Format::Raw => 1,
        Format::HashSeq | Format::Tree { .. } => call.clone().fetch_children().await?,
    };
    Ok(Fetched {
        pin,
        blobs: total,
        blobs_fetched: call.counters.fetched.load(Ordering::Relaxed),
        bytes_received: call.counters.received.load(Ordering::Relaxed),
    })
}

/// One call of [`fetch`], as its tasks share it.
struct Call {
    blobs: Blobs,
    connection: Connection,
    root: Root,
    options: FetchOptions,
    limits: Limits,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    /// Blobs that are here.
    done: AtomicU64,
    /// Blobs that this call fetched.
    fetched: AtomicU64,
    /// Zero where it is not known.
    total: AtomicU64,
    received: AtomicU64,
    /// Payload bytes that the peer claims it will send.
    claimed: AtomicU64,
    /// Blobs that the peer does not have, or not whole.
    lacking: AtomicU64,
}

impl Call {
    async fn fetch_root(self: Arc<Self>) -> Result<()> {
        if self.root.format == Format::Raw {
            self.counters.total.store(1, Ordering::Relaxed);
        }
        let jobs = match missing(&self.blobs, self.root.hash).await? {
            None => Vec::new(),
            Some(ranges) => vec![Job {
                hash: self.root.hash,
                offset: 0,
                ranges,
            }],
        };
        if jobs.is_empty() {
            self.counters.done.fetch_add(1, Ordering::Relaxed);
            self.tell();
        }
        self.run(jobs).await
    }

    /// Fetches what the root names, and says how many blobs there are with it.
    async fn fetch_children(self: Arc<Self>) -> Result<u64> {
        let sequence = self.sequence().await?;
        let (hashes, _) = sequence.as_chunks();
        let mut seen = HashSet::from([self.root.hash]);
        let children: Vec<(u64, Hash)> = (1..)
            .zip(hashes.iter().map(|hash: &[u8; 32]| Hash::from(*hash)))
            .filter(|(_, hash)| seen.insert(*hash))
            .collect();
        drop(seen);
        let total = children.len() as u64 + 1;
        self.counters.total.store(total, Ordering::Relaxed);
        let jobs = plan::missing_of_all(&self.blobs, children).await?;
        let here = total - 1 - jobs.len() as u64;
        self.counters.done.fetch_add(here, Ordering::Relaxed);
        self.tell();
        self.run(jobs).await?;
        Ok(total)
    }

    /// The hashes that the root names, as bytes.
    async fn sequence(&self) -> Result<Bytes> {
        let hash = self.root.hash;
        let Some(Status::Complete { size }) = self.blobs.status(hash).await? else {
            let message = "the root disappeared while it was fetched";
            return Err(Error::new(Kind::Conflict, "blobs.fetch", message).with("hash", hash));
        };
        if size > MAX_HASH_SEQ_LEN {
            return Err(self.sequence_too_long(size));
        }
        if !size.is_multiple_of(size_of::<Hash>() as u64) {
            let message = "this blob is not a hash sequence; fetch it as a raw one";
            return Err(Error::new(Kind::Invalid, "blobs.fetch", message).with("hash", hash));
        }
        self.blobs.read_to_bytes(hash, 0..size).await
    }

    fn sequence_too_long(&self, size: u64) -> Error {
        let message = format!("a hash sequence has at most {MAX_HASH_SEQ_LEN} bytes");
        Error::new(Kind::TooLarge, "blobs.fetch", message)
            .with("hash", self.root.hash)
            .with("claimed", size)
    }

    /// Runs jobs until each is complete, on several streams at once.
    async fn run(self: Arc<Self>, mut jobs: Vec<Job>) -> Result<()> {
        while !jobs.is_empty() {
            let before = self.counters.received.load(Ordering::Relaxed);
            let left = self.clone().run_once(jobs).await?;
            if !left.is_empty() && self.counters.received.load(Ordering::Relaxed) == before {
                let message = "the blob is still not complete; is something deleting it?";
                return Err(
                    Error::new(Kind::Conflict, "blobs.fetch", message).with("hash", left[0].hash)
                );
            }
            jobs = left;
        }
        Ok(())
    }

    /// Requests every job once; returns those that are not complete after it: their ranges were too
    /// many for one request.
    async fn run_once(self: Arc<Self>, jobs: Vec<Job>) -> Result<Vec<Job>> {
        let streams = self.options.streams.get().min(MAX_STREAMS);
        let batches = Arc::new(std::sync::Mutex::new(batches(jobs, streams)));
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for _ in 0..streams {
            let receiver = Receiver::new(self.clone());
            workers.spawn(receiver.run(batches.clone(), stopped.clone()));
        }
        let mut left = Vec::new();
        let mut first_error = None;
        while let Some(worker) = workers.join_next().await {
            let worker = worker.unwrap_or_else(|error| {
                let message = "a task of the fetch ended";
                Err(Error::new(Kind::Internal, "blobs.fetch", message).because(error))
            });
            match worker {
                Ok(rest) => left.extend(rest),
                Err(error) => {
                    // The others keep what they have verified, and end.
                    stop.send_replace(true);
                    first_error.get_or_insert(error);
                }
            }
        }
        let lacking = self.counters.lacking.load(Ordering::Relaxed);
        match first_error {
            Some(error) => Err(error),
            None if lacking > 0 => Err(self.peer_lacks(lacking)),
            None => Ok(left),
        }
    }

    /// Takes note of a blob that the peer lacks, and fails once there are too many.
    fn lacks(&self) -> Result<()> {
        let lacking = self.counters.lacking.fetch_add(1, Ordering::Relaxed) + 1;
        if lacking > MAX_LACKING {
            return Err(self.peer_lacks(lacking));
        }
        Ok(())
    }

    fn peer_lacks(&self, lacking: u64) -> Error {
        let error = Error::new(Kind::NotFound, "blobs.fetch", LACKED);
        match self.root.format {
            Format::Raw => error,
            Format::HashSeq | Format::Tree { .. } => error.with("lacking", lacking),
        }
    }

    /// Takes note of payload bytes that the peer is about to send.
    fn claim(&self, hash: Hash, bytes: u64) -> Result<()> {
        let before = self.counters.claimed.fetch_add(bytes, Ordering::Relaxed);
        let claimed = before.saturating_add(bytes);
        match self.options.max_bytes {
            Some(limit) if claimed > limit => Err(Error::new(
                Kind::TooLarge,
                "blobs.fetch",
                "the peer wants to send more than is allowed",
            )
            .with("limit", limit)
            .with("claimed", claimed)
            .with("hash", hash)),
            _ => Ok(()),
        }
    }

    fn received(&self, bytes: u64) {
        self.counters.received.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn completed(&self) {
        self.counters.fetched.fetch_add(1, Ordering::Relaxed);
        self.counters.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let Some(progress) = &self.options.progress else {
            return;
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let known = |value: u64| (value > 0).then_some(value);
        let raw = self.root.format == Format::Raw;
        progress(FetchProgress {
            blobs_done: load(&self.counters.done),
            blobs_total: known(load(&self.counters.total)),
            bytes_received: load(&self.counters.received),
            bytes_total: known(load(&self.counters.claimed)).filter(|_| raw),
        });
    }
}
