//! Compares Larder on a Veilid node's tables with those tables themselves: the same loads, in turn, in
//! one run.
//!
//! `cargo bench -p benches --bench veilid` prints the table; `-- --rounds N` makes it shorter, `--
//! --json` prints every figure. Each figure is the median of [`ROUNDS`] rounds, each in a process of
//! its own. Larder acknowledges data when it survives a loss of power; the tables acknowledge it when
//! it survives the end of the process.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Batch, CollectionId, CollectionStore, Edit, Scan};
use larder_store_engine::{Blobs, Source};
use larder_store_veilid::VeilidStore;
use larder_veilid_node::{Bootstrap, Node, NodeConfig, Protection};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 32;
const SMALL: u64 = 1_000;
const MANY: u64 = 100_000;
const GETS: u64 = 20_000;
const MIB: u64 = 1 << 20;
const LARGE: u64 = 256 * MIB;
/// The length of a block of the store.
const BLOCK: u64 = 64 << 10;
/// The number of blocks or blobs per transaction of the tables.
const IN_TRANSACTION: usize = 32;
const COLUMN: u32 = 1;
const C: CollectionId = CollectionId::from_static("bench");

/// A load, its target, and whether the target is a ratio to the tables.
const LOADS: [(&str, Goal); 10] = [
    ("add 1,000 × 1 KiB, 32 in flight (1/s)", Goal::Ratio(0.8)),
    ("add 256 MiB (MB/s)", Goal::Ratio(0.8)),
    ("read 256 MiB (MB/s)", Goal::Ratio(0.8)),
    ("disk of 256 MiB (×)", Goal::AtMost(1.1)),
    ("commit 100,000 entries (1/s)", Goal::Fact),
    ("get random 1 KiB of 100,000 (1/s)", Goal::AtLeast(10_000.0)),
    ("open with 100,000 entries (ms)", Goal::AtMost(1_000.0)),
    ("memory of that (MiB)", Goal::AtMost(64.0)),
    ("first 10 of 100,000 entries (ms)", Goal::Fact),
    ("scan 100,000 entries (ms)", Goal::Fact),
];

enum Goal {
    Ratio(f64),
    AtMost(f64),
    AtLeast(f64),
    Fact,
}

type Figures = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [flag, load, dir] = &args[..]
        && flag == "--one"
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(one(load, dir.as_ref()));
    }
    let rounds = match args.iter().position(|arg| arg == "--rounds") {
        Some(at) => args[at + 1].parse().expect("--rounds N"),
        None => ROUNDS,
    };
    let mut figures = Figures::new();
    for round in 1..=rounds {
        for (system, groups) in [
            ("larder", &["small", "large", "fill", "many"][..]),
            ("tables", &["table-small", "table-large"][..]),
        ] {
            eprintln!("round {round} of {rounds}: {system}");
            let dir = tempfile::tempdir().expect("a folder");
            for group in groups {
                for (load, figure) in child(group, dir.path()) {
                    let entry = figures.entry(load).or_default();
                    entry.entry(system.into()).or_default().push(figure);
                }
            }
        }
    }
    if args.iter().any(|arg| arg == "--json") {
        let json = serde_json::to_string_pretty(&figures);
        println!("{}", json.expect("names and numbers"));
    } else {
        print_table(&figures);
    }
}

fn print_table(figures: &Figures) {
    println!(
        "| load | larder on veilid | its tables | ratio | wanted | |\n|---|---|---|---|---|---|"
    );
    for (load, goal) in LOADS {
        let of = |system: &str| {
            let mut all = figures.get(load)?.get(system)?.clone();
            all.sort_by(f64::total_cmp);
            Some(all[all.len() / 2])
        };
        let (Some(ours), theirs) = (of("larder"), of("tables")) else {
            continue;
        };
        let ratio = theirs.map(|theirs| ours / theirs);
        let (goal, is_met) = match goal {
            Goal::Ratio(goal) => (
                format!("≥ {goal} ×"),
                ratio.is_some_and(|ratio| ratio >= goal),
            ),
            Goal::AtMost(goal) => (format!("≤ {goal}"), ours <= goal),
            Goal::AtLeast(goal) => (format!("≥ {goal}"), ours >= goal),
            Goal::Fact => ("–".to_owned(), true),
        };
        let text =
            |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{figure:.2}"));
        let met = if is_met { "yes" } else { "**no**" };
        let (theirs, ratio) = (text(theirs), text(ratio));
        println!("| {load} | {ours:.2} | {theirs} | {ratio} × | {goal} | {met} |");
    }
}

/// Runs one group of loads in a process of its own.
fn child(group: &str, dir: &Path) -> Vec<(String, f64)> {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    let command = command
        .args(["--one", group])
        .arg(dir)
        .stdout(Stdio::piped());
    let output = command.output().expect("it runs");
    assert!(
        output.status.success(),
        "{group}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .filter_map(|line| {
            let (load, figure) = line.rsplit_once('=')?;
            Some((load.to_owned(), figure.parse().ok()?))
        })
        .collect()
}

fn print(load: usize, figure: f64) {
    println!("{}={figure}", LOADS[load].0);
}

async fn one(group: &str, dir: &Path) {
    let mut config = NodeConfig::new(dir, Protection::InsecureFile);
    config.bootstrap = Bootstrap::Nobody;
    let node = Node::start(config).await.expect("a node");
    match group {
        "small" => small(&node).await,
        "large" => large(&node).await,
        "fill" => fill(&node).await,
        "many" => many(&node).await,
        "table-small" => table_small(&node).await,
        "table-large" => table_large(&node).await,
        other => panic!("there is no group {other}"),
    }
    node.shutdown().await;
}

fn bytes(seed: u64, len: u64) -> Bytes {
    let mut bytes = vec![0; len as usize];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

async fn open(node: &Node, name: &str) -> (VeilidStore, Blobs) {
    let store = VeilidStore::open(node.clone(), name)
        .await
        .expect("a store");
    let shared = Arc::new(store.clone());
    let blobs = Blobs::open(shared.clone(), shared)
        .await
        .expect("an engine");
    (store, blobs)
}

async fn small(node: &Node) {
    let (store, blobs) = open(node, "small").await;
    let all: Vec<_> = (0..SMALL).map(|n| bytes(n, 1024)).collect();
    let start = Instant::now();
    let pins: Vec<_> = stream::iter(all)
        .map(|bytes| {
            let blobs = blobs.clone();
            async move { tokio::spawn(async move { blobs.add(bytes).await }).await }
        })
        .buffer_unordered(IN_FLIGHT)
        .map(|added| added.expect("no panic").expect("it is added"))
        .collect()
        .await;
    print(0, SMALL as f64 / start.elapsed().as_secs_f64());
    drop(pins);
    store.close().await.expect("it closes");
}

async fn large(node: &Node) {
    let (store, blobs) = open(node, "large").await;
    let piece = bytes(1, MIB);
    let pieces: Vec<_> = (0..LARGE / MIB).map(|_| Ok(piece.clone())).collect();
    let start = Instant::now();
    let pin = blobs
        .add(Source::Stream(Box::pin(stream::iter(pieces))))
        .await;
    let pin = pin.expect("it is added");
    print(1, LARGE as f64 / 1e6 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    let read = blobs.read(pin.hash(), 0..u64::MAX);
    let sum = read.try_fold(0, async |sum, bytes: Bytes| Ok(sum + bytes.len() as u64));
    assert_eq!(sum.await.expect("it reads"), LARGE);
    print(2, LARGE as f64 / 1e6 / start.elapsed().as_secs_f64());
    let usage = store.disk_usage().await.expect("it tells");
    print(3, (usage.entries + usage.blocks) as f64 / LARGE as f64);
    store.close().await.expect("it closes");
}

fn key(n: u64) -> Bytes {
    Bytes::copy_from_slice(&bytes(n, 32))
}

async fn fill(node: &Node) {
    let store = VeilidStore::open(node.clone(), "many")
        .await
        .expect("a store");
    let start = Instant::now();
    let numbers: Vec<_> = (0..MANY).collect();
    let batches = numbers.chunks(IN_TRANSACTION).map(|numbers| {
        let edits = numbers.iter().map(|n| Edit::Put {
            collection: C,
            key: key(*n),
            value: bytes(!n, 1024),
        });
        let batch = Batch::of(edits.collect());
        let store = store.clone();
        async move { store.commit(batch).await.map(drop) }
    });
    let committed = stream::iter(batches)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>();
    committed.await.expect("it commits");
    print(4, MANY as f64 / start.elapsed().as_secs_f64());
    store.close().await.expect("it closes");
}

async fn many(node: &Node) {
    let before = memory("VmRSS:");
    let start = Instant::now();
    let store = VeilidStore::open(node.clone(), "many")
        .await
        .expect("a store");
    print(6, start.elapsed().as_secs_f64() * 1e3);
    print(7, memory("VmHWM:") - before);
    let start = Instant::now();
    let first = store.scan(Scan::all(C)).take(10).try_collect::<Vec<_>>();
    assert_eq!(first.await.expect("it scans").len(), 10);
    print(8, start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let all = store
        .scan(Scan::all(C))
        .try_fold(0, async |count, _| Ok(count + 1));
    assert_eq!(all.await.expect("it scans"), MANY);
    print(9, start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let tasks = (0..IN_FLIGHT as u64).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut random = ChaCha8Rng::seed_from_u64(task);
            for _ in 0..GETS / IN_FLIGHT as u64 {
                let found = store.get(C, key(random.random_range(0..MANY))).await;
                assert_eq!(
                    found.expect("it reads").expect("it is there").value.len(),
                    1024
                );
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    print(5, GETS as f64 / start.elapsed().as_secs_f64());
    store.close().await.expect("it closes");
}

/// Returns the kernel's figure for this process's memory, in MiB.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .expect("it is there");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<f64>().expect("a number") / 1024.0
}

async fn table_small(node: &Node) {
    let db = node
        .api()
        .open_table_db("raw", COLUMN + 1)
        .await
        .expect("a table");
    let all: Vec<_> = (0..SMALL).map(|n| (key(n), bytes(n, 1024))).collect();
    let start = Instant::now();
    for rows in all.chunks(IN_TRANSACTION) {
        let transaction = db.transact();
        for (key, value) in rows {
            let stored = transaction.store(COLUMN, key.clone(), value.clone());
            stored.await.expect("it stores");
        }
        transaction.commit().await.expect("it commits");
    }
    print(0, SMALL as f64 / start.elapsed().as_secs_f64());
}

async fn table_large(node: &Node) {
    let db = node
        .api()
        .open_table_db("raw", COLUMN + 1)
        .await
        .expect("a table");
    let piece = bytes(1, BLOCK);
    let index = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
    let numbers: Vec<_> = (0..LARGE / BLOCK).collect();
    let start = Instant::now();
    for numbers in numbers.chunks(IN_TRANSACTION) {
        let transaction = db.transact();
        for n in numbers {
            let stored = transaction.store(COLUMN, index(*n), piece.clone());
            stored.await.expect("it stores");
        }
        transaction.commit().await.expect("it commits");
    }
    print(1, LARGE as f64 / 1e6 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    for n in &numbers {
        let loaded = db.load(COLUMN, index(*n)).await.expect("it loads");
        assert_eq!(loaded.expect("it is there").len() as u64, BLOCK);
    }
    print(2, LARGE as f64 / 1e6 / start.elapsed().as_secs_f64());
}
