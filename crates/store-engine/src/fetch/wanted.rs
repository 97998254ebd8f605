//! Wanted blobs: their missing parts, and the requests for them.

use bao_tree::{ChunkNum, ChunkRanges};
use larder_store_api::Result;

use crate::{BlobStatus, Blobs, Hash, blobs::tree::clip};

/// The longest part of a blob in one request: parts of a longer blob come from several providers, and
/// over several streams of one.
pub const PIECE_LEN: u64 = 8 * 1024 * 1024;
/// The most pieces of a blob that are requested at a time; the rest follows in the next round.
const MAX_PIECES: usize = 1024;
/// The most ranges of one blob in one request; the rest follows in the next round.
pub(super) const MAX_RANGES: usize = 1024;

/// A blob to fetch, as the request names it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Blob {
    /// 0 for the subject of the request; from 1 for the blobs that it names, in its order.
    pub offset: u64,
    /// The hash of the blob.
    pub hash: Hash,
    /// The longest allowed length: a longer blob is refused before any of it is received.
    pub longest: u64,
    /// The longest wanted length: once a blob is proven to be longer, no more of it is requested, and
    /// it does not count as missing.
    pub up_to: u64,
    /// The chunks to request first if nothing of the blob is here, so that its size is unknown.
    pub first: ChunkRanges,
}

impl Blob {
    /// Makes a blob of any length, whose first [`PIECE_LEN`] bytes are requested first.
    pub fn new(offset: u64, hash: Hash) -> Self {
        Self {
            offset,
            hash,
            longest: u64::MAX,
            up_to: u64::MAX,
            first: ChunkRanges::from(..ChunkNum(PIECE_LEN / 1024)),
        }
    }
}

/// A part of a blob that a request asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wanted {
    /// See [`Blob::offset`].
    pub offset: u64,
    /// The hash; `None` if the blob at offset 0 of the same request names it.
    pub hash: Option<Hash>,
    /// The chunks.
    pub ranges: ChunkRanges,
    /// See [`Blob::longest`].
    pub longest: u64,
    /// See [`Blob::up_to`].
    pub(super) up_to: u64,
    /// True if nothing of the blob is here: then the answer shows its size.
    pub(super) is_new: bool,
    /// The chunks that are requested first: the others follow once the size is known.
    pub(super) first: Option<ChunkRanges>,
}

impl Wanted {
    /// Requests all of a blob that has at most `longest` bytes.
    pub fn whole(offset: u64, hash: Option<Hash>, longest: u64) -> Self {
        Self {
            offset,
            hash,
            ranges: ChunkRanges::all(),
            longest,
            up_to: u64::MAX,
            is_new: true,
            first: None,
        }
    }

    pub(super) fn first(blob: &Blob) -> Self {
        Self {
            ranges: blob.first.clone(),
            first: Some(blob.first.clone()),
            up_to: blob.up_to,
            ..Self::whole(blob.offset, Some(blob.hash), blob.longest)
        }
    }

    fn part(blob: &Blob, ranges: ChunkRanges) -> Self {
        Self {
            ranges,
            up_to: blob.up_to,
            is_new: false,
            ..Self::whole(blob.offset, Some(blob.hash), blob.longest)
        }
    }

    /// Returns a part of the same blob with only these chunks.
    #[must_use]
    pub fn with_ranges(&self, ranges: ChunkRanges) -> Self {
        Self {
            ranges,
            first: None,
            ..self.clone()
        }
    }

    /// Returns the blob, without the details of this request.
    pub(super) fn blob(&self, hash: Hash) -> Blob {
        Blob {
            longest: self.longest,
            up_to: self.up_to,
            ..Blob::new(self.offset, hash)
        }
    }
}

/// The missing part of a blob.
pub(super) enum Missing {
    /// All of it.
    All,
    /// These chunks of a blob with this many bytes.
    Of(u64, ChunkRanges),
}

/// Returns the missing part of a blob; `None` if all of it is here, or if it is proven to have more
/// than `up_to` bytes.
pub(super) async fn missing(blobs: &Blobs, hash: Hash, up_to: u64) -> Result<Option<Missing>> {
    if hash == Hash::EMPTY {
        return Ok(None);
    }
    let is_too_long = match blobs.status(hash).await? {
        Some(BlobStatus::Complete { .. }) => return Ok(None),
        None => return Ok(Some(Missing::All)),
        Some(BlobStatus::Partial { size, proven, .. }) => proven && size > up_to,
    };
    if is_too_long {
        return Ok(None);
    }
    let here = blobs.bitfield(hash).await?;
    if here.is_complete() {
        return Ok(None);
    }
    // It may have been collected since.
    if here.size == 0 {
        return Ok(Some(Missing::All));
    }
    let all = ChunkRanges::from(..ChunkNum::chunks(here.size));
    Ok(Some(Missing::Of(here.size, all - here.ranges)))
}

/// Splits the missing chunks of a blob of `size` bytes into pieces, each for a request of its own.
pub(super) fn pieces(blob: &Blob, size: u64, missing: &ChunkRanges) -> Vec<Wanted> {
    let mut left = missing & &ChunkRanges::from(..ChunkNum::chunks(size));
    let mut pieces = Vec::new();
    while pieces.len() < MAX_PIECES
        && let Some(next) = left.boundaries().first()
    {
        let start = next.to_bytes() / PIECE_LEN * PIECE_LEN;
        let end = ChunkNum((start + PIECE_LEN) / 1024);
        let piece = first_of(&(&left & &ChunkRanges::from(..end)));
        pieces.push(Wanted::part(blob, piece));
        left &= ChunkRanges::from(end..);
    }
    pieces
}

/// Returns as many ranges as fit in a request.
fn first_of(ranges: &ChunkRanges) -> ChunkRanges {
    if ranges.boundaries().len() <= 2 * MAX_RANGES {
        return ranges.clone();
    }
    let end = ranges.boundaries()[2 * MAX_RANGES - 1];
    ranges & &ChunkRanges::from(..end)
}

/// Returns the chunks of a blob of `size` bytes that remain after `asked`; `None` if there are none.
pub(super) fn rest(asked: &ChunkRanges, size: u64) -> Option<ChunkRanges> {
    let all = ChunkRanges::from(..ChunkNum::chunks(size));
    let rest = all - clip(asked, size);
    (!rest.is_empty()).then_some(rest)
}

/// Splits wanted parts, in the order of their offsets, into requests with at most this many blobs and
/// ranges. Each request has a blob only once. A run of blobs with equal ranges counts as one range and
/// its boundaries, and so does every other blob.
pub fn requests(
    wanted: impl IntoIterator<Item = Wanted>,
    most_blobs: usize,
    most_ranges: usize,
) -> Vec<Vec<Wanted>> {
    let mut requests = Vec::new();
    let mut request: Vec<Wanted> = Vec::new();
    let mut ranges = 0;
    for one in wanted {
        let last = request.last();
        let alone = 1 + one.ranges.boundaries().len();
        // Neighbours with equal ranges are one entry of a request.
        let is_like = |last: &Wanted| last.offset + 1 == one.offset && last.ranges == one.ranges;
        let cost = if last.is_some_and(is_like) { 0 } else { alone };
        let is_same = last.is_some_and(|last| last.offset == one.offset);
        if is_same || request.len() == most_blobs || ranges + cost > most_ranges {
            if !request.is_empty() {
                requests.push(std::mem::take(&mut request));
            }
            ranges = alone;
        } else {
            ranges += cost;
        }
        request.push(one);
    }
    if !request.is_empty() {
        requests.push(request);
    }
    requests
}
