//! Tests of what the simulated network promises to its users.

mod chaos;
mod ends;
mod speed;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use larder_net_api::{Address, Connection, Network, Stream};
use larder_store_api::{Kind, PublicKey};
use larder_sync_sim::{Held, Link, MAX_BACKLOG, MAX_STREAMS, STREAM_WINDOW, SimNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

const MIB: usize = 1024 * 1024;

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
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

/// Returns bytes that differ from position to position.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

async fn connect(from: &Arc<dyn Network>, to: &Arc<dyn Network>) -> (Connection, Connection) {
    let here = from.connect(&to.addresses()[0], Some(to.key())).await;
    (here.unwrap(), to.accept().await.unwrap())
}

/// Creates two connected nodes.
async fn pair(sim: &SimNetwork) -> (Arc<dyn Network>, Arc<dyn Network>, Connection, Connection) {
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let (here, there) = connect(&a, &b).await;
    (a, b, here, there)
}

/// Opens a stream that both sides know; one byte has crossed it.
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
async fn a_writer_waits_for_its_reader() {
    let sim = SimNetwork::new(6);
    let (_a, _b, here, there) = pair(&sim).await;
    let (mut out, mut back) = stream(&here, &there).await;
    let all = vec![1; 8 * MIB];
    let write = timeout(millis(1000), out.send.write_all(&all)).await;
    assert!(write.is_err(), "nobody reads");
    assert_eq!(sim.held().bytes, STREAM_WINDOW);
    // The writer gets room as it becomes free.
    let mut some = vec![0; 100_000];
    back.recv.read_exact(&mut some).await.unwrap();
    let more = out.send.write(&all).await.unwrap();
    assert!(more > 0 && sim.held().bytes <= STREAM_WINDOW);
    // The writer is told when the reader is dropped.
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
    // The other side learns of none of them, and has its own limit.
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
async fn who_cannot_be_reached_is_unavailable() {
    let sim = SimNetwork::new(13);
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let kind = async |to: &str, expect| a.connect(&address(to), expect).await.unwrap_err().kind();
    assert_eq!(kind("sim:99", None).await, Kind::Unavailable);
    assert_eq!(kind("veilid:99", None).await, Kind::Invalid);
    assert_eq!(kind("sim:-1", None).await, Kind::Invalid);
    assert_eq!(kind("sim:0", None).await, Kind::Invalid);
    assert_eq!(kind("sim:1", Some(key(3))).await, Kind::Denied);
    // After a change of address, the old one no longer works.
    let mut watch = b.watch_addresses();
    assert_eq!(watch.next().await.unwrap(), b.addresses());
    sim.readdress(key(2));
    assert_eq!(kind("sim:1", None).await, Kind::Unavailable);
    assert_eq!(watch.next().await.unwrap(), b.addresses());
    assert_eq!(b.addresses(), [address("sim:2")]);
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
    // Connections that have ended meanwhile are not returned.
    sleep(millis(1)).await;
    assert!(b.accept().now_or_never().is_none());
    assert_eq!(sim.held(), Held::default());
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
async fn an_address_says_whose_it_is() {
    let sim = SimNetwork::new(30);
    let (a, b) = (sim.node(key(1)), sim.node(key(2)));
    let old = b.addresses().remove(0);
    assert_eq!(a.peer_of(&old), Some(key(2)));
    assert_eq!(b.peer_of(&old), Some(key(2)));
    sim.readdress(key(2));
    assert_eq!(a.peer_of(&old), None);
    // It makes no difference whether the node is up.
    let new = b.addresses().remove(0);
    b.close().await;
    assert_eq!(a.peer_of(&new), Some(key(2)));
    for other in ["sim:x", "sim:-1", "sim:999", "iroh:1"] {
        assert_eq!(a.peer_of(&address(other)), None, "{other}");
    }
}
