//! Requests that any iroh-blobs node reads.

use bao_tree::ChunkRanges;
use iroh_blobs::protocol::{ChunkRangesSeq, GetRequest};
use larder_store_engine::{Hash, fetch::Wanted};

use crate::convert::to_iroh_hash;

/// The most ranges of one blob in one request.
const MAX_RANGES: usize = 1024;

/// The most ranges of a request, as the engine counts them: at most 34 bytes each, so that a request
/// is far shorter than the longest that a peer reads.
pub(super) const MOST_RANGES: usize = 8192;

/// Not worth a request of its own: fewer blobs than these.
pub(super) const LEAST_BLOBS: usize = 256;

/// The request for blobs, which ascend by offset, through their root.
pub(super) fn request(root: Hash, wanted: &[Wanted]) -> GetRequest {
    let mut next = 0;
    let ranges = wanted.iter().flat_map(|one| {
        let skipped = one.offset - next;
        next = one.offset + 1;
        let skipped = (0..skipped).map(|_| ChunkRanges::empty());
        skipped.chain([one.ranges.clone()])
    });
    GetRequest::new(to_iroh_hash(root), ChunkRangesSeq::from_ranges(ranges))
}

/// The parts to ask for of a blob of which the peer has `had`: several where these are too many ranges
/// for one request.
pub(super) fn of_what_is_had(wanted: &Wanted, had: &ChunkRanges) -> Vec<Wanted> {
    let had = &wanted.ranges & had;
    let parts = had.boundaries().chunks(2 * MAX_RANGES);
    let parts = parts.map(|part| {
        let ranges = ChunkRanges::new(part.into()).expect("the boundaries of ranges ascend");
        wanted.with_ranges(ranges)
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use bao_tree::ChunkNum;
    use iroh_blobs::protocol::{MAX_MESSAGE_SIZE, Request};
    use larder_store_engine::fetch::requests;

    use super::*;

    fn wanted(count: u64, ranges: impl Fn(u64) -> ChunkRanges) -> Vec<Wanted> {
        let wanted = |i: u64| {
            let hash = Hash::of(i.to_le_bytes());
            Wanted::whole(i + 1, Some(hash), u64::MAX).with_ranges(ranges(i))
        };
        (0..count).map(wanted).collect()
    }

    fn len(wanted: &[Wanted]) -> usize {
        let request = Request::Get(request(Hash::of(b"root"), wanted));
        postcard::to_stdvec(&request)
            .expect("a request has bytes")
            .len()
    }

    #[test]
    fn a_request_asks_for_each_blob_at_its_place() {
        let some = ChunkRanges::from(ChunkNum(3)..ChunkNum(7));
        let mut wanted = wanted(10, |_| ChunkRanges::all());
        wanted.retain(|one| one.offset % 3 == 0);
        wanted[1].ranges = some.clone();
        let request = request(Hash::of(b"root"), &wanted);
        let asked: Vec<_> = request.ranges.iter_non_empty_infinite().collect();
        let all = ChunkRanges::all();
        assert_eq!(asked, [(3, &all), (6, &some), (9, &all)]);
    }

    #[test]
    fn requests_fit_a_message_and_all_blobs_are_asked_for_once() {
        // Nothing repeats here, so that each blob costs its own entry.
        let scattered = |i: u64| {
            let start = ChunkNum((1 << 60) + i * 1000 + 1);
            ChunkRanges::from(start..start + (1 << 50) + i % 5)
        };
        let requests = requests(wanted(60_000, scattered), usize::MAX, MOST_RANGES);
        let mut offsets = Vec::new();
        for wanted in &requests {
            assert!(len(wanted) <= MAX_MESSAGE_SIZE / 2, "{} bytes", len(wanted));
            offsets.extend(wanted.iter().map(|one| one.offset));
        }
        assert!(offsets.iter().copied().eq(1..=60_000));
    }

    #[test]
    fn blobs_that_are_asked_for_alike_cost_little() {
        let same = wanted(1_000_000, |_| ChunkRanges::from(..ChunkNum(8192)));
        let requests = requests(same, usize::MAX, MOST_RANGES);
        assert_eq!(requests.len(), 1);
        assert!(len(&requests[0]) < 100);
    }

    #[test]
    fn what_a_peer_has_in_many_pieces_is_asked_for_in_parts() {
        let boundaries = (0..60_001).map(|i| ChunkNum(i * 20 + 7));
        let had = ChunkRanges::new(boundaries.collect()).expect("they ascend");
        let parts = wanted(30, |_| ChunkRanges::all());
        let parts: Vec<_> = parts
            .iter()
            .flat_map(|one| of_what_is_had(one, &had))
            .collect();
        let mut asked = vec![ChunkRanges::empty(); 31];
        for wanted in requests(parts, usize::MAX, MOST_RANGES) {
            assert!(
                len(&wanted) <= MAX_MESSAGE_SIZE / 2,
                "{} bytes",
                len(&wanted)
            );
            for one in wanted {
                let ranges = one.ranges.boundaries().len();
                assert!(ranges <= 2 * MAX_RANGES, "{ranges} boundaries");
                asked[one.offset as usize] |= one.ranges;
            }
        }
        assert!(asked[1..].iter().all(|asked| *asked == had));
    }
}
