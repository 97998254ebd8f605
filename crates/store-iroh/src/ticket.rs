//! Tickets and connections, on an endpoint that the app has.

use std::time::Duration;

use iroh::{Endpoint, EndpointAddr, Watcher, endpoint::Connection};
use iroh_blobs::ticket::BlobTicket;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::Root;
use n0_future::StreamExt;
use tokio::time::timeout;

use crate::convert::to_iroh_root;

/// The time that a ticket waits for an address at which its endpoint can be reached.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a ticket, which has what a peer needs to fetch `root` from here: this endpoint's addresses, and
/// the root.
///
/// Waits up to ten seconds for an address; [`Kind::Unavailable`] if there is none.
pub async fn ticket(endpoint: &Endpoint, root: Root) -> Result<BlobTicket> {
    let mut addresses = endpoint.watch_addr().stream();
    let reachable = async {
        loop {
            match addresses.next().await {
                Some(address) if !address.is_empty() => break Some(address),
                Some(_) => {}
                None => break None,
            }
        }
    };
    let Ok(Some(address)) = timeout(ADDRESS_TIMEOUT, reachable).await else {
        return Err(Error::new(
            Kind::Unavailable,
            "endpoint.ticket",
            "this machine has no address at which others can reach it",
        ));
    };
    let root = to_iroh_root(root);
    Ok(BlobTicket::new(address, root.hash, root.format))
}

/// Connects to a peer that serves iroh-blobs' protocol. [`Kind::Unavailable`] if it does not
/// answer within `limit`.
pub async fn connect(
    endpoint: &Endpoint,
    addr: impl Into<EndpointAddr>,
    limit: Duration,
) -> Result<Connection> {
    let addr = addr.into();
    let peer = addr.id;
    let unreachable = |message: &'static str| {
        Error::new(Kind::Unavailable, "endpoint.connect", message).with("peer", peer.fmt_short())
    };
    match timeout(limit, endpoint.connect(addr, iroh_blobs::ALPN)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(unreachable("the peer cannot be reached").because(error)),
        Err(_) => Err(unreachable(
            "the peer does not answer; is it still running?",
        )),
    }
}
