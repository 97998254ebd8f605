//! Measures the durable commits and reads a second that the store does on this machine.
//!
//! `cargo run --release -p larder-store-redb --example commit_rate -- [DIR [LEN IN_FLIGHT COUNT]]`

#![allow(clippy::print_stdout, reason = "a measurement prints")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use larder_store_api::{
    Batch, BlobStore, Block, CollectionId, CollectionStore, Edit, Part, PayloadId,
};
use larder_store_redb::{Options, RedbStore};

const COLLECTION: CollectionId = CollectionId::from_static("blobs");

fn key(n: u64) -> Bytes {
    let mut key = [0; 32];
    for (i, chunk) in key.chunks_exact_mut(8).enumerate() {
        let mixed = (n + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(i as u32 * 13);
        chunk.copy_from_slice(&mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
    }
    Bytes::copy_from_slice(&key)
}

fn value(n: u64, len: usize) -> Bytes {
    let mut value = vec![0x5a; len];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value.into()
}

/// Calls `each` for 0..count from `tasks` tasks.
async fn run<F, Fut>(store: &RedbStore, count: u64, tasks: u64, each: F) -> Duration
where
    F: Fn(RedbStore, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (store, each) = (store.clone(), each.clone());
            tokio::spawn(async move {
                let mut n = task;
                while n < count {
                    each(store.clone(), n).await;
                    n += tasks;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker does not panic");
    }
    start.elapsed()
}

/// The processor time of this process so far, in seconds; zero where it cannot be told. It says more
/// than the rate where the machine has other work.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

/// Returns the bytes that a file takes on the disk: the index has holes.
fn blocks(data: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(data) * 512;
    #[cfg(not(unix))]
    return data.len();
}

fn used(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let data = entry.metadata().expect("the file is there");
        sum += if data.is_dir() {
            used(&entry.path())
        } else {
            blocks(&data)
        };
    }
    sum
}

async fn commits(dir: &Path, len: usize, tasks: u64, count: u64) -> RedbStore {
    let folder = dir.join(format!("{len}-{tasks}"));
    let store = RedbStore::open(&folder, Options::default())
        .await
        .expect("it opens");
    let before = processor();
    let took = run(&store, count, tasks, move |store, n| async move {
        let put = Edit::Put {
            collection: COLLECTION,
            key: key(n),
            value: value(n, len),
        };
        store
            .commit(Batch::of(vec![put]))
            .await
            .expect("it commits");
    })
    .await;
    let rate = count as f64 / took.as_secs_f64();
    let each = (processor() - before) * 1e6 / count as f64;
    println!("commit {len:6} B, {tasks:3} in flight: {rate:8.0} /s, {each:.1} us of processor");
    store
}

async fn gets(what: &str, store: &RedbStore, len: usize, keys: u64) {
    let count = 400_000;
    let before = processor();
    let took = run(store, count, 32, move |store, n| async move {
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        let entry = store.get(COLLECTION, key(n)).await.expect("it reads");
        assert_eq!(entry.expect("it is there").value.len(), len);
    })
    .await;
    let rate = count as f64 / took.as_secs_f64();
    let each = (processor() - before) * 1e6 / count as f64;
    println!("get {what} {len} B of {keys}, 32 in flight: {rate:.0} /s, {each:.1} us of processor");
}

/// Reads blocks of a payload at random.
async fn payload_reads(dir: &Path) {
    const BLOCKS: u64 = 16 * 1024;
    let id = PayloadId([1; 16]);
    let store = RedbStore::open(dir.join("payload"), Options::default())
        .await
        .expect("it opens");
    let start = Instant::now();
    for chunk in 0..BLOCKS / 64 {
        let block = Block {
            part: Part::Data,
            index: chunk * 64,
            bytes: vec![chunk as u8; 64 * 16384].into(),
        };
        store.write(id, vec![block]).await.expect("it writes");
    }
    BlobStore::sync(&store, vec![id]).await.expect("it syncs");
    let megabytes = (BLOCKS * 16384) as f64 / 1e6;
    println!(
        "write a payload: {:.0} MB/s",
        megabytes / start.elapsed().as_secs_f64()
    );
    let (before, count) = (processor(), 200_000);
    let took = run(&store, count, 32, move |store, n| async move {
        let start = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS * 16384;
        let bytes = store
            .read(id, Part::Data, start..start + 16384)
            .await
            .expect("it reads");
        assert_eq!(bytes.len(), 16384);
    })
    .await;
    let rate = count as f64 / took.as_secs_f64();
    let each = (processor() - before) * 1e6 / count as f64;
    println!("read 16 KiB of a payload, 32 in flight: {rate:.0} /s, {each:.1} us of processor");
    let start = Instant::now();
    for chunk in 0..BLOCKS / 64 {
        let start = chunk * 64 * 16384;
        store
            .read(id, Part::Data, start..start + 64 * 16384)
            .await
            .expect("it reads");
    }
    println!(
        "read a payload by MiB: {:.0} MB/s",
        megabytes / start.elapsed().as_secs_f64()
    );
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "commit-rate".to_owned());
    let dir = Path::new(&dir);
    let numbers: Vec<u64> = args.map(|arg| arg.parse().expect("a number")).collect();
    if let [len, tasks, count] = numbers[..] {
        let len = usize::try_from(len).expect("a length");
        let store = commits(dir, len, tasks, count).await;
        gets("random", &store, len, count).await;
        store.close().await.expect("it closes");
        let per_value = used(dir) as f64 / count as f64;
        println!("    {per_value:.0} B on disk per value");
        return std::fs::remove_dir_all(dir).expect("the folder can be removed");
    }
    payload_reads(dir).await;
    for (len, tasks, count) in [
        (1024, 32, 40_000),
        (1024, 256, 100_000),
        (16384, 32, 20_000),
        (16384, 256, 20_000),
    ] {
        let store = commits(dir, len, tasks, count).await;
        if (len, tasks) == (1024, 32) {
            gets("cached", &store, len, 10_000).await;
        }
        let start = Instant::now();
        store.close().await.expect("it closes");
        drop(store);
        let closed = start.elapsed();
        let folder = dir.join(format!("{len}-{tasks}"));
        let per_value = used(&folder) as f64 / count as f64;
        println!("    closed in {closed:?}; {per_value:.0} B on disk per value");
        let start = Instant::now();
        let store = RedbStore::open(&folder, Options::default())
            .await
            .expect("it opens");
        println!("    opened in {:?}", start.elapsed());
        if len == 1024 {
            gets("random", &store, len, count).await;
            let start = Instant::now();
            let all = store.scan(larder_store_api::Scan::all(COLLECTION));
            let entries = all.map(|entry| entry.expect("it reads")).count().await;
            println!("    scanned {entries} in {:?}", start.elapsed());
        }
    }
    std::fs::remove_dir_all(dir).expect("the folder can be removed");
}
