//! Reading: everything is verified as it is read.

use std::ops::Range;

use bao_tree::{ChunkNum, ChunkRanges};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use store_api::{Error, GROUP_LEN, Kind, Listing, Part, PayloadId, Result};

use super::{
    Blobs, Inner,
    entry::{BlobEntry, Partial, State},
    export::verified_windows,
    plan::Planned,
    tree::{Cv, group_count, group_range, hash_subtree},
};
use crate::{
    Hash,
    blocking::{INLINE_HASH_LEN, blocking},
};

/// How much is read and verified at a time.
const WINDOW_LEN: u64 = 1024 * 1024;
/// How many windows are read ahead.
const READ_AHEAD: usize = 2;

/// The most that [`Blobs::read_to_bytes`] reads.
pub const MAX_READ_TO_BYTES: u64 = 64 * 1024 * 1024;

/// What is here of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All of it.
    Complete {
        /// Its size in bytes.
        size: u64,
    },
    /// Some of it.
    Partial {
        /// Its size in bytes, as far as it is known.
        size: u64,
        /// Whether the end is here, which proves the size.
        proven: bool,
        /// How many bytes are here.
        present: u64,
    },
}

impl Status {
    pub(crate) fn of(entry: &BlobEntry) -> Self {
        match &entry.state {
            State::Partial(partial) => {
                let bitfield = partial.bitfield();
                Status::Partial {
                    size: partial.size,
                    proven: bitfield.size_is_proven(),
                    present: bitfield.present_bytes(),
                }
            }
            _ => Status::Complete { size: entry.size() },
        }
    }
}

pub(crate) fn not_found(operation: &'static str, hash: Hash) -> Error {
    Error::new(Kind::NotFound, operation, "the blob is not here").with("hash", hash)
}

/// What reads of a payload that the index claims fail with: it should have been there.
pub(crate) fn claimed(hash: Hash) -> impl Fn(Error) -> Error {
    move |error| match error.kind() {
        Kind::NotFound => Error::new(Kind::Corrupt, "blobs.read", "the payload is missing")
            .with("hash", hash)
            .because(error),
        _ => error,
    }
}

impl Blobs {
    /// What is here of a blob; `None` where nothing is.
    pub async fn status(&self, hash: Hash) -> Result<Option<Status>> {
        self.0.check_open("blobs.status")?;
        let found = self.0.lookup(hash).await?;
        Ok(found.map(|found| Status::of(&found.entry)))
    }

    /// The bytes of `range` in order, each verified, in pieces of up to 1 MiB.
    ///
    /// The range is clipped to the blob's size. What is not here is [`Kind::NotFound`], what is
    /// damaged [`Kind::Corrupt`]: all bytes before it come first, and reading beyond it works.
    pub fn read(&self, hash: Hash, range: Range<u64>) -> Listing<Bytes> {
        let inner = self.0.clone();
        Box::pin(
            stream::once(async move {
                inner.check_open("blobs.read")?;
                let found = inner.lookup(hash).await?;
                let found = found.ok_or_else(|| not_found("blobs.read", hash))?;
                Ok::<_, Error>(inner.read_entry(hash, found.entry, range))
            })
            .try_flatten(),
        )
    }

    /// As [`read`](Self::read), in one piece of at most [`MAX_READ_TO_BYTES`].
    pub async fn read_to_bytes(&self, hash: Hash, range: Range<u64>) -> Result<Bytes> {
        self.0.check_open("blobs.read")?;
        let found = self.0.lookup(hash).await?;
        let entry = found.ok_or_else(|| not_found("blobs.read", hash))?.entry;
        self.0.read_entry_to_bytes(hash, entry, range).await
    }
}

impl Inner {
    pub(crate) async fn read_entry_to_bytes(
        self: &std::sync::Arc<Self>,
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
            State::Complete { size, payload }
                if group_span(&range).end - group_span(&range).start <= WINDOW_LEN / GROUP_LEN =>
            {
                self.read_window(hash, payload, size, range).await
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
    // Only ever used within a blob that is in memory.
    let cast = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    cast(range.start)..cast(range.end)
}

/// The groups that `range` touches.
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

pub(crate) fn corrupt(hash: Hash, offset: u64) -> Error {
    Error::new(
        Kind::Corrupt,
        "blobs.read",
        "the stored bytes are not those of the hash",
    )
    .with("hash", hash)
    .with("offset", offset)
}

impl Inner {
    pub(crate) fn read_entry(
        self: std::sync::Arc<Self>,
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
            State::Complete { size, payload } => {
                let starts = (range.start / WINDOW_LEN)..range.end.div_ceil(WINDOW_LEN);
                let windows = stream::iter(starts).map(move |window| {
                    let part = (window * WINDOW_LEN).max(range.start)
                        ..((window + 1) * WINDOW_LEN).min(range.end);
                    let inner = self.clone();
                    async move { inner.read_window(hash, payload, size, part).await }
                });
                Box::pin(ordered(windows.buffered(READ_AHEAD)))
            }
            State::Partial(partial) => self.read_partial(hash, partial, range),
        }
    }

    /// Reads and verifies a range of a complete blob, within one window.
    async fn read_window(
        &self,
        hash: Hash,
        payload: PayloadId,
        size: u64,
        range: Range<u64>,
    ) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let groups = group_span(&range);
        let first = groups.start * GROUP_LEN;
        let hashes = self.group_hashes(hash, payload, size, groups.clone());
        let end = group_range(groups.end - 1, size).end;
        let data = self.payloads.read(payload, Part::Data, first..end);
        let (hashes, data) = futures_util::future::join(hashes, data).await;
        let (hashes, data) = (hashes?, data.map_err(claimed(hash))?);
        let single = group_count(size) == 1;
        let wanted = as_usize(&(range.start - first..range.end - first));
        let check = move || verify_groups(hash, first, &data, &hashes, single).map(|()| data);
        let data = if end - first <= INLINE_HASH_LEN as u64 {
            check()
        } else {
            blocking("blobs.read", check).await?
        }?;
        Ok(data.slice(wanted))
    }

    fn read_partial(
        self: std::sync::Arc<Self>,
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
                        let Planned::Leaf { offset, bytes } = item else {
                            return None;
                        };
                        let from = range.start.max(offset) - offset;
                        let to = range.end.min(offset + bytes.len() as u64);
                        let to = to.saturating_sub(offset);
                        (from < to).then(|| Ok(bytes.slice(as_usize(&(from..to)))))
                    });
                    stream::iter(pieces)
                })
                .try_flatten(),
        )
    }
}

/// Checks every group of `data`, which begins at byte `first` of the blob.
fn verify_groups(
    hash: Hash,
    first: u64,
    data: &[u8],
    hashes: &[Option<Cv>],
    single: bool,
) -> Result<()> {
    for (i, group) in data.chunks(GROUP_LEN as usize).enumerate() {
        let offset = first + i as u64 * GROUP_LEN;
        let actual = hash_subtree(offset, group, single);
        if hashes.get(i).copied().flatten() != Some(actual) {
            return Err(corrupt(hash, offset));
        }
    }
    Ok(())
}

/// Ends a stream after its first error.
pub(crate) fn ordered<T>(
    items: impl stream::Stream<Item = Result<T>>,
) -> impl stream::Stream<Item = Result<T>> {
    let mut failed = false;
    items.take_while(move |item| {
        let go_on = !failed;
        failed |= item.is_err();
        std::future::ready(go_on)
    })
}
