//! The loads.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_store_redb::RedbStore;
use larder_store_veilid::VeilidStore;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{bytes, pieces, small},
    figures::{print, rate},
    net,
    ours::Larder,
    system::{Hash, System},
    theirs::IrohFs,
};

const SMALL: u64 = 10_000;
const GETS: u64 = 200_000;
const MANY: u64 = 100_000;
const GIB: u64 = 1 << 30;
const RANDOM_READS: u64 = 50_000;
pub const IN_FLIGHT: usize = 32;

pub fn run(group: &str, system: &str, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    match system {
        "larder" => runtime.block_on(group_of::<Larder<RedbStore>>(group, system, dir)),
        "larder-veilid" => {
            runtime.block_on(group_of::<Larder<VeilidStore>>(group, system, dir));
        }
        "iroh-fs" => runtime.block_on(group_of::<IrohFs>(group, system, dir)),
        _ => panic!("no such system: {system}"),
    }
}

async fn group_of<S: System + net::Node>(group: &str, system: &str, dir: &Path) {
    match group {
        "small" => small_blobs::<S>(dir).await,
        "large" => large_blob::<S>(dir).await,
        "open" => open::<S>(system, dir).await,
        "crash" => crash::<S>(dir).await,
        "net" => net::transfers::<S>(dir).await,
        _ => panic!("no such group: {group}"),
    }
}

async fn add_all<S: System>(store: &S, blobs: Vec<Bytes>) -> Vec<Hash> {
    stream::iter(blobs.into_iter().enumerate())
        .map(|(i, data)| {
            let store = store.clone();
            let add = async move { store.add_tagged(format!("tag {i:08}"), data).await };
            async { tokio::spawn(add).await.unwrap() }
        })
        .buffered(IN_FLIGHT)
        .collect()
        .await
}

async fn small_blobs<S: System>(dir: &Path) {
    for (load, len) in [("add 1 KiB (1/s)", 1024), ("add 16 KiB (1/s)", 16 * 1024)] {
        let store = S::open(&dir.join(len.to_string())).await;
        let blobs = small(SMALL, len);
        let start = Instant::now();
        let hashes = add_all(&store, blobs).await;
        rate(load, SMALL, start.elapsed());
        if len == 1024 {
            get_random(&store, hashes).await;
        }
        store.close().await;
    }
}

async fn get_random<S: System>(store: &S, hashes: Vec<Hash>) {
    let hashes = std::sync::Arc::new(hashes);
    let start = Instant::now();
    let tasks = (0..IN_FLIGHT as u64).map(|task| {
        let (store, hashes) = (store.clone(), hashes.clone());
        tokio::spawn(async move {
            let mut random = ChaCha8Rng::seed_from_u64(task);
            for _ in 0..GETS / IN_FLIGHT as u64 {
                let hash = hashes[random.random_range(0..hashes.len())];
                assert_eq!(store.get(hash).await.len(), 1024);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    rate("get 1 KiB (1/s)", GETS, start.elapsed());
}

async fn large_blob<S: System>(dir: &Path) {
    let store = S::open(dir).await;
    // The blob that the load needs exists before it starts.
    store
        .add_tagged("warm".into(), bytes(9, 1 << 20).into())
        .await;
    let before = memory("VmRSS:");
    let start = Instant::now();
    let hash = store.add_stream(GIB).await;
    rate("add 1 GiB (MB/s)", GIB / 1_000_000, start.elapsed());
    let start = Instant::now();
    assert_eq!(store.read_all(hash).await, GIB);
    rate("read 1 GiB (MB/s)", GIB / 1_000_000, start.elapsed());
    let start = Instant::now();
    let tasks = (0..IN_FLIGHT as u64).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut random = ChaCha8Rng::seed_from_u64(task);
            for _ in 0..RANDOM_READS / IN_FLIGHT as u64 {
                let at = random.random_range(0..GIB / 16384) * 16384;
                assert_eq!(store.read_verified(hash, at..at + 16384).await, 16384);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    rate("read random 16 KiB (1/s)", RANDOM_READS, start.elapsed());
    let start = Instant::now();
    assert_eq!(store.export(hash).await, GIB);
    rate("export 1 GiB (MB/s)", GIB / 1_000_000, start.elapsed());
    let peak = memory("VmHWM:");
    let start = Instant::now();
    write_plain(&dir.join("plain"), GIB);
    rate(
        "plain file, write and sync 1 GiB (MB/s)",
        GIB / 1_000_000,
        start.elapsed(),
    );
    print("memory of 1 GiB (MiB)", (peak - before) / 1024.0);
    store.close().await;
}

/// Writes to the disk without a store.
fn write_plain(path: &Path, len: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for piece in pieces(len) {
        file.write_all(&piece).expect("it is written");
    }
    file.sync_data().expect("it is synced");
}

/// Returns a figure of this process's memory in KiB.
fn memory(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with(what));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.and_then(|text| text.parse().ok()).expect("a figure")
}

/// Returns the number of bytes that a folder uses on disk.
fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let data = entry.metadata().expect("its facts");
            if data.is_dir() {
                disk(&entry.path())
            } else {
                data.blocks() * 512
            }
        })
        .sum()
}

async fn open<S: System>(system: &str, dir: &Path) {
    let store = S::open(dir).await;
    let hashes = add_all(&store, small(MANY, 1024)).await;
    store.close().await;
    let bytes = disk(dir) as f64 / MANY as f64;
    print("disk of 1 KiB (B)", bytes);
    let start = Instant::now();
    let store = S::open(dir).await;
    assert_eq!(store.get(hashes[77]).await.len(), 1024);
    print("open clean (ms)", start.elapsed().as_secs_f64() * 1000.0);
    store.close().await;
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--one", "crash", system])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts again");
    let mut ready = String::new();
    let out = child.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut ready).expect("a line");
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let start = Instant::now();
    let store = S::open(dir).await;
    assert_eq!(store.get(hashes[77]).await.len(), 1024);
    print(
        "open after SIGKILL (ms)",
        start.elapsed().as_secs_f64() * 1000.0,
    );
    store.close().await;
}

/// Adds, reports it, and waits to be killed.
async fn crash<S: System>(dir: &Path) {
    let store = S::open(dir).await;
    let more = small(5000, 1000);
    add_all(&store, more).await;
    println!("ready");
    std::future::pending::<()>().await;
}
