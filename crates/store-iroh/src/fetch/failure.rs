//! What a peer did, in words for people.

use std::io;

use iroh::endpoint::{ConnectionError, ReadError, VarInt, WriteError};
use iroh_blobs::{
    get::{
        GetError,
        fsm::{AtBlobHeaderNextError, DecodeError},
    },
    protocol::{ERR_LIMIT, ERR_PERMISSION},
};
use store_api::{Error, Kind};

const FETCH: &str = "blobs.fetch";

pub(super) const LACKED: &str = "the peer does not have all of it";

/// What an error of iroh-blobs' get side says about the peer.
pub(super) fn peer_failed(error: GetError) -> Error {
    failed(kind_of(&error), error)
}

/// What it says about the peer that no stream can be opened.
pub(super) fn connection_failed(error: ConnectionError) -> Error {
    let error = io::Error::from(error);
    failed(kind_of_io(&error), error)
}

fn failed(kind: Kind, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let message = match kind {
        Kind::Denied => "the peer refuses to give this",
        Kind::NotFound => LACKED,
        Kind::Corrupt => "the peer sent bytes that are not those of the hash",
        _ => "the connection to the peer was lost",
    };
    Error::new(kind, FETCH, message).because(error)
}

/// The peer has nothing of a blob.
pub(super) fn lacked() -> Error {
    Error::new(Kind::NotFound, FETCH, LACKED)
}

pub(super) fn stalled() -> Error {
    let message = "the peer does not send anything any more";
    Error::new(Kind::Unavailable, FETCH, message)
}

/// What the engine says of a blob that a peer sends: that it is wrong is the peer's doing.
pub(super) fn import_failed(error: Error) -> Error {
    match error.kind() {
        Kind::Invalid => Error::new(
            Kind::Corrupt,
            FETCH,
            "the peer sent bytes that are not those of the hash",
        )
        .because(error),
        _ => error,
    }
}

fn kind_of(error: &GetError) -> Kind {
    match error {
        GetError::AtBlobHeaderNext {
            source: AtBlobHeaderNextError::NotFound { .. },
            ..
        } => Kind::NotFound,
        GetError::Decode { source, .. } => match source {
            DecodeError::ChunkNotFound { .. }
            | DecodeError::ParentNotFound { .. }
            | DecodeError::LeafNotFound { .. } => Kind::NotFound,
            DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
                Kind::Corrupt
            }
            DecodeError::Read { source, .. } => kind_of_io(source),
            _ => Kind::Unavailable,
        },
        other => match (other.remote_read(), other.remote_write(), other.open()) {
            (Some(source), _, _) | (_, Some(source), _) | (_, _, Some(source)) => {
                kind_of_io(source)
            }
            _ => Kind::Unavailable,
        },
    }
}

fn kind_of_io(error: &io::Error) -> Kind {
    let inner = error.get_ref();
    let code = inner.and_then(|inner| {
        if let Some(ReadError::Reset(code)) = inner.downcast_ref() {
            Some(*code)
        } else if let Some(WriteError::Stopped(code)) = inner.downcast_ref() {
            Some(*code)
        } else {
            closed_with(inner.downcast_ref::<ReadError>(), inner.downcast_ref())
        }
    });
    match code {
        Some(ERR_PERMISSION) => Kind::Denied,
        Some(ERR_LIMIT) => Kind::Unavailable,
        // It gave up this one stream: it lacks something, or cannot read it.
        Some(_) if is_reset(error) => Kind::NotFound,
        // The stream ended in the middle: how a peer says that it has no more.
        None if is_early_end(error) => Kind::NotFound,
        _ => Kind::Unavailable,
    }
}

/// The code with which the peer closed the whole connection.
fn closed_with(read: Option<&ReadError>, open: Option<&ConnectionError>) -> Option<VarInt> {
    let lost = match read {
        Some(ReadError::ConnectionLost(lost)) => Some(lost),
        _ => open,
    };
    match lost {
        Some(ConnectionError::ApplicationClosed(close)) => Some(close.error_code),
        _ => None,
    }
}

fn is_reset(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let read = inner.and_then(|inner| inner.downcast_ref::<ReadError>());
    matches!(read, Some(ReadError::Reset(_)))
}

fn is_early_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    ) && error
        .get_ref()
        .is_none_or(|inner| !inner.is::<ReadError>() && !inner.is::<ConnectionError>())
}
