//! Cases of writing: sequence numbers, expectations, permissions and limits.

use futures_util::future::join_all;
use larder_store_api::{Freshness, Kind, Put, RecordId, RecordStore, SeqExpect};

use super::super::{
    Fixture,
    support::{kind, sample},
};
use super::{MEMBER, OWNER, STRANGER, create, descriptor, get, owned, taken, write, writing};

const TASKS: usize = 8;

pub(super) async fn write_counts_from_one(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    for seq in 1..=5 {
        assert_eq!(write(store, id, 0, "same").await, seq);
        let found = get(store, id, 0).await.expect("it was written");
        assert_eq!(found.seq, seq);
    }
    assert_eq!(
        write(store, id, 1, "v").await,
        1,
        "each slot counts for itself"
    );
}

pub(super) async fn write_checks_its_expectation(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let put = async |value: &str, expect| {
        let put = store.put(id, 0, writing(value, &OWNER, expect)).await;
        put.expect("a failed expectation is not an error")
    };
    let refused = async |expect| {
        let current = get(store, id, 0).await;
        let superseded = Put::Superseded {
            current: current.clone(),
        };
        assert_eq!(put("refused", expect).await, superseded, "{expect:?}");
        assert_eq!(get(store, id, 0).await, current, "nothing changes");
    };
    for expect in [SeqExpect::At(1), SeqExpect::At(0), SeqExpect::At(u64::MAX)] {
        refused(expect).await;
    }
    assert_eq!(taken(put("first", SeqExpect::Absent).await), 1);
    for expect in [SeqExpect::Absent, SeqExpect::At(0), SeqExpect::At(2)] {
        refused(expect).await;
    }
    assert_eq!(taken(put("second", SeqExpect::At(1)).await), 2);
    refused(SeqExpect::At(1)).await;
    assert_eq!(taken(put("third", SeqExpect::Any).await), 3);
    let found = get(store, id, 0).await.expect("it was written");
    assert_eq!(found.value, "third");
}

pub(super) async fn write_by_another_is_denied(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    write(store, id, 0, "owner's").await;
    write(store, id, 3, "member's").await;
    let wrong = [
        (0, &MEMBER),
        (0, &STRANGER),
        (3, &OWNER),
        (3, &STRANGER),
        (4, &OWNER),
    ];
    for (slot, writer) in wrong {
        let before = get(store, id, slot).await;
        for expect in [SeqExpect::Any, SeqExpect::At(1)] {
            let put = store.put(id, slot, writing("stolen", writer, expect)).await;
            assert_eq!(kind(put), Kind::Denied, "slot {slot}");
        }
        assert_eq!(get(store, id, slot).await, before, "slot {slot}");
    }
}

pub(super) async fn write_to_what_is_not_there_is_refused(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let put = || writing("v", &OWNER, SeqExpect::Any);
    let unknown = store.put(RecordId([0x55; 32]), 0, put()).await;
    assert_eq!(kind(unknown), Kind::NotFound);
    for slot in [5, u16::MAX] {
        assert_eq!(kind(store.put(id, slot, put()).await), Kind::Invalid);
    }
}

pub(super) async fn write_takes_values_up_to_the_limit(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let limit = store.capabilities().max_value_len as usize;
    let longest = sample(1, limit);
    assert_eq!(write(store, id, 0, &longest).await, 1);
    let over = writing(sample(2, limit + 1), &OWNER, SeqExpect::Any);
    assert_eq!(kind(store.put(id, 0, over).await), Kind::TooLarge);
    let found = get(store, id, 0).await.expect("it was written");
    assert!(found.value == longest && found.seq == 1, "nothing changes");
}

pub(super) async fn write_refuses_a_record_that_grows_too_long(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    let full = facts.max_record_len / facts.max_value_len;
    let rest = (facts.max_record_len % facts.max_value_len) as usize;
    let slots = (full + 2).min(facts.max_slots.into()) as u16;
    let id = create(store, owned(slots)).await;
    let put = async |slot: u32, len| {
        let value = writing(sample(slot.into(), len), &OWNER, SeqExpect::Any);
        store.put(id, slot as u16, value).await
    };
    let longest = facts.max_value_len as usize;
    for slot in 0..full.min(slots.into()) {
        taken(put(slot, longest).await.expect("there is space"));
    }
    if u32::from(slots) < full + 2 {
        // Even all its slots together cannot reach the limit.
        return;
    }
    if rest > 0 {
        taken(put(full, rest).await.expect("there is just as much space"));
    }
    assert_eq!(kind(put(full + 1, 1).await), Kind::TooLarge);
    assert_eq!(get(store, id, slots - 1).await, None, "nothing changes");
    // The replaced value no longer counts, and a shorter value frees space.
    taken(put(0, longest).await.expect("it replaces as much"));
    taken(put(0, longest - 10).await.expect("it is shorter"));
    assert_eq!(kind(put(full + 1, 11).await), Kind::TooLarge);
    taken(
        put(full + 1, 10)
            .await
            .expect("there is just as much space"),
    );
    assert_eq!(kind(put(0, longest).await), Kind::TooLarge);
}

pub(super) async fn concurrent_writes_lose_none(fixture: Fixture<dyn RecordStore>) {
    const EACH: usize = 10;
    let id = create(fixture.store(), descriptor()).await;
    let tasks = (0..TASKS).map(|_| {
        let store = fixture.shared();
        tokio::spawn(async move {
            let mut wins = 0;
            let mut losses = 0;
            while wins < EACH {
                let (count, expect) = match get(&*store, id, 0).await {
                    Some(found) => {
                        let count = found.value[..].try_into().expect("four bytes");
                        (u32::from_be_bytes(count), SeqExpect::At(found.seq))
                    }
                    None => (0, SeqExpect::Absent),
                };
                let put = writing((count + 1).to_be_bytes(), &OWNER, expect);
                match store.put(id, 0, put).await.expect("a put succeeds") {
                    Put::Published { .. } | Put::Queued { .. } => wins += 1,
                    Put::Superseded { .. } => {
                        losses += 1;
                        assert!(losses < TASKS * EACH, "more losses than writes");
                        tokio::task::yield_now().await;
                    }
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("the task ends");
    }
    let found = get(fixture.store(), id, 0).await.expect("it was written");
    assert_eq!(found.value[..], ((TASKS * EACH) as u32).to_be_bytes());
    assert_eq!(found.seq, (TASKS * EACH) as u64);
}

pub(super) async fn of_concurrent_claims_one_wins(fixture: Fixture<dyn RecordStore>) {
    let id = create(fixture.store(), descriptor()).await;
    for slot in 0..3 {
        let tasks = (0..TASKS as u8).map(|task| {
            let store = fixture.shared();
            let claim = writing([task], &OWNER, SeqExpect::Absent);
            tokio::spawn(async move { store.put(id, slot, claim).await })
        });
        let mut winners = Vec::new();
        let mut seen = Vec::new();
        for (task, put) in join_all(tasks).await.into_iter().enumerate() {
            match put.expect("the task ends").expect("a put succeeds") {
                Put::Published { .. } | Put::Queued { .. } => winners.push(task as u8),
                Put::Superseded { current } => seen.push(current.expect("somebody won").value),
            }
        }
        assert_eq!(winners.len(), 1, "winners of slot {slot}");
        let found = fixture.store().get(id, slot, Freshness::Local).await;
        let found = found.expect("a get succeeds").expect("somebody won");
        assert_eq!(found.value, winners);
        assert!(
            seen.iter().all(|value| *value == found.value),
            "losers see the winner's"
        );
    }
}
