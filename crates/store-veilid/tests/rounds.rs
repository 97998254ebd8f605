//! Tests that starting and stopping leaves nothing behind, in a process of its own so that nothing else
//! is counted.

mod support;

use larder_store_api::{Batch, CollectionId, CollectionStore, Edit, Result};
use larder_store_veilid::VeilidStore;
use support::{name, node};

const ROUNDS: usize = 100;

/// Counts the threads, file handles and tasks of this process.
fn held() -> [usize; 3] {
    let count = |dir| std::fs::read_dir(dir).expect("Linux has it").count();
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    [count("/proc/self/task"), count("/proc/self/fd"), tasks]
}

async fn round(dir: &std::path::Path, namespace: &str) -> Result<()> {
    let node = node(dir, namespace).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    let put = Edit::Put {
        collection: CollectionId::from_static("c"),
        key: "k".into(),
        value: "v".into(),
    };
    store.commit(Batch::of(vec![put])).await?;
    store.close().await?;
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_rounds_leave_nothing_behind() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let namespace = name();
    // Things that are created only once stay.
    for _ in 0..2 {
        round(dir.path(), &namespace).await?;
    }
    let before = held();
    for _ in 2..ROUNDS {
        round(dir.path(), &namespace).await?;
    }
    // Threads of the pool for blocking work come and go: all others must be gone.
    let mut after = held();
    for _ in 0..100 {
        if after
            .iter()
            .zip(before)
            .all(|(after, before)| *after <= before)
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        after = held();
    }
    assert!(
        after
            .iter()
            .zip(before)
            .all(|(after, before)| *after <= before),
        "threads, file handles, tasks: {before:?} after 2 rounds, {after:?} after {ROUNDS}"
    );
    Ok(())
}
