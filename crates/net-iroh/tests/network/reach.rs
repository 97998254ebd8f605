//! Tests of which nodes can be reached, and at which addresses.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use larder_net_api::{Address, Network};
use larder_net_iroh::{CONNECT_TIMEOUT, EndpointOptions, IrohNetwork, Reach};
use larder_store_api::{Kind, PublicKey};
use tokio::time::{Instant, sleep, timeout};

use super::*;

#[tokio::test]
async fn who_cannot_be_reached_is_unavailable() {
    let (a, b) = tokio::join!(node(), node());
    let kind = async |to: &str, expect| {
        a.connect(&to.parse().unwrap(), expect)
            .await
            .unwrap_err()
            .kind()
    };
    let (own, other) = (address(&a), address(&b));
    for garbage in ["sim:1", "iroh:zz", &format!("{other}&port=1")] {
        assert_eq!(kind(garbage, None).await, Kind::Invalid, "{garbage}");
    }
    assert_eq!(kind(own.as_str(), None).await, Kind::Invalid);
    assert_eq!(kind(other.as_str(), Some(a.key())).await, Kind::Denied);
    // Another key answers than the address says.
    let swapped = other
        .as_str()
        .replace(&b.key().to_string(), &key(3).to_string());
    assert_eq!(soon(kind(&swapped, None)).await, Kind::Denied);
    assert_eq!(soon(kind(&swapped, Some(b.key()))).await, Kind::Denied);
    // Neither a relay nor a search leads anywhere on the loopback.
    for end in ["", "?relay=https://relay.example./"] {
        let nowhere = format!("iroh:{}{end}", key(4));
        assert_eq!(soon(kind(&nowhere, None)).await, Kind::Unavailable);
    }
    // The other side speaks something else.
    let another = quiet()
        .alpns(vec![b"another/1".to_vec()])
        .bind()
        .await
        .unwrap();
    let accepting = tokio::spawn({
        let foreign = another.clone();
        async move { foreign.accept().await.unwrap().await.map(drop) }
    });
    let port = another.bound_sockets()[0].port();
    let to = format!("iroh:{}?ip=127.0.0.1:{port}", another.id());
    assert_eq!(soon(kind(&to, None)).await, Kind::Unavailable);
    assert!(accepting.await.unwrap().is_err());
    let call = another.connect(foreign(&other), b"another/1");
    assert!(soon(call).await.is_err());
    another.close().await;
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for_long() {
    let a = node().await;
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = format!("iroh:{}?ip={}", key(5), silent.local_addr().unwrap());
    let nobody: Address = nobody.parse().unwrap();
    let start = Instant::now();
    let error = a.connect(&nobody, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(start.elapsed() <= CONNECT_TIMEOUT + Duration::from_secs(2));
    // An attempt that is given up leaves nothing behind that others wait for.
    timeout(A_WHILE, a.connect(&nobody, None))
        .await
        .unwrap_err();
    connect(&a, &node().await).await;
}

#[tokio::test]
async fn a_key_and_a_port_stay() {
    let node = IrohNetwork::bind(options(Some(5))).await.unwrap();
    let secret = iroh::SecretKey::from_bytes(&[5; 32]);
    assert_eq!(node.key(), PublicKey(*secret.public().as_bytes()));
    let address = node.addresses().remove(0);
    let text = address.as_str();
    let (id, port) = text.split_once("?ip=127.0.0.1:").unwrap();
    assert_eq!(id, format!("iroh:{}", node.key()));
    // It is the same in each family.
    let port: u16 = port.split('&').next().unwrap().parse().unwrap();
    for place in text.split("ip=").skip(1) {
        assert!(
            place.trim_end_matches('&').ends_with(&format!(":{port}")),
            "{text}"
        );
    }
    let taken = IrohNetwork::bind(options(None).with_port(port)).await;
    assert_eq!(taken.unwrap_err().kind(), Kind::Unavailable);
    node.close().await;
    drop(node);
    // The library's tasks let go of the port a little later.
    let again = soon(async {
        loop {
            let options = options(Some(5)).with_port(port);
            if let Ok(node) = IrohNetwork::bind(options).await {
                break node;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let again = again.await;
    assert_eq!(again.addresses(), [address]);
    // Its text names it by its key, and shows no secret.
    let text = format!("{again:?}");
    assert!(text.contains(&again.key().to_string()), "{text}");
    assert!(!text.contains(&"05".repeat(32)), "{text}");
}

#[tokio::test]
#[ignore = "needs a network that carries multicast"]
async fn neighbours_find_each_other_by_key() {
    let bind = || async {
        let options = EndpointOptions::default();
        assert_eq!(options.reach, Reach::LanOnly);
        Arc::new(IrohNetwork::bind(options).await.unwrap()) as Arc<dyn Network>
    };
    let (a, b) = (bind().await, bind().await);
    let to = IrohNetwork::address_of(b.key());
    let (here, there) = soon(async { tokio::join!(a.connect(&to, None), b.accept()) }).await;
    stream(&here.unwrap(), &there.unwrap()).await;
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn an_address_says_whose_it_is() {
    let (a, b) = tokio::join!(node(), node());
    let at = address(&b);
    assert_eq!(a.peer_of(&at), Some(b.key()));
    let alone = IrohNetwork::address_of(b.key());
    assert_eq!(at.as_str().split_once('?').unwrap().0, alone.as_str());
    assert_eq!(a.peer_of(&alone), Some(b.key()));
    for other in ["sim:1", "iroh:zz", &at.as_str()[..40], &format!("{at}&x=1")] {
        assert_eq!(a.peer_of(&other.parse().unwrap()), None, "{other}");
    }
}

#[tokio::test]
async fn what_is_out_of_reach_is_not_tried() {
    let (a, b) = tokio::join!(node(), node());
    // Nobody would answer there, and that would take long to find out.
    let away = format!("iroh:{}?ip=10.255.255.1:9&ip=203.0.113.1:9", key(77));
    let start = Instant::now();
    let error = a.connect(&away.parse().unwrap(), None).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unavailable);
    assert!(start.elapsed() < CONNECT_TIMEOUT / 2);
    // Beside what is within reach it does no harm.
    let both = format!("{}&ip=203.0.113.1:9", address(&b)).parse().unwrap();
    let connecting = async { tokio::join!(a.connect(&both, None), b.accept()) };
    let (here, there) = soon(connecting).await;
    assert_eq!(
        (here.unwrap().peer(), there.unwrap().peer()),
        (b.key(), a.key())
    );
}
