//! The settings of the simulated network.

use std::time::Duration;

/// The most bytes in one chunk, the unit of sending, tampering and delivery.
pub const MAX_CHUNK_LEN: usize = 64 * 1024;

/// The fewest bytes that a slow link puts into a chunk.
pub(super) const MIN_CHUNK_LEN: usize = 1200;

/// The most bytes of one direction of a stream that were written and not yet read. On a long link, a
/// stream can transfer no more than this per latency.
pub const STREAM_WINDOW: usize = 1024 * 1024;

/// The most streams that each side of a connection has open at the same time.
pub const MAX_STREAMS: usize = 100;

/// The most connections that wait to be accepted by one node; further ones are broken.
pub const MAX_BACKLOG: usize = 64;

/// The time after which a connect to an address where nobody answers fails.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a connection survives a cut.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// The link delivers everything.
    #[default]
    Open,
    /// The link delivers nothing, and nobody notices: writes are accepted until the window is full, and
    /// connections stay open. Everything that waits is delivered once the link is open again.
    Stalled,
    /// The link delivers nothing, and connections end after [`IDLE_TIMEOUT`]. If it is open again
    /// before that, everything that waits is delivered.
    Cut,
}

/// The link from one node to another. The default is perfect: no delay, no limit, no failure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// The time that each chunk takes.
    pub latency: Duration,
    /// The most additional time that a chunk takes; random for each. Each stream stays in order, but
    /// streams overtake each other.
    pub jitter: Duration,
    /// The bytes per second of all streams together; `None` is unlimited.
    pub bandwidth: Option<u64>,
    /// The probability, each second, that a connection breaks.
    pub breaks_per_second: f64,
    /// The probability that a connection breaks, for each byte that it sends in this direction.
    pub breaks_per_byte: f64,
    /// The probability that a connect in this direction fails, from 0 to 1.
    pub connect_failure: f64,
    /// The state of the link.
    pub flow: Flow,
}

/// The most bytes per second that a node sends and receives, over all its links together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The limit for sending; `None` is unlimited.
    pub up: Option<u64>,
    /// The limit for receiving; `None` is unlimited.
    pub down: Option<u64>,
}

/// The amount of data that a node has sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that were sent on streams.
    pub sent: u64,
    /// Bytes of streams that arrived.
    pub received: u64,
    /// Connections that it made.
    pub connections: u64,
    /// Streams that it opened.
    pub streams: u64,
}

/// The resources that the simulation holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// The number of bytes that were written and not read.
    pub bytes: usize,
    /// The number of connections that are open on a side.
    pub connections: usize,
    /// The number of streams of which a half is held.
    pub streams: usize,
}

/// Returns the time that `len` bytes take.
pub(super) fn duration_of(len: usize, bandwidth: Option<u64>) -> Duration {
    let Some(bandwidth) = bandwidth else {
        return Duration::ZERO;
    };
    let nanos = len as u128 * 1_000_000_000 / u128::from(bandwidth.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns the number of bytes that are sent as one chunk if this is the slowest part of the way: 10 ms
/// of it, within limits, so that streams share a slow link fairly and fast ones cost little.
pub(super) fn chunk_len(bandwidth: Option<u64>) -> usize {
    let len = bandwidth.map_or(usize::MAX, |b| {
        usize::try_from(b / 100).unwrap_or(usize::MAX)
    });
    len.clamp(MIN_CHUNK_LEN, MAX_CHUNK_LEN)
}
