//! What of files is not here.

use bao_tree::{ChunkNum, ChunkRanges};
use futures_util::{StreamExt, TryStreamExt, stream};
use store_api::{GROUP_LEN, Kind, Result};
use store_engine::{Blobs, Hash, Status};

use super::{
    Chain,
    progress::Coming,
    receive::MAX_FILE_LEN,
    scheduler::{Job, Named, Wanted},
};
use crate::{
    groups::{local::Place, missing::WantedFile},
    tree::walk::children,
};

/// The longest piece of a file that one request asks for.
pub(super) const PIECE: u64 = 8 * 1024 * 1024;
/// How many pieces of a file are asked for in one go; what is left then comes in the next.
const MAX_PIECES: usize = 1024;
/// How many files of a page one request asks for.
const FILES: usize = 64;

impl From<WantedFile> for Named {
    fn from(file: WantedFile) -> Self {
        let len = file.sealed_len();
        let long = file.named.zip(len).filter(|(_, len)| *len > PIECE);
        Self {
            offset: file.offset.into(),
            hash: file.blob,
            len,
            coming: long.map(|((name, _), len)| Coming::new(name, len)),
        }
    }
}

/// The files of a page of which something is not here.
pub(super) struct Files {
    pub(super) chain: Chain,
    missing: Vec<(Named, Missing)>,
    /// Longer ones are not wanted.
    longest: u64,
}

impl Files {
    /// Those of `named` that are not whole; `None` where all are.
    pub(super) async fn missing(
        blobs: &Blobs,
        chain: Chain,
        named: impl IntoIterator<Item = Named>,
        longest: u64,
    ) -> Result<Option<Self>> {
        let mut found = stream::iter(named)
            .map(|file| async move {
                let of_file = missing_of(blobs, file.hash, longest).await?;
                Ok::<_, store_api::Error>((file, of_file))
            })
            .buffered(FILES);
        let mut missing = Vec::new();
        while let Some((file, of_file)) = found.try_next().await? {
            let Some(of_file) = of_file else { continue };
            if let (Some(coming), Missing::Of(size, ranges)) = (&file.coming, &of_file) {
                let lacking = chunks(ranges).saturating_mul(1024);
                coming.begin_at(size.saturating_sub(lacking));
            }
            missing.push((file, of_file));
        }
        drop(found);
        Ok((!missing.is_empty()).then_some(Self {
            chain,
            missing,
            longest,
        }))
    }

    /// Looks again.
    pub(super) async fn still_missing(self, blobs: &Blobs) -> Result<Option<Self>> {
        let named = self.missing.into_iter().map(|(file, _)| file);
        Self::missing(blobs, self.chain, named, self.longest).await
    }

    /// Where they are.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.missing.iter().map(|(file, _)| Place {
            chain: self.chain.clone(),
            offset: file.offset.try_into().expect("a page has few files"),
        })
    }

    /// How many files there are, and how many bytes of them are missing, as far as that is known.
    pub(super) fn sum(&self) -> (u64, u64) {
        let of_file = |(file, missing): &(Named, Missing)| match missing {
            Missing::All => file.len.unwrap_or(0),
            Missing::Of(_, ranges) => chunks(ranges).saturating_mul(1024),
        };
        let bytes = self.missing.iter().map(of_file);
        (
            self.missing.len() as u64,
            bytes.fold(0, u64::saturating_add),
        )
    }

    /// How many chunks are missing; very many of a file of which nothing is here.
    pub(super) fn left(&self) -> u64 {
        let of_file = |(_, missing): &(Named, Missing)| match missing {
            Missing::All => u64::MAX / 2,
            Missing::Of(_, ranges) => chunks(ranges),
        };
        self.missing
            .iter()
            .map(of_file)
            .fold(0, u64::saturating_add)
    }

    pub(super) fn jobs(&self) -> Vec<Job> {
        let (mut jobs, mut new) = (Vec::new(), Vec::new());
        for (file, missing) in &self.missing {
            match missing {
                Missing::All => new.push(Wanted {
                    file: file.clone(),
                    ranges: match file.len.is_none() && self.longest < u64::MAX {
                        // First, how long it is: that shows with the end. A short one comes whole.
                        true => {
                            ChunkRanges::from(..ChunkNum(GROUP_LEN / 1024))
                                | ChunkRanges::from(ChunkNum(MAX_FILE_LEN / 1024)..)
                        }
                        false => first_piece(),
                    },
                }),
                Missing::Of(size, ranges) => {
                    jobs.extend(pieces(&self.chain, file, *size, ranges));
                }
            }
        }
        let new = new.chunks(FILES);
        jobs.extend(new.map(|wanted| Job::files(self.chain.clone(), wanted.to_vec())));
        jobs
    }
}

fn chunks(ranges: &ChunkRanges) -> u64 {
    let ends = ranges.boundaries().as_chunks::<2>().0.iter();
    ends.map(|[start, end]| end.0 - start.0).sum()
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
enum Missing {
    /// All of it; the first piece says how long it is.
    All,
    /// Of so many bytes these chunks.
    Of(u64, ChunkRanges),
}

async fn missing_of(blobs: &Blobs, hash: Hash, longest: u64) -> Result<Option<Missing>> {
    if hash == Hash::EMPTY {
        return Ok(None);
    }
    Ok(match blobs.status(hash).await? {
        Some(Status::Complete { .. }) => None,
        Some(Status::Partial {
            size, proven: true, ..
        }) if size > longest => None,
        Some(Status::Partial { size, .. }) => {
            let field = blobs.bitfield(hash).await?;
            let all = ChunkRanges::from(..ChunkNum(size.div_ceil(1024)));
            Some(Missing::Of(size, all - field.ranges.clone()))
        }
        None => Some(Missing::All),
    })
}

/// Whether this is here of a blob.
pub(in crate::replicate) async fn has(
    blobs: &Blobs,
    hash: Hash,
    ranges: &ChunkRanges,
) -> Result<bool> {
    match blobs.status(hash).await? {
        Some(Status::Complete { .. }) => Ok(true),
        Some(Status::Partial { size, .. }) => {
            let field = match blobs.bitfield(hash).await {
                Err(error) if error.kind() == Kind::NotFound => return Ok(false),
                field => field?,
            };
            let last = size.div_ceil(1024).saturating_sub(1);
            let all = ChunkRanges::from(..ChunkNum(last + 1));
            let beyond = ranges & &ChunkRanges::from(ChunkNum(last)..);
            let mut wanted = ranges & &all;
            if !beyond.is_empty() {
                // Beyond the end asks for the last chunk.
                wanted |= ChunkRanges::from(ChunkNum(last)..ChunkNum(last + 1));
            }
            Ok((wanted - field.ranges).is_empty())
        }
        None => Ok(hash == Hash::EMPTY),
    }
}

/// Jobs for these chunks of a long file, one a piece.
pub(super) fn pieces(chain: &Chain, file: &Named, size: u64, missing: &ChunkRanges) -> Vec<Job> {
    let mut jobs = Vec::new();
    for start in (0..size).step_by(PIECE as usize) {
        let end = (start + PIECE).min(size);
        let piece = ChunkRanges::from(ChunkNum(start / 1024)..ChunkNum(end.div_ceil(1024)));
        let ranges = &piece & missing;
        if jobs.len() >= MAX_PIECES {
            break;
        }
        if !ranges.is_empty() {
            let file = file.clone();
            jobs.push(Job::piece(chain.clone(), Wanted { file, ranges }));
        }
    }
    jobs
}
