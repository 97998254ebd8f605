//! Cases of forgetting, reopening and closing.

use futures_util::StreamExt;
use larder_store_api::{Freshness, Kind, RecordId, RecordStore, SeqExpect, SlotSeq};

use super::super::{Fixture, support::kind};
use crate::cancel::Cut;

use super::{OWNER, create, descriptor, get, owned, taken, write, writing};

pub(super) async fn forget_removes_record_and_values(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    for slot in 0..5 {
        write(store, id, slot, "v").await;
    }
    store.forget(id).await.expect("a record is forgotten");
    let found = store.get(id, 0, Freshness::Local).await;
    assert_eq!(kind(found), Kind::NotFound);
    let found = store.inspect(id, 0..5, Freshness::Local).await;
    assert_eq!(kind(found), Kind::NotFound);
    let put = writing("v", &OWNER, SeqExpect::Any);
    assert_eq!(kind(store.put(id, 0, put).await), Kind::NotFound);

    assert_eq!(create(store, descriptor()).await, id);
    for slot in 0..5 {
        assert_eq!(get(store, id, slot).await, None, "slot {slot} is back");
    }
    assert_eq!(write(store, id, 0, "anew").await, 1);
}

pub(super) async fn forget_of_what_is_unknown_is_no_error(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let unknown = RecordId([0x55; 32]);
    store
        .forget(unknown)
        .await
        .expect("an unknown record is not an error");
    let id = create(store, descriptor()).await;
    for _ in 0..2 {
        store
            .forget(id)
            .await
            .expect("a forgotten record is not an error");
    }
}

pub(super) async fn a_cancelled_call_can_be_made_again(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    for polls in 0..8 {
        let cut = || Cut::after(polls);
        cut().call(store.create(descriptor())).await;
        let id = create(store, descriptor()).await;
        let put = || store.put(id, 0, writing("value", &OWNER, SeqExpect::Any));
        cut().call(put()).await;
        let seq = taken(put().await.expect("a put succeeds"));
        let found = get(store, id, 0).await.expect("it was written");
        assert_eq!(found.value[..], b"value"[..]);
        // A network may still carry out the dropped call, after the repeated one.
        assert!(found.seq >= seq, "{} comes before {seq}", found.seq);
        cut().call(store.forget(id)).await;
        store.forget(id).await.expect("a record is forgotten");
        let found = store.get(id, 0, Freshness::Local).await;
        assert_eq!(kind(found), Kind::NotFound);
    }
}

pub(super) async fn reopening_keeps_records(mut fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let empty = create(store, owned(7)).await;
    for slot in [0, 0, 3] {
        write(store, id, slot, [slot as u8]).await;
    }
    let before = [get(store, id, 0).await, get(store, id, 3).await];
    for _ in 0..2 {
        fixture.reopen().await;
        let store = fixture.store();
        assert_eq!([get(store, id, 0).await, get(store, id, 3).await], before);
        assert_eq!(get(store, empty, 6).await, None, "created is known");
        let found = store.inspect(id, 0..5, Freshness::Local).await;
        let expected = [(0, 2), (3, 1)].map(|(slot, seq)| SlotSeq { slot, seq });
        assert_eq!(found.expect("a record can be inspected"), expected);
    }
    assert_eq!(write(fixture.store(), id, 0, "next").await, 3);
}

pub(super) async fn reopening_keeps_them_forgotten(mut fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    write(store, id, 0, "v").await;
    store.forget(id).await.expect("a record is forgotten");
    fixture.reopen().await;
    let found = fixture.store().get(id, 0, Freshness::Local).await;
    assert_eq!(kind(found), Kind::NotFound);
}

pub(super) async fn a_closed_store_says_so(mut fixture: Fixture<dyn RecordStore>) {
    let id = create(fixture.store(), descriptor()).await;
    write(fixture.store(), id, 0, "v").await;
    fixture.close().await;
    let store = fixture.store();
    let put = writing("v", &OWNER, SeqExpect::Any);
    assert_eq!(kind(store.create(descriptor()).await), Kind::Closed);
    assert_eq!(kind(store.get(id, 0, Freshness::Local).await), Kind::Closed);
    assert_eq!(kind(store.put(id, 0, put).await), Kind::Closed);
    let found = store.inspect(id, 0..5, Freshness::Local).await;
    assert_eq!(kind(found), Kind::Closed);
    assert_eq!(kind(store.forget(id).await), Kind::Closed);
    if let Some(mut watcher) = store.watch(id, 0..5) {
        let told = tokio::time::timeout(fixture.patience(), watcher.next()).await;
        let told = told.expect("a watcher of a closed store is not left waiting");
        let told = told.expect("a closed store is an error, not a clean end");
        assert_eq!(kind(told), Kind::Closed);
    }
    assert!(!store.name().is_empty(), "facts outlive the store");
}
