//! Fetching blobs from peers: any number of peers, several requests of each at a time, whatever the
//! network and the protocol.
//!
//! * A [`Receiver`] reads one answer: blob after blob, each verified while it comes. It is all that a
//!   caller needs that only looks at what a peer has.
//! * A [`Fetch`] brings blobs into a store. It splits what is not here into requests: many small blobs
//!   in one, a long one in pieces of [`PIECE_LEN`]. Each [`Provider`] works on requests as fast as it
//!   can. A request that a provider could not answer goes to the others; once none is left, providers
//!   that have nothing to do help with those that others are slow with.
//!
//! ```text
//! Fetch::new ── want(blobs) ──> provide(peer), for each peer, at the same time ──> settle
//!                    ^                                                               │
//!                    └──────────── Settled::More: provide again <────────────────────┘
//! ```
//!
//! A [`Fault`] says whose fault it is that a request ended early: our own store's, the peer's or the
//! link's. The caller decides what follows for the peer; what was verified stays in any case, and the
//! next fetch goes on from it.
//!
//! A protocol adds a [`Provider`], which asks a peer and gives an [`Answer`], a stream of bytes:
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

/// A peer that blobs can be asked of, over one connection.
pub trait Provider: Send + Sync + 'static {
    /// Names what a request is of: the blob at offset 0, and what gives the asker a right to it.
    type Of: Clone + Send + Sync + 'static;
    /// Its answer.
    type Answer: Answer + 'static;

    /// Asks for blobs, which ascend by offset. The answer has all of them, in this order.
    fn ask(
        &self,
        of: &Self::Of,
        wanted: &[Wanted],
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;

    /// Finds out what the peer has of blobs, after it gave up an answer in which they were. The result is
    /// requested again: parts of these blobs, ascending by offset, where one blob may be in several parts. A
    /// protocol that says in its answer what is absent need not know.
    fn has(
        &self,
        of: &Self::Of,
        wanted: &[Wanted],
    ) -> impl Future<Output = Result<Vec<Wanted>, Fault>> + Send {
        let _ = (of, wanted);
        std::future::ready(Ok(Vec::new()))
    }
}

/// Told of what a fetch does, from several tasks at once. It must not block.
pub trait Watch: Send + Sync + 'static {
    /// So many more bytes of a blob are going to come, as a peer claims or as is known here. An error
    /// ends the fetch before they come.
    fn announced(&self, hash: Hash, bytes: u64) -> Result<()> {
        let _ = (hash, bytes);
        Ok(())
    }

    /// All of a blob is here and durable. The pin keeps it.
    fn complete(&self, pin: Pin) {
        drop(pin);
    }
}

/// Watches nothing.
impl Watch for () {}
