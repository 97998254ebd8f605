//! One call of a fetch: the root first, and then what it names.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::join_all;
use iroh::endpoint::Connection;
use store_api::{Error, Kind, Result};
use store_engine::{
    Blobs, Format, Hash, Pin, Root, Status,
    fetch::{Blob, Fault, Fetch, Left, Misconduct, Options, ProviderId, Settled, Watch},
};

use super::{
    FetchOptions, FetchProgress, Fetched, MAX_HASH_SEQ_LEN, MAX_STREAMS,
    peer::Peer,
    request::{LEAST_BLOBS, MOST_RANGES},
};

/// How many blobs a peer may lack before it is given up; what it has of the others is fetched.
const MAX_LACKING: u64 = 64;

pub(super) struct Call {
    blobs: Blobs,
    root: Root,
    fetch: Fetch<Hash>,
    /// Those that have not failed.
    peers: Vec<(ProviderId, Arc<Peer>)>,
    /// Why the first of the others failed.
    fault: Option<Fault>,
    progress: Arc<Progress>,
}

/// Counts what comes.
pub(super) struct Progress {
    root: Root,
    options: FetchOptions,
    /// Blobs that are here.
    done: AtomicU64,
    /// Blobs that this call fetched.
    fetched: AtomicU64,
    /// Zero where it is not known.
    total: AtomicU64,
    received: AtomicU64,
    /// Payload bytes that the peers claim they will send.
    claimed: AtomicU64,
}

impl Call {
    pub(super) fn new(
        blobs: &Blobs,
        connections: &[Connection],
        root: Root,
        options: FetchOptions,
    ) -> Self {
        let progress = Arc::new(Progress {
            root,
            options,
            done: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            total: AtomicU64::new(0),
            received: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
        });
        let most = NonZeroUsize::new(MAX_STREAMS).expect("it is not zero");
        let mut how = Options::default();
        how.streams = progress.options.streams.min(most);
        how.patience = progress.options.idle_timeout;
        how.least_blobs = LEAST_BLOBS;
        how.most_blobs = usize::MAX;
        how.most_ranges = MOST_RANGES;
        how.most_lacking = MAX_LACKING;
        let peer = |connection: &Connection| {
            Arc::new(Peer {
                connection: connection.clone(),
                progress: progress.clone(),
            })
        };
        Self {
            blobs: blobs.clone(),
            root,
            fetch: Fetch::new(blobs, how, progress.clone()),
            peers: (0..).zip(connections.iter().map(peer)).collect(),
            fault: None,
            progress,
        }
    }

    pub(super) async fn fetch_root(&mut self) -> Result<()> {
        let mut root = Blob::new(0, self.root.hash);
        match self.root.format {
            Format::Raw => self.progress.total.store(1, Ordering::Relaxed),
            Format::HashSeq | Format::Tree { .. } => root.longest = MAX_HASH_SEQ_LEN,
        }
        if self.fetch.want(self.root.hash, [root]).await? == 0 {
            self.progress.here(1);
        }
        self.run().await
    }

    /// Fetches what the root names, and returns how many blobs there are with it.
    pub(super) async fn fetch_children(&mut self) -> Result<u64> {
        let sequence = self.sequence().await?;
        let (hashes, _) = sequence.as_chunks();
        let mut seen = HashSet::from([self.root.hash]);
        let children: Vec<Blob> = (1..)
            .zip(hashes.iter().map(|hash: &[u8; 32]| Hash::from(*hash)))
            .filter(|(_, hash)| seen.insert(*hash))
            .map(|(offset, hash)| Blob::new(offset, hash))
            .collect();
        drop(seen);
        let total = children.len() as u64 + 1;
        self.progress.total.store(total, Ordering::Relaxed);
        let missing = self.fetch.want(self.root.hash, children).await?;
        self.progress.here(total - 1 - missing);
        self.run().await?;
        Ok(total)
    }

    pub(super) fn fetched(&self, pin: Pin, blobs: u64) -> Fetched {
        Fetched {
            pin,
            blobs,
            blobs_fetched: self.progress.fetched.load(Ordering::Relaxed),
            bytes_received: self.progress.received.load(Ordering::Relaxed),
        }
    }

    /// The hashes that the root names, as bytes.
    async fn sequence(&self) -> Result<Bytes> {
        let hash = self.root.hash;
        let Some(Status::Complete { size }) = self.blobs.status(hash).await? else {
            let message = "the root disappeared while it was fetched";
            return Err(Error::new(Kind::Conflict, "blobs.fetch", message).with("hash", hash));
        };
        if size > MAX_HASH_SEQ_LEN {
            let message = format!("a hash sequence has at most {MAX_HASH_SEQ_LEN} bytes");
            return Err(Error::new(Kind::TooLarge, "blobs.fetch", message)
                .with("hash", hash)
                .with("size", size));
        }
        if !size.is_multiple_of(size_of::<Hash>() as u64) {
            let message = "this blob is not a hash sequence; fetch it as a raw one";
            return Err(Error::new(Kind::Invalid, "blobs.fetch", message).with("hash", hash));
        }
        self.blobs.read_to_bytes(hash, 0..size).await
    }

    /// Lets the peers work until all that is wanted is here.
    async fn run(&mut self) -> Result<()> {
        loop {
            if !self.fetch.is_idle() {
                let provide = |(id, peer): &(ProviderId, Arc<Peer>)| {
                    let (fetch, id, peer) = (self.fetch.clone(), *id, peer.clone());
                    async move { (id, fetch.provide(id, peer).await) }
                };
                for (id, ended) in join_all(self.peers.iter().map(provide)).await {
                    if let Err(fault) = ended {
                        tracing::debug!(%fault, "a peer is not asked any more");
                        self.peers.retain(|(peer, _)| *peer != id);
                        self.fault.get_or_insert(fault);
                    }
                }
            }
            match self.fetch.settle().await? {
                Settled::Done => return Ok(()),
                Settled::More if !self.peers.is_empty() => {}
                Settled::More | Settled::Left => return Err(self.unfinished()),
            }
        }
    }

    /// Why something is left.
    fn unfinished(&mut self) -> Error {
        let left = self.fetch.left();
        let is_lacking = |fault: &Fault| fault.is_peers(Misconduct::Lacks);
        if self.peers.is_empty()
            && let Some(fault) = self.fault.take_if(|fault| !is_lacking(fault))
        {
            return fault.into_error();
        }
        let why = |left: &Left<Hash>| left.why.clone().filter(|why| !is_lacking(why));
        if let Some(why) = left.iter().find_map(why) {
            return why.into_error();
        }
        let error = Fault::lacks().into_error();
        let offsets = left.iter().flat_map(|left| &left.wanted);
        let lacking = offsets.map(|one| one.offset).collect::<HashSet<_>>().len();
        match self.root.format {
            Format::Raw => error,
            Format::HashSeq | Format::Tree { .. } => error.with("lacking", lacking),
        }
    }
}

impl Progress {
    /// So many blobs are here already.
    fn here(&self, blobs: u64) {
        self.done.fetch_add(blobs, Ordering::Relaxed);
        self.tell();
    }

    /// So many payload bytes came.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
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
            blobs_done: load(&self.done),
            blobs_total: known(load(&self.total)),
            bytes_received: load(&self.received),
            bytes_total: known(load(&self.claimed)).filter(|_| raw),
        });
    }
}

impl Watch for Progress {
    fn announced(&self, hash: Hash, bytes: u64) -> Result<()> {
        let before = self.claimed.fetch_add(bytes, Ordering::Relaxed);
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

    fn complete(&self, pin: Pin) {
        drop(pin);
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }
}
