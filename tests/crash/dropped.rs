//! Tests of adds that are dropped in the middle, because another one failed or nobody waits any more:
//! claimed data is there, no unclaimed data stays, and adding again stores the missing data.

use std::{io, path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Blobs, Hash, Kind,
    engine::{Source, blocking},
};
use rand::Rng as _;
use tests::{
    data::{KIB, Rng, Seed, bytes, rng},
    store::{claimed_payloads, open, read, stored_payloads, unsound},
};

const ROUNDS: u64 = 20;
const BLOBS: u64 = 200;
const AT_ONCE: usize = 16;

fn blob(round: u64, n: u64) -> larder::Bytes {
    bytes(round * 1_000 + n, 40 * KIB + n as usize)
}

/// Adds all blobs of a round; `bad` cannot be read.
async fn add_all(blobs: &Blobs, round: u64, bad: Option<u64>) -> larder::Result<Vec<Hash>> {
    let sources = (0..BLOBS).map(|n| match bad == Some(n) {
        true => Source::Stream(Box::pin(stream::iter([
            Ok(bytes(n, 30 * KIB)),
            Err(io::Error::other("it cannot be read")),
        ]))),
        false => Source::from(blob(round, n)),
    });
    stream::iter(sources)
        .map(|source| async move { Ok(blobs.add(source).await?.hash()) })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn dropped(dir: &Path, round: u64, rng: &mut Rng) {
    let store = open(dir).await;
    match round % 2 {
        0 => {
            let bad = rng.random_range(0..BLOBS);
            let failed = add_all(store.blobs(), round, Some(bad)).await;
            assert_eq!(failed.unwrap_err().kind(), Kind::Unavailable);
        }
        _ => {
            let patience = Duration::from_micros(rng.random_range(0..60_000));
            let added = add_all(store.blobs(), round, None);
            tokio::time::timeout(patience, added).await.ok();
        }
    }
    // The dropped work may or may not have ended by then.
    if rng.random() {
        let pause = Duration::from_millis(rng.random_range(0..30));
        blocking("test.pause", move || std::thread::sleep(pause))
            .await
            .unwrap();
    }
    let again = rng.random();
    if again {
        add_all(store.blobs(), round, None).await.unwrap();
    }
    store.close().await.unwrap();

    let store = open(dir).await;
    let blobs = store.blobs();
    assert_eq!(unsound(blobs).await, [], "round {round}");
    let (claimed, stored) = (claimed_payloads(blobs).await, stored_payloads(blobs).await);
    assert_eq!(
        stored, claimed,
        "round {round}: payloads that nothing claims"
    );
    if !again {
        add_all(blobs, round, None).await.unwrap();
    }
    for n in 0..BLOBS {
        let expected = blob(round, n);
        assert!(read(blobs, Hash::of(&expected)).await == expected);
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_can_be_added_again() {
    let seed = Seed::or(5);
    let mut rng = rng(seed.number());
    let folder = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        dropped(&folder.path().join("store"), round, &mut rng).await;
    }
}
