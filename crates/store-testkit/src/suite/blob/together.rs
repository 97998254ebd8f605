//! Cases of simultaneous and cancelled calls.

use futures_util::{FutureExt, StreamExt, future::join_all};
use larder_store_api::{BlobStore, Kind, Part};

use super::super::{
    Fixture,
    support::{all, kind, sample},
};
use crate::cancel::Cut;

use super::{block, block_len, expect, id, put};

pub(super) async fn concurrent_writes_all_arrive(fixture: Fixture<dyn BlobStore>) {
    const PAYLOADS: u8 = 8;
    const BLOCKS: u64 = 8;
    let len = block_len(fixture.store());
    let bytes = |payload: u8, index: u64| sample(u64::from(payload) << 8 | index, len);
    let tasks = (0..PAYLOADS).flat_map(|payload| (0..BLOCKS).map(move |index| (payload, index)));
    let tasks: Vec<_> = tasks
        .map(|(payload, index)| {
            let store = fixture.shared();
            let block = block(Part::Data, index, bytes(payload, index));
            tokio::spawn(async move { store.write(id(payload), vec![block]).await })
        })
        .collect();
    for task in join_all(tasks).await {
        task.expect("the task ends").expect("a write succeeds");
    }
    for payload in 0..PAYLOADS {
        let whole: Vec<_> = (0..BLOCKS)
            .flat_map(|index| bytes(payload, index))
            .collect();
        expect(fixture.store(), id(payload), Part::Data, &whole.into()).await;
    }
}

pub(super) async fn a_read_during_a_write_is_old_or_new(fixture: Fixture<dyn BlobStore>) {
    const ROUNDS: u64 = 100;
    let len = block_len(fixture.store());
    let versions = [sample(1, 2 * len), sample(2, 2 * len)];
    put(fixture.store(), id(1), Part::Data, &versions[0]).await;
    let writer = {
        let store = fixture.shared();
        let versions = versions.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                put(&*store, id(1), Part::Data, &versions[(round % 2) as usize]).await;
            }
        })
    };
    loop {
        let last = writer.is_finished();
        tokio::task::yield_now().await;
        let read = fixture
            .store()
            .read(id(1), Part::Data, 0..2 * len as u64)
            .await;
        let read = read.expect("a payload can be read while it is rewritten");
        assert_eq!(read.len(), 2 * len);
        let known = |at: usize| versions.iter().any(|version| version[at] == read[at]);
        assert!((0..read.len()).all(known), "bytes that were never written");
        if last {
            break;
        }
    }
    writer.await.expect("the writer ends");
    expect(fixture.store(), id(1), Part::Data, &versions[1]).await;
}

pub(super) async fn a_cancelled_write_harms_no_other(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let other = sample(1, 2 * len);
    put(store, id(1), Part::Data, &other).await;
    for polls in 0..5 {
        let bytes = sample(100 + polls, 4 * len);
        let mut write = store.write(id(2), vec![block(Part::Data, 0, bytes)]);
        for _ in 0..polls {
            if (&mut write).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(write);
    }
    expect(store, id(1), Part::Data, &other).await;
    let fresh = sample(2, 4 * len);
    put(store, id(3), Part::Data, &fresh).await;
    expect(store, id(3), Part::Data, &fresh).await;
    store.delete(vec![id(3)]).await.expect("a delete succeeds");
    let listed = all(store.list(None)).await.expect("a list");
    assert!(listed.contains(&id(1)) && !listed.contains(&id(3)));
}

pub(super) async fn a_cancelled_call_can_be_made_again(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let bytes = sample(1, 2 * block_len(store) + 5);
    for polls in 0..8_u8 {
        let payload = id(polls);
        let cut = || Cut::after(polls.into());
        let write = || store.write(payload, vec![block(Part::Data, 0, bytes.clone())]);
        cut().call(write()).await;
        write().await.expect("a write succeeds");
        let read = || store.read(payload, Part::Data, 0..bytes.len() as u64);
        cut().call(read()).await;
        assert!(read().await.expect("it was written") == bytes);
        cut().call(store.sync(vec![payload])).await;
        store.sync(vec![payload]).await.expect("a sync succeeds");
        assert!(read().await.expect("it was synced") == bytes);
        // A cancelled write of the first payload may come back.
        let payload = id(100 + polls);
        put(store, payload, Part::Data, &bytes).await;
        cut().call(store.delete(vec![payload])).await;
        let deleted = store.delete(vec![payload]).await;
        deleted.expect("a delete succeeds");
        let read = store.read(payload, Part::Data, 0..1).await;
        assert_eq!(kind(read), Kind::NotFound);
    }
}

pub(super) async fn a_dropped_listing_harms_nothing(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    for n in 0..50 {
        put(store, id(n), Part::Data, &sample(1, 10)).await;
    }
    for taken in [0, 1, 10] {
        let listing = store.list(None).take(taken);
        assert_eq!(listing.count().await, taken);
    }
    let never_polled = store.list(None);
    store.delete(vec![id(0)]).await.expect("a delete succeeds");
    put(store, id(60), Part::Data, &sample(1, 10)).await;
    drop(never_polled);
    assert_eq!(all(store.list(None)).await.expect("a list").len(), 50);
}
