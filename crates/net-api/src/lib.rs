//! The interface of networks: connections to peers whose keys are proven, byte streams on them, and
//! addresses that name their network.
//!
//! A [`Network`] makes connections, a [`ConnectionApi`] carries any number of [`Stream`]s, and an
//! [`Address`] says by its scheme which network can dial it.
//!
//! Every network keeps these rules:
//!
//! * **A clean end means complete.** A reader sees the end of a stream only after the writer has shut
//!   it down; whatever else ends a stream (dropped, crashed, lost) is an error to the reader.
//! * **A connection that ends takes with it what is on its way.** Bytes that were sent, and even bytes
//!   that arrived and were not read, may be lost. Whoever reads last closes; the other side waits for
//!   [`ConnectionApi::closed`].
//! * **Back-pressure.** A writer waits for a reader that does not read.
//! * **Cancelling** (dropping the future) is always safe and loses nothing, except where a method
//!   says more.

mod address;

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures_core::Stream as FuturesStream;
use larder_store_api::{Error, PublicKey, Result};
use tokio::io::{AsyncRead, AsyncWrite};

pub use address::{Address, MAX_ADDRESS_LEN, MAX_SCHEME_LEN};

/// The longest reason that [`ConnectionApi::close`] tells the other side, in bytes.
pub const MAX_REASON_LEN: usize = 256;

/// The addresses of a node: those of now, then all of them after each change. It ends when the
/// network is closed.
pub type AddressWatch = Pin<Box<dyn FuturesStream<Item = Vec<Address>> + Send>>;

/// A connection, as everything but its network holds it.
pub type Connection = Arc<dyn ConnectionApi>;

/// A network, as one node of it sees it: it connects this node with others.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Returns the schemes of the addresses that this network can dial. They never change.
    fn schemes(&self) -> &[&str];

    /// Returns whether this network can dial an address, as its scheme tells.
    fn understands(&self, address: &Address) -> bool {
        self.schemes().contains(&address.scheme())
    }

    /// This node's key, which it proves to whoever it is connected with.
    fn key(&self) -> PublicKey;

    /// Returns the addresses at which this node can be reached now. May be empty, and may change.
    fn addresses(&self) -> Vec<Address>;

    /// The key of the node that an address is of, where it says or is known to belong to one; `None`
    /// too for what is no address of this network. Asks nobody, and proves nothing.
    fn peer_of(&self, address: &Address) -> Option<PublicKey>;

    /// Tells each change of the addresses.
    fn watch_addresses(&self) -> AddressWatch;

    /// Connects to the node at an address. The node proves its key; where it is not the expected
    /// one, the connection is refused.
    ///
    /// [`Kind::Invalid`](larder_store_api::Kind::Invalid): the address is of another network (the error names the
    /// [schemes](Self::schemes) of this one), malformed, or this node's own. [`Kind::Unavailable`](larder_store_api::Kind::Unavailable):
    /// nobody answers, or not now. [`Kind::Denied`](larder_store_api::Kind::Denied): another key answers. [`Kind::Closed`](larder_store_api::Kind::Closed): this
    /// network was closed. Cancelling gives the attempt up; the other side may see a connection that
    /// ends at once.
    async fn connect(&self, to: &Address, expect: Option<PublicKey>) -> Result<Connection>;

    /// The next connection that another node made. [`Kind::Closed`](larder_store_api::Kind::Closed) once the network was closed; any
    /// other error concerns one connection, and the next call goes on. Several may wait; each
    /// connection goes to one of them.
    async fn accept(&self) -> Result<Connection>;

    /// Closes all connections and ends everything that waits. Closing again does nothing.
    async fn close(&self);
}

/// A connection with a peer whose key the network has proven.
///
/// It is closed when the last of its handle and its streams is dropped.
#[async_trait]
pub trait ConnectionApi: fmt::Debug + Send + Sync + 'static {
    /// The key that the other side has proven.
    fn peer(&self) -> PublicKey;

    /// A value that both sides of this connection know, and that no other connection has. A signature
    /// over it is worth nothing on another connection, so that nobody can pass on a proof.
    fn binding(&self) -> [u8; 32];

    /// Opens a stream. Waits while too many are open. The other side hears of it with the first byte,
    /// or the shut-down, and not before: whoever opens must also speak first.
    ///
    /// [`Kind::Closed`](larder_store_api::Kind::Closed) or [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) once the connection has ended.
    async fn open(&self) -> Result<Stream>;

    /// The next stream that the other side opened; fails as [`open`](Self::open) does. Several may
    /// wait; each stream goes to one of them.
    async fn accept(&self) -> Result<Stream>;

    /// Ends the connection with all its streams, now. The other side is told the reason, cut to
    /// [`MAX_REASON_LEN`]. Closing again does nothing.
    fn close(&self, reason: &str);

    /// Waits until the connection has ended, and says why: [`Kind::Closed`](larder_store_api::Kind::Closed) where one of both sides
    /// closed it, [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) where it was lost.
    async fn closed(&self) -> Error;
}

/// A stream in both directions. Each half may be moved to a task of its own.
///
/// An error of either half has the [`Error`] of the connection as its source, where that has ended.
pub struct Stream {
    /// The sending half: the other side reads what is written here, in order. A write that was
    /// accepted may still be on its way; flushing does not wait for it.
    ///
    /// Shutting down says that all is said, and does not wait; the other side then sees a clean end.
    /// Dropping it before that resets the stream: the other side sees an error, and may lose what it
    /// has not read.
    pub send: Box<dyn AsyncWrite + Send + Unpin>,
    /// The receiving half: reads what the other side writes. Dropping it before its end tells the
    /// other side, whose writes then fail with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
    pub recv: Box<dyn AsyncRead + Send + Unpin>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// `reason`, cut to [`MAX_REASON_LEN`] between two characters.
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON_LEN)]
}
