//! Defects of blob stores.

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{
    BlobCapabilities, BlobStore, Block, Error, Kind, Listing, Part, PayloadId, Result,
};

use super::{BrokenStore, Defect, PAGE};

impl<S: BlobStore> BrokenStore<S> {
    fn part(&self, part: Part) -> Part {
        match self.defect {
            Defect::PartsShareBlocks => Part::Data,
            _ => part,
        }
    }

    /// Returns the bytes of the range that exist, followed by zeros.
    async fn padded(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        let len = (range.end - range.start).min(1 << 20);
        let mut bytes = BytesMut::new();
        let (mut known, mut missing) = (0, len);
        while known < missing {
            let middle = known + (missing - known).div_ceil(2);
            match self
                .inner
                .read(id, part, range.start..range.start + middle)
                .await
            {
                Ok(read) => {
                    bytes = BytesMut::from(&read[..]);
                    known = middle;
                }
                Err(_) => missing = middle - 1,
            }
        }
        bytes.resize(len as usize, 0);
        Ok(bytes.freeze())
    }

    async fn keep_old(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let block_len = u64::from(self.inner.capabilities().block_len);
        for block in blocks {
            let start = block.index.saturating_mul(block_len);
            let there = self
                .inner
                .read(id, block.part, start..start.saturating_add(1));
            if there.await.is_err() {
                self.inner.write(id, vec![block]).await?;
            }
        }
        Ok(())
    }

    /// The blocks of a payload's outboard.
    async fn outboard(&self, id: PayloadId) -> Vec<Block> {
        let block_len = u64::from(self.inner.capabilities().block_len);
        let mut blocks = Vec::new();
        for index in 0.. {
            let start = index * block_len;
            let read = self
                .inner
                .read(id, Part::Outboard, start..start + block_len);
            match read.await {
                Ok(bytes) => blocks.push(Block {
                    part: Part::Outboard,
                    index,
                    bytes,
                }),
                Err(_) => break,
            }
        }
        blocks
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: BlobStore> BlobStore for BrokenStore<S> {
    fn name(&self) -> &str {
        "broken"
    }

    fn capabilities(&self) -> BlobCapabilities {
        self.inner.capabilities()
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        let part = self.part(part);
        let question = (id, part, range.start, range.end);
        if self.defect == Defect::ReadIsStale
            && let Some(known) = self.memory().blocks.get(&question)
        {
            return Ok(known.clone());
        }
        let read = self.inner.read(id, part, range.clone()).await;
        match (self.defect, read) {
            (Defect::ReadPadsWithZeros, Err(error)) if error.kind() == Kind::NotFound => {
                // An error is still returned if the payload does not exist at all.
                self.inner.read(id, part, 0..1).await?;
                self.padded(id, part, range).await
            }
            (Defect::ReadOfAbsentIsEmpty, Err(error)) if error.kind() == Kind::NotFound => {
                Ok(Bytes::new())
            }
            (Defect::ReadOfInvertedIsEmpty, Err(error)) if error.kind() == Kind::Invalid => {
                Ok(Bytes::new())
            }
            (Defect::ReadDropsTheLastByte, Ok(read)) => Ok(read.slice(..read.len().max(1) - 1)),
            (Defect::ReadIsStale, Ok(read)) => {
                self.memory().blocks.insert(question, read.clone());
                Ok(read)
            }
            (_, read) => read,
        }
    }

    async fn write(&self, id: PayloadId, mut blocks: Vec<Block>) -> Result<()> {
        for block in &mut blocks {
            block.part = self.part(block.part);
        }
        match self.defect {
            Defect::WriteIgnoresTheSecondBlock => blocks.truncate(1),
            Defect::WriteTakesEmptyBlocks => blocks.retain(|block| !block.bytes.is_empty()),
            Defect::WriteKeepsOldBlocks => return self.keep_old(id, blocks).await,
            Defect::WriteChecksTooLate => {
                for block in blocks {
                    self.inner.write(id, vec![block]).await?;
                }
                return Ok(());
            }
            _ => {}
        }
        self.inner.write(id, blocks).await
    }

    async fn delete(&self, mut ids: Vec<PayloadId>) -> Result<()> {
        match self.defect {
            Defect::DeleteStopsAtTheFirst => ids.truncate(1),
            Defect::DeleteOfAbsentFails => {
                let there: Vec<_> = self.inner.list(None).try_collect().await?;
                if ids.iter().any(|id| !there.contains(id)) {
                    return Err(Error::new(
                        Kind::NotFound,
                        "blobs.delete",
                        "there is no such payload",
                    ));
                }
            }
            Defect::DeleteLeavesTheOutboard => {
                for id in ids {
                    let left = self.outboard(id).await;
                    self.inner.delete(vec![id]).await?;
                    if !left.is_empty() {
                        self.inner.write(id, left).await?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        self.inner.delete(ids).await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        let listing = self.inner.list(after);
        match self.defect {
            Defect::ListGoesDown => Box::pin(
                stream::once(async move {
                    let mut ids: Vec<_> = listing.try_collect().await?;
                    ids.reverse();
                    Ok(stream::iter(ids.into_iter().map(Ok)))
                })
                .try_flatten(),
            ),
            Defect::ListStopsAfterAPage => Box::pin(listing.take(PAGE)),
            Defect::ListIncludesAfter => Box::pin(stream::iter(after.map(Ok)).chain(listing)),
            Defect::ListRepeats => Box::pin(listing.flat_map(|id| stream::iter([id.clone(), id]))),
            Defect::ListEndsAtErrors => {
                Box::pin(listing.take_while(|id| std::future::ready(id.is_ok())))
            }
            _ => listing,
        }
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        if self.defect == Defect::SyncOfAbsentFails {
            let there: Vec<_> = self.inner.list(None).try_collect().await?;
            if ids.iter().any(|id| !there.contains(id)) {
                return Err(Error::new(
                    Kind::NotFound,
                    "blobs.sync",
                    "there is no such payload",
                ));
            }
        }
        self.inner.sync(ids).await
    }
}
