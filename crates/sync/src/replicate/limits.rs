//! Bounds on what peers may use and how long they may take.

use std::time::Duration;

/// The most connections at a time that others made.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// The most of them on which no group was proven yet.
pub(super) const MAX_UNPROVEN: usize = 32;
/// The most connections at a time that this device made. They have places of their own, so that strangers cannot keep
/// it from its members.
pub(super) const MAX_DIALED: usize = 128;
/// The time within which a group must be proven on a connection.
pub(super) const PROVE_WITHIN: Duration = Duration::from_secs(20);
/// The most streams of one connection that are answered at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// The time to wait for a peer's first bytes on a stream, and for the rest of a frame.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The time for which shutdown waits for peers to hear that our routes are withdrawn.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(1);
