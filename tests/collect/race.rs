//! Half a minute on a real store, with a collector that never rests.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use larder::{Blobs, engine::Collected};
use store_testkit::MemoryStore;
use tests::{
    data::Seed,
    store::{claimed_payloads, open, payloads, unsound},
};

use crate::load::{Load, Worker, fill};

const WORKERS: u64 = 8;
/// What is younger is spared. Short, so that most of what is added can be deleted at once.
const GRACE: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_half_a_minute() {
    let seed = Seed::or(61);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let memory = Arc::new(MemoryStore::new());
    let load = Load {
        blobs: store.blobs().clone(),
        peer: Blobs::open(memory.clone(), memory).await.unwrap(),
        done: Arc::default(),
        checks: Arc::default(),
    };
    fill(&load.peer).await;
    let workers = (0..WORKERS).map(|name| Worker::new(&load, name, seed.number()).run());
    let mut workers: tokio::task::JoinSet<u64> = workers.collect();
    let until = Instant::now() + Duration::from_secs(30);
    let mut total = Collected::default();
    let mut collections = 0;
    while Instant::now() < until {
        let collected = load.blobs.collect(SystemTime::now() - GRACE).await.unwrap();
        total.deleted += collected.deleted;
        collections += 1;
        if let Some(ended) = workers.try_join_next() {
            panic!("a worker ended: {ended:?}");
        }
    }
    load.done.store(true, Ordering::Relaxed);
    let mut steps = 0;
    while let Some(worker) = workers.join_next().await {
        steps += worker.unwrap();
    }
    let checks = load.checks.load(Ordering::Relaxed);
    assert!(
        steps > 500 && total.deleted > 100 && collections > 20,
        "too little happened to show anything: {steps} steps, {checks} checks, {collections} \
         collections, {total:?}"
    );
    assert_eq!(unsound(&load.blobs).await, []);
    store.close().await.unwrap();
    let store = open(folder.path()).await;
    assert_eq!(
        payloads(folder.path()).len(),
        claimed_payloads(store.blobs()).await
    );
}
