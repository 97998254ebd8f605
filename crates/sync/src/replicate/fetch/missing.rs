//! What of files is not here.

use bao_tree::{ChunkNum, ChunkRanges};
use futures_util::{StreamExt, TryStreamExt, stream};
use store_api::Result;
use store_engine::{Blobs, Hash, Status};

use super::{Chain, jobs::Job};
use crate::tree::walk::children;

/// The longest piece of a file that one request asks for.
pub(super) const PIECE: u64 = 8 * 1024 * 1024;
/// How many pieces of a file are asked for in one go; what is left then comes in the next.
const MAX_PIECES: usize = 1024;
/// How many files of a page one request asks for.
const FILES: usize = 64;

/// The files of a page of which something is not here.
pub(super) struct Files {
    pub(super) chain: Chain,
    /// Offset below the page, hash, and what of it.
    pub(super) missing: Vec<(u64, Hash, Missing)>,
}

impl Files {
    /// Those of `named` that are not whole; `None` where all are.
    pub(super) async fn missing(
        blobs: &Blobs,
        chain: Chain,
        named: impl IntoIterator<Item = (u64, Hash)>,
    ) -> Result<Option<Self>> {
        let mut found = stream::iter(named)
            .map(|(offset, hash)| async move {
                missing_of(blobs, hash)
                    .await
                    .map(|of_file| (offset, hash, of_file))
            })
            .buffered(FILES);
        let mut missing = Vec::new();
        while let Some((offset, hash, of_file)) = found.try_next().await? {
            missing.extend(of_file.map(|of_file| (offset, hash, of_file)));
        }
        drop(found);
        Ok((!missing.is_empty()).then_some(Self { chain, missing }))
    }

    /// How many chunks are missing, as far as that is known.
    pub(super) fn left(&self) -> u64 {
        let of_file = |missing: &Missing| match missing {
            Missing::All => u64::MAX / 2,
            Missing::Of(_, ranges) => ranges
                .boundaries()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|[start, end]| end.0 - start.0)
                .sum(),
        };
        let left = self.missing.iter().map(|(_, _, missing)| of_file(missing));
        left.fold(0, u64::saturating_add)
    }

    pub(super) fn jobs(&self) -> Vec<Job> {
        let (mut jobs, mut new) = (Vec::new(), Vec::new());
        for (offset, hash, missing) in &self.missing {
            match missing {
                Missing::All => new.push((*offset, *hash, first_piece())),
                Missing::Of(size, ranges) => {
                    jobs.extend(pieces(&self.chain, (*offset, *hash, *size), ranges));
                }
            }
        }
        let new = new.chunks(FILES);
        jobs.extend(new.map(|wanted| Job::files(self.chain.clone(), wanted.to_vec())));
        jobs
    }
}

pub(super) fn first_piece() -> ChunkRanges {
    ChunkRanges::from(..ChunkNum(PIECE / 1024))
}

async fn is_here(blobs: &Blobs, hash: Hash) -> Result<bool> {
    let status = blobs.status(hash).await?;
    Ok(hash == Hash::EMPTY || matches!(status, Some(Status::Complete { .. })))
}

/// Whether a page and its sealed page are here.
pub(super) async fn is_page_here(blobs: &Blobs, page: Hash, level: u8) -> Result<bool> {
    if !is_here(blobs, page).await? {
        return Ok(false);
    }
    match children(blobs, page, level).await?.first() {
        Some(sealed) => is_here(blobs, sealed.hash).await,
        None => Ok(true),
    }
}

/// What of a file's blob is not here.
pub(super) enum Missing {
    /// All of it; the first piece says how long it is.
    All,
    /// Of so many bytes these chunks.
    Of(u64, ChunkRanges),
}

async fn missing_of(blobs: &Blobs, hash: Hash) -> Result<Option<Missing>> {
    if hash == Hash::EMPTY {
        return Ok(None);
    }
    Ok(match blobs.status(hash).await? {
        Some(Status::Complete { .. }) => None,
        Some(Status::Partial { size, .. }) => {
            let field = blobs.bitfield(hash).await?;
            let all = ChunkRanges::from(..ChunkNum(size.div_ceil(1024)));
            Some(Missing::Of(size, all - field.ranges.clone()))
        }
        None => Some(Missing::All),
    })
}

/// Jobs for these chunks of a long file, one a piece.
pub(super) fn pieces(chain: &Chain, wanted: (u64, Hash, u64), missing: &ChunkRanges) -> Vec<Job> {
    let (offset, hash, size) = wanted;
    let mut jobs = Vec::new();
    for start in (0..size).step_by(PIECE as usize) {
        let end = (start + PIECE).min(size);
        let piece = ChunkRanges::from(ChunkNum(start / 1024)..ChunkNum(end.div_ceil(1024)));
        let ranges = &piece & missing;
        if jobs.len() >= MAX_PIECES {
            break;
        }
        if !ranges.is_empty() {
            jobs.push(Job::piece(chain.clone(), (offset, hash, ranges)));
        }
    }
    jobs
}
