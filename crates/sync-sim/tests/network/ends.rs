//! Tests of streams and connections that end, break or are cut, and of the errors on each side.

use std::{io::ErrorKind, time::Duration};

use futures_util::FutureExt;
use larder_net_api::{MAX_REASON_LEN, Stream};
use larder_store_api::Kind;
use larder_sync_sim::{CONNECT_TIMEOUT, Flow, Held, IDLE_TIMEOUT, Link, STREAM_WINDOW, SimNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::*;

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
    // The other direction continues.
    send_all(&mut back, b"answer").await;
    let mut answer = Vec::new();
    out.recv.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let error = back.send.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_crash_never_looks_like_an_end() {
    // This holds however many bytes had left, and even though the sender had shut down its stream.
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
        // The crashed node knows it at once, its peer a little later.
        assert_eq!(here.closed().await.kind(), Kind::Closed);
        assert_eq!(there.closed().await.kind(), Kind::Unavailable);
        let error = out.recv.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert_eq!(a.accept().await.unwrap_err().kind(), Kind::Closed);
        let error = a.connect(&b.addresses()[0], None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Closed);
        assert!(a.addresses().is_empty());
        // The node can come back; its earlier life cannot.
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
    // The other direction is unaffected.
    back.send.write_all(b"?").await.unwrap();
    out.recv.read_u8().await.unwrap();
    sim.set_link(key(1), key(2), latency(10));
    assert!(read_all(&mut back).await == all);
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
    // The abandoned calls lost nothing.
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
    let error = error.downcast::<larder_store_api::Error>().unwrap();
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(there.closed().await.kind(), Kind::Closed);
    let error = b.connect(&address("sim:0"), None).await;
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
    // Dropping the last handle closes the connection, even if it is a stream.
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
