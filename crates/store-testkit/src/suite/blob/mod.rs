//! The suite of [`BlobStore`].

mod life;
mod list;
mod read;
mod together;
mod write;

use bytes::Bytes;
use larder_store_api::{BlobStore, Block, Part, PayloadId};

use super::{Case, Need, Suite};

use life::*;
use list::*;
use read::*;
use together::*;
use write::*;

#[doc(hidden)]
#[macro_export]
macro_rules! __blob_cases {
    ($($then:tt)*) => {
        $crate::__cases! { $($then)*
            capabilities_make_sense: Always,
            read_gives_exactly_the_range: Always,
            read_sees_every_write_that_returned: Always,
            read_of_an_empty_range_is_empty: Always,
            read_of_an_inverted_range_is_invalid: Always,
            read_beyond_the_end_is_not_found: Always,
            read_of_what_was_never_written_is_not_found: Always,
            read_of_a_hole_is_not_found_or_zeros: Always,
            write_replaces_blocks: Always,
            write_takes_many_blocks_in_any_order: Always,
            write_of_nothing_changes_nothing: Always,
            write_grows_a_partial_last_block: Always,
            parts_are_independent: Always,
            payloads_are_independent: Always,
            large_payloads_come_back_whole: Always,
            an_empty_block_is_refused_whole: Always,
            a_partial_block_before_the_end_is_refused_whole: Always,
            a_block_beyond_the_longest_part_is_refused_whole: Always,
            delete_removes_both_parts: Always,
            delete_leaves_others: Always,
            delete_of_what_is_absent_is_no_error: Always,
            a_deleted_payload_can_be_written_afresh: Always,
            list_of_an_empty_store_is_empty: Always,
            list_is_ascending_and_complete: Always,
            list_starts_after: Always,
            list_names_a_payload_with_one_part: Always,
            list_goes_on_while_payloads_change: Always,
            sync_of_anything_succeeds: Always,
            concurrent_writes_all_arrive: Always,
            a_read_during_a_write_is_old_or_new: Always,
            a_cancelled_write_harms_no_other: Always,
            a_cancelled_call_can_be_made_again: Always,
            a_dropped_listing_harms_nothing: Always,
            reopening_keeps_what_was_synced: Reopen,
            reopening_keeps_the_listing: Reopen,
            reopening_takes_new_writes: Reopen,
            a_closed_store_says_so: Close,
            a_closed_store_can_be_opened_while_handles_live: Close,
        }
    };
}

crate::__blob_cases!(list BlobStore;);

impl Suite for dyn BlobStore {
    fn cases() -> &'static [Case<Self>] {
        CASES
    }

    fn claims(&self, need: Need) -> Option<bool> {
        match need {
            Need::Always => Some(true),
            Need::Reopen => {
                Some(self.capabilities().durability > larder_store_api::Durability::Memory)
            }
            Need::Close => None,
            Need::Watch | Need::Import | Need::SharedRoom => Some(false),
        }
    }
}

fn id(n: u8) -> PayloadId {
    PayloadId([n; 16])
}

fn block(part: Part, index: u64, bytes: impl Into<Bytes>) -> Block {
    Block {
        part,
        index,
        bytes: bytes.into(),
    }
}

fn block_len(store: &dyn BlobStore) -> usize {
    store.capabilities().block_len as usize
}

/// Writes `bytes` from the start of a part.
async fn put(store: &dyn BlobStore, id: PayloadId, part: Part, bytes: &Bytes) {
    let written = store.write(id, vec![block(part, 0, bytes.clone())]).await;
    written.expect("a write succeeds");
}

/// Panics unless the part holds `bytes` from its start.
async fn expect(store: &dyn BlobStore, id: PayloadId, part: Part, bytes: &Bytes) {
    let read = store.read(id, part, 0..bytes.len() as u64).await;
    let read = read.expect("written bytes can be read");
    assert!(read == *bytes, "{part:?} of {id} reads back as other bytes");
}
