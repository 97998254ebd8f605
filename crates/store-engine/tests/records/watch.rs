//! Tests of the events for watchers of a record, and that they never miss a change silently.

use futures_util::StreamExt;
use larder_store_api::{RecordEvent, RecordStore, SeqExpect, Slot};
use larder_store_engine::WATCH_BACKLOG;
use larder_store_testkit::MemoryStore;

use super::{
    each, over, owned,
    support::{BareStore, now},
    write,
};

fn changed(slots: &[Slot]) -> RecordEvent {
    RecordEvent::Changed {
        slots: slots.to_vec(),
        value: None,
    }
}

#[tokio::test]
async fn a_watcher_hears_of_its_slots_through_any_clone() {
    for records in each() {
        let id = records.create(owned(4)).await.unwrap();
        let other = records.create(owned(5)).await.unwrap();
        let mut events = records.watch(id, 1..3).expect("there is a watch");
        let put = async |id, slot, expect| {
            let put = write("a", 1, expect);
            records.clone().put(id, slot, put).await.unwrap();
        };
        put(id, 0, SeqExpect::Any).await;
        put(id, 3, SeqExpect::Any).await;
        put(other, 1, SeqExpect::Any).await;
        assert!(now(&mut events).await.is_none());
        put(id, 2, SeqExpect::Any).await;
        assert_eq!(events.next().await.unwrap().unwrap(), changed(&[2]));
        put(id, 1, SeqExpect::Any).await;
        assert_eq!(events.next().await.unwrap().unwrap(), changed(&[1]));
        put(id, 1, SeqExpect::Absent).await;
        assert!(now(&mut events).await.is_none(), "nothing was written");
    }
}

#[tokio::test]
async fn a_put_wakes_a_waiting_watcher() {
    for records in each() {
        let id = records.create(owned(1)).await.unwrap();
        let mut events = records.watch(id, 0..1).expect("there is a watch");
        let waiting = tokio::spawn(async move { events.next().await });
        tokio::task::yield_now().await;
        let put = write("a", 1, SeqExpect::Any);
        records.put(id, 0, put).await.unwrap();
        let event = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(event, changed(&[0]));
    }
}

#[tokio::test]
async fn a_watcher_that_lags_is_told_to_resync() {
    let records = over(BareStore::new());
    let id = records.create(owned(1)).await.unwrap();
    let mut events = records.watch(id, 0..1).expect("there is a watch");
    for _ in 0..=WATCH_BACKLOG {
        let put = write("a", 1, SeqExpect::Any);
        records.put(id, 0, put).await.unwrap();
    }
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first, RecordEvent::Resync);
    let mut heard = 0;
    while let Some(event) = now(&mut events).await {
        assert_eq!(event.unwrap(), changed(&[0]));
        heard += 1;
    }
    assert!(heard <= WATCH_BACKLOG);
}

#[tokio::test]
async fn a_watcher_hears_of_other_handles_where_the_store_tells() {
    let store = MemoryStore::new();
    let (here, there) = (over(store.clone()), over(store));
    let id = here.create(owned(1)).await.unwrap();
    let mut events = here.watch(id, 0..1).expect("there is a watch");
    let put = write("a", 1, SeqExpect::Any);
    there.put(id, 0, put).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), changed(&[0]));
}

#[tokio::test]
async fn a_watcher_hears_that_its_record_is_forgotten() {
    for records in each() {
        let id = records.create(owned(2)).await.unwrap();
        let put = write("a", 1, SeqExpect::Any);
        records.put(id, 1, put).await.unwrap();
        let mut events = records.watch(id, 0..2).expect("there is a watch");
        records.forget(id).await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap(), changed(&[1]));
    }
}
