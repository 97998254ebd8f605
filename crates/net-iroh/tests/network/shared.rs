//! A network that is one protocol of an endpoint that an app has.

use iroh::{
    Endpoint,
    endpoint::{Connection as Raw, QuicTransportConfig},
};
use larder_net_iroh::{ALPN, AcceptError, ProtocolHandler, Router};

use super::*;

/// A protocol of the app's own.
const ECHO: &[u8] = b"echo/1";

#[derive(Debug)]
struct Echo;

impl ProtocolHandler for Echo {
    async fn accept(&self, connection: Raw) -> Result<(), AcceptError> {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let said = recv.read_to_end(1024).await.unwrap();
            send.write_all(&said).await.unwrap();
            send.finish().unwrap();
        }
        Ok(())
    }
}

async fn echoes(connection: &Raw) -> bool {
    let (mut send, mut recv) = soon(connection.open_bi()).await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.finish().unwrap();
    soon(recv.read_to_end(1024)).await.unwrap() == b"hello"
}

/// An app's endpoint and router, and the network that is one of its protocols.
struct App {
    endpoint: Endpoint,
    router: Router,
    network: Arc<dyn Network>,
}

async fn app(transport: Option<QuicTransportConfig>) -> App {
    let mut builder = quiet();
    if let Some(transport) = transport {
        builder = builder.transport_config(transport);
    }
    let endpoint = builder.bind().await.unwrap();
    let network = Arc::new(IrohNetwork::new(endpoint.clone(), Reach::Loopback));
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, network.clone())
        .accept(ECHO, Echo)
        .spawn();
    App {
        endpoint,
        router,
        network,
    }
}

#[tokio::test]
async fn other_protocols_go_on_without_it() {
    let App {
        endpoint,
        router,
        network: a,
    } = app(None).await;
    let b = node().await;
    let (here, there) = connect(&a, &b).await;
    let (back, forth) = connect(&b, &a).await;
    let (_out, mut cut) = stream(&here, &there).await;
    stream(&back, &forth).await;
    let client = quiet().bind().await.unwrap();
    let echo = soon(client.connect(endpoint.addr(), ECHO)).await.unwrap();
    assert!(echoes(&echo).await);
    let to = address(&a);

    // All of the network ends, and nothing else.
    let mut watch = a.watch_addresses();
    assert_eq!(watch.next().await.unwrap(), a.addresses());
    soon(async { tokio::join!(a.close(), a.close()) }).await;
    assert_eq!(soon(watch.next()).await, None);
    assert!(a.addresses().is_empty());
    for connection in [&here, &there, &back, &forth] {
        assert_eq!(soon(connection.closed()).await.kind(), Kind::Closed);
    }
    let error = soon(cut.recv.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    assert_eq!(soon(a.accept()).await.unwrap_err().kind(), Kind::Closed);
    let error = soon(a.connect(&address(&b), None)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    assert!(!endpoint.is_closed() && !router.is_shutdown());
    assert!(echoes(&echo).await);
    let again = soon(client.connect(endpoint.addr(), ECHO)).await.unwrap();
    assert!(echoes(&again).await);
    // Members are turned away at once.
    if let Ok(late) = soon(b.connect(&to, None)).await {
        assert_eq!(soon(late.closed()).await.kind(), Kind::Closed);
    }
    router.shutdown().await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn the_end_of_the_router_is_the_end_of_the_network() {
    for by_router in [true, false] {
        let app = app(None).await;
        let b = node().await;
        let (here, there) = connect(&app.network, &b).await;
        let end = async {
            match by_router {
                true => app.router.shutdown().await.unwrap(),
                false => app.endpoint.close().await,
            }
        };
        // Whoever waits is told at once, before the endpoint's own tasks are gone.
        let ended = async { tokio::join!(here.closed(), there.closed(), end) };
        let (here, there, ()) = soon(ended).await;
        assert_eq!((here.kind(), there.kind()), (Kind::Closed, Kind::Closed));
        let error = soon(app.network.accept()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Closed);
        let error = soon(app.network.connect(&address(&b), None)).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Closed);
        soon(app.network.close()).await;
    }
}

#[tokio::test]
async fn a_network_that_is_gone_leaves_the_endpoint() {
    let app = app(None).await;
    let b = node().await;
    let (here, there) = connect(&app.network, &b).await;
    // The router has a handle of its own.
    drop(app.network);
    assert!(timeout(A_WHILE, there.closed()).await.is_err());
    drop(app.router);
    assert_eq!(soon(there.closed()).await.kind(), Kind::Closed);
    assert_eq!(soon(here.closed()).await.kind(), Kind::Closed);
    assert!(!app.endpoint.is_closed());
}

#[tokio::test]
async fn its_streams_are_bounded_whatever_the_endpoint_allows() {
    let transport = QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(1000_u32.into())
        .build();
    let app = app(Some(transport)).await;
    let stranger = quiet().bind().await.unwrap();
    let raw = soon(stranger.connect(app.endpoint.addr(), ALPN)).await;
    let raw = raw.unwrap();
    let there = soon(app.network.accept()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS + 50 {
        let (mut send, recv) = soon(raw.open_bi()).await.unwrap();
        send.write_all(b"!").await.unwrap();
        open.push((send, recv));
    }
    let mut taken = Vec::new();
    for _ in 0..MAX_STREAMS {
        taken.push(soon(there.accept()).await.unwrap());
    }
    assert!(timeout(A_WHILE, there.accept()).await.is_err());
    // Half a stream keeps its place.
    let Stream { send, recv } = taken.pop().unwrap();
    drop(send);
    assert!(timeout(A_WHILE, there.accept()).await.is_err());
    drop(recv);
    taken.push(soon(there.accept()).await.unwrap());
    assert!(timeout(A_WHILE, there.accept()).await.is_err());
    // A stream that has ended keeps none, though somebody still holds it.
    let (mut send, mut ended) = (open.remove(0).0, taken.remove(0));
    send.finish().unwrap();
    assert_eq!(read_all(&mut ended).await, b"!");
    ended.send.shutdown().await.unwrap();
    taken.push(soon(there.accept()).await.unwrap());
    // A caller that waits for a place hears of the end.
    let (error, ()) = tokio::join!(soon(there.accept()), async { there.close("enough") });
    assert_eq!(error.unwrap_err().kind(), Kind::Closed);
    stranger.close().await;
    app.router.shutdown().await.unwrap();
}

#[tokio::test]
async fn its_own_connections_have_its_own_bounds() {
    // Each side could send far more.
    let transport = || {
        QuicTransportConfig::builder()
            .stream_receive_window(10_000_000_u32.into())
            .build()
    };
    let (a, b) = (app(Some(transport())).await, app(Some(transport())).await);
    let (here, there) = connect(&a.network, &b.network).await;
    let (_out, mut back) = stream(&here, &there).await;
    let taken = fill(&mut back).await;
    assert!(taken <= STREAM_WINDOW as usize, "{taken}");
    a.router.shutdown().await.unwrap();
    b.router.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_that_nobody_accepts_are_bounded_there_too() {
    let app = app(None).await;
    let a = node().await;
    let to = address(&app.network);
    let open = soon(join_all((0..MAX_BACKLOG).map(|_| a.connect(&to, None)))).await;
    let mut open: Vec<_> = open.into_iter().map(Result::unwrap).collect();
    // The handshakes end there a little after they do here.
    sleep(A_WHILE).await;
    if let Ok(further) = soon(a.connect(&to, None)).await {
        assert_eq!(soon(further.closed()).await.kind(), Kind::Closed);
    }
    let kept = open.pop().unwrap();
    open.iter().for_each(|gone| gone.close("given up"));
    sleep(A_WHILE).await;
    let there = soon(app.network.accept()).await.unwrap();
    assert_eq!(there.binding(), kept.binding());
    connect(&a, &app.network).await;
    app.router.shutdown().await.unwrap();
}
