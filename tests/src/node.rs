//! Nodes on the loopback.

use std::time::Duration;

use iroh::{Endpoint, endpoint::Connection, protocol::Router};
use iroh_blobs::{BlobsProtocol, api::Store};
use larder::{
    Blobs, Root,
    iroh::{EndpointOptions, FetchOptions, Fetched, Reach, Shares, bind, connect, fetch, serve},
};

/// Returns an endpoint that is bound only to 127.0.0.1.
pub async fn loopback() -> Endpoint {
    let options = EndpointOptions::new(Reach::Loopback);
    bind(options).await.expect("a port is free")
}

/// Starts a node of ours that serves these roots to everybody.
pub async fn our_node(blobs: &Blobs, roots: &[Root]) -> Router {
    let shares = Shares::new(blobs);
    for root in roots {
        shares.allow(*root).expect("few are shared");
    }
    serve(&loopback().await, blobs, &shares)
}

/// Starts an unmodified node of iroh-blobs, which serves all of its store.
pub async fn iroh_node(store: &Store) -> Router {
    Router::builder(loopback().await)
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(store, None))
        .spawn()
}

/// Connects two endpoints.
pub async fn connection(from: &Endpoint, to: &Endpoint) -> Connection {
    let limit = Duration::from_secs(30);
    connect(from, to.addr(), limit)
        .await
        .expect("the node is there")
}

/// Fetches from a node, through an endpoint of its own.
pub async fn get(blobs: &Blobs, from: &Router, root: Root) -> larder::Result<Fetched> {
    let endpoint = loopback().await;
    let connection = connection(&endpoint, from.endpoint()).await;
    let fetched = fetch(blobs, &connection, root, FetchOptions::default()).await;
    endpoint.close().await;
    fetched
}
