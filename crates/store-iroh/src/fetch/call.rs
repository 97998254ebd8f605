//! One call of a fetch: the root first, and then what it names.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use iroh::endpoint::Connection;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{
    BlobStatus, Blobs, Format, Hash, Pin, Root,
    fetch::{Blob, Fault, Fetch, Left, Misconduct, Options, ProviderId, Settled},
};

use super::{
    FetchOptions, Fetched, MAX_HASH_SEQ_LEN, MAX_STREAMS,
    peer::Peer,
    progress::Progress,
    request::{LEAST_BLOBS, MOST_RANGES},
};

/// The number of blobs that a peer may lack before it is given up; those of the others that it has
/// are fetched.
const MAX_LACKING: u64 = 64;

pub(super) struct Call {
    blobs: Blobs,
    root: Root,
    fetch: Fetch<Hash>,
    /// The peers that have not failed.
    peers: Vec<(ProviderId, Arc<Peer>)>,
    /// The reason why the first of the others failed.
    fault: Option<Fault>,
    progress: Arc<Progress>,
}

impl Call {
    pub(super) fn new(
        blobs: &Blobs,
        connections: &[Connection],
        root: Root,
        options: FetchOptions,
    ) -> Self {
        let most = NonZeroUsize::new(MAX_STREAMS).expect("it is not zero");
        let mut how = Options::default();
        how.streams = options.streams.min(most);
        how.patience = options.idle_timeout;
        how.least_blobs = LEAST_BLOBS;
        how.most_blobs = usize::MAX;
        how.most_ranges = MOST_RANGES;
        how.most_lacking = MAX_LACKING;
        let progress = Arc::new(Progress::new(root, options));
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
            Format::Raw => self.progress.total_is(1),
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
        self.progress.total_is(total);
        let missing = self.fetch.want(self.root.hash, children).await?;
        self.progress.here(total - 1 - missing);
        self.run().await?;
        Ok(total)
    }

    pub(super) fn fetched(&self, pin: Pin, blobs: u64) -> Fetched {
        Fetched {
            pin,
            blobs,
            blobs_fetched: self.progress.blobs_fetched(),
            bytes_received: self.progress.bytes_received(),
        }
    }

    /// The hashes that the root names, as bytes.
    async fn sequence(&self) -> Result<Bytes> {
        let hash = self.root.hash;
        let Some(BlobStatus::Complete { size }) = self.blobs.status(hash).await? else {
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

    /// Returns the error that says why something is left.
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
