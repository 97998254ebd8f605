//! Serving over iroh-blobs' protocol, to whom and what the app chose: strangers get nothing.

#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod provider;
mod request;
mod shares;

use iroh::{Endpoint, protocol::Router};
use larder_store_engine::Blobs;

pub use self::{
    provider::{MAX_CONNECTIONS, MAX_REQUESTS, Provider, REQUEST_TIMEOUT},
    shares::{MAX_OPEN_CHILDREN, MAX_SHARES, Share, Shares},
};

/// Serves what `shares` opens, at once and until `Router::shutdown`, which also closes the endpoint
/// and leaves the engine open.
pub fn serve(endpoint: &Endpoint, blobs: &Blobs, shares: &Shares) -> Router {
    Router::builder(endpoint.clone())
        .accept(iroh_blobs::ALPN, Provider::new(blobs, shares))
        .spawn()
}
