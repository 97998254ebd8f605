//! Workers on a real store, with a collector that runs all the time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use larder::Blobs;
use larder_store_testkit::MemoryStore;
use tests::{
    data::Seed,
    store::{claimed_payloads, open, payloads, unsound},
};

use crate::load::{Load, Worker, fill};

const WORKERS: u64 = 8;
/// The age below which blobs are spared. Short, so that most added blobs can be deleted at once.
const GRACE: Duration = Duration::from_millis(1);
/// The number of steps, deleted blobs and collections that make the test meaningful.
const ENOUGH: Happened = Happened {
    steps: 500,
    deleted: 100,
    collections: 20,
};
/// The number of steps after which something must have been deleted.
const MOST_STEPS: u64 = 200 * ENOUGH.steps;

/// The counts of what happened so far.
#[derive(Debug, Clone, Copy)]
struct Happened {
    steps: u64,
    deleted: u64,
    collections: u64,
}

impl Happened {
    fn is_enough(&self) -> bool {
        self.steps > ENOUGH.steps
            && self.deleted > ENOUGH.deleted
            && self.collections > ENOUGH.collections
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_enough_happened() {
    race(Duration::ZERO).await;
}

mod slow {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "slow: half a minute"]
    async fn for_half_a_minute() {
        race(Duration::from_secs(30)).await;
    }
}

/// Works and collects for at least this time, and until enough has happened to make the test
/// meaningful.
async fn race(least: Duration) {
    let seed = Seed::or(61);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let memory = Arc::new(MemoryStore::new());
    let load = Load {
        blobs: store.blobs().clone(),
        peer: Blobs::open(memory.clone(), memory).await.unwrap(),
        done: Arc::default(),
        steps: Arc::default(),
        checks: Arc::default(),
    };
    fill(&load.peer).await;
    let workers = (0..WORKERS).map(|name| Worker::new(&load, name, seed.number()).run());
    let mut workers: tokio::task::JoinSet<()> = workers.collect();
    let start = Instant::now();
    let mut happened = Happened {
        steps: 0,
        deleted: 0,
        collections: 0,
    };
    while start.elapsed() < least || !happened.is_enough() {
        let collected = load.blobs.collect(SystemTime::now() - GRACE).await.unwrap();
        happened = Happened {
            steps: load.steps.load(Ordering::Relaxed),
            deleted: happened.deleted + collected.deleted,
            collections: happened.collections + 1,
        };
        if let Some(ended) = workers.try_join_next() {
            panic!("a worker ended: {ended:?}");
        }
        assert!(
            happened.steps < MOST_STEPS || happened.is_enough(),
            "too little happened to show anything: {happened:?}"
        );
    }
    load.done.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    assert!(
        load.checks.load(Ordering::Relaxed) > 0,
        "nothing was looked for"
    );
    assert_eq!(unsound(&load.blobs).await, []);
    store.close().await.unwrap();
    let store = open(folder.path()).await;
    assert_eq!(
        payloads(folder.path()).len(),
        claimed_payloads(store.blobs()).await
    );
}
