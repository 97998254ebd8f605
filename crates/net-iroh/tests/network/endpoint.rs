//! Endpoints talk to whom they were told to.

use larder_net_iroh::{bind, transport};

use super::*;

#[tokio::test]
async fn loopback_listens_nowhere_else() {
    let endpoint = bind(options(None)).await.unwrap();
    for socket in endpoint.bound_sockets() {
        assert!(socket.ip().is_loopback(), "{socket}");
    }
    assert!(endpoint.address_lookup().unwrap().is_empty());
    for address in endpoint.addr().addrs {
        match address {
            iroh::TransportAddr::Ip(address) => assert!(address.ip().is_loopback(), "{address}"),
            other => panic!("{other:?}"),
        }
    }
    endpoint.close().await;
}

#[tokio::test]
async fn lan_only_knows_no_third_party() {
    let endpoint = bind(EndpointOptions::new(Reach::LanOnly)).await.unwrap();
    // Nothing but the local network, where that carries multicast.
    assert!(endpoint.address_lookup().unwrap().len() <= 1);
    assert_eq!(endpoint.addr().relay_urls().count(), 0);
    endpoint.close().await;
}

#[tokio::test]
async fn a_key_is_an_identity_and_a_taken_port_is_said() {
    let endpoint = bind(options(Some(7))).await.unwrap();
    assert_eq!(endpoint.id(), key(7));
    endpoint.close().await;
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = bind(options(None).with_port(port)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn its_bounds_suit_an_endpoint_of_the_apps_own() {
    // Both ways to bind give incoming connections the same bounds.
    let own = quiet().transport_config(transport()).bind().await.unwrap();
    for endpoint in [own, bind(options(None)).await.unwrap()] {
        endpoint.set_alpns(vec![b"other/1".to_vec()]);
        let client = quiet().bind().await.unwrap();
        let (out, back) = soon(async {
            tokio::join!(client.connect(endpoint.addr(), b"other/1"), async {
                endpoint.accept().await.unwrap().await.unwrap()
            })
        })
        .await;
        let out = out.unwrap();
        let mut open = Vec::new();
        for _ in 0..MAX_STREAMS {
            open.push(soon(out.open_bi()).await.unwrap());
        }
        assert!(timeout(A_WHILE, out.open_bi()).await.is_err());
        let (mut taken, chunk) = (0, vec![7; 65_536]);
        while let Ok(wrote) = timeout(A_WHILE, open[0].0.write(&chunk)).await {
            taken += wrote.unwrap();
        }
        assert!(taken <= STREAM_WINDOW as usize, "{taken}");
        // Other protocols have streams of one direction too.
        soon(out.open_uni()).await.unwrap();
        drop(back);
        client.close().await;
        endpoint.close().await;
    }
}
