//! Tickets lead to the endpoint that made them.

use std::time::{Duration, Instant};

use iroh::{EndpointAddr, SecretKey};
use larder_net_iroh::{EndpointOptions, Reach, bind};
use larder_store_api::Kind;
use larder_store_iroh::{
    BlobTicket, FetchOptions, Shares, connect, fetch, serve, ticket, to_engine_root,
};

use crate::support::{bytes, engine, loopback};

async fn bound(reach: Reach) -> iroh::Endpoint {
    bind(EndpointOptions::new(reach)).await.unwrap()
}

#[tokio::test]
async fn a_ticket_is_enough_to_fetch() {
    for reach in [Reach::Loopback, Reach::LanOnly] {
        let blobs = engine().await;
        let data = bytes(1, 100_000);
        let pin = blobs.add(data.clone()).await.unwrap();
        let shares = Shares::new(&blobs);
        shares.allow(pin.root()).unwrap();
        let node = serve(&bound(reach).await, &blobs, &shares);
        let text = ticket(node.endpoint(), pin.root())
            .await
            .unwrap()
            .to_string();

        let found: BlobTicket = text.parse().unwrap();
        let endpoint = bound(reach).await;
        let limit = Duration::from_secs(20);
        let connection = connect(&endpoint, found.addr().clone(), limit).await;
        let connection = connection.unwrap();
        let other = engine().await;
        let root = to_engine_root(found.hash_and_format());
        let options = FetchOptions::default();
        fetch(&other, &connection, root, options).await.unwrap();
        let read = other.read_to_bytes(root.hash, 0..u64::MAX).await.unwrap();
        assert!(read == data);
        endpoint.close().await;
        node.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let endpoint = loopback().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = SecretKey::from_bytes(&[9; 32]).public();
    let addr = EndpointAddr::new(nobody).with_ip_addr(silent.local_addr().unwrap());
    let started = Instant::now();
    let error = connect(&endpoint, addr, Duration::from_millis(300)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(20));
    endpoint.close().await;
}
