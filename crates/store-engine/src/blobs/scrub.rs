//! Scrubbing: reads everything that is stored and compares it with its hash.

use std::{ops::Range, sync::Arc};

use async_stream::try_stream;
use bao_tree::ChunkRanges;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Block, GROUP_LEN, Kind, Listing, Part, PayloadId, Result, Revision, Scan};

use super::{
    Blobs, Inner,
    entry::{
        BlobEntry, Indexed, Partial, State, Stored, add_group, group_ranges, has_group, limit_runs,
    },
    index::Replaced,
    keys::{BLOBS, hash_of_key},
    segment::SEGMENT_GROUPS,
    tree::{Cv, TreeBuilder, group_count, group_range, hash_subtree},
};
use crate::{Hash, Root, blocking};

/// The number of groups that are read at a time.
const WINDOW_GROUPS: u64 = 64;
/// The number of blobs that are scrubbed ahead.
const SCRUB_AHEAD: usize = 4;

/// The most times that a blob is judged again that changes meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// Says if a scrub changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// No: it only says what it finds.
    No,
    /// Yes: what is damaged becomes missing, so that a fetch brings it back; a hash tree is made
    /// again from sound data; payloads that nothing claims are deleted.
    Yes,
}

/// The report of a scrub about one blob or payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// The blob; `None` for a payload that no blob claims.
    pub hash: Option<Hash>,
    /// Its size in bytes, as far as it is known.
    pub size: u64,
    /// The finding for this blob or payload.
    pub finding: Finding,
}

/// The finding of a scrub. Where a repair was asked for, it has been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Everything that is claimed is there and right.
    Sound,
    /// These chunks are damaged or gone.
    Damaged {
        /// The chunks, of 1 KiB.
        ranges: ChunkRanges,
    },
    /// All of it is damaged or gone.
    Lost,
    /// The data is sound, but its hash tree was damaged.
    Outboard,
    /// A payload that nothing claims.
    Orphan {
        /// Its id.
        payload: PayloadId,
    },
}

impl Blobs {
    /// Reads everything that is stored, and says of every blob whether it is what its hash says.
    ///
    /// Blobs that are replaced meanwhile are judged again, and those that are deleted left out. Where the collection
    /// store itself cannot be listed, the stream ends with its error.
    pub fn scrub(&self, repair: Repair) -> Listing<Scrubbed> {
        let inner = self.0.clone();
        Box::pin(try_stream! {
            let _running = inner.enter("blobs.scrub")?;
            let entries = inner.collections.scan(Scan::all(BLOBS));
            let scrubs = entries
                .map(|found| {
                    let inner = inner.clone();
                    async move {
                        let found = found?;
                        let hash = hash_of_key(&found.key)?;
                        match BlobEntry::decode(hash, &found.value) {
                            Ok(entry) => {
                                let revision = found.revision;
                                inner.scrub_blob(hash, Indexed { entry, revision }, repair).await
                            }
                            Err(error) if error.kind() == Kind::Corrupt => {
                                inner.scrub_unreadable(hash, found.revision, repair).await
                            }
                            Err(error) => Err(error),
                        }
                    }
                })
                .buffered(SCRUB_AHEAD);
            for await scrubbed in scrubs {
                if let Some(scrubbed) = scrubbed? {
                    yield scrubbed;
                }
            }
            let payloads = inner.payloads.list(None);
            for await payload in payloads {
                let payload = payload?;
                if inner.is_orphan(payload).await? {
                    if repair == Repair::Yes {
                        inner.remove_payloads(vec![payload]).await?;
                    }
                    let finding = Finding::Orphan { payload };
                    yield Scrubbed { hash: None, size: 0, finding };
                }
            }
        })
    }
}

impl Blobs {
    /// Reads all that is stored of one blob, as [`scrub`](Self::scrub) does; `None` if nothing of it is
    /// here.
    pub async fn scrub_one(&self, hash: Hash, repair: Repair) -> Result<Option<Scrubbed>> {
        let inner = self.0.clone();
        let _running = inner.enter("blobs.scrub")?;
        match self.0.lookup(hash).await {
            Ok(Some(found)) => inner.scrub_blob(hash, found, repair).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    /// Returns true where no blob claims a payload, and none is about to.
    async fn is_orphan(&self, payload: PayloadId) -> Result<bool> {
        if self.is_claimed(payload).await? || self.is_session_live(payload).await? {
            return Ok(false);
        }
        // Its session may have claimed it, and ended, between the two. Now it claims nothing more.
        Ok(!self.is_claimed(payload).await?)
    }

    /// Judges a blob, whose entry was read; `None` if it was deleted meanwhile.
    async fn scrub_blob(
        self: Arc<Self>,
        hash: Hash,
        mut found: Indexed,
        repair: Repair,
    ) -> Result<Option<Scrubbed>> {
        for _ in 0..MAX_ATTEMPTS {
            let size = found.entry.size();
            let (finding, bad) = match &found.entry.state {
                State::Inline(bytes) if Hash::of(bytes) == hash => (Finding::Sound, Vec::new()),
                State::Inline(_) => (Finding::Lost, Vec::new()),
                State::Complete(stored) => self.scrub_complete(hash, stored).await?,
                State::Partial(partial) => self.scrub_partial(hash, partial).await?,
            };
            if finding != Finding::Sound {
                // The blob may have been deleted or replaced meanwhile, and not damaged.
                let Some(now) = self.lookup(hash).await? else {
                    return Ok(None);
                };
                if now.revision != found.revision {
                    found = now;
                    continue;
                }
            }
            match (repair, &finding, found.entry.stored()) {
                (Repair::No, ..) => {}
                (Repair::Yes, Finding::Outboard, Some(stored)) => {
                    self.rebuild_outboard(hash, stored).await?;
                }
                (Repair::Yes, ..) => self.forget(hash, &found, &finding, &bad).await?,
            }
            let hash = Some(hash);
            return Ok(Some(Scrubbed {
                hash,
                size,
                finding,
            }));
        }
        tracing::info!(%hash, "a blob changed again and again while it was scrubbed");
        Ok(None)
    }

    async fn scrub_unreadable(
        self: Arc<Self>,
        hash: Hash,
        revision: Revision,
        repair: Repair,
    ) -> Result<Option<Scrubbed>> {
        if repair == Repair::Yes {
            let state = State::Inline(Bytes::new());
            let entry = BlobEntry { added: 0, state };
            let unreadable = Indexed { entry, revision };
            self.replace(hash, Some(&unreadable), None).await?;
        }
        Ok(Some(Scrubbed {
            hash: Some(hash),
            size: 0,
            finding: Finding::Lost,
        }))
    }

    /// Returns what is wrong, and with which groups.
    async fn scrub_complete(
        self: &Arc<Self>,
        hash: Hash,
        stored: &Stored,
    ) -> Result<(Finding, Vec<(u64, u64)>)> {
        let (size, payload) = (stored.size, stored.payload);
        let total = group_count(size);
        let mut builder = TreeBuilder::default();
        let (mut bad, mut unproven) = (Vec::new(), Vec::new());
        for segment in 0..total.div_ceil(SEGMENT_GROUPS) {
            let known = self.load_segment(hash, stored, segment).await?;
            let first = segment * SEGMENT_GROUPS;
            let end = first + known.len() as u64;
            for start in (first..end).step_by(WINDOW_GROUPS as usize) {
                let window = start..(start + WINDOW_GROUPS).min(end);
                let actual = self.hash_groups(payload, size, window.clone()).await?;
                for (group, actual) in window.zip(actual) {
                    let expected = known[(group - first) as usize];
                    match (actual, expected) {
                        (None, _) => add_group(&mut bad, group),
                        (Some(actual), Some(expected)) if actual != expected => {
                            add_group(&mut bad, group);
                        }
                        (Some(_), None) => add_group(&mut unproven, group),
                        _ => {}
                    }
                    let range = group_range(group, size);
                    builder.push(actual.unwrap_or_default(), range.end - range.start);
                }
                builder.take_outboard(1);
            }
        }
        if bad.is_empty() && unproven.is_empty() {
            return Ok((Finding::Sound, bad));
        }
        // If every group is there, the hash of the whole tells whether data or tree is wrong.
        let (root, ..) = builder.finish();
        if bad.is_empty() && Hash::from(root) == hash {
            return Ok((Finding::Outboard, bad));
        }
        for group in unproven.iter().flat_map(|(start, end)| *start..*end) {
            add_group(&mut bad, group);
        }
        Ok((damage(&bad, &[(0, total)], size), bad))
    }

    /// Writes the outboard of sound data again, unless the blob was deleted meanwhile: the payload must
    /// not come back.
    async fn rebuild_outboard(self: &Arc<Self>, hash: Hash, stored: &Stored) -> Result<()> {
        let (size, payload) = (stored.size, stored.payload);
        let _pin = self.pins.pin(Root::raw(hash), None).await;
        let found = self.lookup(hash).await?;
        let Some(found) = found.filter(|found| found.entry.stored() == Some(stored)) else {
            return Ok(());
        };
        let block_len = usize::try_from(self.block_len).unwrap_or(usize::MAX);
        let mut builder = TreeBuilder::default();
        let mut index = 0;
        let total = group_count(size);
        for start in (0..total).step_by(WINDOW_GROUPS as usize) {
            let window = start..(start + WINDOW_GROUPS).min(total);
            let hashes = self.hash_groups(payload, size, window.clone()).await?;
            for (group, hash) in window.zip(hashes) {
                let range = group_range(group, size);
                builder.push(hash.unwrap_or_default(), range.end - range.start);
            }
            let whole = builder.take_outboard(block_len);
            index = self.write_outboard(payload, index, whole).await?;
        }
        let (_, _, rest) = builder.finish();
        if stored.outboard.is_some() {
            let entry = BlobEntry {
                added: found.entry.added,
                state: State::Complete(Stored {
                    outboard: Some(rest.into()),
                    ..stored.clone()
                }),
            };
            // If the blob changed meanwhile, it is judged the next time.
            self.replace(hash, Some(&found), Some(&entry)).await?;
        } else {
            for block in rest.chunks(block_len) {
                index = self.write_outboard(payload, index, block.to_vec()).await?;
            }
            self.payloads.sync(vec![payload]).await?;
        }
        self.segments.clear();
        Ok(())
    }

    /// Writes blocks from `index`, and says which index comes next.
    async fn write_outboard(&self, payload: PayloadId, index: u64, bytes: Vec<u8>) -> Result<u64> {
        if bytes.is_empty() {
            return Ok(index);
        }
        let next = index + (bytes.len() as u64).div_ceil(self.block_len);
        let block = Block {
            part: Part::Outboard,
            index,
            bytes: bytes.into(),
        };
        self.payloads.write(payload, vec![block]).await?;
        Ok(next)
    }

    /// The hashes of `groups` as they are stored; `None` for what cannot be read.
    async fn hash_groups(
        &self,
        payload: PayloadId,
        size: u64,
        groups: Range<u64>,
    ) -> Result<Vec<Option<Cv>>> {
        let first = groups.start * GROUP_LEN;
        let end = group_range(groups.end - 1, size).end;
        let read = self.payloads.read(payload, Part::Data, first..end).await;
        let pieces: Vec<Option<Bytes>> = match readable(read)? {
            Some(data) => groups
                .map(|group| {
                    let range = group_range(group, size);
                    Some(data.slice((range.start - first) as usize..(range.end - first) as usize))
                })
                .collect(),
            None => {
                let mut pieces = Vec::new();
                for group in groups {
                    let range = group_range(group, size);
                    let read = self.payloads.read(payload, Part::Data, range).await;
                    pieces.push(readable(read)?);
                }
                pieces
            }
        };
        blocking("blobs.scrub", move || {
            let hash = |(i, piece): (usize, Option<Bytes>)| {
                let offset = first + i as u64 * GROUP_LEN;
                piece.map(|bytes| hash_subtree(offset, &bytes, bytes.len() as u64 == size))
            };
            pieces.into_iter().enumerate().map(hash).collect()
        })
        .await
    }

    async fn scrub_partial(
        self: &Arc<Self>,
        hash: Hash,
        partial: &Partial,
    ) -> Result<(Finding, Vec<(u64, u64)>)> {
        let mut bad = Vec::new();
        for group in partial.runs.iter().flat_map(|(start, end)| *start..*end) {
            let range = group_range(group, partial.stored.size);
            let entry = BlobEntry {
                added: 0,
                state: State::Partial(partial.clone()),
            };
            let read = self.clone().read_entry(hash, entry, range);
            let read: Result<Vec<Bytes>> = read.try_collect().await;
            if readable(read)?.is_none() {
                add_group(&mut bad, group);
            }
        }
        if bad.is_empty() {
            return Ok((Finding::Sound, bad));
        }
        Ok((damage(&bad, &partial.runs, partial.stored.size), bad))
    }

    /// Makes what is damaged missing.
    async fn forget(
        self: &Arc<Self>,
        hash: Hash,
        found: &Indexed,
        finding: &Finding,
        bad: &[(u64, u64)],
    ) -> Result<()> {
        let (runs, fragments) = match &found.entry.state {
            State::Partial(partial) => (partial.runs.clone(), partial.fragments.clone()),
            _ => (vec![(0, group_count(found.entry.size()))], Vec::new()),
        };
        let entry = match (finding, found.entry.stored()) {
            (Finding::Damaged { .. }, Some(stored)) => {
                let mut runs = without(&runs, bad);
                limit_runs(&mut runs);
                let state = State::Partial(Partial {
                    stored: stored.clone(),
                    runs,
                    fragments,
                });
                let added = found.entry.added;
                Some(BlobEntry { added, state })
            }
            (Finding::Lost, _) => None,
            _ => return Ok(()),
        };
        let replaced = self.replace(hash, Some(found), entry.as_ref());
        if replaced.await? == Replaced::Conflict {
            tracing::info!(%hash, "a damaged blob changed while it was scrubbed");
        }
        self.segments.clear();
        Ok(())
    }
}

/// Returns the value that was read; `None` if it is gone or damaged.
fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => Ok(None),
        Err(error) => Err(error),
    }
}

fn damage(bad: &[(u64, u64)], claimed: &[(u64, u64)], size: u64) -> Finding {
    if without(claimed, bad).is_empty() {
        return Finding::Lost;
    }
    Finding::Damaged {
        ranges: group_ranges(bad, size),
    }
}

/// The groups of `runs` that are not in `bad`.
fn without(runs: &[(u64, u64)], bad: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    for group in runs.iter().flat_map(|(start, end)| *start..*end) {
        if !has_group(bad, group) {
            add_group(&mut rest, group);
        }
    }
    rest
}
