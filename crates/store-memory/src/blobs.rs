//! Payloads: a map of blocks for each part.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use larder_store_api::{
    BlobCapabilities, BlobStore, Block, Error, Kind, Listing, Part, PayloadId, Result,
};

use super::{MemoryStore, PAGE, paged};

pub(super) type Payloads = BTreeMap<PayloadId, Payload>;

#[derive(Clone, Default)]
pub(super) struct Payload {
    data: Blocks,
    outboard: Blocks,
}

/// Blocks by index; only the last may be shorter than a block.
type Blocks = BTreeMap<u64, Bytes>;

impl Payload {
    pub(super) fn part(&self, part: Part) -> &Blocks {
        match part {
            Part::Data => &self.data,
            Part::Outboard => &self.outboard,
        }
    }

    pub(super) fn part_mut(&mut self, part: Part) -> &mut Blocks {
        match part {
            Part::Data => &mut self.data,
            Part::Outboard => &mut self.outboard,
        }
    }
}

// The synchronous form of the trait's methods; stores built on this one call it under locks.
impl MemoryStore {
    fn block_len(&self) -> u32 {
        self.0.facts.blobs.block_len
    }

    /// Writes synchronously, as [`BlobStore::write`] does.
    pub fn write_now(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        const OPERATION: &str = "blobs.write";
        let block_len = self.block_len();
        check(&blocks, self.0.facts.blobs).map_err(|problem| problem.error(OPERATION, id))?;
        let pieces = split(&blocks, block_len);
        self.0.blobs.write(OPERATION, |payloads| {
            if pieces.is_empty() {
                return Ok(());
            }
            if let Some(payload) = payloads.get(&id) {
                for (part, index, bytes) in &pieces {
                    let last = payload.part(*part).keys().next_back();
                    if bytes.len() < block_len as usize && last.is_some_and(|last| last > index) {
                        return Err(Problem::Partial { index: *index }.error(OPERATION, id));
                    }
                }
            }
            let payload = payloads.entry(id).or_default();
            for (part, index, bytes) in pieces {
                payload.part_mut(part).insert(index, bytes);
            }
            Ok(())
        })
    }

    /// Deletes synchronously, as [`BlobStore::delete`] does.
    pub fn delete_now(&self, ids: Vec<PayloadId>) -> Result<()> {
        let removed: Vec<_> = self.0.blobs.write("blobs.delete", |payloads| {
            Ok(ids.iter().filter_map(|id| payloads.remove(id)).collect())
        })?;
        // Freed after the lock is released, so that others need not wait.
        drop(removed);
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlobStore for MemoryStore {
    fn name(&self) -> &str {
        "memory"
    }

    fn capabilities(&self) -> BlobCapabilities {
        self.0.facts.blobs
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        const OPERATION: &str = "blobs.read";
        let pieces = self.0.blobs.read(OPERATION, |payloads| {
            let about = |error: Error| error.with("start", range.start).with("end", range.end);
            if range.start > range.end {
                let message = "the range ends before it starts";
                return Err(about(Error::new(Kind::Invalid, OPERATION, message)));
            }
            if range.is_empty() {
                return Ok(Vec::new());
            }
            payloads
                .get(&id)
                .and_then(|payload| pieces(payload.part(part), self.block_len(), &range))
                .ok_or_else(|| {
                    about(
                        Error::new(Kind::NotFound, OPERATION, "the payload has no such bytes")
                            .with("payload", id),
                    )
                })
        })?;
        Ok(concat(pieces))
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        self.write_now(id, blocks)
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        self.delete_now(ids)
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        let store = self.clone();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        paged(start, move |start| {
            store.0.blobs.read("blobs.list", |payloads| {
                let ids = payloads.range((start, Bound::Unbounded)).map(|(id, _)| *id);
                let page: Vec<_> = ids.take(PAGE).collect();
                let next = match page.last() {
                    Some(last) if page.len() == PAGE => Some(Bound::Excluded(*last)),
                    _ => None,
                };
                Ok((page, next))
            })
        })
    }

    async fn sync(&self, _ids: Vec<PayloadId>) -> Result<()> {
        self.0.blobs.read("blobs.sync", |_| Ok(()))
    }
}

/// Splits runs of blocks into single blocks, each with its own memory.
pub fn split(blocks: &[Block], block_len: u32) -> Vec<(Part, u64, Bytes)> {
    let single = |block: &Block| {
        let part = block.part;
        let chunks = block.bytes.chunks(block_len as usize);
        let chunks: Vec<_> = chunks.map(Bytes::copy_from_slice).collect();
        // A block beyond the largest index is refused elsewhere.
        let first = block.index;
        let indexes = (0..).map(move |n| first.saturating_add(n));
        indexes
            .zip(chunks)
            .map(move |(index, bytes)| (part, index, bytes))
    };
    blocks.iter().flat_map(single).collect()
}

/// The reason why a block is invalid.
enum Problem {
    Empty { index: u64 },
    Partial { index: u64 },
    TooLong { index: u64 },
}

impl Problem {
    fn error(self, operation: &'static str, id: PayloadId) -> Error {
        let (kind, message, index) = match self {
            Problem::Empty { index } => (Kind::Invalid, "a block is never empty", index),
            Problem::Partial { index } => {
                let message = "only the last block of a part may be partial";
                (Kind::Invalid, message, index)
            }
            Problem::TooLong { index } => {
                let message = "the part would be longer than this store can keep";
                (Kind::TooLarge, message, index)
            }
        };
        Error::new(kind, operation, message)
            .with("payload", id)
            .with("block", index)
    }
}

/// Checks that each of `blocks` is well-formed by itself and does not conflict with the others.
fn check(blocks: &[Block], facts: BlobCapabilities) -> Result<(), Problem> {
    let block_len = u64::from(facts.block_len);
    for block in blocks {
        let index = block.index;
        let len = block.bytes.len() as u64;
        if len == 0 {
            return Err(Problem::Empty { index });
        }
        let end = index
            .checked_mul(block_len)
            .and_then(|start| start.checked_add(len));
        if end.is_none_or(|end| end > facts.max_part_len) {
            return Err(Problem::TooLong { index });
        }
        let last = index + (len - 1) / block_len;
        let follows = |other: &Block| other.part == block.part && other.index > last;
        if !len.is_multiple_of(block_len) && blocks.iter().any(follows) {
            return Err(Problem::Partial { index: last });
        }
    }
    Ok(())
}

/// Returns the parts of blocks that make up `range`; `None` if a byte of it is missing. The work is
/// bounded by what is stored, not by the range.
fn pieces(blocks: &Blocks, block_len: u32, range: &Range<u64>) -> Option<Vec<Bytes>> {
    let block_len = u64::from(block_len);
    let mut pieces = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let block = blocks.get(&(offset / block_len))?;
        let from = offset % block_len;
        let until = block_len.min(from.saturating_add(range.end - offset));
        if until > block.len() as u64 {
            return None;
        }
        pieces.push(block.slice(from as usize..until as usize));
        offset += until - from;
    }
    Some(pieces)
}

fn concat(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut bytes = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        bytes.extend_from_slice(&piece);
    }
    bytes.freeze()
}
