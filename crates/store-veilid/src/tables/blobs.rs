//! Implements [`BlobStore`]: each block is a row.
//!
//! The key of a row consists of the payload's id, the part (0 data, 1 outboard) and the block's index
//! as a big-endian `u64`; its value is the bytes. There is no checksum: the engine verifies everything
//! that it reads against the blob's hash.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{
    BlobCapabilities, BlobStore, Block, Bytes, Durability, Error, Kind, Listing, Part, PayloadId,
    Result,
};
use larder_veilid_node::veilid_core::TableDBTransaction;

use super::{VeilidStore, directory::Extents, table::Table};

/// The length of a block, chosen by measurement: shorter blocks need more rows, longer ones make short
/// reads slower.
const BLOCK_LEN: u32 = 64 << 10;
/// The longest part.
const MAX_PART_LEN: u64 = 1 << 40;
/// The column of the rows.
const BLOCKS: u32 = 1;
/// The most blocks that are written in one transaction: 4 MiB.
const MAX_WRITTEN: usize = 64;
/// The most blocks that are deleted in one transaction.
const MAX_DELETED: u64 = 1024;
/// The number of blocks that a read requests ahead.
const READ_AHEAD: usize = 8;
/// The number of concurrent calls that gives the best throughput.
const CONCURRENCY: u16 = 8;

fn row_key(id: PayloadId, part: Part, index: u64) -> Bytes {
    let part = match part {
        Part::Data => 0,
        Part::Outboard => 1,
    };
    [&id.0[..], &[part], &index.to_be_bytes()].concat().into()
}

#[async_trait]
impl BlobStore for VeilidStore {
    fn name(&self) -> &str {
        "veilid"
    }

    fn capabilities(&self) -> BlobCapabilities {
        {
            let mut facts = BlobCapabilities::least();
            facts.block_len = BLOCK_LEN;
            facts.max_part_len = MAX_PART_LEN;
            facts.durability = Durability::OnSync;
            facts.concurrency = CONCURRENCY;
            facts
        }
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        const OPERATION: &str = "blobs.read";
        if range.start > range.end {
            let message = "the range's start is beyond its end";
            return Err(Error::new(Kind::Invalid, OPERATION, message)
                .with("range", format_args!("{range:?}")));
        }
        self.check_open(OPERATION)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = read(&self.blocks, id, part, range);
        self.node.call(OPERATION, read).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        const OPERATION: &str = "blobs.write";
        self.check_open(OPERATION)?;
        BlobStore::capabilities(self).check(&blocks)?;
        self.blocks.check()?;
        if blocks.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        let write = async move {
            let extended = store.directory.extend(OPERATION, id, |extents| {
                let extend =
                    |extents: Extents, block: &Block| extents.with(block.part, end_of(block));
                blocks.iter().fold(extents, extend)
            });
            extended.await?;
            let rows: Vec<_> = blocks.iter().flat_map(|block| rows(id, block)).collect();
            for rows in rows.chunks(MAX_WRITTEN) {
                let transaction = store.blocks.db().transact();
                let filled = fill(&store.blocks, &transaction, rows).await;
                end(OPERATION, &store.blocks, transaction, filled).await?;
            }
            Ok(())
        };
        self.node.finish(OPERATION, write).await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        const OPERATION: &str = "blobs.delete";
        self.check_open(OPERATION)?;
        let store = self.clone();
        let delete = async move {
            for id in ids {
                let Some(extents) = store.directory.extents(OPERATION, id).await? else {
                    continue;
                };
                for (part, end) in [
                    (Part::Data, extents.data),
                    (Part::Outboard, extents.outboard),
                ] {
                    delete_blocks(&store.blocks, id, part, end).await?;
                }
                store.directory.remove(OPERATION, id).await?;
            }
            Ok(())
        };
        self.node.finish(OPERATION, delete).await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        self.directory.list("blobs.list", after)
    }

    async fn sync(&self, _ids: Vec<PayloadId>) -> Result<()> {
        const OPERATION: &str = "blobs.sync";
        self.check_open(OPERATION)?;
        self.entries.sync(OPERATION).await?;
        let blocks = Arc::clone(&self.blocks);
        let sync = async move { blocks.sync(OPERATION).await };
        self.node.finish(OPERATION, sync).await
    }
}

/// Returns the index after a block's last.
fn end_of(block: &Block) -> u64 {
    block.index + (block.bytes.len() as u64).div_ceil(u64::from(BLOCK_LEN))
}

/// Returns the rows of consecutive blocks.
fn rows(id: PayloadId, block: &Block) -> impl Iterator<Item = (Bytes, Bytes)> {
    let block_len = BLOCK_LEN as usize;
    (0..block.bytes.len())
        .step_by(block_len)
        .enumerate()
        .map(move |(n, start)| {
            let end = block.bytes.len().min(start + block_len);
            let key = row_key(id, block.part, block.index + n as u64);
            (key, block.bytes.slice(start..end))
        })
}

async fn fill(
    table: &Table,
    transaction: &TableDBTransaction,
    rows: &[(Bytes, Bytes)],
) -> Result<()> {
    for (key, value) in rows {
        let stored = transaction.store(BLOCKS, key.clone(), value.clone()).await;
        stored.map_err(|error| table.error("blobs.write", error))?;
    }
    Ok(())
}

/// Commits a transaction that was filled successfully, or drops it.
async fn end(
    operation: &'static str,
    table: &Table,
    transaction: TableDBTransaction,
    filled: Result<()>,
) -> Result<()> {
    match filled {
        Ok(()) => {
            let committed = transaction.commit().await;
            committed.map_err(|error| table.error(operation, error))
        }
        Err(error) => {
            transaction.rollback();
            Err(error)
        }
    }
}

async fn delete_blocks(table: &Table, id: PayloadId, part: Part, end_index: u64) -> Result<()> {
    const OPERATION: &str = "blobs.delete";
    let mut start = 0;
    while start < end_index {
        let stop = end_index.min(start + MAX_DELETED);
        let transaction = table.db().transact();
        let mut filled = Ok(());
        for index in start..stop {
            let deleted = transaction.delete(BLOCKS, row_key(id, part, index)).await;
            filled = deleted.map_err(|error| table.error(OPERATION, error));
            if filled.is_err() {
                break;
            }
        }
        end(OPERATION, table, transaction, filled).await?;
        start = stop;
    }
    Ok(())
}

async fn read(table: &Table, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
    const OPERATION: &str = "blobs.read";
    let block_len = u64::from(BLOCK_LEN);
    let missing = |index: u64| {
        Error::new(
            Kind::NotFound,
            OPERATION,
            "a part of the range was never written",
        )
        .with("payload", id)
        .with("block", index)
    };
    if range.end > MAX_PART_LEN {
        return Err(missing(MAX_PART_LEN / block_len));
    }
    let indices = range.start / block_len..range.end.div_ceil(block_len);
    let mut pieces = stream::iter(indices)
        .map(|index| {
            let range = &range;
            async move {
                let row = table
                    .load(OPERATION, BLOCKS, row_key(id, part, index))
                    .await?;
                let at = index * block_len;
                let start = range.start.saturating_sub(at);
                let end = (range.end - at).min(block_len);
                let row = row.ok_or_else(|| missing(index))?;
                match (row.len() as u64) < end {
                    true => Err(missing(index)),
                    false => Ok(row.slice(start as usize..end as usize)),
                }
            }
        })
        .buffered(READ_AHEAD);
    let Some(first) = pieces.try_next().await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = pieces.try_next().await? else {
        return Ok(first);
    };
    // Only now is the range known to exist: memory must not be allocated for a length that a caller
    // merely requests.
    let mut bytes = Vec::from(first);
    bytes.extend_from_slice(&second);
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_their_block() {
        let bytes = Bytes::from(vec![7; BLOCK_LEN as usize * 2 + 5]);
        let block = Block {
            part: Part::Data,
            index: 3,
            bytes: bytes.clone(),
        };
        let rows: Vec<_> = rows(PayloadId([1; 16]), &block).collect();
        assert_eq!(end_of(&block), 6);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].0, row_key(PayloadId([1; 16]), Part::Data, 5));
        let joined: Vec<u8> = rows.iter().flat_map(|(_, value)| value.to_vec()).collect();
        assert_eq!(joined, bytes);
    }
}
