//! Bounds on what peers may use and how long they may take.

use std::time::Duration;

/// The most connections at a time.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// The most streams of one connection that are answered at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// The time to wait for a peer's first bytes on a stream, and for the rest of a frame.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The time for which shutdown waits for peers to hear that our routes are withdrawn.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(1);
