//! Cases of syncing, reopening and closing.

use larder_store_api::{BlobStore, Kind, Part};

use super::super::{
    Fixture,
    support::{all, kind, sample},
};
use super::{block, block_len, expect, id, put};

pub(super) async fn sync_of_anything_succeeds(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    store
        .sync(Vec::new())
        .await
        .expect("an empty list is not an error");
    store
        .sync(vec![id(1)])
        .await
        .expect("an absent id is not an error");
    let bytes = sample(1, 100);
    put(store, id(1), Part::Data, &bytes).await;
    put(store, id(2), Part::Outboard, &bytes).await;
    let ids = vec![id(1), id(9), id(2), id(1)];
    store.sync(ids).await.expect("a sync succeeds");
    store.delete(vec![id(2)]).await.expect("a delete succeeds");
    store
        .sync(vec![id(1), id(2)])
        .await
        .expect("a deleted id is not an error");
    expect(store, id(1), Part::Data, &bytes).await;
}

pub(super) async fn reopening_keeps_what_was_synced(mut fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let facts = store.capabilities();
    let data = sample(1, 3 * len + 17);
    let outboard = sample(2, 100);
    put(store, id(1), Part::Data, &data).await;
    put(store, id(1), Part::Outboard, &outboard).await;
    put(store, id(2), Part::Outboard, &outboard).await;
    store
        .sync(vec![id(1), id(2)])
        .await
        .expect("a sync succeeds");
    for _ in 0..2 {
        fixture.reopen().await;
        let store = fixture.store();
        assert_eq!(store.capabilities().block_len, facts.block_len);
        expect(store, id(1), Part::Data, &data).await;
        expect(store, id(1), Part::Outboard, &outboard).await;
        expect(store, id(2), Part::Outboard, &outboard).await;
        let beyond = store
            .read(id(1), Part::Data, 0..data.len() as u64 + 1)
            .await;
        assert_eq!(kind(beyond), Kind::NotFound, "the end is kept");
        assert_eq!(
            kind(store.read(id(2), Part::Data, 0..1).await),
            Kind::NotFound
        );
    }
}

pub(super) async fn reopening_keeps_the_listing(mut fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let ids: Vec<_> = (0..100).map(id).collect();
    for id in &ids {
        put(store, *id, Part::Data, &sample(1, 50)).await;
    }
    store.sync(ids.clone()).await.expect("a sync succeeds");
    fixture.reopen().await;
    assert_eq!(all(fixture.store().list(None)).await.expect("a list"), ids);
}

pub(super) async fn reopening_takes_new_writes(mut fixture: Fixture<dyn BlobStore>) {
    let len = block_len(fixture.store());
    let mut bytes = sample(1, len + 10);
    put(fixture.store(), id(1), Part::Data, &bytes).await;
    for round in 2..5 {
        fixture
            .store()
            .sync(vec![id(1)])
            .await
            .expect("a sync succeeds");
        fixture.reopen().await;
        let store = fixture.store();
        expect(store, id(1), Part::Data, &bytes).await;
        // The second block grows by ten bytes each time.
        let longer = sample(round, 10 * round as usize);
        let second = block(Part::Data, 1, longer.clone());
        store
            .write(id(1), vec![second])
            .await
            .expect("a write succeeds");
        bytes = [&bytes[..len], &longer].concat().into();
    }
    let store = fixture.store();
    expect(store, id(1), Part::Data, &bytes).await;
    store.delete(vec![id(1)]).await.expect("a delete succeeds");
    assert_eq!(all(store.list(None)).await.expect("a list"), []);
}

pub(super) async fn a_closed_store_says_so(mut fixture: Fixture<dyn BlobStore>) {
    put(fixture.store(), id(1), Part::Data, &sample(1, 10)).await;
    fixture.close().await;
    let store = fixture.store();
    let fresh = block(Part::Data, 0, sample(1, 10));
    assert_eq!(
        kind(store.read(id(1), Part::Data, 0..1).await),
        Kind::Closed
    );
    assert_eq!(kind(store.write(id(2), vec![fresh]).await), Kind::Closed);
    assert_eq!(kind(store.delete(vec![id(1)]).await), Kind::Closed);
    assert_eq!(kind(store.sync(vec![id(1)]).await), Kind::Closed);
    assert_eq!(kind(all(store.list(None)).await), Kind::Closed);
    assert!(!store.name().is_empty(), "facts outlive the store");
    assert!(store.capabilities().block_len > 0);
}

pub(super) async fn a_closed_store_can_be_opened_while_handles_live(
    mut fixture: Fixture<dyn BlobStore>,
) {
    let bytes = sample(1, 10);
    put(fixture.store(), id(1), Part::Data, &bytes).await;
    let synced = fixture.store().sync(vec![id(1)]).await;
    synced.expect("a sync succeeds");
    fixture.close().await;
    let held = fixture.shared();
    if let Some(again) = fixture.open_beside().await {
        expect(&*again, id(1), Part::Data, &bytes).await;
    }
    assert_eq!(kind(held.read(id(1), Part::Data, 0..1).await), Kind::Closed);
}
