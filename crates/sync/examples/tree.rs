//! Measures the cost of changes in a large tree: `cargo run --release -p larder-sync --example tree
//! [files]`.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Listing, Result};
use larder_store_engine::{Blobs, Hash};
use larder_store_redb::{Options, RedbStore};
use larder_store_testkit::MemorySecrets;
use larder_sync::{
    groups::{Changes, Groups, Stores},
    keyring::Keyring,
    keys::ReadKey,
    seal::file::FileKey,
    tree::{FileEntry, Name, Root, Tree},
};

const WRITES: u64 = 200;
/// The number of names that a repo gets at a time.
const TOGETHER: usize = 50_000;

fn name(i: u64) -> Name {
    Name::new(format!("photos/{:04}/IMG_{i:07}.jpeg", i / 500)).expect("a good name")
}

fn entry(i: u64) -> FileEntry {
    let hash = Hash::of(i.to_be_bytes());
    FileEntry {
        // Sizes whose changes differ: pages above that say the same sums would be the same blobs.
        size: i * i % 1_000_003,
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
    let blobs = Blobs::open(store.clone(), store.clone()).await?;
    let key = ReadKey::from_bytes([1; 32], 0);
    let tree = Tree::new(blobs.clone(), Keyring::of_read(key.clone()));

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

    let fresh = || Tree::new(blobs.clone(), Keyring::of_read(key.clone()));
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

    store.settle().await?;
    let (tree, none) = (fresh(), fresh());
    let mut times = Times::default();
    for i in 0..WRITES {
        let at = i * count / WRITES + 3;
        let change = BTreeMap::from([(name(at), Some(entry(count + at)))]);
        times.many(tree.edit(built.root, change.clone())).await?;
        times.none(none.edit(Root::EMPTY, change)).await?;
    }
    times.print("a change of the tree", count);
    drop((built, edited));
    whole_writes(&store, &blobs, count).await
}

/// Measures writes through a repo: the sealed file, the tree, its tag and the signed record.
async fn whole_writes(store: &Arc<RedbStore>, blobs: &Blobs, count: u64) -> Result<()> {
    let groups = Groups::open(Stores {
        blobs: blobs.clone(),
        secrets: Arc::new(MemorySecrets::new()),
    });
    let groups = groups.await?;
    let repo = async |name| groups.create_group(name).await?.create_repo(name).await;
    let (many, none) = (repo("many").await?, repo("none").await?);
    let file = many.stage("a file", 0).await?;
    for start in (0..count).step_by(TOGETHER) {
        let mut changes = Changes::new();
        for i in start..count.min(start + TOGETHER as u64) {
            changes.put(name(i), file.clone());
        }
        many.change(changes).await?;
    }
    store.settle().await?;
    let mut times = Times::default();
    for i in 0..WRITES {
        let name = name(i * count / WRITES + 3);
        let text = |what| format!("{what} {i}").into_bytes();
        times.many(many.write(name.as_str(), text("many"))).await?;
        times.none(none.write(name.as_str(), text("none"))).await?;
        none.remove(name.as_str()).await?;
    }
    times.print("a write into the repo", count);
    Ok(())
}

/// The times that writes take, in turn into many names and into none, so that other work of the
/// machine hinders both.
#[derive(Default)]
struct Times {
    many: Vec<Duration>,
    none: Vec<Duration>,
}

impl Times {
    async fn many<T>(&mut self, write: impl Future<Output = Result<T>>) -> Result<()> {
        self.many.push(timed(write).await?);
        Ok(())
    }

    async fn none<T>(&mut self, write: impl Future<Output = Result<T>>) -> Result<()> {
        self.none.push(timed(write).await?);
        Ok(())
    }

    fn print(mut self, what: &str, count: u64) {
        self.many.sort();
        self.none.sort();
        for (which, part) in [("middle", 2), ("fast", 10)] {
            let [many, none] = [&self.many, &self.none].map(|times| times[times.len() / part]);
            println!(
                "{what} of {count} names, {which}: {many:?}; of none: {none:?}; {:.2} times",
                many.as_secs_f64() / none.as_secs_f64(),
            );
        }
    }
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<Duration> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed())
}

/// Returns the system's figure for this process's greatest memory, if it has one.
fn peak() -> String {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".to_owned(), |line| line.trim().to_owned())
}
