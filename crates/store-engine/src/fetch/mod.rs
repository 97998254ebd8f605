//! Fetches blobs from peers: from any number of peers, with several requests to each at a time, over
//! any network and protocol.
//!
//! * A [`Receiver`] reads one answer: blob after blob, each verified while it arrives. A caller that
//!   only wants to check what a peer has needs nothing else.
//! * A [`Fetch`] brings blobs into a store. It splits the missing data into requests: many small blobs
//!   in one, a long one in pieces of [`PIECE_LEN`]. Each [`Provider`] works on requests as fast as it
//!   can. A request that one provider could not answer goes to the others; once none is left, idle
//!   providers help with those that others are slow with.
//!
//! ```text
//! Fetch::new ── want(blobs) ──> provide(peer), for each peer, at the same time ──> settle
//!                    ^                                                               │
//!                    └──────────── Settled::More: provide again <────────────────────┘
//! ```
//!
//! A [`Fault`] tells why a request ended early and who is responsible: our own store, the peer or the
//! link. The caller decides how to treat the peer; verified data stays in any case, and the next fetch
//! continues from it.
//!
//! A protocol implements [`Provider`], which asks a peer and returns an [`Answer`], a stream of bytes:
//!
//! ```
//! use std::{io, pin::Pin, sync::Arc, task::{Context, Poll}};
//! use larder_store_engine::{Blobs, ChunkRanges, Encoded, fetch::*};
//! use tokio::io::{AsyncRead, ReadBuf};
//!
//! /// A peer that is another store of this process.
//! struct Other(Blobs);
//! struct Bytes(io::Cursor<Vec<u8>>);
//!
//! impl Provider for Other {
//!     type Of = ();
//!     type Answer = Bytes;
//!     async fn ask(&self, _of: &(), wanted: &[Wanted]) -> Result<Bytes, Fault> {
//!         use futures_util::TryStreamExt;
//!         let mut bytes = Vec::new();
//!         for one in wanted {
//!             let hash = one.hash.expect("no request here leaves it out");
//!             let mut items = self.0.export(hash, one.ranges.clone());
//!             while let Some(item) = items.try_next().await.map_err(|_| Fault::lacks())? {
//!                 match item {
//!                     Encoded::Size(size) => bytes.extend(size.to_le_bytes()),
//!                     Encoded::Parent(parent) => {
//!                         bytes.extend(parent.pair.0.as_bytes());
//!                         bytes.extend(parent.pair.1.as_bytes());
//!                     }
//!                     Encoded::Leaf(leaf) => bytes.extend(leaf.data),
//!                 }
//!             }
//!         }
//!         Ok(Bytes(io::Cursor::new(bytes)))
//!     }
//! }
//!
//! impl AsyncRead for Bytes {
//!     fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
//!         Pin::new(&mut self.0).poll_read(cx, buf)
//!     }
//! }
//!
//! impl Answer for Bytes {
//!     fn is_absent(size: u64) -> bool { size == u64::MAX }
//!     fn fault(error: io::Error) -> Fault { Fault::lost().because(error) }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> larder_store_api::Result<()> {
//! # use larder_store_testkit::MemoryStore;
//! # let open = async || { let store = Arc::new(MemoryStore::new()); Blobs::open(store.clone(), store).await };
//! let (theirs, ours) = (open().await?, open().await?);
//! let pin = theirs.add(vec![7; 100_000]).await?;
//! let fetch = Fetch::new(&ours, Options::default(), Arc::new(()));
//! fetch.want((), [Blob::new(0, pin.hash())]).await?;
//! fetch.provide(1, Arc::new(Other(theirs))).await.map_err(Fault::into_error)?;
//! assert_eq!(fetch.settle().await?, Settled::Done);
//! assert_eq!(ours.read_to_bytes(pin.hash(), 0..5).await?, vec![7; 5]);
//! # Ok(())
//! # }
//! ```

mod fault;
mod intake;
mod jobs;
mod receiver;
mod wanted;
mod work;

use larder_store_api::Result;

pub use self::{
    fault::{Fault, Misconduct},
    jobs::ProviderId,
    receiver::{Answer, Items, Receiver},
    wanted::{Blob, PIECE_LEN, Wanted, requests},
    work::{Fetch, Left, Options, Settled},
};
use crate::{Hash, Pin};

/// A peer to ask for blobs, over one connection.
pub trait Provider: Send + Sync + 'static {
    /// The subject of a request: the blob at offset 0, and the proof that the asker has a right to it.
    type Of: Clone + Send + Sync + 'static;
    /// The peer's answer.
    type Answer: Answer + 'static;

    /// Asks for blobs, in ascending order of offsets. The answer has all of them in this order.
    fn ask(
        &self,
        of: &Self::Of,
        wanted: &[Wanted],
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;

    /// Finds out which of these blobs the peer has, after it aborted an answer that included them. The
    /// result is requested again: parts of these blobs, in ascending order of offsets; a blob may be in
    /// several parts. A protocol whose answers mark absent blobs need not implement this.
    fn has(
        &self,
        of: &Self::Of,
        wanted: &[Wanted],
    ) -> impl Future<Output = Result<Vec<Wanted>, Fault>> + Send {
        let _ = (of, wanted);
        std::future::ready(Ok(Vec::new()))
    }
}

/// Observes a fetch, from several tasks at once. Must not block.
pub trait Watch: Send + Sync + 'static {
    /// More bytes of a blob are going to arrive, as a peer claims or as is known here. An error ends
    /// the fetch before they arrive.
    fn announced(&self, hash: Hash, bytes: u64) -> Result<()> {
        let _ = (hash, bytes);
        Ok(())
    }

    /// A blob is complete and durable. The pin keeps it.
    fn complete(&self, pin: Pin) {
        drop(pin);
    }
}

/// Ignores everything.
impl Watch for () {}
