//! Entry points of the fuzzer for what peers answer.

use bao_tree::ChunkRanges;
use futures_util::FutureExt;
use iroh_blobs::protocol::{MAX_MESSAGE_SIZE, ObserveItem, Request};
use store_engine::Hash;

use super::{
    observe::{first_item, parse},
    plan::{Job, batches, of_what_is_had, request},
    receive::payload_len,
};
use crate::serve::fuzz::is_within_bounds;

/// What a peer says that it has of a blob, and what is asked for then: all of it, in requests that any
/// peer reads.
pub(crate) fn answer(bytes: &[u8]) {
    let item = first_item(&mut &bytes[..]).now_or_never();
    let Some(item) = item.expect("nothing waits") else {
        return;
    };
    let Some(had) = parse(&item) else {
        return;
    };
    let item: ObserveItem = postcard::from_bytes(&item).expect("it was read");
    assert_eq!(item.ranges, had);
    assert!(payload_len(&had, item.size) <= item.size);
    let again = postcard::to_stdvec(&item).expect("it was read");
    assert_eq!(parse(&again).as_ref(), Some(&had));

    let hash = Hash::EMPTY;
    let job = |offset| Job {
        hash,
        offset,
        ranges: ChunkRanges::all(),
    };
    let jobs = (0..3).flat_map(|offset| of_what_is_had(&job(offset), &had));
    let mut asked = vec![ChunkRanges::empty(); 3];
    for batch in batches(jobs.collect(), 1) {
        let bytes = postcard::to_stdvec(&Request::Get(request(hash, &batch)));
        let bytes = bytes.expect("a request has bytes");
        assert!(bytes.len() <= MAX_MESSAGE_SIZE && is_within_bounds(&bytes));
        for job in batch {
            asked[job.offset as usize] |= job.ranges;
        }
    }
    assert_eq!(asked, vec![had; 3]);
}
