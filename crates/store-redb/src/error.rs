//! Errors that many parts of the store make.

use larder_store_api::{Error, Kind};

/// The error of a store that was closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Closed, operation, "the store was closed")
}
