//! Why connections end.

use store_api::{Error, Kind};

/// Why a connection ended that nobody closed.
pub(super) fn lost(why: &'static str) -> Error {
    Error::new(Kind::Unavailable, "network.connection", why)
}

/// Why a connection ended that somebody closed.
pub(super) fn closed(why: &'static str) -> Error {
    Error::new(Kind::Closed, "network.connection", why)
}
