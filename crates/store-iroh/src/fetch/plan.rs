//! What to ask for: the ranges that are not here, in requests of bounded length.

use std::collections::VecDeque;

use bao_tree::ChunkRanges;
use futures_util::{StreamExt, TryStreamExt, stream};
use iroh_blobs::protocol::{ChunkRangesSeq, GetRequest, MAX_MESSAGE_SIZE};
use store_api::Result;
use store_engine::{Blobs, Hash, Status};

use crate::convert::to_iroh_hash;

/// How many blobs are looked up at once.
const LOOKUPS: usize = 64;

/// The most ranges of one blob in one request; more are asked for once these are here.
const MAX_RANGES: usize = 1024;

/// How many requests a stream makes of its share, so that all streams end at about the same time.
const REQUESTS_PER_STREAM: usize = 4;

/// Not worth a request of its own: fewer blobs than these.
pub(super) const MIN_BATCH: usize = 256;

/// The longest request, as estimated below, which counts at least what is sent.
const MAX_BATCH_LEN: usize = MAX_MESSAGE_SIZE / 2;

/// Something to ask for.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) hash: Hash,
    /// Where in the request: 0 for the root, else its child's position from 1.
    pub(super) offset: u64,
    /// What is not here of it.
    pub(super) ranges: ChunkRanges,
}

/// The ranges that are not here, as far as fits one request; `None` where all is here.
pub(super) async fn missing(blobs: &Blobs, hash: Hash) -> Result<Option<ChunkRanges>> {
    Ok(match blobs.status(hash).await? {
        Some(Status::Complete { .. }) => None,
        Some(Status::Partial { .. }) => {
            let here = blobs.bitfield(hash).await?;
            let ranges = first_ranges(&(ChunkRanges::all() - here.ranges));
            (!ranges.is_empty()).then_some(ranges)
        }
        None => Some(ChunkRanges::all()),
    })
}

/// The jobs of those children that are not here as a whole.
pub(super) async fn missing_of_all(blobs: &Blobs, children: Vec<(u64, Hash)>) -> Result<Vec<Job>> {
    stream::iter(children)
        .map(|(offset, hash)| async move {
            let ranges = missing(blobs, hash).await?;
            Ok(ranges.map(|ranges| Job {
                hash,
                offset,
                ranges,
            }))
        })
        .buffered(LOOKUPS)
        .try_filter_map(|job| async { Ok(job) })
        .try_collect()
        .await
}

fn first_ranges(ranges: &ChunkRanges) -> ChunkRanges {
    if ranges.boundaries().len() <= 2 * MAX_RANGES {
        return ranges.clone();
    }
    let end = ranges.boundaries()[2 * MAX_RANGES - 1];
    ranges & &ChunkRanges::from(..end)
}

/// What to ask for of a job where the peer has just `had` of the blob: in several jobs where these
/// are too many ranges for one request.
pub(super) fn of_what_is_had(job: &Job, had: &ChunkRanges) -> Vec<Job> {
    let wanted = &job.ranges & had;
    let parts = wanted.boundaries().chunks(2 * MAX_RANGES);
    let parts = parts.map(|part| Job {
        ranges: ChunkRanges::new(part.into()).expect("they ascend"),
        ..job.clone()
    });
    parts.collect()
}

/// Splits jobs, which are in the order of their offsets, into requests for `streams` streams. Each
/// asks for a blob once.
pub(super) fn batches(jobs: Vec<Job>, streams: usize) -> VecDeque<Vec<Job>> {
    let most = jobs
        .len()
        .div_ceil(streams * REQUESTS_PER_STREAM)
        .max(MIN_BATCH);
    let mut batches = VecDeque::new();
    let mut batch: Vec<Job> = Vec::new();
    let mut len = 0;
    for job in jobs {
        let cost = cost(batch.last(), &job);
        let again = batch.last().is_some_and(|last| last.offset == job.offset);
        if again || batch.len() == most || len + cost > MAX_BATCH_LEN {
            batches.push_back(std::mem::take(&mut batch));
            len = 0;
        }
        len += cost;
        batch.push(job);
    }
    if !batch.is_empty() {
        batches.push_back(batch);
    }
    batches
}

/// At most how many bytes a job adds to a request: numbers take up to ten, and a run of equal ranges
/// is one entry.
fn cost(previous: Option<&Job>, job: &Job) -> usize {
    match previous {
        Some(previous) if previous.offset + 1 == job.offset && previous.ranges == job.ranges => 0,
        _ => 2 * 12 + 10 * job.ranges.boundaries().len(),
    }
}

/// The request for the jobs of a batch, through their root.
pub(super) fn request(root: Hash, jobs: &[Job]) -> GetRequest {
    let mut next = 0;
    let ranges = jobs.iter().flat_map(|job| {
        let skipped = job.offset - next;
        next = job.offset + 1;
        let skipped = (0..skipped).map(|_| ChunkRanges::empty());
        skipped.chain([job.ranges.clone()])
    });
    GetRequest::new(to_iroh_hash(root), ChunkRangesSeq::from_ranges(ranges))
}

#[cfg(test)]
mod tests {
    use bao_tree::ChunkNum;
    use iroh_blobs::protocol::Request;

    use super::*;

    fn jobs(count: u64, ranges: impl Fn(u64) -> ChunkRanges) -> Vec<Job> {
        (0..count)
            .map(|i| Job {
                hash: Hash::of(i.to_le_bytes()),
                offset: i + 1,
                ranges: ranges(i),
            })
            .collect()
    }

    #[test]
    fn a_request_asks_for_each_job_at_its_place() {
        let some = ChunkRanges::from(ChunkNum(3)..ChunkNum(7));
        let mut jobs = jobs(10, |_| ChunkRanges::all());
        jobs.retain(|job| job.offset % 3 == 0);
        jobs[1].ranges = some.clone();
        let request = request(Hash::of(b"root"), &jobs);
        let asked: Vec<_> = request.ranges.iter_non_empty_infinite().collect();
        let all = ChunkRanges::all();
        assert_eq!(asked, [(3, &all), (6, &some), (9, &all)]);
    }

    #[test]
    fn requests_fit_a_message_and_all_jobs_are_asked_for_once() {
        // Nothing repeats here, so that each job costs its own entry.
        let scattered = |i: u64| {
            let start = ChunkNum(i * 1000 + 1);
            ChunkRanges::from(start..start + 1 + i % 5)
        };
        let jobs = jobs(60_000, scattered);
        let batches = batches(jobs, 2);
        let mut offsets = Vec::new();
        for batch in &batches {
            let request = Request::Get(request(Hash::of(b"root"), batch));
            let bytes = postcard::to_stdvec(&request).expect("a request has bytes");
            assert!(bytes.len() <= MAX_MESSAGE_SIZE, "{} bytes", bytes.len());
            offsets.extend(batch.iter().map(|job| job.offset));
        }
        assert!(offsets.iter().copied().eq(1..=60_000));
    }

    #[test]
    fn few_blobs_are_one_request() {
        assert_eq!(batches(jobs(100, |_| ChunkRanges::all()), 4).len(), 1);
        assert_eq!(batches(Vec::new(), 4).len(), 0);
    }

    #[test]
    fn many_ranges_are_asked_for_in_parts() {
        let mut holes = ChunkRanges::empty();
        for i in 0..5000_u64 {
            holes |= ChunkRanges::from(ChunkNum(i * 32)..ChunkNum(i * 32 + 16));
        }
        let first = first_ranges(&holes);
        assert_eq!(first.boundaries().len(), 2 * MAX_RANGES);
        assert!(first.is_subset(&holes));
    }

    #[test]
    fn what_a_peer_has_in_many_pieces_is_asked_for_in_parts() {
        let boundaries = (0..60_001).map(|i| ChunkNum(i * 20 + 7));
        let had = ChunkRanges::new(boundaries.collect()).expect("they ascend");
        let jobs = jobs(30, |_| ChunkRanges::all()).into_iter();
        let parts = jobs.flat_map(|job| of_what_is_had(&job, &had)).collect();
        let mut asked = vec![ChunkRanges::empty(); 31];
        for batch in batches(parts, 1) {
            let request = Request::Get(request(Hash::of(b"root"), &batch));
            let bytes = postcard::to_stdvec(&request).expect("a request has bytes");
            assert!(bytes.len() <= MAX_MESSAGE_SIZE, "{} bytes", bytes.len());
            for job in batch {
                let ranges = job.ranges.boundaries().len();
                assert!(ranges <= 2 * MAX_RANGES, "{ranges} boundaries");
                asked[job.offset as usize] |= job.ranges;
            }
        }
        assert!(asked[1..].iter().all(|asked| *asked == had));
    }
}
