//! Cases of expectations: they are checked against the state before the batch, and if one fails nothing
//! changes.

use larder_store_api::{Batch, CollectionStore, Expect, Kind, Revision};

use super::super::{Fixture, support::kind};
use super::{A, B, absent, at, commit, delete, everything, get, key, put, value};

/// Panics unless a batch with these expectations is a conflict and changes nothing.
async fn conflicts(store: &dyn CollectionStore, expect: Vec<Expect>) {
    let before = everything(store).await;
    let mut batch = Batch::of(vec![
        put(&A, "k", "changed"),
        put(&A, "fresh", "changed"),
        delete(&A, "l"),
        put(&B, "k", "changed"),
    ]);
    batch.expect = expect;
    let words = format!("{:?}", batch.expect);
    assert_eq!(kind(store.commit(batch).await), Kind::Conflict, "{words}");
    assert_eq!(
        everything(store).await,
        before,
        "a conflict changes nothing"
    );
}

pub(super) async fn expecting_absence(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let batch = Batch::of(vec![put(&A, "k", "v")]).expecting(absent(&A, "k"));
    store
        .commit(batch.clone())
        .await
        .expect("the key is absent");
    assert_eq!(value(store, &A, "k").await, Some(key("v")));
    assert_eq!(kind(store.commit(batch.clone()).await), Kind::Conflict);
    conflicts(store, vec![absent(&A, "k")]).await;
    commit(store, vec![delete(&A, "k")]).await;
    store.commit(batch).await.expect("the key is absent again");
    commit(store, vec![put(&A, "", "")]).await;
    conflicts(store, vec![absent(&A, "")]).await;
}

pub(super) async fn expecting_a_revision(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "k", "1"), put(&A, "l", "1")]).await;
    let batch = Batch::of(vec![put(&A, "k", "2")]).expecting(at(&A, "k", first));
    let second = store
        .commit(batch.clone())
        .await
        .expect("it is at that revision");
    assert_eq!(kind(store.commit(batch).await), Kind::Conflict);
    assert_eq!(value(store, &A, "k").await, Some(key("2")));
    for wrong in [
        at(&A, "k", first),
        at(&A, "k", Revision(second.0 + 1)),
        at(&A, "k", Revision(0)),
        at(&A, "k", Revision(u64::MAX)),
        at(&A, "l", second),
        at(&A, "nothing", first),
        at(&B, "k", second),
    ] {
        conflicts(store, vec![wrong]).await;
    }
    let batch = Batch::of(vec![delete(&A, "k")]).expecting(at(&A, "k", second));
    store.commit(batch).await.expect("it is at that revision");
    assert_eq!(get(store, &A, "k").await, None);
    conflicts(store, vec![at(&A, "k", second)]).await;
}

pub(super) async fn expectations_see_the_state_before_the_batch(
    fixture: Fixture<dyn CollectionStore>,
) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "k", "1")]).await;
    let mut batch = Batch::of(vec![delete(&A, "k"), put(&A, "k", "2"), put(&A, "l", "2")]);
    batch.expect = vec![at(&A, "k", first), absent(&A, "l")];
    let second = store
        .commit(batch)
        .await
        .expect("both held before the batch");
    // An expectation does not see the edits of its own batch.
    let mut batch = Batch::of(vec![delete(&A, "k")]);
    batch.expect = vec![absent(&A, "k")];
    assert_eq!(kind(store.commit(batch).await), Kind::Conflict);
    let entry = get(store, &A, "k").await.expect("nothing changed");
    assert_eq!((entry.value, entry.revision), (key("2"), second));
}

pub(super) async fn one_broken_expectation_of_many_refuses_the_batch(
    fixture: Fixture<dyn CollectionStore>,
) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "k", "1"), put(&A, "l", "1")]).await;
    let second = commit(store, vec![put(&A, "m", "1")]).await;
    let good = [
        at(&A, "k", first),
        at(&A, "l", first),
        at(&A, "m", second),
        absent(&A, "n"),
        absent(&B, "k"),
    ];
    for place in 0..=good.len() {
        for broken in [absent(&A, "l"), at(&A, "k", second), at(&A, "n", first)] {
            let mut expect = good.to_vec();
            expect.insert(place, broken);
            conflicts(store, expect).await;
        }
    }
    let mut batch = Batch::of(vec![put(&A, "n", "1")]);
    batch.expect = good.to_vec();
    store.commit(batch).await.expect("all of them hold");
    assert_eq!(value(store, &A, "n").await, Some(key("1")));
}

pub(super) async fn expectations_alone_are_checked(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "k", "1")]).await;
    let only = |expect| Batch::of(Vec::new()).expecting(expect);
    let held = store.commit(only(at(&A, "k", first))).await;
    assert!(held.expect("it holds") > first);
    store.commit(only(absent(&A, "l"))).await.expect("it holds");
    assert_eq!(
        kind(store.commit(only(absent(&A, "k"))).await),
        Kind::Conflict
    );
    let broken = only(at(&A, "k", Revision(first.0 + 1)));
    assert_eq!(kind(store.commit(broken).await), Kind::Conflict);
}

pub(super) async fn expectations_reach_other_collections(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "guard", "1")]).await;
    let guarded = Batch::of(vec![put(&B, "k", "v")]).expecting(at(&A, "guard", first));
    store
        .commit(guarded.clone())
        .await
        .expect("the guard holds");
    assert_eq!(value(store, &B, "k").await, Some(key("v")));
    commit(store, vec![put(&A, "guard", "2"), delete(&B, "k")]).await;
    assert_eq!(kind(store.commit(guarded).await), Kind::Conflict);
    assert_eq!(get(store, &B, "k").await, None);
}

pub(super) async fn a_key_put_anew_has_another_revision(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let first = commit(store, vec![put(&A, "k", "same")]).await;
    commit(store, vec![delete(&A, "k")]).await;
    let second = commit(store, vec![put(&A, "k", "same")]).await;
    assert!(second > first);
    conflicts(store, vec![at(&A, "k", first)]).await;
    let same = commit(store, vec![put(&A, "k", "same")]).await;
    assert!(same > second, "putting the same value is a put");
    conflicts(store, vec![at(&A, "k", second)]).await;
}
