//! Tests the same race over a store whose every call takes a while, with a clock that the test
//! controls: each seed gives another order of events.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use larder::{Blobs, api::BlobStore};
use larder_store_testkit::{
    MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, When},
};
use tests::{
    data::Seed,
    store::{claimed_payloads, unsound},
};

use crate::load::{Load, Worker, fill};

const SEEDS: u64 = 60;
const WORKERS: u64 = 5;
const COLLECTIONS: u64 = 25;

#[tokio::test(start_paused = true)]
async fn in_many_orders() {
    let first = Seed::or(62);
    let (mut deleted, mut steps) = (0, 0);
    for seed in first.number()..first.number() + SEEDS {
        let faults = Faults::seeded(seed);
        let calls = [
            Operation::Get,
            Operation::Scan,
            Operation::Commit,
            Operation::Read,
            Operation::Write,
            Operation::Delete,
            Operation::SyncBlobs,
        ];
        for on in calls {
            for (chance, millis) in [(0.5, 1), (0.3, 3), (0.1, 20)] {
                let delay = Fault::Delay(Duration::from_millis(millis));
                faults.inject(on, When::Chance(chance), delay);
            }
        }
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults));
        let memory = Arc::new(MemoryStore::new());
        let load = Load {
            blobs: Blobs::open(store.clone(), store.clone()).await.unwrap(),
            peer: Blobs::open(memory.clone(), memory).await.unwrap(),
            done: Arc::default(),
            steps: Arc::default(),
            checks: Arc::default(),
        };
        fill(&load.peer).await;
        let workers = (0..WORKERS).map(|name| Worker::new(&load, name, seed).run());
        let mut workers: tokio::task::JoinSet<()> = workers.collect();
        for _ in 0..COLLECTIONS {
            let collected = load.blobs.collect(SystemTime::now()).await.unwrap();
            deleted += collected.deleted;
            assert!(
                workers.try_join_next().is_none(),
                "seed {seed}: a worker failed"
            );
        }
        load.done.store(true, Ordering::Relaxed);
        while let Some(worker) = workers.join_next().await {
            worker.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        steps += load.steps.load(Ordering::Relaxed);
        load.blobs.close().await.unwrap();
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        assert_eq!(unsound(&blobs).await, [], "seed {seed}");
        let payloads = BlobStore::list(&*store, None).count().await;
        assert_eq!(payloads, claimed_payloads(&blobs).await, "seed {seed}");
    }
    assert!(
        steps > 20 * SEEDS && deleted > SEEDS,
        "too little happened to show anything: {steps} steps, {deleted} deleted"
    );
}
