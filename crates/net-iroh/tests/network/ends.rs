//! Tests of how streams and connections end, and of what each side is told.

use std::{io::ErrorKind, net::UdpSocket, thread, time::Duration};

use larder_net_api::{AddressWatch, MAX_REASON_LEN, Stream};
use larder_net_iroh::{ALPN, STREAM_WINDOW};
use larder_store_api::Kind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::*;

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
    // A stream that was shut down arrives even if its sender is dropped.
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
        let error = error.downcast::<larder_store_api::Error>().unwrap();
        assert_eq!(error.kind(), Kind::Closed);
    }
    for conn in [&here, &there] {
        assert_eq!(soon(conn.open()).await.unwrap_err().kind(), Kind::Closed);
        assert_eq!(soon(conn.accept()).await.unwrap_err().kind(), Kind::Closed);
    }
    // The reason that the other side gives is shown without its control characters.
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
            let nobody = nobody.parse().unwrap();
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
            // A peer that is gone is noticed after the shorter of both sides' idle timeouts.
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
    let error = error.downcast::<larder_store_api::Error>().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(there.closed().await.kind(), Kind::Unavailable);
    assert_eq!(
        back.recv.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(there.open().await.unwrap_err().kind(), Kind::Unavailable);
}
