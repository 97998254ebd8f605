//! Tests of fetching over any providers, and of the effect of each fault.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod peers;
mod receiver;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{SIZES, bytes, engine, transfer};
use futures_util::{FutureExt, TryStreamExt};
use larder_store_api::{Kind, Result};
use larder_store_engine::{
    BlobStatus, Blobs, ChunkNum, ChunkRanges, Hash, Pin,
    fetch::{Blob, Fault, Fetch, Misconduct, Options, PIECE_LEN, Settled, Wanted, Watch},
};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault as StoreFault, Faults, FaultyStore, Operation, When},
};
use peers::{Peer, Wrong};

const MIB: usize = 1 << 20;
const OF: &str = "root";

/// Counts the reported events.
#[derive(Debug, Default)]
struct Told {
    announced: AtomicU64,
    complete: Mutex<Vec<Hash>>,
}

impl Watch for Told {
    fn announced(&self, _hash: Hash, bytes: u64) -> Result<()> {
        self.announced.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn complete(&self, pin: Pin) {
        self.complete.lock().unwrap().push(pin.hash());
    }
}

/// Returns an engine with blobs of these sizes, their hashes and their pins.
async fn stock(sizes: impl IntoIterator<Item = usize>) -> (Blobs, Vec<Hash>, Vec<Pin>) {
    let (blobs, _) = engine().await;
    let mut pins = Vec::new();
    for (seed, size) in (0..).zip(sizes) {
        pins.push(blobs.add(bytes(seed, size)).await.unwrap());
    }
    let hashes = pins.iter().map(Pin::hash).collect();
    (blobs, hashes, pins)
}

fn named(hashes: &[Hash]) -> Vec<Blob> {
    (1..)
        .zip(hashes)
        .map(|(offset, hash)| Blob::new(offset, *hash))
        .collect()
}

fn begin(to: &Blobs) -> (Fetch<&'static str>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let fetch = Fetch::new(to, Options::default(), told.clone());
    (fetch, told)
}

async fn run(fetch: &Fetch<&'static str>, peers: &[&Arc<Peer>]) -> (Settled, Vec<Option<Fault>>) {
    let (settled, faults) = try_run(fetch, peers).await;
    (settled.unwrap(), faults)
}

/// Lets peers work until there is no progress any more; returns the fault of each.
async fn try_run(
    fetch: &Fetch<&'static str>,
    peers: &[&Arc<Peer>],
) -> (Result<Settled>, Vec<Option<Fault>>) {
    let mut faults = vec![None; peers.len()];
    loop {
        let working = peers.iter().zip(&faults).map(|(peer, fault)| async {
            match fault {
                Some(_) => Ok(()),
                None => fetch.provide(peer.id, Arc::clone(peer)).await,
            }
        });
        let ended = futures_util::future::join_all(working).await;
        for (fault, ended) in faults.iter_mut().zip(ended) {
            if let Err(new) = ended {
                fault.get_or_insert(new);
            }
        }
        let settled = fetch.settle().await;
        if !matches!(settled, Ok(Settled::More)) {
            return (settled, faults);
        }
    }
}

async fn has_all(blobs: &Blobs, hashes: &[Hash]) {
    for hash in hashes {
        let read = blobs.read(*hash, 0..u64::MAX);
        let read: Vec<_> = read.try_collect().await.unwrap();
        assert_eq!(Hash::of(read.concat()), *hash);
        assert!(blobs.bitfield(*hash).await.unwrap().is_complete());
    }
}

#[tokio::test]
async fn blobs_of_all_sizes_come_from_one_provider() {
    let (theirs, hashes, _pins) = stock(SIZES).await;
    let (ours, _) = engine().await;
    let (fetch, told) = begin(&ours);
    let peer = Peer::good(&theirs);
    // The empty blob is always here.
    let missing = fetch.want(OF, named(&hashes)).await.unwrap();
    assert_eq!(missing, SIZES.len() as u64 - 1);
    let (settled, faults) = run(&fetch, &[&peer]).await;
    assert_eq!(settled, Settled::Done);
    assert!(faults[0].is_none());
    has_all(&ours, &hashes).await;
    let sum = SIZES.iter().sum::<usize>() as u64;
    assert_eq!(told.announced.load(Ordering::Relaxed), sum);
    assert_eq!(fetch.received(), sum);
    assert_eq!(peer.verified(), sum);
    let complete: BTreeSet<Hash> = told.complete.lock().unwrap().iter().copied().collect();
    assert_eq!(complete, hashes[1..].iter().copied().collect());
    // Now there is nothing left to ask for.
    assert_eq!(fetch.want(OF, named(&hashes)).await.unwrap(), 0);
    assert!(fetch.is_idle());
}

#[tokio::test]
async fn many_small_blobs_take_few_requests_and_a_long_one_takes_one_for_each_piece() {
    let long = 3 * PIECE_LEN as usize + 5;
    let (theirs, hashes, _pins) = stock((0..1000).map(|i| i + 1).chain([long])).await;
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    let peer = Peer::good(&theirs);
    fetch.want(OF, named(&hashes)).await.unwrap();
    assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
    let requests = peer.requests.lock().unwrap();
    // 64 blobs in each request, and the three pieces after the first.
    assert_eq!(requests.len(), 1001_usize.div_ceil(64) + 3);
    for request in &*requests {
        for one in request {
            let chunks = ChunkRanges::from(..ChunkNum(PIECE_LEN / 1024));
            let is_first = one.ranges == chunks;
            assert!(is_first || request.len() == 1);
        }
    }
}

#[tokio::test]
async fn several_providers_share_a_long_blob() {
    let (theirs, hashes, _pins) = stock([10 * PIECE_LEN as usize]).await;
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    let peers = [Peer::good(&theirs), Peer::good(&theirs)];
    fetch.want(OF, named(&hashes)).await.unwrap();
    let (settled, _) = run(&fetch, &[&peers[0], &peers[1]]).await;
    assert_eq!(settled, Settled::Done);
    has_all(&ours, &hashes).await;
    for peer in &peers {
        assert!(peer.verified() >= 2 * PIECE_LEN, "{}", peer.verified());
    }
}

/// Whatever a peer does wrong, only that peer is at fault, and the others give everything.
#[tokio::test(start_paused = true)]
async fn the_fault_of_one_is_told_and_the_others_bring_the_rest() {
    let sizes = [10, 5000, 16 * 1024, 100_000, MIB, 9 * MIB];
    let (theirs, hashes, _pins) = stock(sizes).await;
    let lies = |fault: &Fault| fault.is_peers(Misconduct::Lies);
    let stalls = |fault: &Fault| fault.is_peers(Misconduct::Stalls);
    let refuses = |fault: &Fault| fault.is_peers(Misconduct::Refuses);
    let is_link = |fault: &Fault| matches!(fault, Fault::Link(_));
    type Is<'a> = &'a dyn Fn(&Fault) -> bool;
    let cases: [(Wrong, Is<'_>); 9] = [
        (Wrong::Flips(0), &lies),
        (Wrong::Flips(8), &lies),
        (Wrong::Flips(60_000), &lies),
        (Wrong::Stalls(0), &stalls),
        (Wrong::Stalls(60_000), &stalls),
        (Wrong::Breaks(0), &is_link),
        (Wrong::Breaks(60_000), &is_link),
        (Wrong::Refuses, &refuses),
        (Wrong::Claims(12), &lies),
    ];
    for (wrong, is) in cases {
        let (ours, _) = engine().await;
        let (fetch, _) = begin(&ours);
        let (bad, good) = (Peer::new(&theirs, wrong), Peer::good(&theirs));
        fetch.want(OF, named(&hashes)).await.unwrap();
        // Alone, it does as much as it can.
        let fault = fetch.provide(bad.id, bad.clone()).await.unwrap_err();
        assert!(is(&fault), "{wrong:?}: {fault:?}");
        assert_eq!(fetch.settle().await.unwrap(), Settled::Left, "{wrong:?}");
        assert!(!fetch.left().is_empty());
        let before = fetch.received();
        let (settled, faults) = run(&fetch, &[&good]).await;
        assert_eq!(settled, Settled::Done, "{wrong:?}");
        assert!(faults[0].is_none(), "{wrong:?}: {faults:?}");
        has_all(&ours, &hashes).await;
        // Received data was received once, except for the group that was in transit.
        let sum = sizes.iter().sum::<usize>() as u64;
        assert!(good.verified() <= sum - before + 16 * 1024, "{wrong:?}");
        if wrong == Wrong::Flips(60_000) {
            assert!(before >= 10 + 5000 + 16 * 1024, "{before}");
        }

        // Beside the good peer, it costs nothing but its own share.
        let (ours, _) = engine().await;
        let (fetch, _) = begin(&ours);
        fetch.want(OF, named(&hashes)).await.unwrap();
        let (settled, faults) = run(&fetch, &[&bad, &good]).await;
        assert_eq!(settled, Settled::Done, "{wrong:?}");
        assert!(faults[0].as_ref().is_none_or(is), "{wrong:?}: {faults:?}");
        assert!(faults[1].is_none(), "{wrong:?}: {faults:?}");
        has_all(&ours, &hashes).await;
    }
}

/// Tests that another provider gives the blobs that one lacks, and that blobs that nobody has are left
/// without delaying others.
#[tokio::test]
async fn what_nobody_has_is_left_and_all_else_comes() {
    let sizes = [10, 20_000, 300, 9 * MIB, 40, 50_000];
    let (all, hashes, _pins) = stock(sizes).await;
    for wrong in [Wrong::No, Wrong::Ends] {
        let (first, _) = engine().await;
        let (second, _) = engine().await;
        // Nobody has the third blob. Each has one half of the fourth.
        let mut pins = Vec::new();
        for (seed, size) in (0..).zip(sizes) {
            match seed {
                0 | 1 => pins.push(first.add(bytes(seed, size)).await.unwrap()),
                4 | 5 => pins.push(second.add(bytes(seed, size)).await.unwrap()),
                _ => {}
            }
        }
        let middle = ChunkNum(PIECE_LEN / 1024);
        let size = sizes[3] as u64;
        transfer(&all, &first, hashes[3], size, (..middle).into()).await;
        transfer(&all, &second, hashes[3], size, (middle..).into()).await;
        let (ours, _) = engine().await;
        let (fetch, _) = begin(&ours);
        let peers = [Peer::new(&first, wrong), Peer::new(&second, wrong)];
        fetch.want(OF, named(&hashes)).await.unwrap();
        let (settled, faults) = run(&fetch, &[&peers[0], &peers[1]]).await;
        assert_eq!(settled, Settled::Left, "{wrong:?}");
        assert!(faults.iter().all(Option::is_none), "{wrong:?}: {faults:?}");
        let left = fetch.left();
        let offsets: Vec<u64> = left
            .iter()
            .flat_map(|l| &l.wanted)
            .map(|one| one.offset)
            .collect();
        assert_eq!(offsets, [3], "{wrong:?}");
        assert!(left[0].why.as_ref().unwrap().is_peers(Misconduct::Lacks));
        for (i, hash) in hashes.iter().enumerate().filter(|(i, _)| *i != 2) {
            let status = ours.status(*hash).await.unwrap();
            let size = sizes[i] as u64;
            assert_eq!(
                status,
                Some(BlobStatus::Complete { size }),
                "{wrong:?}: {i}"
            );
        }
    }
}

#[tokio::test]
async fn a_provider_that_lacks_much_is_not_asked_any_more() {
    let (_theirs, hashes, _pins) = stock((0..1000).map(|i| i + 1)).await;
    let (nothing, _) = engine().await;
    let (ours, _) = engine().await;
    let mut options = Options::default();
    options.most_lacking = 10;
    let fetch = Fetch::new(&ours, options, Arc::new(()));
    let peer = Peer::good(&nothing);
    fetch.want(OF, named(&hashes)).await.unwrap();
    let fault = fetch.provide(0, peer.clone()).await.unwrap_err();
    assert!(fault.is_peers(Misconduct::Lacks), "{fault:?}");
    assert!(peer.asked.load(Ordering::Relaxed) <= 4);
    assert_eq!(fetch.settle().await.unwrap(), Settled::Left);
    let left: usize = fetch.left().iter().map(|left| left.wanted.len()).sum();
    assert_eq!(left, 1000);
}

/// A blob that is too long is refused before any of it is received, and the blobs after it in the same
/// answer still arrive.
#[tokio::test]
async fn a_blob_that_is_too_long_holds_up_no_other() {
    let sizes = [100, 200_000, 300];
    let (theirs, hashes, _pins) = stock(sizes).await;
    let (ours, _) = engine().await;
    let (fetch, told) = begin(&ours);
    let mut blobs = named(&hashes);
    blobs[1].longest = 199_999;
    let peer = Peer::good(&theirs);
    fetch.want(OF, blobs).await.unwrap();
    let (settled, faults) = run(&fetch, &[&peer]).await;
    assert_eq!(settled, Settled::Left);
    assert!(faults[0].is_none(), "{faults:?}");
    let left = fetch.left();
    assert_eq!((left.len(), left[0].wanted[0].offset), (1, 2));
    let why = left[0].why.as_ref().unwrap();
    assert!(why.is_peers(Misconduct::TooLong), "{why:?}");
    assert_eq!(why.error().kind(), Kind::TooLarge);
    assert_eq!(fetch.received(), 400);
    assert_eq!(told.announced.load(Ordering::Relaxed), 400);
}

/// A sequence and the blobs that it names come in one request, before their hashes are known.
#[tokio::test]
async fn a_sequence_comes_with_what_it_names() {
    for names in [2, 5000_u64] {
        let (theirs, _) = engine().await;
        let child = theirs.add(bytes(1, 50_000)).await.unwrap();
        let mut sequence = bytes(2, 32 * names as usize);
        sequence[32..64].copy_from_slice(child.hash().as_bytes());
        let sequence = theirs.add(sequence).await.unwrap();
        let (ours, _) = engine().await;
        let (fetch, told) = begin(&ours);
        let wanted = vec![
            Wanted::whole(0, Some(sequence.hash()), 32 * names),
            Wanted::whole(2, None, u64::MAX),
        ];
        fetch.want_request(OF, wanted);
        let peer = Peer::good(&theirs);
        assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
        assert_eq!(peer.asked.load(Ordering::Relaxed), 1);
        has_all(&ours, &[sequence.hash(), child.hash()]).await;
        assert_eq!(told.complete.lock().unwrap().len(), 2);
    }
}

/// A blob that a sequence names is requested from another provider if the first lacks it, or stops
/// sending; and nobody can give a blob that the sequence does not name.
#[tokio::test(start_paused = true)]
async fn what_a_sequence_names_may_come_from_another() {
    let (all, _) = engine().await;
    let child = all.add(bytes(1, 50_000)).await.unwrap();
    let sequence = all.add(child.hash().as_bytes().to_vec()).await.unwrap();
    let (some, _) = engine().await;
    let _pin = some.add(child.hash().as_bytes().to_vec()).await.unwrap();
    let wanted = |offset| {
        vec![
            Wanted::whole(0, Some(sequence.hash()), 32),
            Wanted::whole(offset, None, u64::MAX),
        ]
    };
    for wrong in [Wrong::No, Wrong::Ends, Wrong::Breaks(41), Wrong::Flips(41)] {
        let (ours, _) = engine().await;
        let (fetch, _) = begin(&ours);
        fetch.want_request(OF, wanted(1));
        let first = match wrong {
            Wrong::No | Wrong::Ends => Peer::new(&some, wrong),
            _ => Peer::new(&all, wrong),
        };
        drop(fetch.provide(first.id, Arc::clone(&first)).await);
        assert_eq!(fetch.settle().await.unwrap(), Settled::Left, "{wrong:?}");
        let second = Peer::good(&all);
        assert_eq!(run(&fetch, &[&second]).await.0, Settled::Done, "{wrong:?}");
        has_all(&ours, &[sequence.hash(), child.hash()]).await;
    }
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    fetch.want_request(OF, wanted(2));
    let peers = [Peer::good(&all), Peer::good(&all)];
    let (settled, faults) = run(&fetch, &[&peers[0], &peers[1]]).await;
    assert_eq!(settled, Settled::Left);
    assert!(faults.iter().all(Option::is_none), "{faults:?}");
    assert!(
        fetch.left()[0]
            .why
            .as_ref()
            .unwrap()
            .is_peers(Misconduct::Lacks)
    );
}

/// Once a blob is proven to be longer than wanted, no more of it is fetched, and it does not count as
/// missing.
#[tokio::test]
async fn a_blob_that_is_longer_than_wanted_is_left_out() {
    let (theirs, hashes, _pins) = stock([100, 300_000]).await;
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    let mut blobs = named(&hashes);
    for blob in &mut blobs {
        blob.up_to = 200_000;
        // Its beginning, and its end, which proves its length.
        blob.first = ChunkRanges::from(..ChunkNum(16)) | ChunkRanges::from(ChunkNum(1 << 40)..);
    }
    let peer = Peer::good(&theirs);
    assert_eq!(fetch.want(OF, blobs.clone()).await.unwrap(), 2);
    assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
    has_all(&ours, &hashes[..1]).await;
    assert!(fetch.received() < 40_000, "{}", fetch.received());
    assert_eq!(fetch.want(OF, blobs).await.unwrap(), 0);
    // A later request for more gets the rest.
    fetch.want(OF, named(&hashes)).await.unwrap();
    assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
    has_all(&ours, &hashes).await;
}

/// Whichever call of our own store fails, no peer is at fault, and the fetch reports the failure.
#[tokio::test]
async fn our_own_store_failing_is_nobody_elses_fault() {
    let (theirs, hashes, _pins) = stock([10, 20_000, 10 * MIB]).await;
    let mut struck = 0;
    for operation in [
        Operation::Commit,
        Operation::Write,
        Operation::SyncBlobs,
        Operation::Get,
    ] {
        for kind in [
            Kind::Denied,
            Kind::Unavailable,
            Kind::Full,
            Kind::Invalid,
            Kind::NotFound,
        ] {
            for nth in [1, 3] {
                let faults = Faults::seeded(1);
                let memory = Arc::new(MemoryStore::new());
                let store = Arc::new(FaultyStore::new(memory, faults.clone()));
                let ours = Blobs::open(store.clone(), store).await.unwrap();
                let (fetch, _) = begin(&ours);
                fetch.want(OF, named(&hashes)).await.unwrap();
                faults.inject(operation, When::From(nth), StoreFault::Error(kind));
                let peers = [Peer::good(&theirs), Peer::good(&theirs)];
                let (settled, ended) = try_run(&fetch, &[&peers[0], &peers[1]]).await;
                let what = format!("{operation:?} {kind:?} {nth}");
                let Err(error) = settled else {
                    // The fetch did not make as many calls, or they do not matter.
                    faults.clear();
                    continue;
                };
                struck += 1;
                assert_eq!(error.kind(), kind, "{what}: {error:?}");
                for fault in ended.into_iter().flatten() {
                    assert!(matches!(fault, Fault::Local(_)), "{what}: {fault:?}");
                }
                // Once the store works again, the fetch continues.
                faults.clear();
                let ours = Blobs::open(
                    ours.payload_store().clone(),
                    ours.collection_store().clone(),
                );
                let ours = ours.await.unwrap();
                let (fetch, _) = begin(&ours);
                fetch.want(OF, named(&hashes)).await.unwrap();
                assert_eq!(run(&fetch, &[&peers[0]]).await.0, Settled::Done, "{what}");
                has_all(&ours, &hashes).await;
            }
        }
    }
    assert!(struck > 25, "{struck} of 40 faults showed");
}

/// The store fails while so much waits for it that there is room for nothing more: the fetch ends all the same.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_while_much_waits_ends_the_fetch() {
    for seed in 0..4 {
        // Small ones wait to be committed together, long ones each for its own commit.
        let is_small = |n: usize| match seed {
            0 => n.is_multiple_of(2),
            1 => n < 600,
            2 => n >= 600,
            _ => true,
        };
        let sizes = (0..1200).map(|n| if is_small(n) { 1000 } else { 20_000 });
        let (theirs, hashes, _pins) = stock(sizes).await;
        let faults = Faults::seeded(seed);
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
        let ours = Blobs::open(store.clone(), store).await.unwrap();
        let (fetch, _) = begin(&ours);
        fetch.want(OF, named(&hashes)).await.unwrap();
        // The payloads of long ones need a session.
        drop(ours.add(bytes(9999, 20_000)).await.unwrap());
        let slow = StoreFault::Delay(Duration::from_secs(5));
        faults.inject(Operation::Commit, When::Always, slow);
        faults.inject(
            Operation::Commit,
            When::Always,
            StoreFault::Error(Kind::Full),
        );
        let peers = [
            Peer::good(&theirs),
            Peer::good(&theirs),
            Peer::good(&theirs),
        ];
        let all = [&peers[0], &peers[1], &peers[2]];
        let ended = tokio::time::timeout(Duration::from_secs(600), try_run(&fetch, &all)).await;
        let (settled, _) = ended.expect("it ends");
        assert_eq!(settled.unwrap_err().kind(), Kind::Full, "{seed}");
    }
}

/// A provider that is slow with a request does not keep it to itself.
#[tokio::test(start_paused = true)]
async fn those_who_have_nothing_to_do_help_the_slow() {
    let (theirs, hashes, _pins) = stock((0..10).map(|i| 1000 + i)).await;
    let (ours, _) = engine().await;
    let mut options = Options::default();
    options.patience = Duration::from_secs(3600);
    let fetch = Fetch::new(&ours, options, Arc::new(()));
    let (slow, fast) = (Peer::new(&theirs, Wrong::Stalls(5000)), Peer::good(&theirs));
    fetch.want(OF, named(&hashes)).await.unwrap();
    let slow_one = tokio::spawn({
        let (fetch, slow) = (fetch.clone(), slow.clone());
        async move { fetch.provide(0, slow).await }
    });
    while slow.verified() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = tokio::time::Instant::now();
    fetch.provide(1, fast.clone()).await.unwrap();
    // The slow provider is told that the request is done.
    slow_one.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(fetch.settle().await.unwrap(), Settled::Done);
    has_all(&ours, &hashes).await;
}

/// A provider whose call is dropped returns its requests.
#[tokio::test(start_paused = true)]
async fn what_a_dropped_provider_worked_on_is_taken_up_by_others() {
    let (theirs, hashes, _pins) = stock([5000, 9 * MIB]).await;
    let (ours, _) = engine().await;
    let (fetch, _) = begin(&ours);
    fetch.want(OF, named(&hashes)).await.unwrap();
    for id in [0, 0, 7] {
        let hanging = Peer::new(&theirs, Wrong::Stalls(6000));
        let second = Duration::from_secs(1);
        let dropped = tokio::time::timeout(second, fetch.provide(id, hanging.clone())).await;
        assert!(dropped.is_err());
        assert_eq!(hanging.asked.load(Ordering::Relaxed), 1);
    }
    let good = Peer::good(&theirs);
    assert_eq!(run(&fetch, &[&good]).await.0, Settled::Done);
    has_all(&ours, &hashes).await;
}

/// If a fetch is dropped at any point, the next one continues from there.
#[tokio::test]
async fn a_dropped_fetch_is_gone_on_with() {
    let (theirs, hashes, _pins) = stock([10, 30_000, 17 * MIB]).await;
    let mut kept = 0;
    for mib in 0..17 {
        let (ours, _) = engine().await;
        let _root = ours.pin(larder_store_engine::Root::raw(hashes[2])).await;
        let (fetch, _) = begin(&ours);
        let peer = Peer::good(&theirs);
        {
            let fetching = async {
                fetch.want(OF, named(&hashes)).await.unwrap();
                run(&fetch, &[&peer]).await
            };
            tokio::pin!(fetching);
            while fetch.received() < mib * MIB as u64 && fetching.as_mut().now_or_never().is_none()
            {
                tokio::task::yield_now().await;
            }
        }
        drop(fetch);
        tokio::task::yield_now().await;
        kept += u64::from(ours.bitfield(hashes[2]).await.unwrap().present_bytes() > 0);
        let (fetch, _) = begin(&ours);
        fetch.want(OF, named(&hashes)).await.unwrap();
        assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
        has_all(&ours, &hashes).await;
    }
    assert!(kept > 3, "only {kept} kept anything");
}

/// Blobs with many missing ranges are fetched too.
#[tokio::test]
async fn a_blob_full_of_holes_is_filled() {
    let groups = 2200_u64;
    let (theirs, hashes, _pins) = stock([16 * 1024 * groups as usize]).await;
    let (ours, _) = engine().await;
    let mut here = ChunkRanges::empty();
    for group in (0..groups).step_by(2) {
        here |= ChunkRanges::from(ChunkNum(group * 16)..ChunkNum(group * 16 + 16));
    }
    transfer(&theirs, &ours, hashes[0], groups * 16 * 1024, here).await;
    let (fetch, told) = begin(&ours);
    fetch.want(OF, named(&hashes)).await.unwrap();
    let peer = Peer::good(&theirs);
    assert_eq!(run(&fetch, &[&peer]).await.0, Settled::Done);
    assert_eq!(fetch.received(), groups / 2 * 16 * 1024);
    assert_eq!(
        told.announced.load(Ordering::Relaxed),
        groups / 2 * 16 * 1024
    );
    has_all(&ours, &hashes).await;
}
