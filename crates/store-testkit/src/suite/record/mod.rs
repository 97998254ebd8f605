//! The suite of [`RecordStore`].

mod create;
mod import;
mod life;
mod read;
mod watch;
mod write;

use bytes::Bytes;
use larder_store_api::{
    Freshness, ImportSupport, PublicKey, Put, PutRecord, RecordDescriptor, RecordId, RecordMember,
    RecordStore, Room, SecretKey, SeqExpect, Signed, Slot,
};

use super::{Case, Need, Suite};
use create::*;
use import::*;
use life::*;
use read::*;
use watch::*;
use write::*;

#[doc(hidden)]
#[macro_export]
macro_rules! __record_cases {
    ($($then:tt)*) => {
        $crate::__cases! { $($then)*
            capabilities_make_sense: Always,
            create_is_idempotent: Always,
            an_id_depends_on_the_descriptor_alone: Always,
            create_refuses_what_makes_no_sense: Always,
            create_refuses_what_is_over_a_limit: Always,
            create_takes_what_is_at_a_limit: Always,
            get_of_a_slot_without_value_is_none: Always,
            get_of_an_unknown_record_is_not_found: Always,
            get_of_a_slot_that_is_not_there_is_invalid: Always,
            get_gives_what_was_written: Always,
            get_answers_however_fresh: Always,
            inspect_gives_the_slots_with_values: Always,
            inspect_of_an_unknown_record_is_not_found: Always,
            records_are_independent: Always,
            write_counts_from_one: Always,
            write_checks_its_expectation: Always,
            write_by_another_is_denied: Always,
            write_to_what_is_not_there_is_refused: Always,
            write_takes_values_up_to_the_limit: Always,
            write_refuses_a_record_that_grows_too_long: SharedRoom,
            concurrent_writes_lose_none: Always,
            of_concurrent_claims_one_wins: Always,
            import_takes_what_another_signed: Import,
            import_of_the_same_value_again_is_published: Import,
            import_of_an_older_value_is_superseded: Import,
            of_imports_with_one_number_the_greater_stays: Import,
            import_may_skip_ahead: Import,
            import_with_a_bad_signature_is_denied: Import,
            import_over_the_limits_is_refused: Import,
            write_follows_an_import: Import,
            watch_tells_of_writes: Watch,
            watch_tells_of_imports: Import,
            watch_tells_of_its_slots_alone: Watch,
            watch_tells_of_its_record_alone: Watch,
            a_watcher_that_lags_is_told: Watch,
            forget_removes_record_and_values: Always,
            forget_of_what_is_unknown_is_no_error: Always,
            a_cancelled_call_can_be_made_again: Always,
            reopening_keeps_records: Reopen,
            reopening_keeps_them_forgotten: Reopen,
            a_closed_store_says_so: Close,
        }
    };
}

crate::__record_cases!(list RecordStore;);

impl Suite for dyn RecordStore {
    fn cases() -> &'static [Case<Self>] {
        CASES
    }

    fn claims(&self, need: Need) -> Option<bool> {
        match need {
            Need::Always => Some(true),
            // A record store does not report its durability, so the subject does.
            Need::Reopen | Need::Close => None,
            Need::Watch => Some(self.watch(RecordId([0; 32]), 0..1).is_some()),
            Need::Import => Some(self.capabilities().import == ImportSupport::Supported),
            Need::SharedRoom => Some(self.capabilities().room == Room::Shared),
        }
    }
}

/// A fixed key pair, so that the suite needs no cryptography of its own.
struct Writer {
    secret: [u8; 32],
    public: PublicKey,
}

impl Writer {
    fn secret(&self) -> SecretKey {
        SecretKey::from_bytes(self.secret)
    }
}

const OWNER: Writer = Writer {
    secret: [1; 32],
    public: PublicKey([
        0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d,
        0x72, 0xca, 0x67, 0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f,
        0x6f, 0x5c,
    ]),
};

const MEMBER: Writer = Writer {
    secret: [2; 32],
    public: PublicKey([
        0x81, 0x39, 0x77, 0x0e, 0xa8, 0x7d, 0x17, 0x5f, 0x56, 0xa3, 0x54, 0x66, 0xc3, 0x4c, 0x7e,
        0xcc, 0xcb, 0x8d, 0x8a, 0x91, 0xb4, 0xee, 0x37, 0xa2, 0x5d, 0xf6, 0x0f, 0x5b, 0x8f, 0xc9,
        0xb3, 0x94,
    ]),
};

const STRANGER: Writer = Writer {
    secret: [3; 32],
    public: PublicKey([
        0xed, 0x49, 0x28, 0xc6, 0x28, 0xd1, 0xc2, 0xc6, 0xea, 0xe9, 0x03, 0x38, 0x90, 0x59, 0x95,
        0x61, 0x29, 0x59, 0x27, 0x3a, 0x5c, 0x63, 0xf9, 0x36, 0x36, 0xc1, 0x46, 0x14, 0xac, 0x87,
        0x37, 0xd1,
    ]),
};

/// Returns a descriptor in which slots 0 to 2 belong to the owner, 3 and 4 to the member.
fn descriptor() -> RecordDescriptor {
    RecordDescriptor {
        owner: OWNER.public,
        owner_slots: 3,
        members: vec![RecordMember {
            key: MEMBER.public,
            slots: 2,
        }],
    }
}

/// Returns the descriptor of another record, with only the owner's slots.
fn owned(slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner: OWNER.public,
        owner_slots: slots,
        members: Vec::new(),
    }
}

async fn create(store: &dyn RecordStore, descriptor: RecordDescriptor) -> RecordId {
    let created = store.create(descriptor).await;
    created.expect("a record is created")
}

async fn get(store: &dyn RecordStore, id: RecordId, slot: Slot) -> Option<Signed> {
    let signed = store.get(id, slot, Freshness::Local).await;
    signed.expect("a slot can be read")
}

fn writing(value: impl AsRef<[u8]>, writer: &Writer, expect: SeqExpect) -> PutRecord {
    PutRecord::Write {
        value: Bytes::copy_from_slice(value.as_ref()),
        writer: writer.secret(),
        expect,
    }
}

/// Writes as the writer to whom the slot of [`descriptor`] belongs, and returns the sequence number.
async fn write(store: &dyn RecordStore, id: RecordId, slot: Slot, value: impl AsRef<[u8]>) -> u64 {
    let writer = if slot < 3 { OWNER } else { MEMBER };
    let put = writing(value, &writer, SeqExpect::Any);
    taken(store.put(id, slot, put).await.expect("a put succeeds"))
}

/// Returns the sequence number of a put that was accepted.
#[track_caller]
fn taken(put: Put) -> u64 {
    match put {
        Put::Published { seq } | Put::Queued { seq } => seq,
        Put::Superseded { current } => panic!("it was superseded by {current:?}"),
    }
}

/// Writes `values` one after the other, and returns each signed value.
async fn signed(store: &dyn RecordStore, id: RecordId, slot: Slot, values: &[&str]) -> Vec<Signed> {
    let mut signed = Vec::new();
    for value in values {
        write(store, id, slot, value).await;
        signed.push(get(store, id, slot).await.expect("it was written"));
    }
    signed
}
