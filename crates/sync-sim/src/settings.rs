//! The settings of the simulated network: how good or bad it is.

use std::time::Duration;

/// The most bytes that one chunk carries: what is sent, tampered with and delivered at once.
pub const MAX_CHUNK_LEN: usize = 64 * 1024;

/// The fewest bytes that a slow link puts into a chunk.
pub(super) const MIN_CHUNK_LEN: usize = 1200;

/// The most bytes of one direction of a stream that were written and not yet read. Of a long link, a
/// stream can use no more than this in each latency.
pub const STREAM_WINDOW: usize = 1024 * 1024;

/// The most streams that each side of a connection has open at the same time.
pub const MAX_STREAMS: usize = 100;

/// The most connections that wait to be accepted by one node; further ones are broken.
pub const MAX_BACKLOG: usize = 64;

/// The time after which a connect to an address where nobody answers fails.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a connection outlives a cut.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Says if a link carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// It does.
    #[default]
    Open,
    /// It delivers nothing, and nobody notices: writes are accepted until the window is full, and
    /// connections live on. All that waits is delivered once it is open again.
    Stalled,
    /// It delivers nothing, and connections end after [`IDLE_TIMEOUT`]. Where it is open again before
    /// that, all that waits is delivered.
    Cut,
}

/// One direction between two nodes. By default it is perfect: no delay, no limit, no failure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// The time that each chunk takes.
    pub latency: Duration,
    /// By how much more a chunk takes, at most; chosen by chance for each. Streams stay in order, and
    /// overtake each other.
    pub jitter: Duration,
    /// Bytes each second of all streams together; `None` is unlimited.
    pub bandwidth: Option<u64>,
    /// The chance, each second, that a connection breaks.
    pub breaks_per_second: f64,
    /// The chance that a connection breaks, for each byte that it sends in this direction.
    pub breaks_per_byte: f64,
    /// The chance of a connect in this direction to fail, from 0 to 1.
    pub connect_failure: f64,
    /// Says if the link carries anything.
    pub flow: Flow,
}

/// The most bytes each second that a node sends and receives, over all its links together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Sent; `None` is unlimited.
    pub up: Option<u64>,
    /// Received; `None` is unlimited.
    pub down: Option<u64>,
}

/// The amounts that a node sent and received.
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
    /// Bytes that were written and not read.
    pub bytes: usize,
    /// Connections of which a side is open.
    pub connections: usize,
    /// Streams of which somebody holds a half.
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

/// Returns the number of bytes that are sent at once if this is the slowest part of the way: 10 ms
/// of it, within limits, so that streams share a slow link fairly and fast ones cost little.
pub(super) fn chunk_len(bandwidth: Option<u64>) -> usize {
    let len = bandwidth.map_or(usize::MAX, |b| {
        usize::try_from(b / 100).unwrap_or(usize::MAX)
    });
    len.clamp(MIN_CHUNK_LEN, MAX_CHUNK_LEN)
}
