//! The errors of ended connections.

use larder_store_api::{Error, Kind};

/// Returns the error of a connection that ended although nobody closed it.
pub(super) fn lost(why: &'static str) -> Error {
    Error::new(Kind::Unavailable, "network.connection", why)
}

/// Returns the error of a connection that somebody closed.
pub(super) fn closed(why: &'static str) -> Error {
    Error::new(Kind::Closed, "network.connection", why)
}
