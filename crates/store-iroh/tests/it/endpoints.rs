//! Endpoints talk to whom they were told to, and tickets lead there.

use std::time::{Duration, Instant};

use iroh::{EndpointAddr, SecretKey, TransportAddr};
use store_api::Kind;
use store_iroh::{
    BlobTicket, EndpointOptions, FetchOptions, Reach, Shares, bind, connect, fetch, serve, ticket,
    to_engine_root,
};

use crate::support::{bytes, engine, loopback};

async fn bound(reach: Reach) -> iroh::Endpoint {
    bind(EndpointOptions {
        reach,
        ..EndpointOptions::default()
    })
    .await
    .unwrap()
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
async fn loopback_listens_nowhere_else() {
    let endpoint = loopback().await;
    for socket in endpoint.bound_sockets() {
        assert!(socket.ip().is_loopback(), "{socket}");
    }
    let ticket = ticket(
        &endpoint,
        store_engine::Root::raw(store_engine::Hash::EMPTY),
    );
    for address in ticket.await.unwrap().addr().addrs.iter() {
        match address {
            TransportAddr::Ip(address) => assert!(address.ip().is_loopback(), "{address}"),
            other => panic!("{other:?}"),
        }
    }
    endpoint.close().await;
}

#[tokio::test]
async fn lan_only_knows_no_third_party() {
    let endpoint = bound(Reach::LanOnly).await;
    assert!(endpoint.address_lookup().unwrap().is_empty());
    let addr = endpoint.addr();
    assert_eq!(addr.relay_urls().count(), 0);
    endpoint.close().await;
}

#[tokio::test]
async fn a_key_is_an_identity() {
    let key = SecretKey::from_bytes(&[7; 32]);
    let endpoint = bind(EndpointOptions {
        reach: Reach::Loopback,
        secret_key: Some(key.clone()),
        port: 0,
    });
    let endpoint = endpoint.await.unwrap();
    assert_eq!(endpoint.id(), key.public());
    endpoint.close().await;
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = bind(EndpointOptions {
        reach: Reach::Loopback,
        secret_key: None,
        port,
    });
    let error = error.await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
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
