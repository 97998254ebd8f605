//! Cases of limits: a batch at a limit is accepted, one beyond it is refused as a whole.

use larder_store_api::{Batch, CollectionStore, Edit, Kind};

use super::super::{
    Fixture,
    support::{kind, sample},
};
use super::{A, B, absent, commit, everything, put, value};

/// The largest limit of an entry that can be tested: a store that claims more fails the case.
const MAX_ENTRY: u32 = 256 * 1024 * 1024;

pub(super) async fn limits_are_at_least_the_promised(fixture: Fixture<dyn CollectionStore>) {
    let facts = fixture.store().capabilities();
    assert!(facts.max_key_len >= 256);
    assert!(facts.max_value_len >= 64 * 1024);
    assert!(facts.max_batch_len >= 128);
    for limit in [facts.max_key_len, facts.max_value_len, facts.max_batch_len] {
        assert!(
            limit <= MAX_ENTRY,
            "an entry limit of {limit} is too large to be tested"
        );
    }
}

pub(super) async fn what_is_at_a_limit_is_taken(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    let long_key = sample(1, facts.max_key_len as usize);
    let long_value = sample(2, facts.max_value_len as usize);
    commit(store, vec![put(&A, &long_key, &long_value)]).await;
    assert!(value(store, &A, &long_key).await == Some(long_value));
    let edits = numbered(facts.max_batch_len);
    let last = edits.len() as u32 - 1;
    commit(store, edits).await;
    for n in [0, last] {
        assert!(value(store, &B, n.to_be_bytes()).await.is_some(), "{n}");
    }
}

pub(super) async fn a_long_key_is_refused_whole(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let long = sample(1, store.capabilities().max_key_len as usize + 1);
    is_refused_whole(store, Batch::of(vec![put(&A, &long, "v")])).await;
    is_refused_whole(store, Batch::of(vec![super::delete(&A, &long)])).await;
    is_refused_whole(store, Batch::of(Vec::new()).expecting(absent(&A, &long))).await;
}

pub(super) async fn a_long_value_is_refused_whole(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let long = sample(2, store.capabilities().max_value_len as usize + 1);
    is_refused_whole(store, Batch::of(vec![put(&A, "long", long)])).await;
}

pub(super) async fn a_long_batch_is_refused_whole(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let limit = store.capabilities().max_batch_len;
    is_refused_whole(store, Batch::of(numbered(limit + 1))).await;
    // Expectations count too.
    let mut batch = Batch::of(numbered(limit - limit / 2));
    batch.expect = (0..=limit / 2)
        .map(|n| absent(&B, n.to_be_bytes()))
        .collect();
    is_refused_whole(store, batch).await;
}

fn numbered(count: u32) -> Vec<Edit> {
    (0..count).map(|n| put(&B, n.to_be_bytes(), "v")).collect()
}

/// Panics unless a batch with this edit at any place among valid ones is too large and changes nothing.
async fn is_refused_whole(store: &dyn CollectionStore, batch: Batch) {
    commit(store, vec![put(&A, "k", "old")]).await;
    let before = everything(store).await;
    let good = [put(&A, "k", "new"), put(&B, "fresh", "new")];
    for (front, back) in [(&good[..], &[][..]), (&[], &good), (&[], &[])] {
        let mut batch = batch.clone();
        batch.edits = [front, &batch.edits, back].concat();
        assert_eq!(kind(store.commit(batch).await), Kind::TooLarge);
        assert_eq!(everything(store).await, before, "something was changed");
    }
}
