//! Copies blobs, and of incomplete ones what is there, group by verified group.

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use larder::{Bitfield, BlobStatus, Blobs, Bytes, ChunkRanges, Encoded, Hash, Pin, Root, Trust};
use tokio::sync::Semaphore;

use super::Copied;
use crate::{app::App, output::Unit};

/// The number of blobs that are copied at once: so many small ones share a commit.
const IN_FLIGHT: usize = 64;
/// The number of small blobs for which a large one counts, as it needs more memory.
const LARGE_COUNTS: u32 = 16;
/// From this length on, in bytes, a blob is large.
const LARGE: u64 = 1024 * 1024;
/// Blobs up to this length are copied in one piece.
const ONE_PIECE: u64 = 16 * 1024;

/// The outcome of copying one blob.
enum Outcome {
    AlreadyThere,
    Copied(u64),
}

pub(super) async fn copy(app: &App, from: &Blobs, to: &Blobs, copied: &mut Copied) -> Result<()> {
    let bar = app.out.progress(Unit::Bytes, None, "copying");
    let places = Semaphore::new(IN_FLIGHT);
    let mut copies = from
        .list()
        .map_err(|error| anyhow::Error::from(error).context("cannot list the blobs"))
        .map_ok(|(hash, status)| {
            let (bar, places) = (&bar, &places);
            async move {
                let (BlobStatus::Complete { size } | BlobStatus::Partial { size, .. }) = status;
                let weight = if size < LARGE { 1 } else { LARGE_COUNTS };
                let _place = places
                    .acquire_many(weight)
                    .await
                    .expect("the semaphore is never closed");
                let outcome = copy_one(from, to, hash, status, bar).await;
                outcome.with_context(|| format!("cannot copy the blob {hash}"))
            }
        })
        .try_buffer_unordered(IN_FLIGHT);
    while let Some(outcome) = copies.try_next().await? {
        match outcome {
            Outcome::AlreadyThere => copied.already_there += 1,
            Outcome::Copied(bytes) => {
                copied.blobs += 1;
                copied.bytes += bytes;
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

async fn copy_one(
    from: &Blobs,
    to: &Blobs,
    hash: Hash,
    status: BlobStatus,
    bar: &ProgressBar,
) -> larder::Result<Outcome> {
    // Nothing may be collected at either end meanwhile.
    let _pins: [Pin; 2] = [
        from.pin(Root::raw(hash)).await,
        to.pin(Root::raw(hash)).await,
    ];
    if let Some(BlobStatus::Complete { .. }) = to.status(hash).await? {
        return Ok(Outcome::AlreadyThere);
    }
    if let BlobStatus::Complete { size } = status
        && size <= ONE_PIECE
    {
        let bytes: Bytes = from.read_to_bytes(hash, 0..size).await?;
        to.add(bytes).await?;
        bar.inc(size);
        return Ok(Outcome::Copied(size));
    }
    let source = from.bitfield(hash).await?;
    let target = to.bitfield(hash).await?;
    let wanted = &source.ranges - &target.ranges;
    if wanted.is_empty() {
        return Ok(Outcome::AlreadyThere);
    }
    let after = copy_ranges(from, to, hash, source.size, wanted, bar).await?;
    Ok(Outcome::Copied(
        after.present_bytes().saturating_sub(target.present_bytes()),
    ))
}

async fn copy_ranges(
    from: &Blobs,
    to: &Blobs,
    hash: Hash,
    size: u64,
    wanted: ChunkRanges,
    bar: &ProgressBar,
) -> larder::Result<Bitfield> {
    // The export verifies every item that it gives.
    let mut import = to.import(hash, size, Trust::Verified).await?;
    let mut items = from.export(hash, wanted).fuse();
    while let Some(item) = items.try_next().await? {
        if let Encoded::Leaf(leaf) = &item {
            bar.inc(leaf.data.len() as u64);
        }
        import.push(item).await?;
    }
    import.finish().await
}
