//! Finds the missing parts of files.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{GROUP_LEN, Kind, Result};
use larder_store_engine::{
    BlobStatus, Blobs, ChunkNum, ChunkRanges, Hash,
    fetch::{Blob, PIECE_LEN},
};

use super::{Chain, progress::Incoming, receive::MAX_FILE_LEN};
use crate::{
    groups::{local_trees::Place, missing::WantedFile},
    tree::walk::children,
};

/// The number of files that are looked up at a time.
const LOOKUPS: usize = 64;

/// A file that a page names.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The place in the page's sequence.
    pub(super) offset: u64,
    pub(super) hash: Hash,
    /// The length of the file, if the page that names it could be read.
    pub(super) len: Option<u64>,
    /// Counts the received bytes, if the file is long enough to show progress for.
    pub(super) coming: Option<Arc<Incoming>>,
}

impl From<WantedFile> for Named {
    fn from(file: WantedFile) -> Self {
        let len = file.sealed_len();
        let long = file.named.zip(len).filter(|(_, len)| *len > PIECE_LEN);
        Self {
            offset: file.offset.into(),
            hash: file.blob,
            len,
            coming: long.map(|((name, _), len)| Incoming::new(name, len)),
        }
    }
}

/// The files of a page that are incomplete here.
pub(super) struct Files {
    pub(super) chain: Chain,
    missing: Vec<(Named, Missing)>,
    /// The length of the longest file that is wanted.
    longest: u64,
}

impl Files {
    /// Returns those of `named` that are incomplete; `None` if all are complete.
    pub(super) async fn missing(
        blobs: &Blobs,
        chain: Chain,
        named: impl IntoIterator<Item = Named>,
        longest: u64,
    ) -> Result<Option<Self>> {
        let mut found = stream::iter(named)
            .map(|file| async move {
                let of_file = missing_of(blobs, file.hash, longest).await?;
                Ok::<_, larder_store_api::Error>((file, of_file))
            })
            .buffered(LOOKUPS);
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

    /// Checks the files again.
    pub(super) async fn still_missing(self, blobs: &Blobs) -> Result<Option<Self>> {
        let named = self.missing.into_iter().map(|(file, _)| file);
        Self::missing(blobs, self.chain, named, self.longest).await
    }

    /// Returns the places of the files.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.missing.iter().map(|(file, _)| Place {
            chain: self.chain.clone(),
            offset: file.offset.try_into().expect("a page has few files"),
        })
    }

    /// Returns the number of files, and the number of their missing bytes as far as it is known.
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

    /// Returns the missing blobs as requests for the engine's fetch.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Blob> {
        self.missing.iter().map(|(file, _)| {
            let mut blob = Blob::new(file.offset, file.hash);
            blob.longest = file.len.unwrap_or(MAX_FILE_LEN).min(MAX_FILE_LEN);
            blob.up_to = self.longest;
            if file.len.is_none() && self.longest < u64::MAX {
                // Ask for the first group and the end, which proves the length. A short file arrives whole.
                blob.first = ChunkRanges::from(..ChunkNum(GROUP_LEN / 1024))
                    | ChunkRanges::from(ChunkNum(MAX_FILE_LEN / 1024)..);
            }
            blob
        })
    }

    /// Returns the counters of the long files, by hash.
    pub(super) fn coming(&self) -> HashMap<Hash, Arc<Incoming>> {
        let files = self.missing.iter();
        let coming = files.filter_map(|(file, _)| Some((file.hash, file.coming.clone()?)));
        coming.collect()
    }
}

fn chunks(ranges: &ChunkRanges) -> u64 {
    let ends = ranges.boundaries().as_chunks::<2>().0.iter();
    ends.map(|[start, end]| end.0 - start.0).sum()
}

async fn is_here(blobs: &Blobs, hash: Hash) -> Result<bool> {
    let status = blobs.status(hash).await?;
    Ok(hash == Hash::EMPTY || matches!(status, Some(BlobStatus::Complete { .. })))
}

/// Returns true if a page and its sealed page are here.
pub(super) async fn is_page_here(blobs: &Blobs, page: Hash, level: u8) -> Result<bool> {
    if !is_here(blobs, page).await? {
        return Ok(false);
    }
    match children(blobs, page, level).await?.first() {
        Some(sealed) => is_here(blobs, sealed.hash).await,
        None => Ok(true),
    }
}

/// The missing part of a file's blob.
enum Missing {
    /// All of it; the first piece proves the length.
    All,
    /// These chunks of a blob with this many bytes.
    Of(u64, ChunkRanges),
}

async fn missing_of(blobs: &Blobs, hash: Hash, longest: u64) -> Result<Option<Missing>> {
    if hash == Hash::EMPTY {
        return Ok(None);
    }
    Ok(match blobs.status(hash).await? {
        Some(BlobStatus::Complete { .. }) => None,
        Some(BlobStatus::Partial {
            size, proven: true, ..
        }) if size > longest => None,
        Some(BlobStatus::Partial { size, .. }) => {
            let field = blobs.bitfield(hash).await?;
            let all = ChunkRanges::from(..ChunkNum(size.div_ceil(1024)));
            Some(Missing::Of(size, all - field.ranges.clone()))
        }
        None => Some(Missing::All),
    })
}

/// Returns true if these ranges of a blob are here.
pub(in crate::replicate) async fn has(
    blobs: &Blobs,
    hash: Hash,
    ranges: &ChunkRanges,
) -> Result<bool> {
    match blobs.status(hash).await? {
        Some(BlobStatus::Complete { .. }) => Ok(true),
        Some(BlobStatus::Partial { size, .. }) => {
            let field = match blobs.bitfield(hash).await {
                Err(error) if error.kind() == Kind::NotFound => return Ok(false),
                field => field?,
            };
            let last = size.div_ceil(1024).saturating_sub(1);
            let all = ChunkRanges::from(..ChunkNum(last + 1));
            let beyond = ranges & &ChunkRanges::from(ChunkNum(last)..);
            let mut wanted = ranges & &all;
            if !beyond.is_empty() {
                // A range beyond the end asks for the last chunk.
                wanted |= ChunkRanges::from(ChunkNum(last)..ChunkNum(last + 1));
            }
            Ok((wanted - field.ranges).is_empty())
        }
        None => Ok(hash == Hash::EMPTY),
    }
}
