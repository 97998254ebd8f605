//! Copies blobs, and of incomplete ones what is there, group by verified group.

use std::collections::HashSet;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use larder::{
    Bitfield, BlobStatus, Blobs, Bytes, ChunkRanges, Encoded, Error, Hash, Kind, Pin, Root, Trust,
    api::is_out_of_descriptors,
};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::Copied;
use crate::{
    app::App,
    commands::affected::MAX_NAMED,
    item::as_text,
    output::{Shown, Unit},
};

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
    /// It cannot be read where it should be copied from, and the others can be copied.
    Unreadable(Error),
}

/// A blob that is damaged or missing where it should be copied from.
#[derive(Debug, Serialize)]
struct Unreadable {
    #[serde(serialize_with = "as_text")]
    unreadable: Hash,
    error: String,
}

/// Copies all blobs that can be read. Returns the hashes of those that cannot, at most [`MAX_NAMED`].
pub(super) async fn copy(
    app: &App,
    from: &Blobs,
    to: &Blobs,
    copied: &mut Copied,
) -> Result<HashSet<Hash>> {
    let mut unreadable = HashSet::new();
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
                let outcome = outcome.with_context(|| format!("cannot copy the blob {hash}"))?;
                Ok((hash, outcome))
            }
        })
        .try_buffer_unordered(IN_FLIGHT);
    while let Some((hash, outcome)) = copies.try_next().await? {
        match outcome {
            Outcome::AlreadyThere => copied.already_there += 1,
            Outcome::Copied(bytes) => {
                copied.blobs += 1;
                copied.bytes += bytes;
            }
            Outcome::Unreadable(error) => {
                copied.unreadable += 1;
                if unreadable.len() < MAX_NAMED {
                    unreadable.insert(hash);
                }
                let line = Unreadable {
                    unreadable: hash,
                    error: error.to_string(),
                };
                let text = format!("unreadable  {hash}  {}", Shown(&line.error));
                bar.suspend(|| app.out.result(&line, text))?;
            }
        }
    }
    bar.finish_and_clear();
    Ok(unreadable)
}

/// Returns the outcome of a blob that cannot be read, or the error if it concerns all blobs.
fn unreadable(error: Error) -> larder::Result<Outcome> {
    let is_of_all = matches!(error.kind(), Kind::Closed | Kind::Unavailable | Kind::Full);
    match is_of_all || is_out_of_descriptors(&error) {
        true => Err(error),
        false => Ok(Outcome::Unreadable(error)),
    }
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
        let bytes: Bytes = match from.read_to_bytes(hash, 0..size).await {
            Ok(bytes) => bytes,
            Err(error) => return unreadable(error),
        };
        to.add(bytes).await?;
        bar.inc(size);
        return Ok(Outcome::Copied(size));
    }
    let source = match from.bitfield(hash).await {
        Ok(source) => source,
        Err(error) => return unreadable(error),
    };
    let target = to.bitfield(hash).await?;
    let wanted = &source.ranges - &target.ranges;
    if wanted.is_empty() {
        return Ok(Outcome::AlreadyThere);
    }
    let (after, error) = copy_ranges(from, to, hash, source.size, wanted, bar).await?;
    if let Some(error) = error {
        return unreadable(error);
    }
    Ok(Outcome::Copied(
        after.present_bytes().saturating_sub(target.present_bytes()),
    ))
}

/// Copies parts of a blob, up to the first that cannot be read, and returns the error of that one.
async fn copy_ranges(
    from: &Blobs,
    to: &Blobs,
    hash: Hash,
    size: u64,
    wanted: ChunkRanges,
    bar: &ProgressBar,
) -> larder::Result<(Bitfield, Option<Error>)> {
    // The export verifies every item that it gives.
    let mut import = to.import(hash, size, Trust::Verified).await?;
    let mut items = from.export(hash, wanted).fuse();
    let error = loop {
        let item = match items.try_next().await {
            Ok(Some(item)) => item,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if let Encoded::Leaf(leaf) = &item {
            bar.inc(leaf.data.len() as u64);
        }
        import.push(item).await?;
    };
    Ok((import.finish().await?, error))
}
