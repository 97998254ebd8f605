//! Entry points of the fuzzer for what peers answer.

use bao_tree::ChunkRanges;
use futures_util::FutureExt;
use iroh_blobs::protocol::{MAX_MESSAGE_SIZE, ObserveItem, Request};
use larder_store_engine::{
    Hash,
    fetch::{Wanted, requests},
};

use super::{
    observe::{first_item, parse},
    request::{MOST_RANGES, of_what_is_had, request},
};
use crate::serve::fuzz::is_within_bounds;

/// Decodes a peer's answer about what it has of a blob, and checks what is requested then: all of
/// it, in requests that any peer reads.
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
    let again = postcard::to_stdvec(&item).expect("it was read");
    assert_eq!(parse(&again).as_ref(), Some(&had));

    let hash = Hash::EMPTY;
    let wanted = (0..3).map(|offset| Wanted::whole(offset, Some(hash), u64::MAX));
    let parts = wanted.flat_map(|one| of_what_is_had(&one, &had));
    let mut asked = vec![ChunkRanges::empty(); 3];
    for wanted in requests(parts, usize::MAX, MOST_RANGES) {
        let bytes = postcard::to_stdvec(&Request::Get(request(hash, &wanted)));
        let bytes = bytes.expect("a request has bytes");
        assert!(bytes.len() <= MAX_MESSAGE_SIZE && is_within_bounds(&bytes));
        for one in wanted {
            asked[one.offset as usize] |= one.ranges;
        }
    }
    assert_eq!(asked, vec![had; 3]);
}
