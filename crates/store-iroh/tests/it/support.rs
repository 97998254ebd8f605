//! Helpers that the tests share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use iroh::{Endpoint, endpoint::Connection, protocol::Router};
use iroh_blobs::{
    BlobsProtocol,
    api::{Store, proto::Request},
};
use larder_net_iroh::{EndpointOptions, Reach, bind};
use larder_store_engine::{Blobs, Collected};
use larder_store_iroh::connect;
use larder_store_testkit::MemoryStore;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ref_cast::RefCast;

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// Around every boundary: empty, chunk, group, block, many groups.
pub const SIZES: [usize; 16] = [
    0,
    1,
    KIB - 1,
    KIB,
    KIB + 1,
    3 * KIB + 7,
    16 * KIB - 1,
    16 * KIB,
    16 * KIB + 1,
    17 * KIB,
    32 * KIB,
    32 * KIB + 1,
    100 * KIB + 7,
    256 * KIB,
    MIB,
    3 * MIB + 5,
];

pub async fn engine() -> Blobs {
    let store = Arc::new(MemoryStore::new());
    Blobs::open(store.clone(), store).await.unwrap()
}

pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Collects whatever nothing protects, however new.
pub async fn collect_all(blobs: &Blobs) -> Collected {
    // The engine spares what is as new as the collection itself, by its clock of milliseconds.
    tokio::time::sleep(Duration::from_millis(2)).await;
    blobs.collect(SystemTime::now()).await.unwrap()
}

/// The client inside a store, for commands that its API does not offer.
pub fn client(store: &Store) -> irpc::Client<Request> {
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    let mut client = irpc::Client::from(nobody);
    *Store::ref_cast_mut(&mut client) = store.clone();
    client
}

pub async fn loopback() -> Endpoint {
    bind(EndpointOptions::new(Reach::Loopback)).await.unwrap()
}

/// An unmodified node of iroh-blobs, which serves whatever its store has.
pub async fn iroh_node(store: &Store) -> Router {
    Router::builder(loopback().await)
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(store, None))
        .spawn()
}

pub async fn connection(from: &Endpoint, to: &Endpoint) -> Connection {
    let limit = Duration::from_secs(20);
    connect(from, to.addr(), limit).await.unwrap()
}
