//! Cases of importing values that others have signed.

use bytes::Bytes;
use larder_store_api::{Kind, Put, PutRecord, RecordId, RecordStore, Signed, Slot};

use super::super::{Fixture, support::kind};
use super::{MEMBER, OWNER, create, descriptor, get, owned, signed, taken, write};

/// Returns a record without values, and the values that were signed for its slot earlier.
async fn fresh(store: &dyn RecordStore, slot: Slot, values: &[&str]) -> (RecordId, Vec<Signed>) {
    let id = create(store, descriptor()).await;
    let signed = signed(store, id, slot, values).await;
    store.forget(id).await.expect("a record is forgotten");
    create(store, descriptor()).await;
    assert_eq!(get(store, id, slot).await, None, "it was forgotten");
    (id, signed)
}

async fn import(store: &dyn RecordStore, id: RecordId, slot: Slot, signed: &Signed) -> Put {
    let put = store.put(id, slot, PutRecord::Import(signed.clone())).await;
    put.expect("a signed value can be imported")
}

pub(super) async fn import_takes_what_another_signed(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    for slot in [0, 4] {
        let (id, signed) = fresh(store, slot, &["one", "two"]).await;
        for (n, value) in signed.iter().enumerate() {
            assert_eq!(taken(import(store, id, slot, value).await), n as u64 + 1);
            assert_eq!(get(store, id, slot).await.as_ref(), Some(value));
        }
    }
}

pub(super) async fn import_of_the_same_value_again_is_published(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    let signed = signed(store, id, 0, &["one", "two"]).await;
    for _ in 0..2 {
        let again = import(store, id, 0, &signed[1]).await;
        assert_eq!(again, Put::Published { seq: 2 });
        assert_eq!(get(store, id, 0).await.as_ref(), Some(&signed[1]));
    }
}

pub(super) async fn import_of_an_older_value_is_superseded(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let (id, history) = fresh(store, 0, &["one", "two"]).await;
    let newest = &history[1];
    taken(import(store, id, 0, newest).await);
    let superseded = Put::Superseded {
        current: Some(newest.clone()),
    };
    assert_eq!(import(store, id, 0, &history[0]).await, superseded);
    let kept = get(store, id, 0).await;
    assert_eq!(kept.as_ref(), Some(newest), "nothing changes");
}

pub(super) async fn of_imports_with_one_number_the_greater_stays(
    fixture: Fixture<dyn RecordStore>,
) {
    let store = fixture.store();
    // Values with the same number, as two devices with the writer's key may sign them.
    let mut twins = Vec::new();
    for value in ["twin", "tw", "twins", "tv"] {
        twins.extend(fresh(store, 0, &["one", value]).await.1.pop());
    }
    let id = create(store, descriptor()).await;
    let greatest = twins[2].clone();
    for first in &twins {
        store.forget(id).await.expect("a record is forgotten");
        create(store, descriptor()).await;
        taken(import(store, id, 0, first).await);
        assert_eq!(taken(import(store, id, 0, &greatest).await), 2);
        assert_eq!(get(store, id, 0).await.as_ref(), Some(&greatest));
        for lesser in twins.iter().filter(|twin| **twin != greatest) {
            let superseded = Put::Superseded {
                current: Some(greatest.clone()),
            };
            assert_eq!(import(store, id, 0, lesser).await, superseded);
            let kept = get(store, id, 0).await;
            assert_eq!(kept.as_ref(), Some(&greatest), "nothing changes");
        }
    }
}

pub(super) async fn import_may_skip_ahead(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let (id, signed) = fresh(store, 0, &["one", "two", "three", "four", "five"]).await;
    assert_eq!(taken(import(store, id, 0, &signed[2]).await), 3);
    assert_eq!(taken(import(store, id, 0, &signed[4]).await), 5);
    assert_eq!(get(store, id, 0).await.as_ref(), Some(&signed[4]));
}

pub(super) async fn import_with_a_bad_signature_is_denied(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let elsewhere = create(store, owned(3)).await;
    let stray = signed(store, elsewhere, 0, &["v"]).await.remove(0);
    let (id, values) = fresh(store, 0, &["one", "two"]).await;
    let neighbour = signed(store, id, 1, &["one", "two"]).await.remove(1);
    let members = signed(store, id, 3, &["one", "two"]).await.remove(1);
    taken(import(store, id, 0, &values[0]).await);

    let good = &values[1];
    let flipped = |at: usize| {
        let mut signature = good.signature.to_vec();
        signature[at] ^= 1;
        Signed {
            signature: signature.into(),
            ..good.clone()
        }
    };
    let len = good.signature.len();
    let mut bad = vec![
        (
            "another value",
            Signed {
                value: Bytes::from_static(b"twO"),
                ..good.clone()
            },
        ),
        (
            "a longer value",
            Signed {
                value: Bytes::from_static(b"two "),
                ..good.clone()
            },
        ),
        (
            "a greater number",
            Signed {
                seq: 3,
                ..good.clone()
            },
        ),
        (
            "the greatest number",
            Signed {
                seq: u64::MAX,
                ..good.clone()
            },
        ),
        (
            "another writer",
            Signed {
                writer: MEMBER.public,
                ..good.clone()
            },
        ),
        (
            "no signature",
            Signed {
                signature: Bytes::new(),
                ..good.clone()
            },
        ),
        (
            "a short signature",
            Signed {
                signature: good.signature.slice(1..),
                ..good.clone()
            },
        ),
        (
            "the signature before",
            Signed {
                signature: values[0].signature.clone(),
                ..good.clone()
            },
        ),
        ("another slot's", neighbour),
        (
            "another member's",
            Signed {
                seq: 2,
                ..members.clone()
            },
        ),
        (
            "another member's, renamed",
            Signed {
                writer: OWNER.public,
                ..members
            },
        ),
        ("another record's", Signed { seq: 2, ..stray }),
    ];
    bad.extend([0, len / 2, len - 1].map(|at| ("a flipped bit", flipped(at))));
    for (problem, bad) in bad {
        let put = store.put(id, 0, PutRecord::Import(bad)).await;
        assert_eq!(kind(put), Kind::Denied, "{problem}");
        let kept = get(store, id, 0).await;
        assert_eq!(
            kept.as_ref(),
            Some(&values[0]),
            "{problem}: nothing changes"
        );
    }
    assert_eq!(
        taken(import(store, id, 0, good).await),
        2,
        "the good one is taken"
    );
}

pub(super) async fn import_over_the_limits_is_refused(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let (id, values) = fresh(store, 0, &["one"]).await;
    let long = Signed {
        value: vec![0; store.capabilities().max_value_len as usize + 1].into(),
        ..values[0].clone()
    };
    // Nobody can sign it here, so two things are wrong with it.
    let refused = kind(store.put(id, 0, PutRecord::Import(long)).await);
    assert!(
        [Kind::TooLarge, Kind::Denied].contains(&refused),
        "{refused:?}"
    );
    let put = || PutRecord::Import(values[0].clone());
    assert_eq!(kind(store.put(id, 5, put()).await), Kind::Invalid);
    let unknown = store.put(RecordId([0x55; 32]), 0, put()).await;
    assert_eq!(kind(unknown), Kind::NotFound);
    assert_eq!(get(store, id, 0).await, None, "nothing changes");
}

pub(super) async fn write_follows_an_import(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let (id, values) = fresh(store, 0, &["one", "two", "three"]).await;
    taken(import(store, id, 0, &values[2]).await);
    assert_eq!(write(store, id, 0, "mine").await, 4);
    let superseded = import(store, id, 0, &values[2]).await;
    assert!(
        matches!(superseded, Put::Superseded { current: Some(_) }),
        "{superseded:?}"
    );
}
