//! Fetching from peers that speak iroh-blobs' protocol: from one or several, over several streams of
//! each. Nothing is acknowledged before all is durable.

mod call;
mod failure;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod observe;
mod peer;
mod progress;
mod request;

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use iroh::endpoint::Connection;
#[cfg(doc)]
use larder_store_api::Kind;
use larder_store_api::Result;
use larder_store_engine::{Blobs, Format, Pin, Root};

use self::call::Call;

/// The longest hash sequence that can be fetched with what it names: two million hashes.
pub const MAX_HASH_SEQ_LEN: u64 = 64 * 1024 * 1024;

/// The most bytes that may have arrived over a connection without being read: 1 Gbit/s sends as
/// many in 133 ms.
const RECEIVE_WINDOW: u32 = 16 * 1024 * 1024;

/// The most request streams of a connection at once.
pub const MAX_STREAMS: usize = 16;

/// The progress of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchProgress {
    /// The number of blobs that are here, of those that the root names, itself included.
    pub blobs_done: u64,
    /// The number of blobs that the root names, once it is known.
    pub blobs_total: Option<u64>,
    /// Payload bytes that came over the network in this call.
    pub bytes_received: u64,
    /// Payload bytes that will have come, once it is known: for a raw root.
    pub bytes_total: Option<u64>,
}

/// Told of progress, often and from several tasks at once; must not block.
pub type FetchProgressFn = Arc<dyn Fn(FetchProgress) + Send + Sync>;

/// The options of a fetch.
#[derive(Clone)]
pub struct FetchOptions {
    /// Told of progress.
    pub progress: Option<FetchProgressFn>,
    /// The number of concurrent requests on each connection; at most [`MAX_STREAMS`].
    pub streams: NonZeroUsize,
    /// The most payload bytes to take, as the peers claim them: beyond it, the fetch ends with
    /// [`Kind::TooLarge`] before they are received.
    pub max_bytes: Option<u64>,
    /// The time within which a peer must send a group of 16 KiB: after that it is not asked again.
    pub idle_timeout: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            progress: None,
            streams: NonZeroUsize::new(4).expect("four is not zero"),
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

/// The outcome of a fetch.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Keeps what was fetched until it is dropped: set a tag before.
    pub pin: Pin,
    /// The number of distinct blobs that the root names, itself included.
    pub blobs: u64,
    /// The number of them that this call fetched or completed.
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
/// * [`Kind::Invalid`]: the root is not a hash sequence.
/// * [`Kind::TooLarge`]: it claims more than `max_bytes`, or a sequence over [`MAX_HASH_SEQ_LEN`].
/// * [`Kind::Unavailable`]: the connection was lost, or the peer stalls; try again.
pub async fn fetch(
    blobs: &Blobs,
    connection: &Connection,
    root: Root,
    options: FetchOptions,
) -> Result<Fetched> {
    fetch_from(blobs, std::slice::from_ref(connection), root, options).await
}

/// Fetches blobs, as [`fetch`] does, from several peers at once. A peer that fails is not asked any
/// more, and what it did not give comes from the others; the error is that of the first that
/// failed, where nobody could give the rest.
pub async fn fetch_from(
    blobs: &Blobs,
    connections: &[Connection],
    root: Root,
    options: FetchOptions,
) -> Result<Fetched> {
    for connection in connections {
        connection.set_receive_window(RECEIVE_WINDOW.into());
    }
    let _first = blobs.pin(root).await;
    let mut call = Call::new(blobs, connections, root, options);
    call.fetch_root().await?;
    // Once more, now that the sequence is here: a collection that runs learns what it names, and
    // what is found from here on stays.
    let pin = blobs.pin(root).await;
    let total = match root.format {
        Format::Raw => 1,
        Format::HashSeq | Format::Tree { .. } => call.fetch_children().await?,
    };
    Ok(call.fetched(pin, total))
}
