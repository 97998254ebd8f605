//! Tests of how long bytes take.

use std::time::{Duration, Instant as Clock};

use futures_util::future::join_all;
use larder_net_api::Connection;
use larder_sync_sim::{Limits, Link, SimNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use super::*;

/// Measures how long it takes to transfer this many bytes.
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
    // A stream has at most its window in transit.
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
