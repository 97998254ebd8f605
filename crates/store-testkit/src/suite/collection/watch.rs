//! Cases of watching: a watcher receives every change, or an event that some were missed.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_store_api::{Batch, Change, CollectionId, CollectionStore, Listing, Revision};

use super::super::Fixture;
use super::{A, B, absent, at, commit, delete, key, put};

/// The key whose change ends the collection of events.
const LAST: &str = "~last";
/// More changes than a store buffers for a watcher that does not read them.
const MANY: u32 = 20_000;
/// The number of simultaneous commits.
const AT_ONCE: usize = 64;

/// The events that a watcher received before the last change.
#[derive(Default)]
struct Told {
    keys: BTreeSet<(CollectionId, Bytes, Revision)>,
    resync: bool,
}

impl Told {
    fn has(&self, collection: &CollectionId, name: impl AsRef<[u8]>, revision: Revision) -> bool {
        self.keys
            .contains(&(collection.clone(), key(name), revision))
    }

    fn names(&self, name: impl AsRef<[u8]>) -> bool {
        self.keys
            .iter()
            .any(|(_, known, _)| *known == name.as_ref())
    }
}

fn watch(fixture: &Fixture<dyn CollectionStore>) -> Listing<Change> {
    fixture.store().watch().expect("the case needs it")
}

/// Commits a last change, repeatedly, and collects the watcher's events until that change or a resync
/// arrives.
async fn told(fixture: &Fixture<dyn CollectionStore>, watcher: &mut Listing<Change>) -> Told {
    let mut told = Told::default();
    let deadline = tokio::time::Instant::now() + fixture.patience();
    let last = commit(fixture.store(), vec![put(&A, LAST, "")]).await;
    loop {
        let next = tokio::time::timeout(Duration::from_millis(100), watcher.next());
        match next.await {
            Ok(change) => match change.expect("a watch does not end").expect("a change") {
                Change::Keys {
                    collection,
                    keys,
                    revision,
                } => {
                    let unique: BTreeSet<_> = keys.iter().collect();
                    assert_eq!(unique.len(), keys.len(), "a key came twice");
                    if revision >= last && keys.iter().any(|key| key == LAST) {
                        return told;
                    }
                    let keys = keys.into_iter();
                    told.keys
                        .extend(keys.map(|key| (collection.clone(), key, revision)));
                }
                Change::Resync => {
                    told.resync = true;
                    return told;
                }
                other => panic!("the suite does not know {other:?}"),
            },
            Err(_) => {
                let left = tokio::time::Instant::now() < deadline;
                assert!(left, "the watcher was told nothing of the last change");
                commit(fixture.store(), vec![put(&A, LAST, "")]).await;
            }
        }
    }
}

pub(super) async fn watch_tells_of_puts_and_deletes(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let mut watcher = watch(&fixture);
    let first = commit(
        store,
        vec![put(&A, "k", "v"), put(&A, "l", "v"), put(&A, "k", "w")],
    )
    .await;
    let second = commit(store, vec![put(&A, "k", "x")]).await;
    let third = commit(store, vec![delete(&A, "k")]).await;
    let told = told(&fixture, &mut watcher).await;
    let expected = [("k", first), ("l", first), ("k", second), ("k", third)];
    for (name, revision) in expected {
        let known = told.resync || told.has(&A, name, revision);
        assert!(known, "{name} at {revision:?} was missed");
    }
}

pub(super) async fn watch_tells_each_collection_of_a_commit(fixture: Fixture<dyn CollectionStore>) {
    let mut watcher = watch(&fixture);
    let edits = vec![put(&B, "k", "v"), put(&A, "k", "v"), put(&B, "l", "v")];
    let revision = commit(fixture.store(), edits).await;
    let told = told(&fixture, &mut watcher).await;
    for (collection, name) in [(&A, "k"), (&B, "k"), (&B, "l")] {
        let known = told.resync || told.has(collection, name, revision);
        assert!(known, "{name} of {collection} was missed");
    }
    assert!(!told.has(&A, "l", revision), "a key of another collection");
}

pub(super) async fn watch_begins_when_it_is_called(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    commit(store, vec![put(&A, "before", "v")]).await;
    let mut watcher = watch(&fixture);
    // The watcher has not been polled before this happens.
    let revision = commit(store, vec![put(&A, "after", "v")]).await;
    let told = told(&fixture, &mut watcher).await;
    assert!(told.resync || told.has(&A, "after", revision));
    assert!(!told.names("before"), "a change before the watch");
}

pub(super) async fn watch_does_not_tell_of_what_was_refused(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    commit(store, vec![put(&A, "there", "v")]).await;
    let mut watcher = watch(&fixture);
    let refused = Batch::of(vec![put(&A, "refused", "v")]).expecting(absent(&A, "there"));
    store.commit(refused).await.expect_err("the key is there");
    let refused = Batch::of(vec![put(&A, "refused", "v")]);
    let refused = refused.expecting(at(&A, "there", Revision(u64::MAX)));
    store
        .commit(refused)
        .await
        .expect_err("it is at another revision");
    let told = told(&fixture, &mut watcher).await;
    assert!(!told.names("refused"));
}

pub(super) async fn a_watcher_that_lags_is_told(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let mut watcher = watch(&fixture);
    let change = |n: u32| async move {
        let mut batch = Batch::of(vec![put(&A, n.to_be_bytes(), "")]);
        batch.durability = larder_store_api::Durability::Memory;
        store.commit(batch).await.expect("a commit succeeds");
    };
    stream::iter(0..MANY)
        .for_each_concurrent(AT_ONCE, change)
        .await;
    let heard = told(&fixture, &mut watcher).await;
    let known: BTreeSet<_> = heard.keys.iter().map(|(_, key, _)| &key[..]).collect();
    let missed = (0..MANY)
        .filter(|n| !known.contains(&n.to_be_bytes()[..]))
        .count();
    assert!(
        heard.resync || missed == 0,
        "{missed} changes were missed in silence"
    );

    // The watcher continues after that.
    let again = commit(store, vec![put(&B, "again", "v")]).await;
    let heard = told(&fixture, &mut watcher).await;
    let known = heard.resync || heard.has(&B, "again", again);
    assert!(known, "a watcher that lagged once hears no more");
}

pub(super) async fn watchers_do_not_share(fixture: Fixture<dyn CollectionStore>) {
    let mut first = watch(&fixture);
    let mut second = watch(&fixture);
    drop(watch(&fixture));
    let revision = commit(fixture.store(), vec![put(&A, "k", "v")]).await;
    for watcher in [&mut first, &mut second] {
        let told = told(&fixture, watcher).await;
        assert!(told.resync || told.has(&A, "k", revision));
    }
    drop(first);
    let revision = commit(fixture.store(), vec![put(&A, "l", "v")]).await;
    let told = told(&fixture, &mut second).await;
    assert!(told.resync || told.has(&A, "l", revision));
}
