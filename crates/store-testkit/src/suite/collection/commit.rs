//! Cases of the changes of a commit, and of reading them with get.

use bytes::Bytes;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Durability, MAX_COLLECTION_ID_LEN, Revision,
};

use super::super::{Fixture, support::sample};
use super::{A, B, commit, delete, everything, get, key, put, value};

pub(super) async fn capabilities_make_sense(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    assert!(!store.name().is_empty(), "a store has a name");
    commit(store, vec![put(&A, "k", "v")]).await;
    assert_eq!(store.capabilities(), facts, "capabilities are constant");
}

pub(super) async fn get_of_what_is_absent_is_none(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    assert_eq!(get(store, &A, "k").await, None, "in an empty store");
    commit(store, vec![put(&A, "k", "v")]).await;
    for near in ["", "j", "ka", "k\0", "K"] {
        assert_eq!(get(store, &A, near).await, None, "{near:?}");
    }
    assert_eq!(get(store, &B, "k").await, None, "in another collection");
}

pub(super) async fn get_gives_what_was_put(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let revision = commit(store, vec![put(&A, "k", "v"), put(&A, "l", "w")]).await;
    for (name, content) in [("k", "v"), ("l", "w")] {
        let entry = get(store, &A, name).await.expect("the key was put");
        assert_eq!(entry.key, name);
        assert_eq!(entry.value, content);
        assert_eq!(entry.revision, revision);
    }
}

pub(super) async fn get_sees_every_commit_that_returned(fixture: Fixture<dyn CollectionStore>) {
    for round in 0..100_u8 {
        let revision = commit(fixture.store(), vec![put(&A, "k", [round])]).await;
        let store = fixture.shared();
        let seen = tokio::spawn(async move { get(&*store, &A, "k").await });
        let seen = seen.await.expect("the task ends").expect("the key was put");
        assert_eq!((&seen.value[..], seen.revision), (&[round][..], revision));
    }
}

pub(super) async fn keys_and_values_are_any_bytes(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let mut keys: Vec<Bytes> = (0..=255_u8).map(|byte| key([byte])).collect();
    keys.extend([key(""), key([0, 0]), key([0xff; 32]), sample(1, 256)]);
    let edits = |keys: &[Bytes]| keys.iter().map(|key| put(&A, key, key)).collect();
    for keys in keys.chunks(100) {
        commit(store, edits(keys)).await;
    }
    for key in &keys {
        assert_eq!(value(store, &A, key).await.as_ref(), Some(key), "{key:?}");
    }
    commit(store, vec![put(&A, "no value", "")]).await;
    assert_eq!(value(store, &A, "no value").await, Some(Bytes::new()));
}

pub(super) async fn collections_are_independent(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    // Names and keys that are ambiguous if a backend concatenates them.
    let name = |bytes: &[u8]| CollectionId::new(key(bytes)).expect("a name");
    let places = [
        (name(b"a"), key("b")),
        (name(b"ab"), key("")),
        (name(b"a\0"), key("b")),
        (name(b"a"), key("\0b")),
        (name(b"a/"), key("b")),
        (name(b"a"), key("/b")),
        (name(b"\0"), key("")),
        (name(b"\xff"), key("\u{ff}")),
        (name(&[b'n'; MAX_COLLECTION_ID_LEN]), key("n")),
        (name(&[b'n'; MAX_COLLECTION_ID_LEN - 1]), key("nn")),
    ];
    for (n, (collection, key)) in places.iter().enumerate() {
        commit(store, vec![put(collection, key, [n as u8])]).await;
    }
    for (n, (collection, key)) in places.iter().enumerate() {
        let found = value(store, collection, key).await;
        assert_eq!(
            found.as_deref(),
            Some(&[n as u8][..]),
            "{collection} {key:?}"
        );
    }
    commit(store, vec![delete(&places[0].0, &places[0].1)]).await;
    for (collection, key) in &places[1..] {
        assert!(
            value(store, collection, key).await.is_some(),
            "{collection}"
        );
    }
}

pub(super) async fn put_replaces(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    for content in ["first", "", "a longer second", "3"] {
        let revision = commit(store, vec![put(&A, "k", content)]).await;
        let entry = get(store, &A, "k").await.expect("the key was put");
        assert_eq!(
            (&entry.value[..], entry.revision),
            (content.as_bytes(), revision)
        );
    }
}

pub(super) async fn delete_removes(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let edits = vec![put(&A, "k", "v"), put(&A, "l", "w"), put(&B, "k", "x")];
    commit(store, edits).await;
    commit(store, vec![delete(&A, "k")]).await;
    assert_eq!(get(store, &A, "k").await, None);
    assert_eq!(value(store, &A, "l").await, Some(key("w")));
    assert_eq!(value(store, &B, "k").await, Some(key("x")));
}

pub(super) async fn delete_of_what_is_absent_is_no_error(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    commit(store, vec![delete(&A, "k")]).await;
    commit(store, vec![put(&A, "l", "w")]).await;
    let before = everything(store).await;
    commit(store, vec![delete(&A, "k"), delete(&B, "l")]).await;
    assert_eq!(everything(store).await, before);
}

pub(super) async fn of_two_edits_of_a_key_the_later_wins(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    commit(store, vec![put(&A, "was there", "old")]).await;
    let edits = vec![
        put(&A, "twice", "first"),
        put(&A, "gone", "first"),
        put(&B, "twice", "elsewhere"),
        delete(&A, "gone"),
        put(&A, "twice", "second"),
        delete(&A, "was there"),
        put(&A, "was there", "new"),
    ];
    let revision = commit(store, edits).await;
    assert_eq!(value(store, &A, "twice").await, Some(key("second")));
    assert_eq!(value(store, &A, "gone").await, None);
    assert_eq!(value(store, &B, "twice").await, Some(key("elsewhere")));
    let entry = get(store, &A, "was there").await.expect("it was put last");
    assert_eq!((entry.value, entry.revision), (key("new"), revision));
}

pub(super) async fn an_empty_batch_is_a_commit(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let first = commit(store, Vec::new()).await;
    let put = commit(store, vec![put(&A, "k", "v")]).await;
    let before = everything(store).await;
    let last = commit(store, Vec::new()).await;
    assert!(first < put && put < last);
    assert_eq!(
        everything(store).await,
        before,
        "an empty batch changes nothing"
    );
}

pub(super) async fn revisions_increase(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let mut last = Revision(0);
    for round in 0..20 {
        let edits = match round % 4 {
            0 => vec![put(&A, "k", "v")],
            1 => vec![put(&B, "k", "v"), put(&A, "l", "v")],
            2 => vec![delete(&A, "k")],
            _ => vec![delete(&B, "never there")],
        };
        let revision = commit(store, edits).await;
        assert!(revision > last, "{revision:?} follows {last:?}");
        last = revision;
    }
}

pub(super) async fn an_entry_has_the_revision_of_its_last_put(
    fixture: Fixture<dyn CollectionStore>,
) {
    let store = fixture.store();
    let first = commit(
        store,
        vec![put(&A, "k", "v"), put(&A, "l", "v"), put(&B, "k", "v")],
    )
    .await;
    let second = commit(store, vec![put(&A, "k", "v"), delete(&B, "l")]).await;
    let revisions = [(&A, "k", second), (&A, "l", first), (&B, "k", first)];
    for (collection, name, revision) in revisions {
        let entry = get(store, collection, name).await.expect("it was put");
        assert_eq!(entry.revision, revision, "{collection} {name}, by get");
        let scan = larder_store_api::Scan::prefix(collection.clone(), name);
        let entries = super::scanned(store, scan).await;
        assert_eq!(entries, [entry], "{collection} {name}, by scan");
    }
}

pub(super) async fn every_durability_is_accepted(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let levels = [Durability::Memory, Durability::OnSync, Durability::OnWrite];
    for (n, durability) in levels.into_iter().enumerate() {
        let mut batch = Batch::of(vec![put(&A, [n as u8], "v")]);
        batch.durability = durability;
        store
            .commit(batch)
            .await
            .expect("a store may always do better");
        assert!(get(store, &A, [n as u8]).await.is_some(), "visible at once");
    }
}
