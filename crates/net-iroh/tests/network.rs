//! What the network over QUIC promises, on real sockets of this machine.

use std::{io::ErrorKind, net::UdpSocket, sync::Arc, thread, time::Duration};

use futures_util::{FutureExt, StreamExt, future::join_all};
use net_iroh::{
    ALPN, CONNECT_TIMEOUT, CONNECTION_WINDOW, IrohNetwork, IrohOptions, MAX_BACKLOG, MAX_STREAMS,
    Reach, STREAM_WINDOW,
};
use store_api::{Kind, PublicKey, SecretKey};
use sync::network::{Address, AddressWatch, Connection, MAX_REASON_LEN, Network, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// No test waits longer for what it knows will come.
const SOON: Duration = Duration::from_secs(20);

/// How long a test waits for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn soon<R>(what: impl Future<Output = R>) -> R {
    timeout(SOON, what).await.expect("it took too long")
}

fn options(seed: Option<u8>) -> IrohOptions {
    IrohOptions {
        reach: Reach::Loopback,
        secret_key: seed.map(|seed| SecretKey::from_bytes([seed; 32])),
        port: 0,
    }
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
    let (id, ip) = address.as_str().split_once("?ip=").unwrap();
    let id: iroh::EndpointId = id.strip_prefix("iroh:").unwrap().parse().unwrap();
    iroh::EndpointAddr::new(id).with_ip_addr(ip.parse().unwrap())
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

/// How many bytes a stream takes until it takes no more.
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
    assert_eq!((a.name(), b.name()), ("iroh", "iroh"));
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
        // Who reads last closes.
        there.closed().await
    };
    let (got, error) = soon(async { tokio::join!(send, answer) }).await;
    assert!(got == all);
    assert_eq!(error.kind(), Kind::Closed);
}

#[tokio::test]
async fn a_clean_end_is_told_once_and_for_all() {
    let (_a, _b, here, there) = pair().await;
    // Nothing but an end is something, too.
    let mut out = here.open().await.unwrap();
    out.send.shutdown().await.unwrap();
    let mut back = soon(there.accept()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(soon(back.recv.read(&mut [0; 8])).await.unwrap(), 0);
    }
    // A stream that was shut down takes no more, and shuts down again.
    out.send.shutdown().await.unwrap();
    let error = out.send.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // What was shut down arrives though its sender is dropped.
    let (mut out, mut back) = stream(&here, &there).await;
    let all = bytes(STREAM_WINDOW as usize / 2);
    send_all(&mut out, &all).await;
    drop(out);
    assert!(read_all(&mut back).await == all);
    assert_eq!(back.recv.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_was_not_shut_down_never_looks_complete() {
    let (_a, _b, here, there) = pair().await;
    let (mut out, mut back) = stream(&here, &there).await;
    out.send.write_all(b"half").await.unwrap();
    drop(out.send);
    let mut got = Vec::new();
    let error = soon(back.recv.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // And not to who asks again.
    for _ in 0..3 {
        let error = back.recv.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    // The other direction lives on.
    send_all(&mut back, b"answer").await;
    let mut answer = Vec::new();
    soon(out.recv.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
}

#[tokio::test]
async fn who_does_not_read_any_more_tells_the_writer() {
    let (_a, _b, here, there) = pair().await;
    let (mut out, back) = stream(&here, &there).await;
    drop(back.recv);
    let pour = async {
        loop {
            if let Err(error) = out.send.write(&[0; 1024]).await {
                break error;
            }
        }
    };
    assert_eq!(soon(pour).await.kind(), ErrorKind::BrokenPipe);
    let error = out.send.write(b"?").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let error = out.send.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // A writer that waits already is told, too.
    let (mut out, back) = stream(&here, &there).await;
    let taken = fill(&mut out).await;
    assert!(taken > 0);
    let (error, ()) = tokio::join!(soon(out.send.write(b"?")), async { drop(back.recv) });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut send = back.send;
    send.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    soon(out.recv.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"still here");
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
async fn what_is_cancelled_loses_nothing() {
    let (a, b, here, there) = pair().await;
    for n in 0..20u64 {
        let accepting = async {
            let wait = Duration::from_micros(n * 50);
            loop {
                if let Ok(done) = timeout(wait, there.accept()).await {
                    break done.unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let mut out = here.open().await.unwrap();
        out.send.write_all(b"whole").await.unwrap();
        out.send.shutdown().await.unwrap();
        let mut back = soon(accepting).await;
        // Byte by byte, and with impatience.
        let mut got = Vec::new();
        loop {
            match timeout(Duration::from_micros(n), back.recv.read_u8()).await {
                Ok(Ok(byte)) => got.push(byte),
                Ok(Err(error)) => break assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        assert_eq!(got, b"whole");
    }
    // Several may wait; each stream and connection goes to one of them.
    let (mut one, mut two) = (there.accept(), there.accept());
    assert!((&mut one).now_or_never().is_none() && (&mut two).now_or_never().is_none());
    drop(one);
    let (_out, _back) = (here.open().await.unwrap(), ());
    let mut out = here.open().await.unwrap();
    out.send.write_all(b"?").await.unwrap();
    soon(two).await.unwrap();
    timeout(A_WHILE, b.accept()).await.unwrap_err();
    let (first, second) = (b.accept(), b.accept());
    let to = address(&b);
    let calls = async { tokio::join!(a.connect(&to, None), a.connect(&to, None)) };
    let (calls, first, second) = soon(async { tokio::join!(calls, first, second) }).await;
    let mut here = [calls.0.unwrap().binding(), calls.1.unwrap().binding()];
    let mut there = [first.unwrap().binding(), second.unwrap().binding()];
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there);
}

#[tokio::test]
async fn a_close_tells_why() {
    let (a, b, here, there) = pair().await;
    let (mut out, mut back) = stream(&here, &there).await;
    here.close(&"ä".repeat(MAX_REASON_LEN));
    here.close("again");
    let error = soon(there.closed()).await;
    assert_eq!(error.kind(), Kind::Closed);
    let reason = error.context().find(|(key, _)| *key == "reason");
    assert_eq!(reason.unwrap().1, "ä".repeat(MAX_REASON_LEN / 2));
    assert_eq!(soon(here.closed()).await.kind(), Kind::Closed);
    // Every half says so, with the connection's error behind its own.
    let mut errors = vec![
        out.recv.read_u8().await.unwrap_err(),
        out.send.write(b"?").await.unwrap_err(),
        out.send.shutdown().await.unwrap_err(),
        back.recv.read_u8().await.unwrap_err(),
        back.recv.read_u8().await.unwrap_err(),
        back.send.shutdown().await.unwrap_err(),
    ];
    for error in errors.drain(..) {
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        let error = error.into_inner().unwrap();
        let error = error.downcast::<store_api::Error>().unwrap();
        assert_eq!(error.kind(), Kind::Closed);
    }
    for conn in [&here, &there] {
        assert_eq!(soon(conn.open()).await.unwrap_err().kind(), Kind::Closed);
        assert_eq!(soon(conn.accept()).await.unwrap_err().kind(), Kind::Closed);
    }
    // What the other side says is shown without its control characters.
    let (here, there) = connect(&a, &b).await;
    there.close("line\nnext\u{1b}[31m");
    let error = soon(here.closed()).await.to_string();
    let text = "network.connection: closed: the other side closed it (reason=line\u{fffd}next\u{fffd}[31m)";
    assert_eq!(error, text);
}

#[tokio::test]
async fn the_last_handle_closes() {
    let (_a, _b, here, there) = pair().await;
    let (out, _back) = stream(&here, &there).await;
    drop(here);
    let Stream { send, recv } = out;
    drop(send);
    assert!(timeout(A_WHILE, there.closed()).await.is_err());
    drop(recv);
    assert_eq!(soon(there.closed()).await.kind(), Kind::Closed);
}

#[tokio::test]
async fn closing_ends_all_that_waits() {
    let (a, b, here, there) = pair().await;
    let (_out, mut back) = stream(&here, &there).await;
    let (mut watch, mut other): (AddressWatch, _) = (a.watch_addresses(), b.watch_addresses());
    assert_eq!(watch.next().await.unwrap(), a.addresses());
    // A port where nobody answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = format!("iroh:{}?ip={}", key(3), silent.local_addr().unwrap());
    let waiting = tokio::spawn({
        let (a, here) = (a.clone(), here.clone());
        async move {
            let nobody = Address::new(nobody).unwrap();
            let (connection, other, call, stream, why, watch) = tokio::join!(
                a.accept(),
                a.accept(),
                a.connect(&nobody, None),
                here.accept(),
                here.closed(),
                watch.next(),
            );
            let kinds = [
                connection.unwrap_err().kind(),
                other.unwrap_err().kind(),
                call.unwrap_err().kind(),
                stream.unwrap_err().kind(),
                why.kind(),
            ];
            assert_eq!(kinds, [Kind::Closed; 5]);
            assert_eq!(watch, None);
        }
    });
    sleep(A_WHILE).await;
    assert!(!waiting.is_finished());
    let start = Instant::now();
    soon(async { tokio::join!(a.close(), a.close()) }).await;
    soon(a.close()).await;
    soon(waiting).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(here.open().await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(a.accept().await.unwrap_err().kind(), Kind::Closed);
    let error = a.connect(&address(&b), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    assert!(a.addresses().is_empty());
    // The others are told, not left to find out.
    let error = soon(back.recv.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(soon(there.closed()).await.kind(), Kind::Closed);
    assert_eq!(other.next().await.unwrap(), b.addresses());
    assert!(timeout(A_WHILE, other.next()).await.is_err());
}

#[tokio::test]
async fn a_network_that_is_dropped_closes() {
    let (a, _b, here, there) = pair().await;
    let (mut out, mut back) = stream(&here, &there).await;
    out.send.write_all(b"half").await.unwrap();
    drop(a);
    let mut got = Vec::new();
    let error = soon(back.recv.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(soon(there.closed()).await.kind(), Kind::Closed);
    assert_eq!(soon(here.closed()).await.kind(), Kind::Closed);
}

#[tokio::test]
async fn a_crash_never_looks_like_an_end() {
    let b = node().await;
    let to = address(&b);
    // A node in a runtime of its own, that is gone from one moment to the next.
    let (crash, crashing) = std::sync::mpsc::channel();
    let node = thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let held = runtime.block_on(async {
            // Who is not there any more is noticed when the shorter of both sides' patience ends.
            let patience = iroh::endpoint::VarInt::from_u32(1000);
            let transport = iroh::endpoint::QuicTransportConfig::builder()
                .max_idle_timeout(Some(patience.into()))
                .keep_alive_interval(A_WHILE)
                .build();
            let endpoint = quiet().transport_config(transport).bind().await.unwrap();
            let here = endpoint.connect(foreign(&to), ALPN).await.unwrap();
            let (mut out, back) = here.open_bi().await.unwrap();
            out.write_all(b"half").await.unwrap();
            (endpoint, here, out, back)
        });
        crashing.recv().unwrap();
        runtime.shutdown_background();
        std::mem::forget(held);
    });
    let there = soon(b.accept()).await.unwrap();
    let mut back = soon(there.accept()).await.unwrap();
    let mut got = [0; 4];
    soon(back.recv.read_exact(&mut got)).await.unwrap();
    crash.send(()).unwrap();
    node.join().unwrap();
    let error = soon(back.recv.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = error.into_inner().unwrap();
    let error = error.downcast::<store_api::Error>().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(there.closed().await.kind(), Kind::Unavailable);
    assert_eq!(
        back.recv.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(there.open().await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn who_cannot_be_reached_is_unavailable() {
    let (a, b) = tokio::join!(node(), node());
    let kind = async |to: &str, expect| {
        let to = Address::new(to).unwrap();
        a.connect(&to, expect).await.unwrap_err().kind()
    };
    let (own, other) = (address(&a), address(&b));
    for garbage in ["sim:1", "iroh:", "iroh:zz", &format!("{other}&port=1")] {
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
    let nobody = Address::new(nobody).unwrap();
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
async fn a_key_and_a_port_stay() {
    let node = IrohNetwork::bind(options(Some(5))).await.unwrap();
    let secret = iroh::SecretKey::from_bytes(&[5; 32]);
    assert_eq!(node.key(), PublicKey(*secret.public().as_bytes()));
    let address = node.addresses().remove(0);
    let text = address.as_str();
    let (id, port) = text.split_once("?ip=127.0.0.1:").unwrap();
    assert_eq!(id, format!("iroh:{}", node.key()));
    let port: u16 = port.parse().unwrap();
    let taken = IrohNetwork::bind(IrohOptions {
        port,
        ..options(None)
    })
    .await;
    assert_eq!(taken.unwrap_err().kind(), Kind::Unavailable);
    node.close().await;
    drop(node);
    // The library's tasks let go of the port a little later.
    let again = soon(async {
        loop {
            let options = IrohOptions {
                port,
                ..options(Some(5))
            };
            if let Ok(node) = IrohNetwork::bind(options).await {
                break node;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let again = again.await;
    assert_eq!(again.addresses(), [address]);
    assert!(!format!("{again:?}").is_empty());
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

#[tokio::test]
async fn an_endpoint_that_is_there_will_do() {
    let endpoint = quiet().bind().await.unwrap();
    let a: Arc<dyn Network> = Arc::new(IrohNetwork::over(endpoint.clone()));
    let b = node().await;
    let (here, there) = connect(&a, &b).await;
    let (back, forth) = connect(&b, &a).await;
    stream(&here, &there).await;
    stream(&back, &forth).await;
    // It has the limits of the others.
    let mut out = soon(back.open()).await.unwrap();
    let taken = fill(&mut out).await;
    assert!(taken <= STREAM_WINDOW as usize, "{taken}");
    // Whoever closes the endpoint closes the network.
    endpoint.close().await;
    assert_eq!(soon(a.accept()).await.unwrap_err().kind(), Kind::Closed);
    let error = soon(a.connect(&address(&b), None)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    soon(a.close()).await;
    assert_eq!(ALPN, b"larder/sync/1");
}

#[tokio::test]
#[ignore = "needs a network that carries multicast"]
async fn neighbours_find_each_other_by_key() {
    let bind = || async {
        let options = IrohOptions::default();
        assert_eq!(options.reach, Reach::LanOnly);
        Arc::new(IrohNetwork::bind(options).await.unwrap()) as Arc<dyn Network>
    };
    let (a, b) = (bind().await, bind().await);
    let to = Address::new(format!("iroh:{}", b.key())).unwrap();
    let (here, there) = soon(async { tokio::join!(a.connect(&to, None), b.accept()) }).await;
    stream(&here.unwrap(), &there.unwrap()).await;
    a.close().await;
    b.close().await;
}
