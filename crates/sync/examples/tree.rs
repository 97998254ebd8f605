//! What changes in a large tree cost: `cargo run --release -p sync --example tree [files]`.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use store_api::{Listing, Result};
use store_engine::{Blobs, Hash};
use store_redb::{Options, RedbStore};
use sync::{
    keys::ReadKey,
    seal::file::FileKey,
    tree::{FileEntry, Name, Root, Tree},
};

const WRITES: usize = 200;

fn name(i: u64) -> Name {
    Name::new(format!("photos/{:04}/IMG_{i:07}.jpeg", i / 500)).expect("a good name")
}

fn entry(i: u64) -> FileEntry {
    let hash = Hash::of(i.to_be_bytes());
    FileEntry {
        size: i,
        modified: 0,
        hash,
        blob: Hash::of(hash.as_bytes()),
        key: FileKey::from_bytes(*hash.as_bytes()),
    }
}

fn files(count: u64) -> Listing<(Name, FileEntry)> {
    stream::iter((0..count).map(|i| Ok((name(i), entry(i))))).boxed()
}

#[tokio::main]
async fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let count: u64 = count.unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = Arc::new(RedbStore::open(folder.path(), Options::default()).await?);
    let blobs = Blobs::open(store.clone(), store).await?;
    let key = ReadKey::from_bytes([1; 32], 0);
    let tree = Tree::new(blobs.clone(), &key);

    let start = Instant::now();
    let built = tree.build(files(count)).await?;
    println!(
        "built {count} files in {:.1} s: {} pages, {} levels, {:.1} MB; peak memory {}",
        start.elapsed().as_secs_f64(),
        built.pages,
        built.root.level + 1,
        built.bytes as f64 / 1e6,
        peak(),
    );

    let fresh = || Tree::new(blobs.clone(), &key);
    let spread = (0..10).map(|i| (name(i * count / 10 + 17), Some(entry(i + count))));
    let edited = fresh().edit(built.root, spread.collect()).await?;
    println!(
        "10 changed: {} new pages, {} KB",
        edited.pages,
        edited.bytes / 1000
    );
    let start = Instant::now();
    let found: Vec<_> = fresh().diff(built.root, edited.root).try_collect().await?;
    println!("their diff: {} names in {:?}", found.len(), start.elapsed());
    let start = Instant::now();
    for i in 0..1000 {
        let found = tree.get(built.root, &name(i * count / 1000)).await?;
        assert!(found.is_some());
    }
    println!("a lookup: {:?}", start.elapsed() / 1000);

    let many = writes(&fresh(), built.root, count).await?;
    let few = writes(&fresh(), Root::EMPTY, count).await?;
    for (what, at) in [("middle", WRITES / 2), ("fast", WRITES / 10)] {
        println!(
            "a {what} write into {count} names: {:?}; into none: {:?}; {:.1} times",
            many[at],
            few[at],
            many[at].as_secs_f64() / few[at].as_secs_f64(),
        );
    }
    Ok(())
}

/// How long it takes to write one name, from the fastest on.
async fn writes(tree: &Tree, root: Root, count: u64) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for i in 0..WRITES as u64 {
        let at = i * count / WRITES as u64 + 3;
        let start = Instant::now();
        let change = BTreeMap::from([(name(at), Some(entry(count + at)))]);
        tree.edit(root, change).await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}

/// What the system says of this process's greatest memory, where it does.
fn peak() -> String {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".to_owned(), |line| line.trim().to_owned())
}
