//! The faults of a fetch: why a blob could not be fetched, and who is responsible.

use std::fmt;

use larder_store_api::{Error, Kind};

use crate::Hash;

const FETCH: &str = "blobs.fetch";

/// The reason why a request ended before its answer was complete.
///
/// The variant tells who is at fault. It is decided where the fault happens, and never guessed from an
/// error's [`Kind`] or text: those are for people, and for callers that only pass errors on.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Our own store failed. No other peer can help, and no peer is to blame.
    Local(Error),
    /// The peer broke the rules, or does not send what was asked for.
    Peer(Misconduct, Error),
    /// The connection to the peer, or one stream of it, was lost. Nobody may be to blame.
    Link(Error),
}

/// A peer's misconduct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misconduct {
    /// The peer sent bytes that do not match the hash, or contradict what is proven.
    Lies,
    /// The peer sent nothing for longer than the receiver's patience.
    Stalls,
    /// The peer refuses to send this.
    Refuses,
    /// The peer does not have all of it.
    Lacks,
    /// The announced size is larger than allowed. Nothing of the blob was received.
    TooLong,
}

impl Fault {
    /// Returns the fault for wrong bytes of `hash` at `offset`.
    pub(crate) fn lie(hash: Hash, offset: u64) -> Self {
        let wrong = Error::new(Kind::Invalid, FETCH, "this part of the blob is wrong");
        Self::lies(wrong.with("hash", hash).with("offset", offset))
    }

    /// Returns the fault for a size that the blob cannot have.
    pub(crate) fn wrong_size(hash: Hash, size: u64) -> Self {
        let wrong = Error::new(Kind::Invalid, FETCH, "this is not the size of the blob");
        Self::lies(wrong.with("hash", hash).with("size", size))
    }

    /// Returns the fault for wrong data, as described by `cause`.
    pub fn lies(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let message = "the peer sent bytes that are not those of the hash";
        let error = Error::new(Kind::Corrupt, FETCH, message);
        Self::Peer(Misconduct::Lies, error.because(cause))
    }

    /// Returns the fault for a blob that is longer than allowed.
    pub(crate) fn too_long(hash: Hash, size: u64, longest: u64) -> Self {
        let message = "the peer announced a blob that is longer than it may be";
        let error = Error::new(Kind::TooLarge, FETCH, message)
            .with("hash", hash)
            .with("claimed", size)
            .with("limit", longest);
        Self::Peer(Misconduct::TooLong, error)
    }

    /// Returns the fault for a peer that has stopped sending.
    pub fn stalls() -> Self {
        let message = "the peer does not send anything any more";
        let error = Error::new(Kind::Unavailable, FETCH, message);
        Self::Peer(Misconduct::Stalls, error)
    }

    /// Returns the fault for a peer that does not have all that was asked for.
    pub fn lacks() -> Self {
        let message = "the peer does not have all of it";
        Self::Peer(
            Misconduct::Lacks,
            Error::new(Kind::NotFound, FETCH, message),
        )
    }

    /// Returns the fault for a peer that refuses to send what was asked for.
    pub fn refuses() -> Self {
        let message = "the peer refuses to give this";
        Self::Peer(
            Misconduct::Refuses,
            Error::new(Kind::Denied, FETCH, message),
        )
    }

    /// Returns the fault for a lost connection.
    pub fn lost() -> Self {
        let message = "the connection to the peer was lost";
        Self::Link(Error::new(Kind::Unavailable, FETCH, message))
    }

    /// Adds a detail to the error.
    #[must_use]
    pub fn with(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.map(|error| error.with(key, value))
    }

    /// Adds the cause of the error.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.map(|error| error.because(cause))
    }

    fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Local(error) => Self::Local(change(error)),
            Self::Peer(what, error) => Self::Peer(what, change(error)),
            Self::Link(error) => Self::Link(change(error)),
        }
    }

    /// Returns the error for people.
    pub fn error(&self) -> &Error {
        match self {
            Self::Local(error) | Self::Peer(_, error) | Self::Link(error) => error,
        }
    }

    /// Converts into the error for people.
    pub fn into_error(self) -> Error {
        match self {
            Self::Local(error) | Self::Peer(_, error) | Self::Link(error) => error,
        }
    }

    /// Returns true if this is that misconduct of the peer.
    pub fn is_peers(&self, what: Misconduct) -> bool {
        matches!(self, Self::Peer(did, _) if *did == what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for Fault {}
