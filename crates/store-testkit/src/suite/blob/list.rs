//! Cases of listing and deleting.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use larder_store_api::{BlobStore, Kind, Part, PayloadId};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::{
    Fixture,
    support::{all, kind, sample},
};
use super::{block, block_len, expect, id, put};

/// Enough payloads for several pages of any backend.
const MANY: usize = 700;
/// The number of simultaneous calls in a case.
const AT_ONCE: usize = 32;

pub(super) async fn delete_removes_both_parts(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    put(store, id(1), Part::Data, &sample(1, 3 * len)).await;
    put(store, id(1), Part::Outboard, &sample(2, len + 1)).await;
    store.delete(vec![id(1)]).await.expect("a delete succeeds");
    for part in [Part::Data, Part::Outboard] {
        for at in [0, len as u64] {
            let read = store.read(id(1), part, at..at + 1).await;
            assert_eq!(kind(read), Kind::NotFound, "{part:?} at {at}");
        }
    }
    assert_eq!(all(store.list(None)).await.expect("a list"), []);
}

pub(super) async fn delete_leaves_others(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    for n in 1..=5 {
        put(store, id(n), Part::Data, &sample(n.into(), 100)).await;
    }
    let ids = vec![id(2), id(4), id(2)];
    store.delete(ids).await.expect("an id may come twice");
    for n in [1, 3, 5] {
        expect(store, id(n), Part::Data, &sample(n.into(), 100)).await;
    }
    let left = all(store.list(None)).await.expect("a list");
    assert_eq!(left, [id(1), id(3), id(5)]);
}

pub(super) async fn delete_of_what_is_absent_is_no_error(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    store
        .delete(Vec::new())
        .await
        .expect("an empty list is not an error");
    store
        .delete(vec![id(1)])
        .await
        .expect("an absent id is not an error");
    put(store, id(2), Part::Data, &sample(1, 100)).await;
    for _ in 0..2 {
        let ids = vec![id(1), id(2), id(3)];
        store
            .delete(ids)
            .await
            .expect("an absent id is not an error");
        let read = store.read(id(2), Part::Data, 0..1).await;
        assert_eq!(kind(read), Kind::NotFound);
    }
}

pub(super) async fn a_deleted_payload_can_be_written_afresh(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    put(store, id(1), Part::Data, &sample(1, 3 * len)).await;
    put(store, id(1), Part::Outboard, &sample(2, 100)).await;
    store.delete(vec![id(1)]).await.expect("a delete succeeds");
    let bytes = sample(3, 10);
    put(store, id(1), Part::Data, &bytes).await;
    expect(store, id(1), Part::Data, &bytes).await;
    for (part, range) in [
        (Part::Data, 0..11),
        (Part::Data, len as u64..len as u64 + 1),
        (Part::Outboard, 0..1),
    ] {
        let read = store.read(id(1), part, range).await;
        assert_eq!(kind(read), Kind::NotFound, "a deleted payload is back");
    }
}

pub(super) async fn list_of_an_empty_store_is_empty(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    assert_eq!(all(store.list(None)).await.expect("a list"), []);
    assert_eq!(all(store.list(Some(id(7)))).await.expect("a list"), []);
}

pub(super) async fn list_is_ascending_and_complete(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let mut ids = fill(store).await;
    assert_eq!(all(store.list(None)).await.expect("a list"), ids);

    // Every third payload is deleted, and the listing shows it.
    let gone: Vec<_> = ids.iter().copied().step_by(3).collect();
    ids.retain(|id| !gone.contains(id));
    store.delete(gone).await.expect("a delete succeeds");
    assert_eq!(all(store.list(None)).await.expect("a list"), ids);
}

pub(super) async fn list_starts_after(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let ids = fill(store).await;
    let mut absent = ids[MANY / 2];
    absent.0[15] ^= 1;
    for after in [
        ids[0],
        ids[1],
        absent,
        ids[MANY - 2],
        ids[MANY - 1],
        id(0),
        id(0xff),
    ] {
        let expected: Vec<_> = ids.iter().copied().filter(|id| *id > after).collect();
        let listed = all(store.list(Some(after))).await.expect("a list");
        assert_eq!(listed, expected, "after {after}");
    }
}

pub(super) async fn list_names_a_payload_with_one_part(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    put(store, id(1), Part::Outboard, &sample(1, 10)).await;
    put(store, id(2), Part::Data, &sample(1, 10)).await;
    let len = block_len(store);
    let later = block(Part::Data, 5, sample(2, len));
    store
        .write(id(3), vec![later])
        .await
        .expect("a write succeeds");
    let listed = all(store.list(None)).await.expect("a list");
    assert_eq!(listed, [id(1), id(2), id(3)]);
}

pub(super) async fn list_goes_on_while_payloads_change(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let ids = fill(store).await;
    let (changed, kept): (Vec<_>, Vec<_>) = ids.iter().partition(|id| id.0[0] % 2 == 0);
    let mut listing = store.list(None);
    let mut listed = vec![listing.next().await.expect("there are ids").expect("an id")];
    for (n, id) in changed.into_iter().enumerate() {
        store.delete(vec![id]).await.expect("a delete succeeds");
        if n % 3 == 0 {
            let fresh = PayloadId(sample(n as u64, 16)[..].try_into().expect("16 bytes"));
            put(store, fresh, Part::Data, &sample(1, 10)).await;
        }
        if let Some(next) = listing.next().await {
            listed.push(next.expect("a listing goes on while payloads change"));
        }
    }
    listed.extend(all(listing).await.expect("a list"));
    assert!(listed.is_sorted_by(|a, b| a < b), "ascending, each once");
    let listed: BTreeSet<_> = listed.into_iter().collect();
    let missed = kept.iter().filter(|id| !listed.contains(id)).count();
    assert_eq!(missed, 0, "payloads that nobody changed are missing");
}

/// Writes many payloads in an arbitrary order, and returns their ids in order.
async fn fill(store: &dyn BlobStore) -> Vec<PayloadId> {
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let mut ids: Vec<_> = (0..MANY)
        .map(|_| {
            let mut id = PayloadId([0; 16]);
            rng.fill_bytes(&mut id.0);
            id
        })
        .collect();
    let bytes = sample(1, 40);
    let bytes = &bytes;
    stream::iter(ids.clone())
        .for_each_concurrent(AT_ONCE, |id| put(store, id, Part::Data, bytes))
        .await;
    ids.sort();
    ids
}
