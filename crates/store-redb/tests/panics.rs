//! redb panics on some damaged pages. Those panics become errors, and nothing of them is printed.

use std::{
    fs, panic,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt;
use larder_store_api::{Batch, CollectionId, CollectionStore, Edit, Error, Kind, Result, Scan};
use larder_store_redb::{Options, RedbStore};

const C: CollectionId = CollectionId::from_static("c");
const ENTRIES: u16 = 400;

/// The number of panics that were reported.
static REPORTED: AtomicU64 = AtomicU64::new(0);

async fn fill(dir: &Path) -> Result<()> {
    let store = RedbStore::open(dir, Options::default()).await?;
    for n in 0..ENTRIES {
        let edit = Edit::Put {
            collection: C,
            key: n.to_be_bytes().to_vec().into(),
            value: vec![7; 100].into(),
        };
        store.commit(Batch::of(vec![edit])).await?;
    }
    store.close().await
}

/// Reads and writes; says which errors come of it.
async fn work(dir: &Path) -> Vec<Error> {
    let store = match RedbStore::open(dir, Options::default()).await {
        Ok(store) => store,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for n in 0..ENTRIES {
        let found = store.get(C, n.to_be_bytes().to_vec().into()).await;
        errors.extend(found.err());
    }
    let all = store.scan(Scan::all(C)).try_collect::<Vec<_>>().await;
    errors.extend(all.err());
    let edit = Edit::Delete {
        collection: C,
        key: vec![0, 3].into(),
    };
    errors.extend(store.commit(Batch::of(vec![edit])).await.err());
    errors.extend(store.close().await.err());
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_prints_no_panic() {
    panic::set_hook(Box::new(|_| {
        REPORTED.fetch_add(1, Ordering::SeqCst);
    }));
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path()).await.expect("it is filled");
    let index = dir.path().join("index.redb");
    let whole = fs::read(&index).expect("there is an index");
    let mut panicked = 0;
    // Every page but the first, at its start; of the first, which redb checks by itself, all parts.
    let pages = (4096..whole.len()).step_by(4096);
    for at in pages.chain((4096..4096 + 400).step_by(5)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&index, damaged).expect("it is written");
        for error in work(dir.path()).await {
            assert_eq!(error.kind(), Kind::Corrupt, "{at}: {error:?}");
            panicked += u64::from(error.context().any(|(key, _)| key == "panic"));
        }
    }
    assert!(panicked > 0, "redb never panicked, so this shows nothing");
    assert_eq!(REPORTED.load(Ordering::SeqCst), 0);
    // Other panics are reported as before.
    let other = std::thread::spawn(|| panic!("of somebody else")).join();
    assert!(other.is_err());
    assert_eq!(REPORTED.load(Ordering::SeqCst), 1);
}
