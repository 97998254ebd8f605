//! Payloads: the stored bytes of blobs, in blocks.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Durability, Error, Kind, Listing, Result};

/// The length of a chunk group, 16 KiB: the unit in which blobs are verified. Block lengths are
/// multiples of it.
pub const GROUP_LEN: u64 = 16 * 1024;

/// The name of a payload. The engine chooses it; a backend never computes or interprets one, beyond
/// ordering by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadId(pub [u8; 16]);

impl fmt::Display for PayloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PayloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadId({self})")
    }
}

/// One of a payload's two byte sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The blob's bytes.
    Data,
    /// The blob's hash tree.
    Outboard,
}

/// One or more whole consecutive blocks of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The part that it belongs to.
    pub part: Part,
    /// The index of the first block: its offset is `index * block_len`.
    pub index: u64,
    /// The bytes: a multiple of `block_len`, unless they end the part. Never empty.
    pub bytes: Bytes,
}

/// Facts about a [`BlobStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobCapabilities {
    /// The length of a block in bytes: a positive multiple of [`GROUP_LEN`].
    pub block_len: u32,
    /// The longest part that can be kept, in bytes.
    pub max_part_len: u64,
    /// The durability of a write.
    pub durability: Durability,
    /// The number of concurrent calls that gives the best throughput.
    pub concurrency: u16,
}

impl BlobCapabilities {
    /// Returns the minimum that every store promises: blocks of [`GROUP_LEN`], parts of 1 GiB, in memory, one call
    /// at a time. A backend changes the fields in which it differs.
    pub const fn least() -> Self {
        Self {
            block_len: GROUP_LEN as u32,
            max_part_len: 1 << 30,
            durability: Durability::Memory,
            concurrency: 1,
        }
    }

    /// Checks that `blocks` can be written, as [`BlobStore::write`] demands: for backends.
    ///
    /// # Errors
    /// [`Kind::Invalid`] or [`Kind::TooLarge`].
    pub fn check(&self, blocks: &[Block]) -> Result<()> {
        let invalid = |message| Error::new(Kind::Invalid, "blobs.write", message);
        let block_len = u64::from(self.block_len);
        for block in blocks {
            let len = block.bytes.len() as u64;
            if len == 0 {
                return Err(invalid("a block is empty").with("index", block.index));
            }
            let start = block.index.checked_mul(block_len);
            let end = start.and_then(|start| start.checked_add(len));
            if end.is_none_or(|end| end > self.max_part_len) {
                let message = "a block lies beyond the longest part";
                return Err(Error::new(Kind::TooLarge, "blobs.write", message)
                    .with("index", block.index)
                    .with("longest", self.max_part_len));
            }
            let ends_part = |other: &Block| other.part != block.part || other.index <= block.index;
            if !len.is_multiple_of(block_len) && !blocks.iter().all(ends_part) {
                let message =
                    "a block that does not end its part is not a multiple of the block length";
                return Err(invalid(message).with("index", block.index).with("len", len));
            }
        }
        Ok(())
    }
}

/// Keeps payloads: sparse sequences of blocks under an id that the caller chose.
///
/// There is no "create": the first write makes the payload. There is no length: the engine keeps
/// it. A payload's parts are independent.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name for people, as in an error or a table.
    fn name(&self) -> &str;

    /// Returns facts about this store; they are constant while it is open.
    fn capabilities(&self) -> BlobCapabilities;

    /// Returns exactly the bytes of `range`, which need not be aligned.
    ///
    /// Any part of it that was never written, or was deleted, or lies beyond the last byte
    /// written, is [`Kind::NotFound`](crate::Kind::NotFound); a store that keeps payloads as
    /// sparse files may answer zeros for a hole between blocks that were written. An empty range
    /// reads as empty bytes, whatever is there. A range whose start is beyond its end is
    /// [`Kind::Invalid`](crate::Kind::Invalid).
    ///
    /// Reads while the same block is written see the old bytes, the new ones or a mix: the caller
    /// verifies. Ordered after every write that returned before the read began.
    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes>;

    /// Writes `blocks`, and replaces the bytes in their places.
    ///
    /// Not atomic: after an error, a cancelled call or a crash any of the blocks may be there, whole
    /// or torn. Durable only when [`sync`](Self::sync) has returned, unless the capabilities say
    /// [`OnWrite`](Durability::OnWrite). A block that is empty, is not a multiple of the block
    /// length before the part's end, or lies beyond the longest part is
    /// [`Kind::Invalid`](crate::Kind::Invalid) or [`Kind::TooLarge`](crate::Kind::TooLarge), and
    /// nothing is written.
    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()>;

    /// Deletes both parts of every payload in `ids`, and frees their space.
    ///
    /// Deleting an absent payload is not an error. Not atomic: after a crash any subset may be gone, and
    /// deleted payloads may be back until it is [synced](Self::sync); the caller deletes again.
    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()>;

    /// Lists the ids of all payloads after `after`, in ascending order of their bytes, each once.
    ///
    /// Payloads that are written or deleted while the listing runs may or may not appear; all
    /// others do.
    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId>;

    /// Makes every write to `ids`, and every deletion of them, that returned before this call survive
    /// the loss of power.
    ///
    /// Absent ids are not an error. After an error, nothing is known to be durable: write
    /// again, then sync again.
    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()>;
}
