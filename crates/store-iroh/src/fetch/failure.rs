//! The blame for a stream or a connection that ended.

use std::io;

use iroh::endpoint::{ConnectionError, ReadError, VarInt, WriteError};
use iroh_blobs::protocol::{ERR_LIMIT, ERR_PERMISSION};
use larder_store_engine::fetch::Fault;

/// Returns the fault for a stream that could not be read or written.
pub(super) fn stream_failed(error: io::Error) -> Fault {
    let inner = error.get_ref();
    let read = inner.and_then(|inner| inner.downcast_ref::<ReadError>());
    let write = inner.and_then(|inner| inner.downcast_ref::<WriteError>());
    let fault = match (read, write) {
        (Some(ReadError::Reset(code)), _) | (_, Some(WriteError::Stopped(code))) => given_up(*code),
        (Some(ReadError::ConnectionLost(lost)), _)
        | (_, Some(WriteError::ConnectionLost(lost))) => lost_by(lost),
        // The stream ended in the middle: how a peer says that it has no more.
        (None, None) if error.kind() == io::ErrorKind::UnexpectedEof => Fault::lacks(),
        _ => Fault::lost(),
    };
    fault.because(error)
}

/// Returns the fault for a connection on which no stream can be opened.
pub(super) fn connection_failed(error: ConnectionError) -> Fault {
    lost_by(&error).because(error)
}

/// The peer gave up one stream.
fn given_up(code: VarInt) -> Fault {
    match code {
        ERR_PERMISSION => Fault::refuses(),
        ERR_LIMIT => Fault::lost(),
        // It lacks something, or cannot read it.
        _ => Fault::lacks(),
    }
}

fn lost_by(lost: &ConnectionError) -> Fault {
    match lost {
        ConnectionError::ApplicationClosed(close) if close.error_code == ERR_PERMISSION => {
            Fault::refuses()
        }
        _ => Fault::lost(),
    }
}
