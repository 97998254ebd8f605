//! The suite of [`CollectionStore`].

mod commit;
mod expect;
mod life;
mod limits;
mod scan;
mod together;
mod watch;

use bytes::Bytes;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Durability, Edit, Entry, Expect, Revision, Scan,
};

use super::{Case, Need, Suite, support::all};
use commit::*;
use expect::*;
use life::*;
use limits::*;
use scan::*;
use together::*;
use watch::*;

#[doc(hidden)]
#[macro_export]
macro_rules! __collection_cases {
    ($($then:tt)*) => {
        $crate::__cases! { $($then)*
            capabilities_make_sense: Always,
            get_of_what_is_absent_is_none: Always,
            get_gives_what_was_put: Always,
            get_sees_every_commit_that_returned: Always,
            keys_and_values_are_any_bytes: Always,
            collections_are_independent: Always,
            put_replaces: Always,
            delete_removes: Always,
            delete_of_what_is_absent_is_no_error: Always,
            of_two_edits_of_a_key_the_later_wins: Always,
            an_empty_batch_is_a_commit: Always,
            revisions_increase: Always,
            an_entry_has_the_revision_of_its_last_put: Always,
            every_durability_is_accepted: Always,
            expecting_absence: Always,
            expecting_a_revision: Always,
            expectations_see_the_state_before_the_batch: Always,
            one_broken_expectation_of_many_refuses_the_batch: Always,
            expectations_alone_are_checked: Always,
            expectations_reach_other_collections: Always,
            a_key_put_anew_has_another_revision: Always,
            limits_are_at_least_the_promised: Always,
            what_is_at_a_limit_is_taken: Always,
            a_long_key_is_refused_whole: Always,
            a_long_value_is_refused_whole: Always,
            a_long_batch_is_refused_whole: Always,
            scan_of_nothing_is_empty: Always,
            scan_gives_every_entry_once: Always,
            scan_keeps_to_every_kind_of_bounds: Always,
            scan_of_a_prefix: Always,
            scan_sees_every_commit_that_returned: Always,
            scan_of_large_values: Always,
            scan_goes_on_while_entries_change: Always,
            scan_is_in_the_order_asked_for: Always,
            a_dropped_scan_harms_nothing: Always,
            collections_lists_those_with_entries: Always,
            collections_lists_many_in_order: Always,
            concurrent_increments_lose_none: Always,
            concurrent_commits_have_revisions_of_their_own: Always,
            of_concurrent_claims_one_wins: Always,
            a_commit_shows_whole: Always,
            a_cancelled_commit_is_whole_or_nothing: Always,
            a_cancelled_commit_comes_before_later_ones: Always,
            watch_tells_of_puts_and_deletes: Watch,
            watch_tells_each_collection_of_a_commit: Watch,
            watch_begins_when_it_is_called: Watch,
            watch_does_not_tell_of_what_was_refused: Watch,
            a_watcher_that_lags_is_told: Watch,
            watchers_do_not_share: Watch,
            sync_succeeds: Always,
            reopening_keeps_commits: Reopen,
            reopening_keeps_what_was_synced: Reopen,
            reopening_keeps_revisions_increasing: Reopen,
            reopening_keeps_large_amounts: Reopen,
            a_closed_store_says_so: Close,
            a_closed_store_can_be_opened_while_handles_live: Close,
        }
    };
}

crate::__collection_cases!(list CollectionStore;);

impl Suite for dyn CollectionStore {
    fn cases() -> &'static [Case<Self>] {
        CASES
    }

    fn claims(&self, need: Need) -> Option<bool> {
        let facts = self.capabilities();
        match need {
            Need::Always => Some(true),
            Need::Reopen => Some(facts.durability > Durability::Memory),
            Need::Close => None,
            Need::Watch => Some(self.watch().is_some()),
            Need::Import | Need::SharedRoom => Some(false),
        }
    }
}

const A: CollectionId = CollectionId::from_static("a");
const B: CollectionId = CollectionId::from_static("b");

fn key(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn put(collection: &CollectionId, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Edit {
    Edit::Put {
        collection: collection.clone(),
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

fn delete(collection: &CollectionId, key: impl AsRef<[u8]>) -> Edit {
    Edit::Delete {
        collection: collection.clone(),
        key: Bytes::copy_from_slice(key.as_ref()),
    }
}

fn absent(collection: &CollectionId, key: impl AsRef<[u8]>) -> Expect {
    Expect::Absent {
        collection: collection.clone(),
        key: Bytes::copy_from_slice(key.as_ref()),
    }
}

fn at(collection: &CollectionId, key: impl AsRef<[u8]>, revision: Revision) -> Expect {
    Expect::At {
        collection: collection.clone(),
        key: Bytes::copy_from_slice(key.as_ref()),
        revision,
    }
}

async fn commit(store: &dyn CollectionStore, edits: Vec<Edit>) -> Revision {
    let committed = store.commit(Batch::of(edits)).await;
    committed.expect("a batch without expectations is applied")
}

async fn get(
    store: &dyn CollectionStore,
    collection: &CollectionId,
    key: impl AsRef<[u8]>,
) -> Option<Entry> {
    let key = Bytes::copy_from_slice(key.as_ref());
    let entry = store.get(collection.clone(), key).await;
    entry.expect("a get succeeds")
}

/// Returns the value of a key.
async fn value(
    store: &dyn CollectionStore,
    collection: &CollectionId,
    key: impl AsRef<[u8]>,
) -> Option<Bytes> {
    Some(get(store, collection, key).await?.value)
}

/// Returns the entries of `scan`.
async fn scanned(store: &dyn CollectionStore, scan: Scan) -> Vec<Entry> {
    all(store.scan(scan)).await.expect("a scan succeeds")
}

/// Returns every entry of every collection, to compare the states of a store.
async fn everything(store: &dyn CollectionStore) -> Vec<(CollectionId, Vec<Entry>)> {
    let names = all(store.collections()).await.expect("a list");
    let mut contents = Vec::new();
    for name in names {
        let entries = scanned(store, Scan::all(name.clone())).await;
        contents.push((name, entries));
    }
    contents
}
