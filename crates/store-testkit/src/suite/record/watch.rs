//! Cases of watching: a watcher receives every slot that changed, or an event that some were missed.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use futures_util::StreamExt;
use larder_store_api::{Listing, PutRecord, RecordEvent, RecordId, RecordStore, Slot};

use super::super::Fixture;
use super::{create, descriptor, get, owned, signed, write};

/// More changes than a store buffers for a watcher that does not read them.
const MANY: u32 = 3000;
/// The slot whose change ends the collection of events.
const LAST: Slot = 4;

/// The events that a watcher received before the last change.
struct Told {
    slots: BTreeSet<Slot>,
    resync: bool,
}

impl Told {
    fn knows(&self, slot: Slot) -> bool {
        self.resync || self.slots.contains(&slot)
    }
}

fn watch(
    fixture: &Fixture<dyn RecordStore>,
    id: RecordId,
    slots: Range<Slot>,
) -> Listing<RecordEvent> {
    let watcher = fixture.store().watch(id, slots);
    watcher.expect("the case needs it")
}

/// Writes to the last slot, repeatedly, and collects the watcher's events until that change or a resync
/// arrives.
async fn told(
    fixture: &Fixture<dyn RecordStore>,
    id: RecordId,
    watcher: &mut Listing<RecordEvent>,
) -> Told {
    let mut told = Told {
        slots: BTreeSet::new(),
        resync: false,
    };
    let deadline = tokio::time::Instant::now() + fixture.patience();
    write(fixture.store(), id, LAST, "").await;
    loop {
        let next = tokio::time::timeout(Duration::from_millis(100), watcher.next());
        match next.await {
            Ok(event) => match event.expect("a watch does not end").expect("an event") {
                RecordEvent::Changed { slots, value } => {
                    if let Some(value) = value {
                        assert_eq!(slots.len(), 1, "a value is that of one slot");
                        assert!(value.seq > 0);
                    }
                    told.slots.extend(&slots);
                    if slots.contains(&LAST) {
                        return told;
                    }
                }
                RecordEvent::Resync => {
                    told.resync = true;
                    return told;
                }
                other => panic!("the suite does not know {other:?}"),
            },
            Err(_) => {
                let left = tokio::time::Instant::now() < deadline;
                assert!(left, "the watcher was told nothing of the last change");
                write(fixture.store(), id, LAST, "").await;
            }
        }
    }
}

pub(super) async fn watch_tells_of_writes(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let mut watcher = watch(&fixture, id, 0..5);
    // The watcher has not been polled before this happens.
    write(store, id, 0, "v").await;
    let told = told(&fixture, id, &mut watcher).await;
    assert!(told.knows(0), "a write was missed");
    assert!(!told.slots.contains(&2), "nothing happened there");
}

pub(super) async fn watch_tells_of_imports(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    if store.watch(RecordId([0; 32]), 0..1).is_none() {
        // There is nobody to tell.
        return;
    }
    let id = create(store, descriptor()).await;
    let value = signed(store, id, 1, &["v"]).await.remove(0);
    store.forget(id).await.expect("a record is forgotten");
    create(store, descriptor()).await;

    let mut watcher = watch(&fixture, id, 0..5);
    // The watcher has not been polled before this happens.
    write(store, id, 0, "v").await;
    let imported = store.put(id, 1, PutRecord::Import(value)).await;
    imported.expect("a signed value can be imported");
    let told = told(&fixture, id, &mut watcher).await;
    assert!(told.knows(0), "a write was missed");
    assert!(told.knows(1), "an import was missed");
    assert!(!told.slots.contains(&2), "nothing happened there");
}

pub(super) async fn watch_tells_of_its_slots_alone(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    write(store, id, 0, "before").await;
    write(store, id, 3, "before").await;
    let mut watcher = watch(&fixture, id, 2..5);
    for slot in [0, 1, 2] {
        write(store, id, slot, "v").await;
    }
    let told = told(&fixture, id, &mut watcher).await;
    assert!(told.knows(2), "a write was missed");
    for (slot, problem) in [(0, "below"), (1, "below"), (3, "before the watch")] {
        assert!(!told.slots.contains(&slot), "slot {slot}, {problem}");
    }
}

pub(super) async fn watch_tells_of_its_record_alone(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let other = create(store, owned(3)).await;
    let mut watcher = watch(&fixture, id, 0..5);
    write(store, other, 0, "v").await;
    write(store, id, 1, "v").await;
    let told = told(&fixture, id, &mut watcher).await;
    assert!(told.knows(1), "a write was missed");
    assert!(!told.slots.contains(&0), "that was another record");
}

pub(super) async fn a_watcher_that_lags_is_told(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let mut watcher = watch(&fixture, id, 0..5);
    write(store, id, 1, "early").await;
    for n in 0..MANY {
        write(store, id, 0, n.to_be_bytes()).await;
    }
    let heard = told(&fixture, id, &mut watcher).await;
    assert!(
        heard.knows(0) && heard.knows(1),
        "changes were missed in silence"
    );

    // The watcher continues after that.
    write(store, id, 2, "late").await;
    let heard = told(&fixture, id, &mut watcher).await;
    assert!(heard.knows(2), "a watcher that lagged once hears no more");
    assert!(get(store, id, 2).await.is_some());
}
