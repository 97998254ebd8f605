//! Tests of full disks: the error is `Full`, nothing is half-claimed, and the store continues once
//! there is space.

use std::{
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt};
use larder::{
    AddOptions, BlobStatus, Blobs, ChunkRanges, DeviceKey, Hash, Kind, Result, Root, Store,
    StoreUrl, TagName, Trust, api::BlobStore,
};
use larder_store_testkit::{
    MemoryStore,
    stores::{Faults, FaultyStore},
};
use tests::{
    child::{self, Child},
    data::{KIB, MIB, bytes},
    store::{claimed_payloads, open_url, read, stored_payloads, unsound},
};

/// Returns another node with a blob.
async fn peer(seed: u64, len: usize) -> (Blobs, Hash) {
    let store = Arc::new(MemoryStore::new());
    let blobs = Blobs::open(store.clone(), store).await.unwrap();
    let hash = blobs.add(bytes(seed, len)).await.unwrap().hash();
    (blobs, hash)
}

async fn import(from: &Blobs, hash: Hash, to: &Blobs) -> Result<()> {
    let Some(BlobStatus::Complete { size }) = from.status(hash).await.unwrap() else {
        panic!("the peer has it");
    };
    let mut import = to.import(hash, size, Trust::Untrusted).await?;
    let mut items = from.export(hash, ChunkRanges::all());
    while let Some(item) = items.next().await {
        import.push(item.unwrap()).await?;
    }
    import.finish().await.map(drop)
}

fn tagged(tag: &str) -> AddOptions {
    AddOptions::default().tag(TagName::try_from(tag).unwrap())
}

/// Adds, imports and tags; each step can be repeated.
async fn steps(blobs: &Blobs, peer: &(Blobs, Hash)) -> Vec<Result<()>> {
    let tags = blobs.tags();
    vec![
        blobs
            .add_with(bytes(1, 100), tagged("small"))
            .await
            .map(drop),
        blobs
            .add_with(bytes(2, 200 * KIB), tagged("large"))
            .await
            .map(drop),
        import(&peer.0, peer.1, blobs).await,
        tags.set("imported", Root::raw(peer.1)).await,
        blobs
            .add_with(bytes(3, 16 * KIB), tagged("inline"))
            .await
            .map(drop),
    ]
}

#[tokio::test]
async fn at_every_length_of_a_disk() {
    let peer = peer(9, 300 * KIB).await;
    let lengths = [100, 200 * KIB, 300 * KIB, 16 * KIB];
    let all: u64 = lengths.iter().sum::<usize>() as u64;
    let mut failures = [0; 5];
    for space in (0..all + 64 * KIB as u64).step_by(7 * KIB) {
        let faults = Faults::seeded(space);
        faults.limit_space(Some(space));
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        for (step, result) in steps(&blobs, &peer).await.iter().enumerate() {
            if let Err(error) = result {
                assert_eq!(error.kind(), Kind::Full, "{space}: {error:?}");
                failures[step] += 1;
            }
        }
        // Cancelled imports are cleaned up when they are closed.
        blobs.close().await.unwrap();
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        assert_eq!(unsound(&blobs).await, [], "{space}");
        let kept = BlobStore::list(&*store, None).count().await;
        assert_eq!(kept, claimed_payloads(&blobs).await, "{space}");
        let tags: Vec<_> = blobs.tags().list(..).try_collect().await.unwrap();
        for tag in tags.iter().filter(|tag| tag.name.as_bytes() != "imported") {
            assert!(
                blobs.status(tag.root.hash).await.unwrap().is_some(),
                "{space}"
            );
        }

        faults.limit_space(None);
        for result in steps(&blobs, &peer).await {
            result.unwrap_or_else(|error| panic!("{space}, with more space: {error:?}"));
        }
        assert!(read(&blobs, peer.1).await == bytes(9, 300 * KIB));
        assert_eq!(unsound(&blobs).await, [], "{space}");
        assert_eq!(blobs.list().count().await, lengths.len(), "{space}");
    }
    assert!(
        failures.iter().all(|count| *count > 0),
        "{failures:?}: some step never failed"
    );
}

/// The remains of an add that ran out of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Deleting needs space too, which a full disk does not have.
    UntilTheNextStart,
}

/// Runs a child on a real disk with `limit` bytes, which `free` enlarges.
async fn fill(url: &StoreUrl, limit: usize, free: impl FnOnce()) {
    let store = open_url(url).await;
    let blobs = store.blobs();
    let left = match url.scheme() {
        "veilid+insecure" => Left::UntilTheNextStart,
        _ => Left::Nothing,
    };
    let mut kept = Vec::new();
    for i in 0..50 {
        let tag = tagged(&format!("kept {i}"));
        let len = [500, 30 * KIB][i as usize % 2];
        kept.push(
            blobs
                .add_with(bytes(100 + i, len), tag)
                .await
                .unwrap()
                .hash(),
        );
    }
    let is_full = |result: Result<()>, what| {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), Kind::Full, "{what}: {error:?}");
    };

    // In the middle of an add: nothing of it remains.
    let before = stored_payloads(blobs).await;
    let added = blobs.add_with(bytes(1, limit), tagged("too large")).await;
    is_full(added.map(drop), "an add");
    assert_eq!(blobs.status(Hash::of(bytes(1, limit))).await.unwrap(), None);
    assert_eq!(blobs.tags().get("too large").await.unwrap(), None);
    if left == Left::Nothing {
        assert_eq!(stored_payloads(blobs).await, before);
    }
    check(&store, &kept, left).await;

    // In the middle of an import: the recorded data stays, and is correct.
    let peer = peer(2, limit).await;
    is_full(import(&peer.0, peer.1, blobs).await, "an import");
    let part = blobs.bitfield(peer.1).await.unwrap();
    assert!(!part.is_complete());
    check(&store, &kept, left).await;

    // In a commit: blobs in the index, until there is no room for them.
    let mut inline = Vec::new();
    let error = loop {
        let i = inline.len() as u64;
        match blobs
            .add_with(bytes(1000 + i, 15 * KIB), tagged(&format!("{i}")))
            .await
        {
            Ok(pin) => inline.push(pin.hash()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Full, "a commit: {error:?}");
    assert!(!inline.is_empty() || left == Left::UntilTheNextStart);
    let refused = Hash::of(bytes(1000 + inline.len() as u64, 15 * KIB));
    assert_eq!(blobs.status(refused).await.unwrap(), None);
    kept.extend(&inline);
    check(&store, &kept, left).await;

    free();
    let added = blobs
        .add_with(bytes(1, limit), tagged("too large"))
        .await
        .unwrap();
    import(&peer.0, peer.1, blobs).await.unwrap();
    kept.extend([added.hash(), peer.1]);
    check(&store, &kept, left).await;
    store.close().await.unwrap();
    let store = open_url(url).await;
    check(&store, &kept, Left::Nothing).await;
    assert!(read(store.blobs(), peer.1).await == bytes(2, limit));
    store.close().await.unwrap();
    child::say("done");
}

async fn check(store: &Store, kept: &[Hash], left: Left) {
    let blobs = store.blobs();
    for hash in kept {
        let status = blobs.status(*hash).await.unwrap();
        assert!(
            matches!(status, Some(BlobStatus::Complete { .. })),
            "{hash} is lost"
        );
        assert!(Hash::of(read(blobs, *hash).await) == *hash);
    }
    assert_eq!(unsound(blobs).await, []);
    // A cancelled import is cleaned up a moment later.
    let mut attempts = 0;
    loop {
        let (stored, claimed) = (stored_payloads(blobs).await, claimed_payloads(blobs).await);
        let is_sound = match left {
            Left::Nothing => stored == claimed,
            Left::UntilTheNextStart => stored >= claimed,
        };
        if is_sound {
            return;
        }
        attempts += 1;
        assert!(
            attempts < 100,
            "{stored} payloads, {claimed} of them claimed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the URL of a child's store.
fn url(dir: &Path, backend: &str) -> StoreUrl {
    let store = dir.join("store");
    match backend {
        "redb" => StoreUrl::redb(store),
        "veilid" => StoreUrl::veilid(store, DeviceKey::InsecureFile),
        other => panic!("{other} is not a backend"),
    }
}

/// Limits the length of files, which needs no privileges.
#[test]
fn a_limit_for_files() {
    const TEST: &str = "full::a_limit_for_files";
    const LIMIT: usize = 8 * MIB;
    if child::job().is_some() {
        let process = std::process::id().to_string();
        let free = move || {
            let mut command = Command::new("prlimit");
            let status = command
                .args(["--pid", &process, "--fsize=unlimited"])
                .status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "prlimit raises the limit"
            );
        };
        let dir = child::argument("DIR");
        return child::run(fill(&url(Path::new(&dir), "redb"), LIMIT + MIB, free));
    }
    let folder = tempfile::tempdir().unwrap();
    // In units of 512 bytes; without the signal, writes return an error.
    let limit = format!("ulimit -S -f {}; trap '' XFSZ", LIMIT / 512);
    let dir = folder.path();
    let child = Child::start_in_shell(&["sh"], &limit, dir, TEST, "fill", &[("DIR", &dir)]);
    assert_eq!(child.finish(), ["done"]);
}

#[test]
fn a_full_disk() {
    on_a_disk_of_its_own("full::a_full_disk", "redb", 48 * MIB);
}

#[test]
fn a_full_disk_below_a_veilid_node() {
    // Freed space stays in the file, and the log beside it needs as much again.
    on_a_disk_of_its_own("full::a_full_disk_below_a_veilid_node", "veilid", 96 * MIB);
}

#[test]
fn with_nothing_free_a_store_can_be_read_and_emptied() {
    const TEST: &str = "full::with_nothing_free_a_store_can_be_read_and_emptied";
    if child::job().is_some() {
        let dir = child::argument("DIR");
        return child::run(empty_on_a_full_disk(Path::new(&dir)));
    }
    mounted(TEST, 64 * MIB);
}

/// Takes what is left of a disk.
fn take_the_rest(file: &Path) {
    let mut file = fs::File::create(file).unwrap();
    for len in [MIB, 4 * KIB, 1] {
        while file.write_all(&vec![1; len]).is_ok() {}
    }
}

async fn empty_on_a_full_disk(dir: &Path) {
    let (url, other) = (url(dir, "redb"), dir.join("other"));
    let store = open_url(&url).await;
    let kept = store
        .blobs()
        .add_with(bytes(1, 100 * KIB), tagged("kept"))
        .await
        .unwrap()
        .hash();
    // Small ones are in the log, long ones are files.
    for round in 0..2 {
        let first = 10_000 * round;
        let mut pins = Vec::new();
        for i in first..first + 1200 {
            pins.push(store.blobs().add(bytes(i, 10 * KIB)).await.unwrap());
        }
        for i in 0..200 {
            let tag = tagged(&format!("{round} {i}"));
            let len = [12 * KIB, 40 * KIB][i as usize % 2];
            store
                .blobs()
                .add_with(bytes(first + 5000 + i, len), tag)
                .await
                .unwrap();
        }
    }
    store.close().await.unwrap();
    drop(store);

    take_the_rest(&other);
    for _ in 0..3 {
        let store = open_url(&url).await;
        assert_eq!(read(store.blobs(), kept).await, bytes(1, 100 * KIB));
        assert_eq!(store.blobs().tags().list(..).count().await, 401);
        assert_eq!(unsound(store.blobs()).await, []);
        store.disk_usage().await.unwrap();
        let added = store
            .blobs()
            .add_with(bytes(77, 15 * KIB), tagged("more"))
            .await;
        assert_eq!(added.expect_err("there is no room").kind(), Kind::Full);
        store.close().await.unwrap();
        drop(store);
        take_the_rest(&other);
    }

    let store = open_url(&url).await;
    let tags = store.blobs().tags();
    for round in 0..2 {
        for i in 0..200 {
            let name = format!("{round} {i}");
            assert!(tags.delete_one(&name).await.unwrap());
        }
    }
    let collected = store.blobs().collect(SystemTime::now()).await.unwrap();
    assert_eq!((collected.kept, collected.deleted), (1, 2800));
    store.reclaim_space().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open_url(&url).await;
    let added = store
        .blobs()
        .add_with(bytes(78, 16 * MIB), tagged("more"))
        .await;
    added.expect("there is room again");
    assert_eq!(read(store.blobs(), kept).await, bytes(1, 100 * KIB));
    assert_eq!(unsound(store.blobs()).await, []);
    store.close().await.unwrap();
    assert_eq!(
        fs::metadata(dir.join("store/reserve")).unwrap().len(),
        2 << 20
    );
    child::say("done");
}

/// A disk of its own, in memory. A user that may not mount one has the test above.
fn on_a_disk_of_its_own(test: &str, backend: &str, limit: usize) {
    if child::job().is_some() {
        let dir = child::argument("DIR");
        let dir = Path::new(&dir);
        // Another file uses a part of the disk, and is removed later.
        let other = dir.join("other");
        fs::write(&other, vec![1; limit - 8 * MIB]).unwrap();
        let free = || fs::remove_file(&other).unwrap();
        return child::run(fill(&url(dir, backend), 10 * MIB, free));
    }
    mounted(test, limit);
}

/// Runs a child where a disk of this length is mounted.
pub(crate) fn mounted(test: &str, limit: usize) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mount = format!("mount -t tmpfs -o size={limit} tmpfs \"$1\"");
    let shells: [&[&str]; 2] = [
        &["unshare", "--mount", "sh"],
        &["unshare", "--user", "--map-root-user", "--mount", "sh"],
    ];
    let can_mount = |shell: &&&[&str]| {
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .args(["-c", &mount, "sh"])
            .arg(dir);
        command.output().is_ok_and(|output| output.status.success())
    };
    match shells.iter().find(can_mount) {
        Some(shell) => {
            let child = Child::start_in_shell(shell, &mount, dir, test, "fill", &[("DIR", &dir)]);
            assert_eq!(child.finish(), ["done"]);
        }
        None => child::note(&format!(
            "{test}: nothing can be mounted here, so this shows nothing"
        )),
    }
}
