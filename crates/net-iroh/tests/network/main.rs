//! Tests of what the network over QUIC promises, on real sockets of this machine.

mod endpoint;
mod ends;
mod reach;
mod shared;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::join_all};
use larder_net_api::{Address, Connection, Network, Stream};
use larder_net_iroh::{
    CONNECTION_WINDOW, EndpointOptions, IrohNetwork, MAX_BACKLOG, MAX_STREAMS, Reach, STREAM_WINDOW,
};
use larder_store_api::{Kind, SecretKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

/// No test waits longer for what it knows will come.
const SOON: Duration = Duration::from_secs(20);

/// The time for which a test waits for something that must not come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn soon<R>(what: impl Future<Output = R>) -> R {
    timeout(SOON, what).await.expect("it took too long")
}

fn options(seed: Option<u8>) -> EndpointOptions {
    let mut options = EndpointOptions::new(Reach::Loopback);
    options.secret_key = seed.map(|seed| SecretKey::from_bytes([seed; 32]));
    options
}

/// An endpoint of somebody else's making.
fn quiet() -> iroh::endpoint::Builder {
    iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
}

/// An address as iroh itself has it.
fn foreign(address: &Address) -> iroh::EndpointAddr {
    let (id, ips) = address.rest().split_once("?ip=").unwrap();
    let id: iroh::EndpointId = id.parse().unwrap();
    let ips = ips.split("&ip=").map(|ip| ip.parse().unwrap());
    iroh::EndpointAddr::from_parts(id, ips.map(iroh::TransportAddr::Ip))
}

/// The key of a node that is not there.
fn key(seed: u8) -> iroh::EndpointId {
    iroh::SecretKey::from_bytes(&[seed; 32]).public()
}

async fn node() -> Arc<dyn Network> {
    Arc::new(IrohNetwork::bind(options(None)).await.unwrap())
}

fn address(node: &Arc<dyn Network>) -> Address {
    node.addresses().remove(0)
}

async fn connect(from: &Arc<dyn Network>, to: &Arc<dyn Network>) -> (Connection, Connection) {
    let to_address = address(to);
    let both = async { tokio::join!(from.connect(&to_address, Some(to.key())), to.accept()) };
    let (here, there) = soon(both).await;
    (here.unwrap(), there.unwrap())
}

/// Two nodes, connected.
async fn pair() -> (Arc<dyn Network>, Arc<dyn Network>, Connection, Connection) {
    let (a, b) = tokio::join!(node(), node());
    let (here, there) = connect(&a, &b).await;
    (a, b, here, there)
}

/// A stream that both sides know; one byte has crossed it.
async fn stream(here: &Connection, there: &Connection) -> (Stream, Stream) {
    let mut out = soon(here.open()).await.unwrap();
    out.send.write_all(b"!").await.unwrap();
    let mut back = soon(there.accept()).await.unwrap();
    assert_eq!(soon(back.recv.read_u8()).await.unwrap(), b'!');
    (out, back)
}

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

async fn send_all(stream: &mut Stream, bytes: &[u8]) {
    stream.send.write_all(bytes).await.unwrap();
    stream.send.shutdown().await.unwrap();
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut got = Vec::new();
    soon(stream.recv.read_to_end(&mut got)).await.unwrap();
    got
}

/// Writes to a stream until it takes no more, and returns the number of bytes that it took.
async fn fill(stream: &mut Stream) -> usize {
    let (mut taken, chunk) = (0, vec![7; 65_536]);
    while let Ok(wrote) = timeout(A_WHILE, stream.send.write(&chunk)).await {
        taken += wrote.unwrap();
    }
    taken
}

#[tokio::test]
async fn bytes_arrive_in_order_and_whole() {
    let (a, b, here, there) = pair().await;
    assert_eq!((a.schemes(), b.schemes()), (&["iroh"][..], &["iroh"][..]));
    assert_eq!((here.peer(), there.peer()), (b.key(), a.key()));
    let all = bytes(5 * 1024 * 1024 + 12_345);
    let send = async {
        let mut out = here.open().await.unwrap();
        for (n, piece) in all.chunks(70_001).enumerate() {
            let (one, rest) = piece.split_at(n.min(piece.len()));
            out.send.write_all(one).await.unwrap();
            out.send.write_all(rest).await.unwrap();
        }
        out.send.shutdown().await.unwrap();
        let got = read_all(&mut out).await;
        here.close("done");
        got
    };
    let answer = async {
        let mut back = there.accept().await.unwrap();
        let got = read_all(&mut back).await;
        send_all(&mut back, &got).await;
        // The side that reads last closes.
        there.closed().await
    };
    let (got, error) = soon(async { tokio::join!(send, answer) }).await;
    assert!(got == all);
    assert_eq!(error.kind(), Kind::Closed);
}

#[tokio::test]
async fn a_writer_waits_for_its_reader() {
    let (_a, _b, here, there) = pair().await;
    let (mut out, mut back) = stream(&here, &there).await;
    let taken = fill(&mut out).await;
    let window = STREAM_WINDOW as usize;
    assert!((window / 2..=window).contains(&taken), "{taken}");
    // Room is given to the writer as it is made.
    let mut some = vec![0; window];
    soon(back.recv.read_exact(&mut some[..taken]))
        .await
        .unwrap();
    let more = soon(out.send.write(&some)).await.unwrap();
    assert!(more > 0);
    // A connection has its own bound.
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(stream(&here, &there).await);
    }
    let all = join_all(streams.iter_mut().map(|(out, _)| fill(out))).await;
    let taken: usize = all.into_iter().sum();
    assert!(taken <= CONNECTION_WINDOW as usize, "{taken}");
}

#[tokio::test]
async fn streams_do_not_wait_for_each_other() {
    let (_a, _b, here, there) = pair().await;
    let (mut stuck, _unread) = stream(&here, &there).await;
    fill(&mut stuck).await;
    let serve = async {
        for _ in 0..3 * MAX_STREAMS {
            let mut back = there.accept().await.unwrap();
            tokio::spawn(async move {
                let got = read_all(&mut back).await;
                send_all(&mut back, &got).await;
            });
        }
    };
    let ask = join_all((0..3 * MAX_STREAMS).map(|n| {
        let here = &here;
        async move {
            let mut out = here.open().await.unwrap();
            let sent = bytes(n as usize * 40);
            send_all(&mut out, &sent).await;
            assert!(read_all(&mut out).await == sent);
        }
    }));
    soon(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn streams_are_bounded_and_freed() {
    let (_a, _b, here, there) = pair().await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        open.push(soon(here.open()).await.unwrap());
    }
    assert!(timeout(A_WHILE, here.open()).await.is_err());
    // The other side hears of none of them, and has its own.
    assert!(timeout(A_WHILE, there.accept()).await.is_err());
    drop(soon(there.open()).await.unwrap());
    // Nor when they were given up, or a later one is used.
    open[7].send.write_all(b"seven").await.unwrap();
    let mut seven = soon(there.accept()).await.unwrap();
    let mut got = [0; 5];
    soon(seven.recv.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"seven");
    open.truncate(MAX_STREAMS as usize / 2);
    assert!(timeout(A_WHILE, there.accept()).await.is_err());
    let (_out, _back) = stream(&here, &there).await;
    open[3].send.write_all(b"three").await.unwrap();
    let mut three = soon(there.accept()).await.unwrap();
    soon(three.recv.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"three");
}

#[tokio::test]
async fn both_sides_know_what_binds_them() {
    let (a, b, here, there) = pair().await;
    let (second, other) = connect(&a, &b).await;
    let (back, forth) = connect(&b, &a).await;
    assert_eq!(here.binding(), there.binding());
    assert_eq!(second.binding(), other.binding());
    assert_eq!(back.binding(), forth.binding());
    assert_ne!(here.binding(), second.binding());
    assert_ne!(here.binding(), back.binding());
    assert_ne!(second.binding(), back.binding());
    assert_ne!(here.binding(), [0; 32]);
}

#[tokio::test]
async fn connections_nobody_accepts_are_bounded() {
    let (a, b) = tokio::join!(node(), node());
    let to = address(&b);
    // More than half at once, so that addresses have to be proven.
    let calls = (0..MAX_BACKLOG).map(|_| a.connect(&to, None));
    let open = soon(join_all(calls)).await;
    let mut open: Vec<_> = open.into_iter().map(Result::unwrap).collect();
    let error = soon(a.connect(&to, None)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    // Those that ended meanwhile are not handed out.
    let kept = open.pop().unwrap();
    for gone in &open {
        gone.close("given up");
    }
    sleep(A_WHILE).await;
    let there = soon(b.accept()).await.unwrap();
    assert_eq!(there.binding(), kept.binding());
    assert!(timeout(A_WHILE, b.accept()).await.is_err());
    connect(&a, &b).await;
}
