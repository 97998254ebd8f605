//! Entry points of the fuzzer for what peers ask for.

use bytes::Bytes;
use futures_util::FutureExt;
use iroh_blobs::protocol::{ChunkRangesSeq, Request as IrohRequest};

use super::request::{Asked, MAX_BOUNDARIES, MAX_OFFSET, Request};
use crate::convert::to_engine_hash;

/// A request: whatever is permitted is what iroh-blobs, which reads the same bytes again, answers.
pub(crate) fn request(bytes: &[u8]) {
    let asked = Request::asked(bytes);
    if asked.is_none() && bytes.len() > MAX_BOUNDARIES {
        // It may have been refused because iroh-blobs would take too long.
        return;
    }
    let mut stream = Bytes::copy_from_slice(bytes);
    let read = IrohRequest::read_async(&mut stream).now_or_never();
    let Ok((request, _)) = read.expect("all is here") else {
        return;
    };
    let again = postcard::to_stdvec(&request).expect("it was read");
    assert_eq!(Request::asked(&again), asked);
    let (expected, last) = match &request {
        IrohRequest::Get(get) => {
            let (hash, starts) = (to_engine_hash(get.hash), starts(&get.ranges));
            let child = |at: &u64| *at > 0 && !get.ranges[*at].is_empty();
            let expected = match starts.iter().chain([&1]).any(child) {
                true => Asked::HashSeq(hash),
                false => Asked::Blob(hash),
            };
            (expected, starts.last().copied())
        }
        IrohRequest::GetMany(many) => {
            let hashes = many.hashes.iter().copied().map(to_engine_hash);
            let last = starts(&many.ranges).last().copied();
            (Asked::Blobs(hashes.collect()), last)
        }
        IrohRequest::Observe(observe) => (Asked::Blob(to_engine_hash(observe.hash)), None),
        _ => return assert_eq!(asked, None),
    };
    let near = last.is_none_or(|last| last <= MAX_OFFSET);
    assert_eq!(asked, near.then_some(expected));
}

/// Returns true if this is a request that is answered.
pub(crate) fn is_within_bounds(bytes: &[u8]) -> bool {
    Request::asked(bytes).is_some()
}

/// At which offsets other ranges begin to be asked for.
fn starts(ranges: &ChunkRangesSeq) -> Vec<u64> {
    let bytes = postcard::to_stdvec(ranges).expect("they were read");
    let pairs: Vec<(u64, Vec<u64>)> = postcard::from_bytes(&bytes).expect("they were written");
    let sum = |at: &mut u64, (skip, _)| {
        *at += skip;
        Some(*at)
    };
    pairs.into_iter().scan(0, sum).collect()
}
