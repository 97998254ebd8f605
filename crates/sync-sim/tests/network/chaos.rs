//! Tests with many seeds, tampering nodes and patterns to search for.

use bytes::Bytes;
use larder_net_api::Address;
use larder_store_api::Kind;
use larder_sync_sim::{Link, SimNetwork};
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true);
    runtime.build().unwrap()
}

/// Runs five nodes that exchange a lot over bad links, while some crash and some are cut.
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
                let to = Address::new("sim", (n + round) % 5).unwrap();
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
            // The tenth byte of each stream, however the stream is cut into chunks.
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
    // A tampering node may send more bytes than it was given, or none.
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
