//! Cases of syncing, reopening and closing.

use futures_util::StreamExt;
use larder_store_api::{Batch, CollectionStore, Durability, Kind, Scan};

use super::super::{
    Fixture,
    support::{all, kind, sample},
};
use super::{A, B, absent, at, commit, delete, everything, put};

pub(super) async fn sync_succeeds(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    store.sync().await.expect("there is nothing to sync");
    commit(store, vec![put(&A, "k", "v")]).await;
    store.sync().await.expect("a sync succeeds");
    store.sync().await.expect("a sync succeeds again");
}

pub(super) async fn reopening_keeps_commits(mut fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    let first = commit(
        store,
        vec![put(&A, "k", "1"), put(&A, "gone", ""), put(&B, "", "b")],
    )
    .await;
    commit(store, vec![put(&A, "l", "2"), delete(&A, "gone")]).await;
    // If a store cannot make a commit durable by itself, it needs a sync.
    if facts.durability < Durability::OnWrite {
        store.sync().await.expect("a sync succeeds");
    }
    let before = everything(store).await;
    for _ in 0..2 {
        fixture.reopen().await;
        assert_eq!(fixture.store().capabilities(), facts);
        assert_eq!(everything(fixture.store()).await, before);
    }
    let store = fixture.store();
    let taken = Batch::of(Vec::new()).expecting(absent(&A, "k"));
    assert_eq!(kind(store.commit(taken).await), Kind::Conflict);
    let swap = Batch::of(vec![put(&A, "k", "2")]).expecting(at(&A, "k", first));
    store.commit(swap).await.expect("revisions outlive opening");
}

pub(super) async fn reopening_keeps_what_was_synced(mut fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    for (n, durability) in [Durability::Memory, Durability::OnSync]
        .into_iter()
        .enumerate()
    {
        let mut batch = Batch::of(vec![put(&A, [n as u8], "v"), put(&B, [n as u8], "w")]);
        batch.durability = durability;
        store.commit(batch).await.expect("a commit succeeds");
    }
    store.sync().await.expect("a sync succeeds");
    let before = everything(store).await;
    fixture.reopen().await;
    assert_eq!(everything(fixture.store()).await, before);
}

pub(super) async fn reopening_keeps_revisions_increasing(
    mut fixture: Fixture<dyn CollectionStore>,
) {
    let mut last = commit(fixture.store(), vec![put(&A, "k", "v")]).await;
    for round in 0..4_u8 {
        let store = fixture.store();
        // The entry with the greatest revision is deleted, but the revision still counts.
        last = last.max(commit(store, vec![put(&A, [round], "v")]).await);
        last = last.max(commit(store, vec![delete(&A, [round])]).await);
        last = last.max(commit(store, Vec::new()).await);
        store.sync().await.expect("a sync succeeds");
        fixture.reopen().await;
        let next = commit(fixture.store(), vec![put(&A, "k", "v")]).await;
        assert!(next > last, "{next:?} after opening again follows {last:?}");
        last = next;
    }
}

pub(super) async fn reopening_keeps_large_amounts(mut fixture: Fixture<dyn CollectionStore>) {
    for round in 0..3_u8 {
        let store = fixture.store();
        for n in 0..30_u8 {
            let edits = (0..50).map(|m| put(&A, [round, n, m], sample(m.into(), 1000)));
            commit(store, edits.collect()).await;
        }
        store.sync().await.expect("a sync succeeds");
        let before = everything(store).await;
        fixture.reopen().await;
        let after = everything(fixture.store()).await;
        assert!(after == before, "round {round} came back different");
    }
}

pub(super) async fn a_closed_store_says_so(mut fixture: Fixture<dyn CollectionStore>) {
    commit(fixture.store(), vec![put(&A, "k", "v")]).await;
    fixture.close().await;
    let store = fixture.store();
    let batch = Batch::of(vec![put(&A, "k", "v")]);
    assert_eq!(kind(store.get(A, super::key("k")).await), Kind::Closed);
    assert_eq!(kind(store.commit(batch).await), Kind::Closed);
    assert_eq!(kind(store.sync().await), Kind::Closed);
    assert_eq!(kind(all(store.scan(Scan::all(A))).await), Kind::Closed);
    assert_eq!(kind(all(store.collections()).await), Kind::Closed);
    if let Some(mut watcher) = store.watch() {
        let told = tokio::time::timeout(fixture.patience(), watcher.next()).await;
        let told = told.expect("a watcher of a closed store is not left waiting");
        let told = told.expect("a closed store is an error, not a clean end");
        assert_eq!(kind(told), Kind::Closed);
    }
    assert!(!store.name().is_empty(), "facts outlive the store");
}

pub(super) async fn a_closed_store_can_be_opened_while_handles_live(
    mut fixture: Fixture<dyn CollectionStore>,
) {
    commit(fixture.store(), vec![put(&A, "k", "v")]).await;
    fixture.store().sync().await.expect("a sync succeeds");
    let before = everything(fixture.store()).await;
    fixture.close().await;
    let held = fixture.shared();
    if let Some(again) = fixture.open_beside().await {
        assert_eq!(everything(&*again).await, before);
    }
    assert_eq!(kind(held.get(A, super::key("k")).await), Kind::Closed);
}
