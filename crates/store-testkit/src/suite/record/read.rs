//! Cases of getting and inspecting.

use larder_store_api::{Freshness, ImportSupport, Kind, RecordId, RecordStore, SlotSeq};

use super::super::{
    Fixture,
    support::{kind, sample},
};
use super::{MEMBER, OWNER, create, descriptor, get, owned, write};

const UNKNOWN: RecordId = RecordId([0x55; 32]);

pub(super) async fn get_of_a_slot_without_value_is_none(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    for slot in 0..5 {
        assert_eq!(get(store, id, slot).await, None, "slot {slot}");
    }
    write(store, id, 1, "v").await;
    assert_eq!(get(store, id, 0).await, None);
    assert_eq!(get(store, id, 2).await, None);
}

pub(super) async fn get_of_an_unknown_record_is_not_found(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    create(store, descriptor()).await;
    let found = store.get(UNKNOWN, 0, Freshness::Local).await;
    assert_eq!(kind(found), Kind::NotFound);
}

pub(super) async fn get_of_a_slot_that_is_not_there_is_invalid(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    for slot in [5, 6, u16::MAX] {
        let found = store.get(id, slot, Freshness::Local).await;
        assert_eq!(kind(found), Kind::Invalid, "slot {slot} of five");
    }
}

pub(super) async fn get_gives_what_was_written(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let values = [sample(1, 100), sample(2, 0), sample(3, 1)];
    for (slot, writer) in [(0, &OWNER), (2, &OWNER), (3, &MEMBER), (4, &MEMBER)] {
        for value in &values {
            let seq = write(store, id, slot, value).await;
            let found = get(store, id, slot).await.expect("it was written");
            assert_eq!((&found.value, found.seq), (value, seq), "slot {slot}");
            assert_eq!(found.writer, writer.public, "slot {slot}");
            let is_given = store.capabilities().import == ImportSupport::Supported;
            assert_eq!(!found.signature.is_empty(), is_given, "slot {slot}");
        }
    }
}

pub(super) async fn get_answers_however_fresh(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    write(store, id, 0, "v").await;
    let local = get(store, id, 0).await;
    for fresh in [Freshness::LocalThenNetwork, Freshness::Network] {
        match store.get(id, 0, fresh).await {
            Ok(found) => assert_eq!(found, local, "{fresh:?}"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable, "{fresh:?}");
                assert_eq!(fresh, Freshness::Network, "it is here");
            }
        }
    }
}

pub(super) async fn inspect_gives_the_slots_with_values(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let inspect = async |slots| {
        let found = store.inspect(id, slots, Freshness::Local).await;
        found.expect("a record can be inspected")
    };
    assert_eq!(inspect(0..5).await, []);
    // Some stores create a record only when its owner first writes to it.
    for (slot, times) in [(2, 2), (4, 3), (0, 1)] {
        for _ in 0..times {
            write(store, id, slot, "v").await;
        }
    }
    let expected = [(0, 1), (2, 2), (4, 3)].map(|(slot, seq)| SlotSeq { slot, seq });
    assert_eq!(inspect(0..5).await, expected);
    assert_eq!(inspect(0..u16::MAX).await, expected, "beyond the record's");
    assert_eq!(inspect(1..4).await, expected[1..2]);
    assert_eq!(inspect(2..3).await, expected[1..2]);
    assert_eq!(inspect(4..5).await, expected[2..]);
    assert_eq!(inspect(1..2).await, []);
    assert_eq!(inspect(3..3).await, []);
    assert_eq!(inspect(700..u16::MAX).await, []);
}

pub(super) async fn inspect_of_an_unknown_record_is_not_found(fixture: Fixture<dyn RecordStore>) {
    let found = fixture
        .store()
        .inspect(UNKNOWN, 0..1, Freshness::Local)
        .await;
    assert_eq!(kind(found), Kind::NotFound);
}

pub(super) async fn records_are_independent(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let first = create(store, descriptor()).await;
    let second = create(store, owned(3)).await;
    write(store, first, 0, "first").await;
    assert_eq!(get(store, second, 0).await, None);
    write(store, second, 0, "second").await;
    write(store, second, 0, "second again").await;
    let found = get(store, first, 0).await.expect("it was written");
    assert_eq!((&found.value[..], found.seq), (&b"first"[..], 1));
    store.forget(second).await.expect("a record is forgotten");
    assert_eq!(get(store, first, 0).await, Some(found));
}
