//! The recorder of the program counts what is done.
#![cfg(all(feature = "metrics", feature = "groups"))]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use larder::{
    Kind, Store,
    groups::{EndpointOptions, InviteKind, Reach, ReplicateOptions, Synced},
    metrics::Counter,
};
use metrics::{
    Counter as Handle, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counts {
    fn of(&self, counter: Counter) -> u64 {
        let counts = self.0.lock().unwrap();
        let found = counts.get(counter.name());
        found.map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Handle {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(key.name().to_owned()).or_default();
        Handle::from_arc(Arc::clone(count))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

// On one thread, which has a recorder of its own.
#[tokio::test]
async fn what_a_store_does_is_counted() {
    let counts = Counts::default();
    let _recording = metrics::set_default_local_recorder(&counts);
    let store = Store::open("mem:").await.unwrap();
    let blobs = store.blobs();
    let pin = blobs.add(vec![1; 100_000]).await.unwrap();
    let before = counts.of(Counter::Commits);
    blobs.add("short").await.unwrap();
    assert_eq!(counts.of(Counter::BlobsAdded), 2);
    assert_eq!(counts.of(Counter::BytesAdded), 100_005);
    assert_eq!(counts.of(Counter::Commits), before + 1);
    blobs.read_to_bytes(pin.hash(), 10..).await.unwrap();
    blobs.read_to_bytes(pin.hash(), ..5).await.unwrap();
    assert_eq!(counts.of(Counter::BlobReads), 2);
    assert_eq!(counts.of(Counter::BytesRead), 99_995);
    let refused = store.collections().put("a", vec![0; 100_000], "").await;
    assert_eq!(refused.unwrap_err().kind(), Kind::TooLarge);
    assert_eq!(counts.of(Counter::CommitFailures), 1);
    drop(pin);
    // Blobs that were added in this very millisecond are too new.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let far = SystemTime::now() + Duration::from_secs(60);
    blobs.collect(far).await.unwrap();
    assert_eq!(counts.of(Counter::BlobsCollected), 2);
    assert_eq!(counts.of(Counter::BytesCollected), 100_005);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_goes_between_members_is_counted() {
    const LEN: usize = 200_000;
    let counts = Counts::default();
    let _recording = metrics::set_default_local_recorder(&counts);
    let network = || EndpointOptions::new(Reach::Loopback);
    let (ann, bob) = (
        Store::open("mem:").await.unwrap(),
        Store::open("mem:").await.unwrap(),
    );
    let here = ann
        .replicate(network(), ReplicateOptions::default())
        .await
        .unwrap();
    let group = here.groups().create_group("g").await.unwrap();
    let repo = group.create_repo("ann").await.unwrap();
    repo.write("file", vec![7; LEN]).await.unwrap();
    let invite = group
        .invite(InviteKind::Read, here.addresses())
        .await
        .unwrap();
    let there = bob
        .replicate(network(), ReplicateOptions::default())
        .await
        .unwrap();
    let joined = there.groups().join(&invite).await.unwrap();
    let limit = Duration::from_secs(60);
    there
        .wait_synced(&joined, Synced::Here, limit)
        .await
        .unwrap();
    there.shutdown().await;
    here.shutdown().await;
    assert!(counts.of(Counter::Dials) > 0);
    assert!(counts.of(Counter::Sessions) >= 2, "both sides have one");
    assert!(counts.of(Counter::BytesReceived) >= LEN as u64);
    assert!(counts.of(Counter::BytesSent) >= LEN as u64);
    assert_eq!(counts.of(Counter::Misconduct), 0);
    assert_eq!(counts.of(Counter::StoreFailures), 0);
}
