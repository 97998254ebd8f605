//! Cases of scans and of listing collections.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use futures_util::StreamExt;
use larder_store_api::{CollectionId, CollectionStore, Entry, Order, Scan};

use super::super::{
    Fixture,
    support::{all, sample},
};
use super::{A, B, commit, delete, key, put, scanned};

/// Enough entries for several pages of any backend.
const MANY: u32 = 1500;
/// The number of edits in one batch of a case; every store accepts as many.
const BATCH: usize = 100;

pub(super) async fn scan_of_nothing_is_empty(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    assert_eq!(scanned(store, Scan::all(A)).await, []);
    commit(store, vec![put(&A, "k", "v")]).await;
    assert_eq!(scanned(store, Scan::all(B)).await, []);
    commit(store, vec![delete(&A, "k")]).await;
    assert_eq!(scanned(store, Scan::all(A)).await, []);
}

pub(super) async fn scan_gives_every_entry_once(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let mut entries = fill(store).await;
    commit(store, vec![put(&B, "elsewhere", "v")]).await;
    compare(store, &entries).await;

    // Every third entry is deleted, every fifth is put again.
    let keys: Vec<_> = entries.keys().cloned().collect();
    for key in keys.iter().step_by(3) {
        commit(store, vec![delete(&A, key)]).await;
        entries.remove(key);
    }
    for key in keys.iter().step_by(5) {
        let revision = commit(store, vec![put(&A, key, "anew")]).await;
        let entry = Entry {
            key: key.clone(),
            value: Bytes::from_static(b"anew"),
            revision,
        };
        entries.insert(key.clone(), entry);
    }
    compare(store, &entries).await;
}

async fn compare(store: &dyn CollectionStore, entries: &BTreeMap<Bytes, Entry>) {
    let mut scan = Scan::all(A);
    let ascending: Vec<_> = entries.values().cloned().collect();
    assert!(scanned(store, scan.clone()).await == ascending, "ascending");
    scan.order = Order::Descending;
    let descending: Vec<_> = entries.values().rev().cloned().collect();
    assert!(scanned(store, scan).await == descending, "descending");
}

pub(super) async fn scan_keeps_to_every_kind_of_bounds(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let present = ["", "\0", "b", "b\0", "bb", "d", "f", "\u{7f}"];
    let edits = present.iter().map(|name| put(&A, name, name)).collect();
    commit(store, edits).await;
    commit(
        store,
        vec![put(&B, "c", "elsewhere"), put(&A, [0xff, 0xff], "last")],
    )
    .await;
    let mut keys: Vec<_> = present.iter().map(key).collect();
    keys.push(key([0xff, 0xff]));

    let edges = [
        key(""),
        key("\0"),
        key("a"),
        key("b"),
        key("b\0"),
        key("c"),
        key("d"),
        key("f"),
        key([0xff]),
        key([0xff, 0xff]),
        key([0xff, 0xff, 0]),
    ];
    let mut bounds = vec![Bound::Unbounded];
    for edge in edges {
        bounds.extend([Bound::Included(edge.clone()), Bound::Excluded(edge)]);
    }
    for start in &bounds {
        for end in &bounds {
            let within = |key: &&Bytes| {
                let after = match start {
                    Bound::Included(start) => *key >= start,
                    Bound::Excluded(start) => *key > start,
                    Bound::Unbounded => true,
                };
                let before = match end {
                    Bound::Included(end) => *key <= end,
                    Bound::Excluded(end) => *key < end,
                    Bound::Unbounded => true,
                };
                after && before
            };
            let mut expected: Vec<_> = keys.iter().filter(within).cloned().collect();
            for order in [Order::Ascending, Order::Descending] {
                let scan = Scan {
                    collection: A,
                    keys: (start.clone(), end.clone()),
                    order,
                };
                let found = scanned(store, scan).await;
                let found: Vec<_> = found.into_iter().map(|entry| entry.key).collect();
                assert_eq!(found, expected, "{start:?} to {end:?}, {order:?}");
                expected.reverse();
            }
        }
    }
}

pub(super) async fn scan_of_a_prefix(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let keys: [&[u8]; 10] = [
        b"",
        b"a",
        b"a\xff",
        b"a\xff\xff",
        b"a\xff\xff\x01",
        b"b",
        b"\xfe\xff",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff",
    ];
    commit(store, keys.iter().map(|key| put(&A, key, "v")).collect()).await;
    let prefixes: [&[u8]; 8] = [
        b"",
        b"a",
        b"a\xff",
        b"a\xff\xff",
        b"\xfe",
        b"\xff",
        b"\xff\xff",
        b"nothing",
    ];
    for prefix in prefixes {
        let found = scanned(store, Scan::prefix(A, key(prefix))).await;
        let found: Vec<_> = found.iter().map(|entry| &entry.key[..]).collect();
        let with_prefix = keys.into_iter().filter(|key| key.starts_with(prefix));
        let expected: Vec<_> = with_prefix.collect();
        assert_eq!(found, expected, "prefix {}", prefix.escape_ascii());
    }
}

pub(super) async fn scan_sees_every_commit_that_returned(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    for round in 0..50_u8 {
        let revision = commit(store, vec![put(&A, [round], "v")]).await;
        let found = scanned(store, Scan::all(A)).await;
        assert_eq!(found.len(), usize::from(round) + 1);
        let newest = found.iter().max_by_key(|entry| entry.revision);
        assert_eq!(newest.map(|entry| entry.revision), Some(revision));
    }
}

pub(super) async fn scan_of_large_values(fixture: Fixture<dyn CollectionStore>) {
    const VALUES: u8 = 40;
    let store = fixture.store();
    let len = (store.capabilities().max_value_len as usize).min(256 * 1024);
    for n in 0..VALUES {
        commit(store, vec![put(&A, [n], sample(n.into(), len))]).await;
    }
    let found = scanned(store, Scan::all(A)).await;
    assert_eq!(found.len(), usize::from(VALUES));
    for (n, entry) in found.iter().enumerate() {
        assert!(entry.value == sample(n as u64, len), "value {n}");
    }
}

pub(super) async fn scan_goes_on_while_entries_change(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let entries = fill(store).await;
    let (changed, kept): (Vec<_>, Vec<_>) = entries.into_values().partition(|e| e.key[0] % 2 == 0);
    for order in [Order::Ascending, Order::Descending] {
        let mut scan = Scan::all(A);
        scan.order = order;
        let mut listing = store.scan(scan);
        let mut found = vec![
            listing
                .next()
                .await
                .expect("there are some")
                .expect("an entry"),
        ];
        for (n, entry) in changed.iter().enumerate() {
            let edit = match n % 3 {
                0 => delete(&A, &entry.key),
                1 => put(&A, &entry.key, "changed"),
                _ => put(&A, sample(1 << 32 | n as u64, 9), "fresh"),
            };
            commit(store, vec![edit]).await;
            if let Some(next) = listing.next().await {
                found.push(next.expect("a scan goes on while entries change"));
            }
        }
        found.extend(all(listing).await.expect("a scan succeeds"));
        let ordered = match order {
            Order::Ascending => found.is_sorted_by(|a, b| a.key < b.key),
            Order::Descending => found.is_sorted_by(|a, b| a.key > b.key),
        };
        assert!(ordered, "{order:?} while entries change");
        let keys: BTreeSet<_> = found.iter().map(|entry| &entry.key).collect();
        assert_eq!(keys.len(), found.len(), "a key came twice");
        let missed = kept.iter().filter(|entry| !found.contains(entry)).count();
        assert_eq!(missed, 0, "entries that nobody changed are missing");
    }
}

pub(super) async fn scan_is_in_the_order_asked_for(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    fill(store).await;
    let mut scan = Scan::all(A);
    let found = all(store.scan(scan.clone()))
        .await
        .expect("a scan succeeds");
    assert_eq!(found.len(), MANY as usize);
    assert!(found.is_sorted_by(|a, b| a.key < b.key), "ascending");
    scan.order = Order::Descending;
    let found = all(store.scan(scan)).await.expect("a scan succeeds");
    assert_eq!(found.len(), MANY as usize);
    assert!(found.is_sorted_by(|a, b| a.key > b.key), "descending");
}

pub(super) async fn a_dropped_scan_harms_nothing(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    fill(store).await;
    for taken in [0, 1, 300] {
        assert_eq!(store.scan(Scan::all(A)).take(taken).count().await, taken);
    }
    // Open scans do not block writes.
    let mut open: Vec<_> = (0..8).map(|_| store.scan(Scan::all(A))).collect();
    for scan in &mut open {
        scan.next()
            .await
            .expect("there are some")
            .expect("an entry");
    }
    commit(store, vec![put(&A, "late", "v")]).await;
    drop(open);
    assert_eq!(scanned(store, Scan::all(A)).await.len(), MANY as usize + 1);
}

pub(super) async fn collections_lists_those_with_entries(fixture: Fixture<dyn CollectionStore>) {
    let store = fixture.store();
    let listed = || async { all(store.collections()).await.expect("a list") };
    assert_eq!(listed().await, []);
    commit(
        store,
        vec![put(&B, "k", "v"), put(&A, "", ""), put(&A, "l", "v")],
    )
    .await;
    assert_eq!(listed().await, [A, B]);
    commit(store, vec![delete(&A, "")]).await;
    assert_eq!(listed().await, [A, B]);
    commit(store, vec![delete(&A, "l"), delete(&A, "never there")]).await;
    assert_eq!(listed().await, [B], "one without entries does not exist");
    commit(store, vec![put(&A, "k", "v"), delete(&A, "k")]).await;
    assert_eq!(listed().await, [B]);
    commit(store, vec![delete(&B, "k"), put(&A, "k", "v")]).await;
    assert_eq!(listed().await, [A]);
}

pub(super) async fn collections_lists_many_in_order(fixture: Fixture<dyn CollectionStore>) {
    const NAMES: u64 = 600;
    let store = fixture.store();
    let name = |n: u64| CollectionId::new(sample(n, 1 + n as usize % 64)).expect("a name");
    let names: BTreeSet<_> = (0..NAMES).map(name).collect();
    for names in names.iter().collect::<Vec<_>>().chunks(BATCH) {
        let edits = names
            .iter()
            .flat_map(|n| [put(n, "k", "v"), put(n, "l", "v")]);
        for edits in edits.collect::<Vec<_>>().chunks(BATCH) {
            commit(store, edits.to_vec()).await;
        }
    }
    let listed = all(store.collections()).await.expect("a list");
    assert!(listed.iter().eq(names.iter()), "ascending, each once");
}

/// Puts many entries into `A` in an arbitrary order, and returns them.
async fn fill(store: &dyn CollectionStore) -> BTreeMap<Bytes, Entry> {
    let mut entries = BTreeMap::new();
    let numbers: Vec<_> = (0..MANY).collect();
    for numbers in numbers.chunks(BATCH) {
        let pairs = numbers.iter().map(|n| {
            let n = u64::from(*n);
            // The lengths differ, so that the order is by bytes and not by length.
            (sample(n, 8 + n as usize % 40), sample(n, n as usize % 100))
        });
        let pairs: Vec<_> = pairs.collect();
        let edits = pairs
            .iter()
            .map(|(key, value)| put(&A, key, value))
            .collect();
        let revision = commit(store, edits).await;
        entries.extend(pairs.into_iter().map(|(key, value)| {
            let entry = Entry {
                key: key.clone(),
                value,
                revision,
            };
            (key, entry)
        }));
    }
    entries
}
