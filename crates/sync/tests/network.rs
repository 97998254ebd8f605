//! What the simulated network promises to those who test over it.

use std::{
    io::ErrorKind,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all};
use proptest::{collection::vec, prelude::*};
use store_api::{Kind, PublicKey};
use sync::network::{
    Address, Connection, MAX_ADDRESS_LEN, MAX_REASON_LEN, Network, Stream,
    sim::{
        CONNECT_TIMEOUT, Flow, Held, IDLE_TIMEOUT, Limits, Link, MAX_BACKLOG, MAX_STREAMS,
        STREAM_WINDOW, SimNetwork,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

const MIB: usize = 1024 * 1024;

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn latency(n: u64) -> Link {
    Link {
        latency: millis(n),
        ..Link::default()
    }
}

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

async fn connect(from: &Arc<dyn Network>, to: &Arc<dyn Network>) -> (Connection, Connection) {
    let here = from.connect(&to.addresses()[0], Some(to.key())).await;
    (here.unwrap(), to.accept().await.unwrap())
}

/// Two nodes, connected.
async fn pair(sim: &SimNetwork) -> (Arc<dyn Network>, Arc<dyn Network>, Connection, Connection) {
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let (here, there) = connect(&a, &b).await;
    (a, b, here, there)
}

/// A stream that both sides know; one byte has crossed it.
async fn stream(here: &Connection, there: &Connection) -> (Stream, Stream) {
    let mut out = here.open().await.unwrap();
    out.send.write_all(b"!").await.unwrap();
    let mut back = there.accept().await.unwrap();
    assert_eq!(back.recv.read_u8().await.unwrap(), b'!');
    (out, back)
}

async fn send_all(stream: &mut Stream, bytes: &[u8]) {
    stream.send.write_all(bytes).await.unwrap();
    stream.send.shutdown().await.unwrap();
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.recv.read_to_end(&mut got).await.unwrap();
    got
}

fn near(measured: Duration, expected: Duration, percent: u32) {
    let off = measured.abs_diff(expected);
    assert!(
        off * 100 <= expected * percent,
        "{measured:?}, not {expected:?}"
    );
}

/// How long it takes to get so many bytes across.
async fn transfer(here: &Connection, there: &Connection, len: usize) -> Duration {
    let start = Instant::now();
    let send = async {
        let mut out = here.open().await.unwrap();
        send_all(&mut out, &vec![7; len]).await;
        out
    };
    let receive = async { read_all(&mut there.accept().await.unwrap()).await.len() };
    let (_out, got) = tokio::join!(send, receive);
    assert_eq!(got, len);
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_and_whole() {
    let sim = SimNetwork::new(1);
    sim.set_default_link(Link {
        latency: millis(20),
        jitter: millis(30),
        bandwidth: Some(3_000_000),
        ..Link::default()
    });
    let (_a, _b, here, there) = pair(&sim).await;
    assert_eq!((here.peer(), there.peer()), (key(2), key(1)));
    let all = bytes(2 * MIB + 12_345);
    let send = async {
        let mut out = here.open().await.unwrap();
        for (n, piece) in all.chunks(70_001).enumerate() {
            let (one, rest) = piece.split_at(n.min(piece.len()));
            out.send.write_all(one).await.unwrap();
            out.send.write_all(rest).await.unwrap();
        }
        out.send.shutdown().await.unwrap();
        read_all(&mut out).await
    };
    let answer = async {
        let mut back = there.accept().await.unwrap();
        let got = read_all(&mut back).await;
        send_all(&mut back, &got).await;
        there.closed().await.kind()
    };
    let finish = async {
        let got = send.await;
        here.close("done");
        got
    };
    let (got, kind) = tokio::join!(finish, answer);
    assert!(got == all);
    assert_eq!(kind, Kind::Closed);
    let (sent, total) = (sim.traffic(key(1)), sim.total());
    assert_eq!(sent.sent, all.len() as u64);
    assert_eq!(sent.received, all.len() as u64);
    assert_eq!((sent.connections, sent.streams), (1, 1));
    assert_eq!(total.sent, 2 * all.len() as u64);
    sleep(millis(100)).await;
    assert_eq!(sim.held(), Held::default());
}

#[tokio::test(start_paused = true)]
async fn latency_is_what_it_says() {
    let sim = SimNetwork::new(2);
    sim.set_default_link(latency(70));
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let start = Instant::now();
    let here = a.connect(&b.addresses()[0], None).await.unwrap();
    assert_eq!(start.elapsed(), millis(140));
    let there = b.accept().await.unwrap();
    assert_eq!(start.elapsed(), millis(210));
    let (mut out, mut back) = stream(&here, &there).await;
    assert_eq!(start.elapsed(), millis(280));
    back.send.write_all(b"?").await.unwrap();
    out.recv.read_u8().await.unwrap();
    assert_eq!(start.elapsed(), millis(350));
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_what_it_says_and_links_share_nothing() {
    let sim = SimNetwork::new(3);
    let (a, b, here, there) = pair(&sim).await;
    let c = sim.node(key(3));
    let (to_c, from_a) = connect(&a, &c).await;
    let link = |bandwidth| Link {
        bandwidth: Some(bandwidth),
        ..latency(10)
    };
    sim.set_links(a.key(), b.key(), link(100_000));
    sim.set_links(a.key(), c.key(), link(20_000_000));
    let slow = transfer(&here, &there, MIB);
    let fast = transfer(&to_c, &from_a, 64 * MIB);
    let (slow, fast) = tokio::join!(slow, fast);
    near(slow, Duration::from_secs_f64(MIB as f64 / 1e5 + 0.01), 1);
    near(
        fast,
        Duration::from_secs_f64(64.0 * MIB as f64 / 2e7 + 0.01),
        1,
    );
    // A fast link, whose chunks take less than a tick of the clock.
    let link = Link {
        bandwidth: Some(200_000_000),
        ..latency(1)
    };
    sim.set_links(a.key(), b.key(), link);
    let fastest = transfer(&here, &there, 64 * MIB).await;
    near(fastest, Duration::from_secs_f64(64.0 * MIB as f64 / 2e8), 2);
    // A stream has at most its window on the way.
    sim.set_links(a.key(), b.key(), latency(100));
    let long = transfer(&here, &there, 64 * MIB).await;
    near(long, millis(64 * 100), 2);
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_link_share_it_fairly() {
    let sim = SimNetwork::new(4);
    sim.set_default_link(Link {
        bandwidth: Some(1_000_000),
        ..latency(10)
    });
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut bulk, mut bulk_back) = stream(&here, &there).await;
    let (mut small, mut small_back) = stream(&here, &there).await;
    let pour = async {
        let all = vec![0; 4 * MIB];
        bulk.send.write_all(&all).await.unwrap();
    };
    let drain = async { while bulk_back.recv.read(&mut [0; 65536]).await.unwrap() > 0 {} };
    let ask = async {
        sleep(millis(500)).await;
        let start = Instant::now();
        small.send.write_all(b"?").await.unwrap();
        small_back.recv.read_u8().await.unwrap();
        start.elapsed()
    };
    tokio::select! {
        biased;
        took = ask => assert!(took < millis(40), "{took:?}"),
        () = async { tokio::join!(pour, drain); } => panic!("the bulk was faster"),
    }
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_node_hold_over_its_links() {
    let sim = SimNetwork::new(5);
    sim.set_default_link(latency(5));
    let nodes: Vec<_> = (1..=4).map(|n| sim.node(key(n))).collect();
    sim.set_limits(
        key(1),
        Limits {
            up: Some(1_000_000),
            down: Some(2_000_000),
        },
    );
    let (mut out, mut into) = (Vec::new(), Vec::new());
    for other in &nodes[1..] {
        out.push(connect(&nodes[0], other).await);
        into.push(connect(other, &nodes[0]).await);
    }
    for (pairs, seconds) in [(out, 3.0), (into, 1.5)] {
        let all = pairs.iter().map(|(a, b)| transfer(a, b, 1_000_000));
        for took in join_all(all).await {
            near(took, Duration::from_secs_f64(seconds), 4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_its_reader() {
    let sim = SimNetwork::new(6);
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut out, mut back) = stream(&here, &there).await;
    let all = vec![1; 8 * MIB];
    let write = timeout(millis(1000), out.send.write_all(&all)).await;
    assert!(write.is_err(), "nobody reads");
    assert_eq!(sim.held().bytes, STREAM_WINDOW);
    // Room is given to the writer as it is made.
    let mut some = vec![0; 100_000];
    back.recv.read_exact(&mut some).await.unwrap();
    let more = out.send.write(&all).await.unwrap();
    assert!(more > 0 && sim.held().bytes <= STREAM_WINDOW);
    // Whoever does not read any more is told of.
    drop(back.recv);
    let error = out.send.write_all(&all).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(sim.held().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_freed() {
    let sim = SimNetwork::new(7);
    let (_a, _b, here, there) = pair(&sim).await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        open.push(here.open().await.unwrap());
    }
    assert!(timeout(millis(100), here.open()).await.is_err());
    // The other side hears of none of them, and has its own.
    assert!(there.accept().now_or_never().is_none());
    let _ = there.open().await.unwrap();
    open.pop();
    open.push(here.open().now_or_never().unwrap().unwrap());
    drop(open);
    assert_eq!((sim.held().streams, sim.held().bytes), (0, 0));
    let (out, back) = stream(&here, &there).await;
    drop((out, back));
    sleep(millis(1)).await;
    assert_eq!(sim.held().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_shut_down_never_looks_complete() {
    let sim = SimNetwork::new(8);
    sim.set_default_link(latency(10));
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut out, mut back) = stream(&here, &there).await;
    out.send.write_all(b"half").await.unwrap();
    drop(out.send);
    let error = back.recv.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The other direction lives on.
    send_all(&mut back, b"answer").await;
    let mut answer = Vec::new();
    out.recv.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let error = back.send.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_crash_never_looks_like_an_end() {
    // However much had left, and though the sender had shut its stream down.
    for wait in [0, 1, 5, 50, 150, 400] {
        let sim = SimNetwork::new(9);
        sim.set_default_link(Link {
            bandwidth: Some(2_000_000),
            jitter: millis(5),
            ..latency(10)
        });
        let (a, b, here, there) = pair(&sim).await;
        let (mut out, mut back) = stream(&here, &there).await;
        send_all(&mut out, &vec![1; STREAM_WINDOW]).await;
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            back.recv.read_to_end(&mut got).await.map_err(|e| e.kind())
        });
        sleep(millis(wait)).await;
        sim.crash(key(1));
        assert_eq!(reader.await.unwrap(), Err(ErrorKind::ConnectionReset));
        // The dead know it at once, the living a little later.
        assert_eq!(here.closed().await.kind(), Kind::Closed);
        assert_eq!(there.closed().await.kind(), Kind::Unavailable);
        let error = out.recv.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert_eq!(a.accept().await.unwrap_err().kind(), Kind::Closed);
        let error = a.connect(&b.addresses()[0], None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Closed);
        assert!(a.addresses().is_empty());
        // It can come back; its earlier life does not.
        let again = sim.node(key(1));
        connect(&b, &again).await;
        assert_eq!(a.accept().await.unwrap_err().kind(), Kind::Closed);
        drop((out, here, there));
        sleep(millis(100)).await;
        assert_eq!(sim.held(), Held::default());
    }
}

#[tokio::test(start_paused = true)]
async fn without_power_nobody_is_told() {
    let sim = SimNetwork::new(10);
    let (_a, _b, _here, there) = pair(&sim).await;
    let start = Instant::now();
    sim.unplug(key(1));
    assert_eq!(there.closed().await.kind(), Kind::Unavailable);
    assert_eq!(start.elapsed(), IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_delays_and_a_long_one_breaks() {
    let sim = SimNetwork::new(11);
    sim.set_default_link(latency(10));
    let (a, b, here, there) = pair(&sim).await;
    let c = sim.node(key(3));
    let (to_c, from_b) = connect(&b, &c).await;
    let (mut out, mut back) = stream(&here, &there).await;
    out.send.write_all(b"on its way").await.unwrap();
    sim.partition(&[key(1)]);
    out.send.write_all(b", waiting").await.unwrap();
    out.send.shutdown().await.unwrap();
    assert!(timeout(millis(20_000), back.recv.read_u8()).await.is_err());
    // The others are not cut.
    stream(&to_c, &from_b).await;
    sim.heal();
    assert_eq!(read_all(&mut back).await, b"on its way, waiting");
    sleep(IDLE_TIMEOUT).await;
    let (mut out, mut back) = stream(&here, &there).await;
    sim.partition(&[key(1)]);
    let start = Instant::now();
    let error = back.recv.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(start.elapsed(), IDLE_TIMEOUT);
    assert!(out.send.write(b"?").await.is_err());
    let start = Instant::now();
    let error = a.connect(&b.addresses()[0], None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(start.elapsed(), CONNECT_TIMEOUT);
    sim.heal();
    let (here, there) = connect(&a, &b).await;
    stream(&here, &there).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_link_takes_and_never_gives() {
    let sim = SimNetwork::new(12);
    sim.set_default_link(latency(10));
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut out, mut back) = stream(&here, &there).await;
    let stalled = Link {
        flow: Flow::Stalled,
        ..latency(10)
    };
    sim.set_link(key(1), key(2), stalled);
    let all = bytes(STREAM_WINDOW);
    send_all(&mut out, &all).await;
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, back.recv.read_u8()).await.is_err());
    assert!(there.closed().now_or_never().is_none());
    // The other direction is as it was.
    back.send.write_all(b"?").await.unwrap();
    out.recv.read_u8().await.unwrap();
    sim.set_link(key(1), key(2), latency(10));
    assert!(read_all(&mut back).await == all);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_unavailable() {
    let sim = SimNetwork::new(13);
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let kind = async |to: &str, expect| {
        let to = Address::new(to).unwrap();
        a.connect(&to, expect).await.unwrap_err().kind()
    };
    assert_eq!(kind("sim:99", None).await, Kind::Unavailable);
    assert_eq!(kind("veilid:99", None).await, Kind::Invalid);
    assert_eq!(kind("sim:-1", None).await, Kind::Invalid);
    assert_eq!(kind("sim:0", None).await, Kind::Invalid);
    assert_eq!(kind("sim:1", Some(key(3))).await, Kind::Denied);
    // Who moved is no longer where it was.
    let mut watch = b.watch_addresses();
    assert_eq!(watch.next().await.unwrap(), b.addresses());
    sim.readdress(key(2));
    assert_eq!(kind("sim:1", None).await, Kind::Unavailable);
    assert_eq!(watch.next().await.unwrap(), b.addresses());
    assert_eq!(b.addresses(), [Address::new("sim:2").unwrap()]);
    connect(&a, &b).await;
    sim.crash(key(2));
    assert_eq!(kind("sim:2", None).await, Kind::Unavailable);
    assert_eq!(watch.next().await, None);
    // Half of all calls fail.
    let b = sim.node(key(2));
    sim.set_default_link(Link {
        connect_failure: 0.5,
        ..Link::default()
    });
    let mut failed = 0;
    for _ in 0..200 {
        match a.connect(&b.addresses()[0], None).await {
            Ok(_) => drop(b.accept().await.unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable);
                failed += 1;
            }
        }
    }
    assert!((70..130).contains(&failed), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn connections_nobody_accepts_are_bounded() {
    let sim = SimNetwork::new(14);
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let mut open = Vec::new();
    for _ in 0..=MAX_BACKLOG {
        open.push(a.connect(&b.addresses()[0], None).await.unwrap());
    }
    let last = open.pop().unwrap();
    assert_eq!(last.closed().await.kind(), Kind::Unavailable);
    assert_eq!(sim.held().connections, MAX_BACKLOG);
    drop(open);
    // Those that ended meanwhile are not handed out.
    sleep(millis(1)).await;
    assert!(b.accept().now_or_never().is_none());
    assert_eq!(sim.held(), Held::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_leaves_nothing() {
    let sim = SimNetwork::new(15);
    sim.set_default_link(latency(50));
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    for wait in [0, 1, 50, 99, 100, 101, 150, 200] {
        let address = b.addresses().remove(0);
        let calling = a.connect(&address, None);
        timeout(millis(wait), calling).await.ok();
        sleep(millis(500)).await;
        assert_eq!(sim.held(), Held::default(), "after {wait} ms");
    }
    assert!(timeout(millis(10), b.accept()).await.is_err());
    let (here, there) = connect(&a, &b).await;
    timeout(millis(1), there.accept()).await.unwrap_err();
    for touch in [false, true] {
        let mut out = here.open().await.unwrap();
        if touch {
            out.send.write_all(b"x").await.unwrap();
        }
        drop(out);
        sleep(millis(100)).await;
        assert_eq!(sim.held().bytes, 0);
        assert_eq!(sim.held().streams, usize::from(touch));
    }
    let mut reset = there.accept().await.unwrap();
    assert!(reset.recv.read_u8().await.is_err());
    drop(reset);
    assert_eq!(sim.held().streams, 0);
    // Nothing was lost by giving up.
    let (mut out, mut back) = stream(&here, &there).await;
    timeout(millis(10), back.recv.read_u8()).await.unwrap_err();
    out.send.write_all(b"y").await.unwrap();
    assert_eq!(back.recv.read_u8().await.unwrap(), b'y');
}

#[tokio::test(start_paused = true)]
async fn closing_ends_all_that_waits() {
    let sim = SimNetwork::new(16);
    sim.set_default_link(latency(10));
    let (a, b, here, there) = pair(&sim).await;
    let (_out, mut back) = stream(&here, &there).await;
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.accept().await.unwrap_err().kind() }
    });
    let calling = tokio::spawn({
        let (a, to) = (a.clone(), b.addresses().remove(0));
        async move { a.connect(&to, None).await.unwrap_err().kind() }
    });
    sleep(millis(1)).await;
    let start = Instant::now();
    a.close().await;
    a.close().await;
    assert_eq!(waiting.await.unwrap(), Kind::Closed);
    assert_eq!(calling.await.unwrap(), Kind::Closed);
    assert_eq!(here.accept().await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(here.open().await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let error = back.recv.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let error = error.into_inner().unwrap();
    let error = error.downcast::<store_api::Error>().unwrap();
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(there.closed().await.kind(), Kind::Closed);
    let error = b.connect(&Address::new("sim:0").unwrap(), None).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_close_tells_why_and_takes_what_was_not_read() {
    let sim = SimNetwork::new(17);
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut out, mut back) = stream(&here, &there).await;
    send_all(&mut out, b"unread").await;
    here.close(&"ä".repeat(MAX_REASON_LEN));
    here.close("again");
    let error = there.closed().await;
    let reason = error.context().find(|(key, _)| *key == "reason");
    assert_eq!(reason.unwrap().1, "ä".repeat(MAX_REASON_LEN / 2));
    let error = back.recv.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    // The last handle closes, be it a stream.
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let (here, there) = connect(&a, &b).await;
    let (out, _back) = stream(&here, &there).await;
    drop(here);
    let Stream { send, recv } = out;
    drop(send);
    assert!(timeout(millis(10), there.closed()).await.is_err());
    drop(recv);
    assert_eq!(there.closed().await.kind(), Kind::Closed);
}

#[tokio::test(start_paused = true)]
async fn connections_break_as_often_as_they_should() {
    let sim = SimNetwork::new(18);
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    sim.set_link(
        key(1),
        key(2),
        Link {
            breaks_per_second: 0.1,
            ..latency(1)
        },
    );
    let (mut total, count) = (Duration::ZERO, 300);
    for _ in 0..count {
        let (here, there) = connect(&a, &b).await;
        let start = Instant::now();
        assert_eq!(here.closed().await.kind(), Kind::Unavailable);
        assert_eq!(there.closed().await.kind(), Kind::Unavailable);
        total += start.elapsed();
    }
    near(total / count, Duration::from_secs(10), 15);
    sim.set_link(
        key(1),
        key(2),
        Link {
            breaks_per_byte: 1e-6,
            ..latency(1)
        },
    );
    let mut sent = 0;
    for _ in 0..count {
        let (here, there) = connect(&a, &b).await;
        let (mut out, mut back) = stream(&here, &there).await;
        let before = sim.traffic(key(1)).sent;
        let pour = async { while out.send.write_all(&[0; 65536]).await.is_ok() {} };
        let drain = async { while back.recv.read(&mut [0; 65536]).await.is_ok() {} };
        tokio::join!(pour, drain);
        sent += sim.traffic(key(1)).sent - before;
    }
    let mean = sent / u64::from(count);
    assert!((850_000..1_200_000).contains(&mean), "{mean}");
    let (here, there) = connect(&a, &b).await;
    sim.break_connections(key(2), key(1));
    assert_eq!(here.closed().await.kind(), Kind::Unavailable);
    assert_eq!(there.closed().await.kind(), Kind::Unavailable);
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true);
    runtime.build().unwrap()
}

/// Five nodes that talk a lot over bad links, while some crash and some are cut.
async fn scenario(seed: u64) -> (Vec<String>, u64) {
    let sim = SimNetwork::new(seed);
    sim.set_default_link(Link {
        latency: millis(20),
        jitter: millis(40),
        bandwidth: Some(1_000_000),
        breaks_per_second: 0.05,
        breaks_per_byte: 1e-7,
        connect_failure: 0.2,
        ..Link::default()
    });
    let talk = |n: u8| {
        let sim = sim.clone();
        async move {
            let me = sim.node(key(n));
            let serve = tokio::spawn({
                let me = me.clone();
                async move {
                    while let Ok(conn) = me.accept().await {
                        tokio::spawn(async move {
                            while let Ok(mut stream) = conn.accept().await {
                                let mut got = Vec::new();
                                if stream.recv.read_to_end(&mut got).await.is_ok() {
                                    stream.send.write_all(&got).await.ok();
                                    stream.send.shutdown().await.ok();
                                }
                            }
                        });
                    }
                }
            });
            for round in 0..4u8 {
                let to = Address::new(format!("sim:{}", (n + round) % 5)).unwrap();
                let Ok(conn) = me.connect(&to, None).await else {
                    continue;
                };
                if let Ok(mut stream) = conn.open().await {
                    let sent = vec![n; 100_000 * usize::from(round + 1)];
                    stream.send.write_all(&sent).await.ok();
                    stream.send.shutdown().await.ok();
                    let mut got = Vec::new();
                    if stream.recv.read_to_end(&mut got).await.is_ok() {
                        assert!(got == sent);
                    }
                }
            }
            me.close().await;
            serve.await.unwrap();
        }
    };
    let trouble = async {
        sleep(millis(700)).await;
        sim.partition(&[key(1), key(2)]);
        sleep(millis(900)).await;
        sim.heal();
        sim.crash(key(4));
        sim.note("trouble is over");
    };
    tokio::join!(talk(1), talk(2), talk(3), talk(4), talk(5), trouble);
    assert!(sim.total().received > 0);
    (sim.trace(), sim.fingerprint())
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| runtime().block_on(scenario(seed));
    let mut seen = Vec::new();
    for seed in 0..20 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.0, second.0, "seed {seed}");
        assert_eq!(first.1, second.1, "seed {seed}");
        assert!(!seen.contains(&first.1), "chance plays no part");
        assert!(first.0.iter().any(|l| l.ends_with("-- trouble is over")));
        seen.push(first.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_liar_is_tampered_with_and_nobody_else() {
    let sim = SimNetwork::new(19);
    let (_a, _b, here, there) = pair(&sim).await;
    sim.set_tamper(
        key(1),
        Some(Box::new(|crossing, bytes| {
            assert_eq!((crossing.from, crossing.to), (key(1), key(2)));
            let mut bytes = bytes.to_vec();
            // The tenth byte of each stream, however it is cut.
            let nth = 9u64.checked_sub(crossing.offset);
            if let Some(byte) = nth.and_then(|n| bytes.get_mut(n as usize)) {
                *byte ^= 0xff;
            }
            Bytes::from(bytes)
        })),
    );
    let mut out = here.open().await.unwrap();
    out.send.write_all(&[1; 5]).await.unwrap();
    send_all(&mut out, &[1; 10]).await;
    let mut back = there.accept().await.unwrap();
    let mut expected = vec![1; 15];
    expected[9] = 0xfe;
    assert_eq!(read_all(&mut back).await, expected);
    send_all(&mut back, &[1; 15]).await;
    assert_eq!(read_all(&mut out).await, [1; 15]);
    // A liar may say more than it was asked to, or nothing.
    sim.set_tamper(key(1), Some(Box::new(|_, bytes| bytes.repeat(2).into())));
    let mut out = here.open().await.unwrap();
    send_all(&mut out, b"ab").await;
    let mut back = there.accept().await.unwrap();
    assert_eq!(read_all(&mut back).await, b"abab");
    sim.set_tamper(key(1), Some(Box::new(|_, _| Bytes::new())));
    let mut out = here.open().await.unwrap();
    send_all(&mut out, b"ab").await;
    let mut back = there.accept().await.unwrap();
    assert_eq!(read_all(&mut back).await, b"");
    sim.set_tamper(key(1), None);
    assert_eq!(sim.held().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_found_however_it_is_cut() {
    let sim = SimNetwork::new(20);
    let (_a, _b, here, there) = pair(&sim).await;
    sim.search_for(&["canary", "never said", "goodbye"])
        .unwrap();
    let (mut out, mut back) = stream(&here, &there).await;
    out.send.write_all(b"a can").await.unwrap();
    sleep(millis(5)).await;
    back.send.write_all(b"ary").await.unwrap();
    assert!(sim.findings().is_empty());
    out.send.write_all(b"ary").await.unwrap();
    let found = sim.findings();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].pattern, found[0].offset), (0, 3));
    assert_eq!((found[0].from, found[0].to), (key(1), key(2)));
    assert_eq!((found[0].connection, found[0].stream), (0, Some(0)));
    there.close("well, goodbye then");
    let last = sim.findings().remove(1);
    assert_eq!((last.pattern, last.from, last.stream), (2, key(2), None));
    let none: [&str; 0] = [];
    for refused in [&none[..], &["abc"], &[&"x".repeat(1025)]] {
        let error = sim.search_for(refused).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

proptest! {
    #[test]
    fn a_search_finds_all_that_is_there(
        patterns in vec("[ab]{4,9}", 1..6),
        text in "[ab]{1,50}",
        cuts in vec(1usize..20, 0..30),
    ) {
        let mut expected = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let starts = (0..text.len()).filter(|at| text[*at..].starts_with(&pattern[..]));
            expected.extend(starts.map(|at| (number, at as u64)));
        }
        let runtime = runtime();
        let mut found = runtime.block_on(async {
            let sim = SimNetwork::new(24);
            sim.search_for(&patterns).unwrap();
            let (_a, _b, here, _there) = pair(&sim).await;
            let mut out = here.open().await.unwrap();
            let mut rest = text.as_bytes();
            for cut in cuts.into_iter().chain([text.len()]) {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                out.send.write_all(piece).await.unwrap();
                rest = more;
            }
            sim.findings()
        });
        found.sort_by_key(|found| (found.pattern, found.offset));
        let found: Vec<_> = found.iter().map(|f| (f.pattern, f.offset)).collect();
        prop_assert_eq!(found, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_know_what_binds_them() {
    let sim = SimNetwork::new(21);
    let (a, b, here, there) = pair(&sim).await;
    let (second, other) = connect(&a, &b).await;
    let (back, _) = connect(&b, &a).await;
    assert_eq!(here.binding(), there.binding());
    assert_eq!(second.binding(), other.binding());
    assert_ne!(here.binding(), second.binding());
    assert_ne!(here.binding(), back.binding());
    assert_eq!(sim.node(key(1)).addresses(), a.addresses());
}

#[tokio::test(start_paused = true)]
async fn messages_of_two_connections_overtake_each_other() {
    let sim = SimNetwork::new(22);
    sim.set_default_link(Link {
        jitter: millis(50),
        ..latency(10)
    });
    let (a, b, here, there) = pair(&sim).await;
    let (here2, there2) = connect(&a, &b).await;
    let (mut first, mut first_back) = stream(&here, &there).await;
    let (mut second, mut second_back) = stream(&here2, &there2).await;
    let mut overtaken = 0;
    for _ in 0..100 {
        first.send.write_all(b"1").await.unwrap();
        second.send.write_all(b"2").await.unwrap();
        let start = Instant::now();
        let one = async { first_back.recv.read_u8().await.map(|_| start.elapsed()) };
        let two = async { second_back.recv.read_u8().await.map(|_| start.elapsed()) };
        let (one, two) = tokio::join!(one, two);
        overtaken += u32::from(two.unwrap() < one.unwrap());
    }
    assert!((30..70).contains(&overtaken), "{overtaken}");
}

#[tokio::test(start_paused = true)]
async fn a_gibibyte_costs_little() {
    let sim = SimNetwork::new(23);
    sim.search_for(&["a canary that is never said"]).unwrap();
    let (_a, _b, here, there) = pair(&sim).await;
    for link in [
        Link::default(),
        Link {
            bandwidth: Some(100_000_000),
            ..latency(2)
        },
    ] {
        sim.set_default_link(link);
        let start = Clock::now();
        let mut out = here.open().await.unwrap();
        let chunk = vec![5; MIB];
        let pour = async {
            for _ in 0..1024 {
                out.send.write_all(&chunk).await.unwrap();
            }
            out.send.shutdown().await.unwrap();
        };
        let drain = async {
            let mut back = there.accept().await.unwrap();
            let (mut len, mut buffer) = (0, vec![0; MIB]);
            loop {
                match back.recv.read(&mut buffer).await.unwrap() {
                    0 => break len,
                    n => len += n,
                }
            }
        };
        assert_eq!(tokio::join!(pour, drain).1, 1024 * MIB);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[test]
fn addresses_are_checked() {
    let kind = |text: &str| Address::new(text).unwrap_err().kind();
    assert_eq!(kind(""), Kind::Invalid);
    assert_eq!(kind("sim:\n"), Kind::Invalid);
    assert_eq!(kind(&"x".repeat(MAX_ADDRESS_LEN + 1)), Kind::Invalid);
    let longest = "x".repeat(MAX_ADDRESS_LEN);
    assert_eq!(Address::new(&longest[..]).unwrap().to_string(), longest);
}
