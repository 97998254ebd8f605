//! The interface of networks: connections to peers whose keys are proven, byte streams on them, and
//! addresses that name their network.
//!
//! A [`Network`] makes connections, a [`ConnectionApi`] carries any number of [`Stream`]s, and the
//! scheme of an [`Address`] tells which network can dial it.
//!
//! Every network keeps these rules:
//!
//! * **A clean end means complete.** A reader sees the end of a stream only after the writer has shut
//!   it down; if a stream ends in any other way (dropped, crashed, lost), the reader gets an error.
//! * **The end of a connection discards data in transit.** Bytes that were sent, and even bytes that
//!   arrived and were not read, may be lost. The side that reads last closes; the other side waits for
//!   [`ConnectionApi::closed`].
//! * **Back-pressure.** A writer waits if the reader does not read.
//! * **Cancelling** (dropping the future) is always safe and loses nothing, unless a method states
//!   otherwise.

mod address;

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures_core::Stream as FuturesStream;
use larder_store_api::{Error, PublicKey, Result};
use tokio::io::{AsyncRead, AsyncWrite};

pub use address::{Address, MAX_ADDRESS_LEN, MAX_SCHEME_LEN};

/// The longest reason that [`ConnectionApi::close`] sends to the other side, in bytes.
pub const MAX_REASON_LEN: usize = 256;

/// A stream of a node's addresses: the current ones, then all of them after each change. It ends when
/// the network is closed.
pub type AddressWatch = Pin<Box<dyn FuturesStream<Item = Vec<Address>> + Send>>;

/// A shared handle to a connection of any network.
pub type Connection = Arc<dyn ConnectionApi>;

/// A network from the perspective of one node: it connects this node with others.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Returns the schemes of the addresses that this network can dial. They never change.
    fn schemes(&self) -> &[&str];

    /// Returns true if this network can dial an address, judging by its scheme.
    fn understands(&self, address: &Address) -> bool {
        self.schemes().contains(&address.scheme())
    }

    /// Returns this node's key, which it proves to every peer.
    fn key(&self) -> PublicKey;

    /// Returns the addresses at which this node can be reached now. May be empty, and may change.
    fn addresses(&self) -> Vec<Address>;

    /// Returns the key of the node that an address belongs to, if the address contains it or it is
    /// known; `None` also for an address of another network. Uses no network, and proves nothing.
    fn peer_of(&self, address: &Address) -> Option<PublicKey>;

    /// Returns a stream of the changes of the addresses.
    fn watch_addresses(&self) -> AddressWatch;

    /// Connects to the node at an address. The node proves its key; if it is not the expected one, the
    /// connection is refused.
    ///
    /// [`Kind::Invalid`](larder_store_api::Kind::Invalid): the address belongs to another network (the
    /// error names the [schemes](Self::schemes) of this one), is malformed, or is this node's own.
    /// [`Kind::Unavailable`](larder_store_api::Kind::Unavailable): nobody answers at present.
    /// [`Kind::Denied`](larder_store_api::Kind::Denied): a node with another key answers.
    /// [`Kind::Closed`](larder_store_api::Kind::Closed): this network was closed. Cancelling abandons
    /// the attempt; the other side may see a connection that ends at once.
    async fn connect(&self, to: &Address, expect: Option<PublicKey>) -> Result<Connection>;

    /// Returns the next connection that another node made.
    /// [`Kind::Closed`](larder_store_api::Kind::Closed) once the network was closed; any other error
    /// concerns only one connection, and accepting can continue. Several tasks may wait; each
    /// connection goes to one of them.
    async fn accept(&self) -> Result<Connection>;

    /// Closes all connections and ends all waiting calls. Closing it again does nothing.
    async fn close(&self);
}

/// A connection with a peer whose key the network has proven.
///
/// The connection closes when its last handle and the last of its streams are dropped.
#[async_trait]
pub trait ConnectionApi: fmt::Debug + Send + Sync + 'static {
    /// Returns the key that the other side has proven.
    fn peer(&self) -> PublicKey;

    /// Returns a value that both sides of this connection know, and that no other connection has. A
    /// signature over it is useless on another connection, so a proof cannot be relayed.
    fn binding(&self) -> [u8; 32];

    /// Opens a stream. Waits while too many are open. The other side learns of the stream only from its
    /// first byte or its shutdown: the side that opens a stream must send first.
    ///
    /// [`Kind::Closed`](larder_store_api::Kind::Closed) or
    /// [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) after the connection has ended.
    async fn open(&self) -> Result<Stream>;

    /// Returns the next stream that the other side opened; fails like [`open`](Self::open). Several
    /// tasks may wait; each stream goes to one of them.
    async fn accept(&self) -> Result<Stream>;

    /// Ends the connection with all its streams at once. The other side receives the reason, cut to
    /// [`MAX_REASON_LEN`]. Closing it again does nothing.
    fn close(&self, reason: &str);

    /// Waits until the connection has ended, and returns the reason:
    /// [`Kind::Closed`](larder_store_api::Kind::Closed) if one side closed it,
    /// [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) if it was lost.
    async fn closed(&self) -> Error;
}

/// A bidirectional stream. Each half may be moved to a task of its own.
///
/// If the connection has ended, an error of either half has the connection's [`Error`] as its source.
pub struct Stream {
    /// The sending half: the other side reads the bytes that are written here, in order. Bytes of a
    /// successful write may still be in transit; flushing does not wait for them.
    ///
    /// Shutting it down marks the end of the data, and does not wait; the other side then sees a clean
    /// end. Dropping it before that resets the stream: the other side sees an error, and may lose bytes
    /// that it has not read.
    pub send: Box<dyn AsyncWrite + Send + Unpin>,
    /// The receiving half: reads the bytes that the other side writes. Dropping it before the end stops
    /// the other side, whose writes then fail with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
    pub recv: Box<dyn AsyncRead + Send + Unpin>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// Returns `reason`, cut to [`MAX_REASON_LEN`] at a character boundary.
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON_LEN)]
}
