//! Tests of several engines on one pair of stores, which sleep, are killed, and come back.

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use common::bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{BlobStore, CollectionId, CollectionStore, Kind, Scan, Sharing};
use larder_store_engine::{
    AddOptions, BEAT, Blobs, Finding, Hash, LEASE, Repair, Root, TagName, Transaction,
};
use larder_store_memory::{Facts, MemoryStore};
use larder_store_testkit::stores::{Gate, GatedStore};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

const SESSIONS: CollectionId = CollectionId::from_static("larder/sessions");

fn shared() -> MemoryStore {
    let least = MemoryStore::new();
    let mut collections = CollectionStore::capabilities(&least);
    collections.sharing = Sharing::Shared;
    let blobs = BlobStore::capabilities(&least);
    MemoryStore::with_facts(Facts { blobs, collections })
}

/// An engine, and the gate that stops it.
struct Process {
    blobs: Blobs,
    gate: Gate,
}

async fn start(store: &MemoryStore) -> Process {
    let gate = Gate::new();
    let gated = Arc::new(GatedStore::new(store.clone(), gate.clone()));
    Process {
        blobs: Blobs::open(gated.clone(), gated).await.unwrap(),
        gate,
    }
}

impl Process {
    /// Kills it: nothing that it had begun continues.
    fn kill(self) {
        self.gate.kill();
    }
}

async fn payloads(store: &MemoryStore) -> usize {
    BlobStore::list(store, None).count().await
}

/// Counts the keys in the collection of sessions.
async fn rows(store: &MemoryStore) -> usize {
    store.scan(Scan::all(SESSIONS)).count().await
}

/// Starts an upload: an unclaimed payload.
async fn upload(process: &Process, seed: u64) -> (Transaction, Hash) {
    let transaction = process.blobs.transaction().unwrap();
    let pin = transaction.add(bytes(seed, 100_000)).await.unwrap();
    (transaction, pin.hash())
}

async fn assert_has(blobs: &Blobs, hash: Hash) {
    let read = blobs.read_to_bytes(hash, 0..u64::MAX).await;
    assert!(Hash::of(read.unwrap()) == hash);
}

async fn assert_sound(blobs: &Blobs) {
    let found = blobs.scrub(Repair::No);
    let found: Vec<_> = found.try_collect().await.unwrap();
    for scrubbed in found {
        assert_eq!(scrubbed.finding, Finding::Sound);
    }
}

#[tokio::test(start_paused = true)]
async fn who_lives_is_left_alone() {
    let store = shared();
    let one = start(&store).await;
    let (transaction, hash) = upload(&one, 1).await;
    let (two, three) = (start(&store).await, start(&store).await);
    two.blobs.add(bytes(2, 50_000)).await.unwrap();
    for process in [&two, &three] {
        let found = process.blobs.scrub(Repair::Yes);
        let found: Vec<_> = found.try_collect().await.unwrap();
        assert!(
            found
                .iter()
                .all(|scrubbed| scrubbed.finding == Finding::Sound)
        );
    }
    sleep(4 * LEASE).await;
    transaction.commit().await.unwrap();
    for process in [&one, &two, &three] {
        assert_has(&process.blobs, hash).await;
    }
    drop(transaction);
    for process in [one, two, three] {
        process.blobs.close().await.unwrap();
    }
    assert_eq!(rows(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_dead_left_is_swept_after_the_lease() {
    let store = shared();
    let one = start(&store).await;
    let (_upload, _) = upload(&one, 1).await;
    let kept = one.blobs.add(bytes(2, 100_000)).await.unwrap().hash();
    one.kill();
    let two = start(&store).await;
    sleep(LEASE - BEAT).await;
    assert_eq!(payloads(&store).await, 2);
    sleep(3 * BEAT).await;
    assert_eq!(payloads(&store).await, 1);
    assert_has(&two.blobs, kept).await;
    sleep(LEASE + 3 * BEAT).await;
    assert_eq!(rows(&store).await, 0);
    // Opening again costs nothing more, and no background work remains.
    let three = start(&store).await;
    assert_has(&three.blobs, kept).await;
    assert_sound(&three.blobs).await;
}

#[tokio::test(start_paused = true)]
async fn who_slept_too_long_must_open_again() {
    let store = shared();
    let one = start(&store).await;
    let (upload, hash) = upload(&one, 1).await;
    let before = one.blobs.add(bytes(2, 100_000)).await.unwrap().hash();
    one.gate.close();
    let two = start(&store).await;
    sleep(LEASE + 3 * BEAT).await;
    one.gate.open();
    let tag = TagName::try_from("tag").unwrap();
    let tagged = one.blobs.tags().set(tag.clone(), Root::raw(before)).await;
    let refused = [
        upload.commit().await.map(drop).unwrap_err(),
        one.blobs
            .add(bytes(3, 100_000))
            .await
            .map(drop)
            .unwrap_err(),
        one.blobs.add("small").await.map(drop).unwrap_err(),
        tagged.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), Kind::Closed);
        let expected = "the session was ended by another process, because it did not answer for \
                        30 s; open the store again";
        assert_eq!(error.message(), expected);
    }
    // Acknowledged blobs exist, and can still be read.
    assert_has(&one.blobs, before).await;
    assert_eq!(two.blobs.status(hash).await.unwrap(), None);
    assert_eq!(two.blobs.tags().get(&tag).await.unwrap(), None);
    drop(upload);
    one.blobs.close().await.unwrap();
    let one = start(&store).await;
    one.blobs.add(bytes(1, 100_000)).await.unwrap();
    assert_has(&two.blobs, hash).await;
    sleep(3 * LEASE).await;
    assert_sound(&two.blobs).await;
    assert_eq!(payloads(&store).await, 2);
}

/// Another process deletes a blob and adds it again while it is read: the reader gets its bytes or
/// learns that the blob is gone, and no damage is reported.
#[tokio::test(start_paused = true)]
async fn a_reader_looks_again() {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let store = shared();
    let (one, two) = (start(&store).await, start(&store).await);
    let data = bytes(1, 300_000);
    let hash = one.blobs.add(data.clone()).await.unwrap().hash();
    let mut reader = one.blobs.reader(hash).await.unwrap();
    let mut first = vec![0; 1_000];
    reader.read_exact(&mut first).await.unwrap();
    two.blobs.delete(vec![hash]).await.unwrap();
    reader.seek(std::io::SeekFrom::Start(0)).await.unwrap();
    let gone = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound, "{gone}");

    two.blobs.add(data.clone()).await.unwrap();
    let mut all = Vec::new();
    reader.seek(std::io::SeekFrom::Start(0)).await.unwrap();
    reader.read_to_end(&mut all).await.unwrap();
    assert!(all == data);
    // A payload that is still claimed but missing is damage.
    let payload = BlobStore::list(&store, None).next().await.unwrap();
    store.delete(vec![payload.unwrap()]).await.unwrap();
    let read = two.blobs.read_to_bytes(hash, 0..10).await.unwrap_err();
    assert_eq!(read.kind(), Kind::Corrupt);
    let exported = two
        .blobs
        .export(hash, larder_store_engine::ChunkRanges::all());
    let exported: Result<Vec<_>, _> = exported.try_collect().await;
    assert_eq!(exported.map(|_| ()).unwrap_err().kind(), Kind::Corrupt);
}

/// A watcher that was asleep itself, for example because the machine of both was, has seen nothing and
/// ends no session.
#[tokio::test(start_paused = true)]
async fn who_slept_ends_nobody() {
    let store = shared();
    let one = start(&store).await;
    let (upload, hash) = upload(&one, 1).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let two = start(&store).await;
        one.gate.close();
        two.gate.close();
        sleep(LEASE + BEAT).await;
        two.gate.open();
        sleep(BEAT / 2).await;
        one.gate.open();
        sleep(2 * LEASE).await;
        others.push(two);
    }
    upload.commit().await.unwrap();
    assert_has(&others[0].blobs, hash).await;
}

/// The pins of another process are not known here.
#[tokio::test(start_paused = true)]
async fn nobody_collects_beside_others() {
    let store = shared();
    let (one, two) = (start(&store).await, start(&store).await);
    let pin = one.blobs.add(bytes(1, 100_000)).await.unwrap();
    let refused = two.blobs.collect(std::time::SystemTime::now()).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Unavailable);
    assert_has(&two.blobs, pin.hash()).await;
    one.blobs
        .collect(std::time::SystemTime::now())
        .await
        .unwrap();
    drop(pin);
    one.blobs.close().await.unwrap();
    two.blobs
        .collect(std::time::SystemTime::now())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_only_reads_or_adds_what_is_small_has_no_session() {
    let store = shared();
    let one = start(&store).await;
    let pin = one.blobs.add("small").await.unwrap();
    let tag = TagName::try_from("tag").unwrap();
    one.blobs.tags().set(tag, pin.root()).await.unwrap();
    assert_has(&one.blobs, pin.hash()).await;
    sleep(2 * LEASE).await;
    assert_eq!(rows(&store).await, 0);
}

/// In an exclusive store, the remains of a crash are swept at once, and nobody needs a beat.
#[tokio::test(start_paused = true)]
async fn alone_nobody_waits() {
    let store = MemoryStore::new();
    let one = start(&store).await;
    let (_upload, _) = upload(&one, 1).await;
    assert_eq!(rows(&store).await, 1);
    one.kill();
    start(&store).await;
    assert_eq!((payloads(&store).await, rows(&store).await), (0, 0));
}

async fn live(seed: u64) -> (u32, u32) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let store = shared();
    let mut known = BTreeSet::new();
    let mut processes = Vec::new();
    let (mut killed, mut refused) = (0, 0);
    for _ in 0..60 {
        if processes.len() < 3 && (processes.is_empty() || rng.random_bool(0.4)) {
            processes.push(start(&store).await);
        }
        let at = rng.random_range(0..processes.len());
        let process = &processes[at];
        match rng.random_range(0..10) {
            // It sleeps during an add, for less or more than the lease.
            0..2 => {
                let gate = process.gate.clone();
                let asleep = Duration::from_secs(rng.random_range(1..60));
                tokio::spawn(async move {
                    gate.close();
                    sleep(asleep).await;
                    gate.open();
                });
            }
            2 => {
                // An add that is running.
                let blobs = process.blobs.clone();
                let data = bytes(rng.random_range(0..20), 100_000);
                tokio::spawn(async move { blobs.add(data).await });
                tokio::task::yield_now().await;
                processes.swap_remove(at).kill();
                killed += 1;
            }
            3 => {
                let blobs = processes.swap_remove(at).blobs;
                // A sleeping process closes once it is awake.
                tokio::spawn(async move { blobs.close().await });
            }
            4 => sleep(Duration::from_secs(rng.random_range(1..40))).await,
            _ => {
                let seed = rng.random_range(0..20);
                let len = [100, 20_000, 100_000][rng.random_range(0..3)];
                let tag = TagName::new(format!("tag {}", rng.random_range(0..5))).unwrap();
                let tag = rng.random::<bool>().then_some(tag);
                let options = AddOptions::default().tag(tag);
                let adding = process.blobs.add_with(bytes(seed, len), options);
                // While it sleeps, it does not answer.
                match timeout(Duration::from_secs(20), adding).await {
                    Ok(Ok(pin)) => drop(known.insert(pin.hash())),
                    Ok(Err(error)) => {
                        assert_eq!(error.kind(), Kind::Closed, "seed {seed}: {error}");
                        processes.swap_remove(at);
                        refused += 1;
                    }
                    Err(_) => {}
                }
            }
        }
    }
    for process in processes {
        process.kill();
    }
    // A later process finds everything that was acknowledged, and nothing else.
    let last = start(&store).await;
    for hash in &known {
        assert_has(&last.blobs, *hash).await;
    }
    sleep(4 * LEASE).await;
    assert_sound(&last.blobs).await;
    assert_eq!(rows(&store).await, 0, "seed {seed}");
    let claimed = last.blobs.list().try_collect::<Vec<_>>().await.unwrap();
    let large = claimed.iter().filter(|(_, status)| {
        matches!(status, larder_store_engine::BlobStatus::Complete { size } if *size > 16 * 1024)
    });
    assert_eq!(payloads(&store).await, large.count(), "seed {seed}");
    (killed, refused)
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_nothing_acknowledged_is_lost() {
    let (mut killed, mut refused) = (0, 0);
    for seed in 0..120 {
        let happened = live(seed).await;
        killed += happened.0;
        refused += happened.1;
    }
    assert!(
        killed > 20 && refused > 20,
        "{killed} were killed, {refused} refused"
    );
}

/// A store accepts 128 expectations and edits, and one of them belongs to the session.
#[tokio::test]
async fn the_session_has_its_place_in_every_batch() {
    let store = Arc::new(larder_store_testkit::stores::StrictStore::new());
    let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
    // Each of these has a payload, so that there is a session.
    let mut hashes = Vec::new();
    for seed in 0..70 {
        let pin = blobs.add(bytes(seed, 20_000)).await.unwrap();
        hashes.push(pin.hash());
    }
    let small = (0..70).map(|seed| larder_store_engine::Hashed::new(bytes(seed, 50)));
    blobs.add_all(small.collect()).await.unwrap();
    blobs.delete(hashes).await.unwrap();
    std::thread::sleep(Duration::from_millis(2));
    let collected = blobs.collect(std::time::SystemTime::now()).await.unwrap();
    assert_eq!(collected.deleted, 70);
    assert_eq!(store.violations(), [""; 0]);
}
