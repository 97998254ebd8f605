//! Commands that give bytes out as a stream.

use std::{ops::Range, sync::Arc};

use bao_tree::{
    ChunkRanges,
    io::{Leaf, mixed::EncodedItem},
};
use futures_util::StreamExt;
use iroh_blobs::api::proto::{ExportBaoMsg, ExportRangesItem, ExportRangesMsg};
use irpc::channel::{SendError, mpsc::Sender};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus, Encoded, Hash};
use range_collections::range_set::RangeSetRange;

use super::Context;
use crate::convert::{to_api_error, to_encode_error, to_engine_hash};

/// The longest piece of a range that is sent at once. Callers buffer 32 of them.
const RANGE_LEAF: usize = 64 * 1024;

/// Sends what a peer verifies against the hash, verified here too as it is read.
pub(super) async fn bao(context: Arc<Context>, cmd: ExportBaoMsg) {
    let hash = to_engine_hash(cmd.inner.hash);
    // Of the empty blob there is nothing but its size, whatever is asked for.
    let ranges = match hash {
        Hash::EMPTY => ChunkRanges::all(),
        _ => cmd.inner.ranges,
    };
    let mut items = context.blobs.export(hash, ranges);
    while let Some(item) = items.next().await {
        let item = match item {
            Ok(Encoded::Size(size)) => EncodedItem::Size(size),
            Ok(Encoded::Parent(parent)) => EncodedItem::Parent(parent),
            Ok(Encoded::Leaf(leaf)) => EncodedItem::Leaf(leaf),
            Err(error) => EncodedItem::Error(to_encode_error(error)),
        };
        let last = matches!(item, EncodedItem::Error(_));
        if cmd.tx.send(item).await.is_err() || last {
            return;
        }
    }
    cmd.tx.send(EncodedItem::Done).await.ok();
}

/// Sends the size, then each range, clipped to it.
pub(super) async fn ranges(context: Arc<Context>, cmd: ExportRangesMsg) {
    let hash = to_engine_hash(cmd.inner.hash);
    let ranges = cmd.inner.ranges.iter().map(|range| match range {
        RangeSetRange::Range(range) => *range.start..*range.end,
        RangeSetRange::RangeFrom(range) => *range.start..u64::MAX,
    });
    match send_ranges(&context, hash, ranges.collect(), &cmd.tx).await {
        Ok(()) | Err(Failed::CallerGone) => {}
        Err(Failed::Store(error)) => {
            let item = ExportRangesItem::Error(to_api_error(error));
            cmd.tx.send(item).await.ok();
        }
    }
}

enum Failed {
    CallerGone,
    Store(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<SendError> for Failed {
    fn from(_: SendError) -> Self {
        Self::CallerGone
    }
}

async fn send_ranges(
    context: &Context,
    hash: Hash,
    ranges: Vec<Range<u64>>,
    tx: &Sender<ExportRangesItem>,
) -> Result<(), Failed> {
    let size = size(context, hash).await?;
    tx.send(ExportRangesItem::Size(size)).await?;
    for range in ranges {
        let mut offset = range.start;
        if offset >= range.end.min(size) {
            continue;
        }
        let mut chunks = context.blobs.read(hash, offset..range.end.min(size));
        while let Some(chunk) = chunks.next().await {
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                let data = chunk.split_to(chunk.len().min(RANGE_LEAF));
                let len = data.len() as u64;
                tx.send(Leaf { offset, data }.into()).await?;
                offset += len;
            }
        }
    }
    Ok(())
}

/// The size of a blob, or what is believed of a partial one.
pub(super) async fn size(context: &Context, hash: Hash) -> Result<u64> {
    match context.blobs.status(hash).await? {
        Some(BlobStatus::Complete { size } | BlobStatus::Partial { size, .. }) => Ok(size),
        None => Err(
            Error::new(Kind::NotFound, "blobs.export", "there is no such blob").with("hash", hash),
        ),
    }
}
