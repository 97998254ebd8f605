//! Reads blobs; all data is verified as it is read.

use std::{
    ops::{Range, RangeBounds},
    sync::Arc,
};

use async_stream::try_stream;
use bao_tree::{ChunkNum, ChunkRanges, io::Leaf};
use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream};
use larder_store_api::{Error, GROUP_LEN, Kind, Listing, Part, PayloadId, Result, positions};

use super::{
    Blobs, Inner,
    ahead::{Verified, WINDOW_LEN, ahead},
    entry::{BlobEntry, Partial, State, Stored},
    error::{corrupt, not_found},
    export::verified_windows,
    items::Encoded,
    segment::Segment,
    tree::{group_count, group_range, hash_subtree},
};
use crate::{
    Hash,
    blocking::{INLINE_HASH_LEN, blocking},
    metrics::{Counter, Sum},
};

/// The most bytes that [`Blobs::read_to_bytes`] reads.
pub const MAX_READ_TO_BYTES: u64 = 64 * 1024 * 1024;

/// The local part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobStatus {
    /// All of it.
    Complete {
        /// Its size in bytes.
        size: u64,
    },
    /// Some of it.
    Partial {
        /// Its size in bytes, as far as it is known.
        size: u64,
        /// True if the end is here, which proves the size.
        proven: bool,
        /// The number of bytes that are here.
        present: u64,
    },
}

impl BlobStatus {
    pub(crate) fn of(entry: &BlobEntry) -> Self {
        match &entry.state {
            State::Partial(partial) => {
                let bitfield = partial.bitfield();
                BlobStatus::Partial {
                    size: partial.stored.size,
                    proven: bitfield.size_is_proven(),
                    present: bitfield.present_bytes(),
                }
            }
            _ => BlobStatus::Complete { size: entry.size() },
        }
    }
}

impl Blobs {
    /// Returns the status of a blob; `None` if nothing of it is here.
    pub async fn status(&self, hash: Hash) -> Result<Option<BlobStatus>> {
        self.0.check_open("blobs.status")?;
        let found = self.0.lookup(hash).await?;
        Ok(found.map(|found| BlobStatus::of(&found.entry)))
    }

    /// Returns the bytes of `range` in order, each verified, in pieces of up to 1 MiB.
    ///
    /// The range is clipped to the blob's size. Missing bytes are [`Kind::NotFound`], damaged ones
    /// [`Kind::Corrupt`]: all bytes before them come first, and reading beyond them works.
    pub fn read(&self, hash: Hash, range: impl RangeBounds<u64>) -> Listing<Bytes> {
        let (inner, range) = (self.0.clone(), positions(range));
        Counter::BlobReads.add(1);
        let mut read = Sum::new(Counter::BytesRead);
        Box::pin(
            stream::once(async move {
                inner.check_open("blobs.read")?;
                let found = inner.lookup(hash).await?;
                let found = found.ok_or_else(|| not_found("blobs.read", hash))?;
                Ok::<_, Error>(inner.read_entry(hash, found.entry, range))
            })
            .try_flatten()
            .inspect_ok(move |piece| read.add(piece.len() as u64)),
        )
    }

    /// Reads a range, as [`read`](Self::read) does, in one piece of at most [`MAX_READ_TO_BYTES`].
    pub async fn read_to_bytes(&self, hash: Hash, range: impl RangeBounds<u64>) -> Result<Bytes> {
        let range = positions(range);
        self.0.check_open("blobs.read")?;
        let found = self.0.lookup(hash).await?;
        let entry = found.ok_or_else(|| not_found("blobs.read", hash))?.entry;
        Counter::BlobReads.add(1);
        let bytes = self.0.read_entry_to_bytes(hash, entry, range).await?;
        Counter::BytesRead.add(bytes.len() as u64);
        Ok(bytes)
    }
}

impl Inner {
    pub(crate) async fn read_entry_to_bytes(
        self: &Arc<Self>,
        hash: Hash,
        entry: BlobEntry,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let range = clip(range, entry.size());
        if range.end - range.start > MAX_READ_TO_BYTES {
            return Err(Error::new(
                Kind::TooLarge,
                "blobs.read",
                "too much for one piece; read it as a stream",
            )
            .with("hash", hash)
            .with("limit", MAX_READ_TO_BYTES));
        }
        match entry.state {
            State::Inline(bytes) => Ok(verify_inline(hash, bytes)?.slice(as_usize(&range))),
            State::Complete(stored)
                if group_span(&range).end - group_span(&range).start <= WINDOW_LEN / GROUP_LEN =>
            {
                self.read_short(hash, &stored, range).await
            }
            _ => {
                let mut pieces = self.clone().read_entry(hash, entry, range);
                let mut all = BytesMut::new();
                while let Some(piece) = pieces.try_next().await? {
                    all.extend_from_slice(&piece);
                }
                Ok(all.freeze())
            }
        }
    }
}

fn clip(range: Range<u64>, size: u64) -> Range<u64> {
    let end = range.end.min(size);
    range.start.min(end)..end
}

fn as_usize(range: &Range<u64>) -> Range<usize> {
    // Only used within a blob that is in memory.
    let cast = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    cast(range.start)..cast(range.end)
}

/// Returns the groups that `range` touches.
fn group_span(range: &Range<u64>) -> Range<u64> {
    range.start / GROUP_LEN..range.end.div_ceil(GROUP_LEN)
}

pub(crate) fn verify_inline(hash: Hash, bytes: Bytes) -> Result<Bytes> {
    if Hash::of(&bytes) == hash {
        Ok(bytes)
    } else {
        Err(corrupt(hash, 0))
    }
}

impl Inner {
    pub(crate) fn read_entry(
        self: Arc<Self>,
        hash: Hash,
        entry: BlobEntry,
        range: Range<u64>,
    ) -> Listing<Bytes> {
        let range = clip(range, entry.size());
        if range.is_empty() {
            return Box::pin(stream::empty());
        }
        match entry.state {
            State::Inline(bytes) => Box::pin(stream::once(async move {
                Ok(verify_inline(hash, bytes)?.slice(as_usize(&range)))
            })),
            State::Complete(stored) => {
                let (size, payload) = (stored.size, stored.payload);
                let most = self.windows_ahead();
                let inner = self.clone();
                let windows = try_stream! {
                    for window in range.start / WINDOW_LEN..range.end.div_ceil(WINDOW_LEN) {
                        let part = (window * WINDOW_LEN).max(range.start)
                            ..((window + 1) * WINDOW_LEN).min(range.end);
                        let groups = group_span(&part);
                        let hashes = inner.group_hashes(hash, &stored, groups).await?;
                        yield (part, hashes);
                    }
                };
                Box::pin(ahead(most, windows, move |(part, hashes)| {
                    let inner = self.clone();
                    async move { inner.read_window(hash, payload, size, part, hashes).await }
                }))
            }
            State::Partial(partial) => self.read_partial(hash, partial, range),
        }
    }

    /// Reads and verifies a range of a complete blob that is no longer than a window.
    async fn read_short(&self, hash: Hash, stored: &Stored, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (size, payload) = (stored.size, stored.payload);
        let span = span_of_groups(&range, size);
        let hashes = self.group_hashes(hash, stored, group_span(&range));
        let data = self.read_part(hash, payload, Part::Data, span.clone());
        let (hashes, data) = futures_util::future::join(hashes, data).await;
        let data = data?;
        let window = Window {
            hash,
            size,
            range,
            data,
            hashes: hashes?,
        };
        let (good, ended) = window.verify().await?;
        ended.map(|()| good.unwrap_or_default())
    }

    /// Reads and verifies a range of a complete blob whose groups have these hashes.
    async fn read_window(
        &self,
        hash: Hash,
        payload: PayloadId,
        size: u64,
        range: Range<u64>,
        hashes: Segment,
    ) -> Verified<Bytes> {
        let span = span_of_groups(&range, size);
        let read = self.read_part(hash, payload, Part::Data, span).await;
        let data = match read {
            Ok(data) => data,
            Err(error) => return (None, Err(error)),
        };
        let window = Window {
            hash,
            size,
            range,
            data,
            hashes,
        };
        window
            .verify()
            .await
            .unwrap_or_else(|error| (None, Err(error)))
    }

    fn read_partial(
        self: Arc<Self>,
        hash: Hash,
        partial: Partial,
        range: Range<u64>,
    ) -> Listing<Bytes> {
        let chunks = ChunkNum(range.start / 1024)..ChunkNum(range.end.div_ceil(1024));
        let ranges = ChunkRanges::from(chunks);
        let windows = verified_windows(self, hash, State::Partial(partial), ranges);
        Box::pin(
            windows
                .map_ok(move |window| {
                    let range = range.clone();
                    let pieces = window.into_iter().filter_map(move |item| {
                        let Encoded::Leaf(Leaf { offset, data }) = item else {
                            return None;
                        };
                        let from = range.start.max(offset) - offset;
                        let to = range.end.min(offset + data.len() as u64);
                        let to = to.saturating_sub(offset);
                        (from < to).then(|| Ok(data.slice(as_usize(&(from..to)))))
                    });
                    stream::iter(pieces)
                })
                .try_flatten(),
        )
    }
}

/// Returns the byte range of all groups that `range` touches; `range` is not empty.
fn span_of_groups(range: &Range<u64>, size: u64) -> Range<u64> {
    let groups = group_span(range);
    groups.start * GROUP_LEN..group_range(groups.end - 1, size).end
}

/// Whole groups that were read and must be verified.
struct Window {
    hash: Hash,
    size: u64,
    /// The wanted range of the groups.
    range: Range<u64>,
    data: Bytes,
    hashes: Segment,
}

impl Window {
    async fn verify(self) -> Result<Verified<Bytes>> {
        if self.data.len() <= INLINE_HASH_LEN {
            Ok(self.check())
        } else {
            blocking("blobs.read", move || self.check()).await
        }
    }

    /// Returns the wanted bytes, up to the first group that is damaged.
    fn check(self) -> Verified<Bytes> {
        let first = self.range.start / GROUP_LEN * GROUP_LEN;
        let single = group_count(self.size) == 1;
        let groups = self.data.chunks(GROUP_LEN as usize);
        let groups = (first..).step_by(GROUP_LEN as usize).zip(groups);
        let wrong = groups.zip(0..).find(|((offset, group), at)| {
            let expected = self.hashes.get(*at).copied().flatten();
            expected != Some(hash_subtree(*offset, group, single))
        });
        let (end, ended) = match wrong {
            Some(((offset, _), _)) => (offset, Err(corrupt(self.hash, offset))),
            None => (self.range.end, Ok(())),
        };
        let good = clip(self.range, end);
        let good = as_usize(&(good.start - first..good.end - first));
        let good = (!good.is_empty()).then(|| self.data.slice(good));
        (good, ended)
    }
}
