//! Cases of creating records: ids and limits.

use std::collections::BTreeSet;

use larder_store_api::{Kind, PublicKey, RecordDescriptor, RecordMember, RecordStore};

use super::super::{Fixture, support::kind};
use super::{MEMBER, OWNER, STRANGER, create, descriptor, get, owned, write};

pub(super) async fn capabilities_make_sense(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    assert!(!store.name().is_empty(), "a store has a name");
    assert!(facts.max_value_len > 0 && facts.max_slots > 0 && facts.max_writers > 0);
    assert!(facts.max_record_len >= facts.max_value_len);
    create(store, owned(1)).await;
    assert_eq!(store.capabilities(), facts, "capabilities are constant");
}

pub(super) async fn create_is_idempotent(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let id = create(store, descriptor()).await;
    write(store, id, 0, "kept").await;
    let before = get(store, id, 0).await;
    assert_eq!(create(store, descriptor()).await, id);
    assert_eq!(
        get(store, id, 0).await,
        before,
        "creating again changes nothing"
    );
}

pub(super) async fn an_id_depends_on_the_descriptor_alone(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let member = |writer: &super::Writer, slots| RecordMember {
        key: writer.public,
        slots,
    };
    let of = |owner: &super::Writer, owner_slots, members| RecordDescriptor {
        owner: owner.public,
        owner_slots,
        members,
    };
    let records = [
        owned(1),
        owned(2),
        of(&STRANGER, 1, vec![]),
        descriptor(),
        of(&OWNER, 3, vec![member(&MEMBER, 3)]),
        of(&OWNER, 2, vec![member(&MEMBER, 3)]),
        of(&MEMBER, 3, vec![member(&OWNER, 2)]),
        of(&OWNER, 0, vec![member(&MEMBER, 1), member(&STRANGER, 1)]),
        of(&OWNER, 0, vec![member(&STRANGER, 1), member(&MEMBER, 1)]),
    ];
    let mut ids = BTreeSet::new();
    for record in &records {
        ids.insert(create(store, record.clone()).await);
    }
    assert_eq!(ids.len(), records.len(), "each has an id of its own");
    for record in records.iter().rev() {
        let id = create(store, record.clone()).await;
        store.forget(id).await.expect("a record is forgotten");
        assert_eq!(create(store, record.clone()).await, id, "the id stays");
    }
}

pub(super) async fn create_refuses_what_makes_no_sense(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let with = |members: &[(PublicKey, u16)]| RecordDescriptor {
        owner: OWNER.public,
        owner_slots: 1,
        members: members
            .iter()
            .map(|(key, slots)| RecordMember {
                key: *key,
                slots: *slots,
            })
            .collect(),
    };
    let wrong = [
        ("no slots", owned(0)),
        ("the owner as member", with(&[(OWNER.public, 1)])),
        (
            "a member twice",
            with(&[(MEMBER.public, 1), (MEMBER.public, 1)]),
        ),
        ("a member without slots", with(&[(MEMBER.public, 0)])),
    ];
    for (problem, record) in wrong {
        assert_eq!(kind(store.create(record).await), Kind::Invalid, "{problem}");
    }
}

pub(super) async fn create_refuses_what_is_over_a_limit(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    // If the type itself sets the limit, only the number of members can exceed it.
    let over = |members: Vec<RecordMember>| RecordDescriptor {
        owner: OWNER.public,
        owner_slots: facts.max_slots,
        members,
    };
    let one = RecordMember {
        key: MEMBER.public,
        slots: 1,
    };
    assert_eq!(kind(store.create(over(vec![one])).await), Kind::TooLarge);
    let many = (0..u32::from(facts.max_writers)).map(member).collect();
    let crowd = RecordDescriptor {
        owner: OWNER.public,
        owner_slots: 1,
        members: many,
    };
    assert_eq!(kind(store.create(crowd).await), Kind::TooLarge);
}

pub(super) async fn create_takes_what_is_at_a_limit(fixture: Fixture<dyn RecordStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    let id = create(store, owned(facts.max_slots)).await;
    assert_eq!(get(store, id, facts.max_slots - 1).await, None);
    let writers = facts.max_writers.min(facts.max_slots);
    let crowd = RecordDescriptor {
        owner: OWNER.public,
        owner_slots: 1,
        members: (0..u32::from(writers) - 1).map(member).collect(),
    };
    let id = create(store, crowd).await;
    assert_eq!(get(store, id, writers - 1).await, None);
}

/// Returns one of many members whose secret keys nobody has.
fn member(n: u32) -> RecordMember {
    let mut key = [0xee; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    RecordMember {
        key: PublicKey(key),
        slots: 1,
    }
}
