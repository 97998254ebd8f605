//! Tests of malicious peers, and of peers that lack the same blobs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::TryStreamExt;
use larder_store_engine::{
    BlobStatus, Blobs, ChunkNum, Encoded, Trust,
    fetch::{Answer, Blob, Fault, Fetch, Options, Provider, Settled, Wanted},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::Notify,
    task::JoinSet,
    time::Instant,
};

use crate::{
    MIB, OF, Told, begin,
    common::{bytes, engine},
    named,
    peers::{ABSENT, Body, Peer, Wrong, encode},
    run, stock,
};

/// Two peers give the sequence and lack the blobs that it names. The third has both.
#[tokio::test]
async fn what_several_lack_of_a_sequence_another_one_gives() {
    let (theirs, _) = engine().await;
    let child = theirs.add(bytes(1, 5_000)).await.unwrap();
    let sequence = theirs.add(child.hash().as_bytes().to_vec()).await.unwrap();
    let (less, _) = engine().await;
    let _kept = less.add(child.hash().as_bytes().to_vec()).await.unwrap();
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    let wanted = vec![
        Wanted::whole(0, Some(sequence.hash()), 1000),
        Wanted::whole(1, None, u64::MAX),
    ];
    fetch.want_request(OF, wanted);
    for _ in 0..3 {
        let (settled, faults) = run(&fetch, &[&Peer::good(&less)]).await;
        assert_eq!(settled, Settled::Left);
        assert!(faults[0].is_none(), "{faults:?}");
    }
    let (settled, faults) = run(&fetch, &[&Peer::good(&theirs)]).await;
    assert!(faults[0].is_none(), "{faults:?}");
    assert_eq!(settled, Settled::Done);
    assert!(ours.status(child.hash()).await.unwrap().is_some());
}

/// Gives valid parts, and claims another length of the blob each time, so that the earlier parts are
/// useless.
struct Shifty {
    blobs: Blobs,
    asked: AtomicU64,
}

impl Provider for Shifty {
    type Of = &'static str;
    type Answer = Body;

    async fn ask(&self, _of: &&'static str, wanted: &[Wanted]) -> Result<Body, Fault> {
        const MIB: u64 = crate::MIB as u64;
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked > 1000 {
            return Err(Fault::refuses());
        }
        let mut out = Vec::new();
        for one in wanted {
            let end = one.ranges.boundaries().last().unwrap().to_bytes();
            let claimed = match end {
                end if end <= 8 * MIB => 13 * MIB,
                end if end <= 13 * MIB => 15 * MIB,
                _ => 15 * MIB + MIB / 2,
            };
            let start = out.len();
            let here = encode(&self.blobs, one.hash.unwrap(), one.ranges.clone(), &mut out);
            here.await.unwrap();
            out[start..start + 8].copy_from_slice(&claimed.to_le_bytes());
        }
        Ok(Body::of(out))
    }
}

#[tokio::test]
async fn who_says_another_length_each_time_does_not_keep_a_fetch_going() {
    let (theirs, hashes, _pins) = stock([16 * MIB]).await;
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    fetch.want(OF, named(&hashes)).await.unwrap();
    let shifty = Arc::new(Shifty {
        blobs: theirs.clone(),
        asked: AtomicU64::new(0),
    });
    let mut rounds = 0;
    while rounds < 50 {
        rounds += 1;
        if fetch.provide(1, shifty.clone()).await.is_err() {
            assert_eq!(fetch.settle().await.unwrap(), Settled::Left);
            break;
        }
        if fetch.settle().await.unwrap() != Settled::More {
            break;
        }
    }
    assert!(rounds < 50, "it never ends");
    // An honest peer gives all of it.
    let (fetch, _) = begin(&ours);
    fetch.want(OF, named(&hashes)).await.unwrap();
    let (settled, faults) = run(&fetch, &[&Peer::good(&theirs)]).await;
    assert!(faults[0].is_none(), "{faults:?}");
    assert_eq!(settled, Settled::Done);
}

/// An answer whose rest arrives only when it is released.
struct Slow {
    blobs: Blobs,
    goes_on: Arc<Notify>,
}

impl Provider for Slow {
    type Of = &'static str;
    type Answer = Pipe;

    async fn ask(&self, _of: &&'static str, wanted: &[Wanted]) -> Result<Pipe, Fault> {
        let mut out = Vec::new();
        let mut sequence = None;
        for one in wanted {
            let hash = match (one.hash, sequence) {
                (Some(hash), _) => *sequence.insert(hash),
                (None, Some(sequence)) => {
                    let start = (one.offset - 1) * 32;
                    let read = self.blobs.read_to_bytes(sequence, start..start + 32);
                    <[u8; 32]>::try_from(&read.await.unwrap()[..])
                        .unwrap()
                        .into()
                }
                (None, None) => unreachable!(),
            };
            let here = encode(&self.blobs, hash, one.ranges.clone(), &mut out);
            here.await.unwrap();
        }
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let goes_on = self.goes_on.clone();
        tokio::spawn(async move {
            ours.write_all(&out[..40_000]).await.unwrap();
            goes_on.notified().await;
            ours.write_all(&out[40_000..]).await.unwrap();
        });
        Ok(Pipe(theirs))
    }
}

struct Pipe(DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Answer for Pipe {
    fn is_absent(size: u64) -> bool {
        size == ABSENT
    }

    fn fault(error: io::Error) -> Fault {
        Fault::lost().because(error)
    }
}

/// Another peer claims meanwhile that the sequence is a byte shorter, and gives a valid part.
#[tokio::test]
async fn a_sequence_comes_though_another_length_was_recorded_meanwhile() {
    let (theirs, _) = engine().await;
    let child = theirs.add(bytes(1, 50_000)).await.unwrap();
    let mut sequence = bytes(2, 3200);
    sequence.extend(bytes(3, 96_800));
    sequence[..32].copy_from_slice(child.hash().as_bytes());
    let sequence = theirs.add(sequence).await.unwrap();
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    let wanted = vec![
        Wanted::whole(0, Some(sequence.hash()), 100_000),
        Wanted::whole(1, None, u64::MAX),
    ];
    fetch.want_request(OF, wanted);
    let goes_on = Arc::new(Notify::new());
    let slow = Arc::new(Slow {
        blobs: theirs.clone(),
        goes_on: goes_on.clone(),
    });
    let working = tokio::spawn({
        let fetch = fetch.clone();
        async move { fetch.provide(1, slow).await }
    });
    while fetch.received() == 0 {
        tokio::task::yield_now().await;
    }
    let shorter = ours.import(sequence.hash(), 99_999, Trust::Untrusted);
    let mut shorter = shorter.await.unwrap();
    let mut items = theirs.export(sequence.hash(), (..ChunkNum(16)).into());
    while let Some(item) = items.try_next().await.unwrap() {
        if !matches!(item, Encoded::Size(_)) {
            shorter.push(item).await.unwrap();
        }
    }
    shorter.finish().await.unwrap();
    goes_on.notify_one();
    let ended = working.await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    let mut settled = fetch.settle().await.unwrap();
    if settled != Settled::Done {
        settled = run(&fetch, &[&Peer::good(&theirs)]).await.0;
    }
    assert_eq!(settled, Settled::Done);
    for hash in [sequence.hash(), child.hash()] {
        let status = ours.status(hash).await.unwrap();
        assert!(
            matches!(status, Some(BlobStatus::Complete { .. })),
            "{status:?}"
        );
    }
}

/// Many peers send a little of what they are asked for, and then nothing more. Another one promptly
/// gives what is wanted meanwhile.
#[tokio::test(start_paused = true)]
async fn many_that_are_slow_do_not_take_the_room_of_another() {
    const SLOW: usize = 8;
    let mut options = Options::default();
    (options.least_blobs, options.most_blobs) = (1, 1);
    // All of their streams are busy, so that none of them is asked for the new blobs.
    let busy = SLOW * options.streams.get();
    let (theirs, hashes, _pins) = stock(vec![MIB * 3 / 2; busy + 1]).await;
    let (ours, _) = engine().await;
    let fetch = Fetch::new(&ours, options, Arc::new(Told::default()));
    let (new, held) = hashes.split_last().unwrap();
    fetch.want(OF, named(held)).await.unwrap();
    let slow: Vec<_> = (0..SLOW)
        .map(|_| Peer::new(&theirs, Wrong::Stalls(20_000)))
        .collect();
    let mut working = JoinSet::new();
    for peer in &slow {
        let (fetch, peer) = (fetch.clone(), peer.clone());
        working.spawn(async move { fetch.provide(peer.id, peer).await });
    }
    let began = Instant::now();
    // Wait until each of them has sent something.
    while fetch.received() < 16 * 16 * 1024 {
        assert!(began.elapsed() < Duration::from_secs(5), "few are asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fetch.want(OF, vec![Blob::new(1000, *new)]).await.unwrap();
    let good = Peer::good(&theirs);
    working.spawn({
        let (fetch, good) = (fetch.clone(), good.clone());
        async move { fetch.provide(good.id, good).await }
    });
    while !ours.bitfield(*new).await.unwrap().is_complete() {
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "it waits for the slow"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
