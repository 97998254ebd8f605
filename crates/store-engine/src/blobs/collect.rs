//! Garbage collection: deletes what no tag and no pin reaches.
//!
//! Marking begins by listening for news (what is pinned, tagged or changed from then on), then
//! reads pins, and then tags: whoever moves from a pin to a tag is seen at least once. Sweeping
//! goes in small steps. Before each, news is followed; a step begins only when there is none, in
//! one moment with declaring its blobs as dying; and whoever pins a dying blob waits until it is
//! gone, and then finds it missing. An entry is deleted only as it was read, by its revision. Any
//! error ends the collection before it deletes more.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use store_api::{Batch, Edit, Error, Expect, GROUP_LEN, Kind, Result};

use super::{
    Blobs, Inner,
    entry::{Indexed, State},
    index::{BLOBS, discard, key},
    pins::{Deleting, Watch},
    read::Status,
    tags::Tags,
    tree::group_count,
};
use crate::{Hash, Root};

/// How many blobs one step deletes.
const STEP: usize = 32;

/// Pins that are kept elsewhere, as the temporary tags of iroh are.
#[async_trait]
pub trait Roots: Debug + Send + Sync {
    /// What they keep now. A new one must be held by a [`Pin`](super::Pin) from before it can be
    /// seen until this lists it.
    async fn roots(&self) -> Result<Vec<Root>>;
}

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blobs that stay.
    pub kept: u64,
    /// Blobs that were deleted.
    pub deleted: u64,
    /// The bytes of those that were deleted.
    pub freed: u64,
}

impl Blobs {
    /// Asks for more pins when collecting.
    pub fn add_roots(&self, roots: Arc<dyn Roots>) {
        self.0
            .roots
            .lock()
            .expect("no code panics while it holds the roots")
            .push(roots);
    }

    /// Deletes every blob that no tag and no pin reaches and that was added before `keep_newer`.
    ///
    /// Safe at any time, beside anything. Any error, also of reading what a tag reaches, ends it
    /// before it deletes more; what is simply not here is no error. One runs at a time.
    pub async fn collect(&self, keep_newer: SystemTime) -> Result<Collected> {
        let _running = self.0.enter("blobs.collect")?;
        let _one = self.0.collecting.lock().await;
        Collection::begin(self.0.clone(), keep_newer)
            .mark()
            .await?
            .sweep()
            .await
    }

    /// Deletes blobs whatever tags say. Deleting what is not here is no error; a pinned blob is
    /// [`Kind::Conflict`], and those before it may be deleted by then.
    pub async fn delete(&self, hashes: Vec<Hash>) -> Result<()> {
        let _running = self.0.enter("blobs.delete")?;
        for hashes in hashes.chunks(STEP) {
            let deleting = self.0.pins.begin_deleting(hashes);
            if let Some(pinned) = hashes.iter().find(|h| !deleting.hashes.contains(h)) {
                return Err(
                    Error::new(Kind::Conflict, "blobs.delete", "the blob is in use")
                        .with("hash", pinned),
                );
            }
            let mut doomed = Vec::new();
            for hash in hashes {
                if *hash != Hash::EMPTY
                    && let Some(found) = self.0.lookup(*hash).await?
                {
                    doomed.push((*hash, found));
                }
            }
            self.0.delete_step(&doomed, deleting).await?;
        }
        Ok(())
    }
}

struct Collection {
    inner: Arc<Inner>,
    watch: Watch,
    keep_newer: u64,
    live: HashSet<Hash>,
    /// Hash sequences, and how deep what they name is live: a greater depth marks all that a lesser
    /// one does.
    sequences: HashMap<Hash, u8>,
}

impl Collection {
    fn begin(inner: Arc<Inner>, keep_newer: SystemTime) -> Self {
        // What is added from now on is never collected.
        let keep_newer = keep_newer.min(SystemTime::now());
        let since = keep_newer.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            watch: inner.pins.begin(),
            inner,
            keep_newer: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            live: HashSet::new(),
            sequences: HashMap::new(),
        }
    }

    async fn mark(mut self) -> Result<Self> {
        for root in self.inner.pins.roots() {
            self.mark_root(root).await?;
        }
        let elsewhere = self
            .inner
            .roots
            .lock()
            .expect("no code panics while it holds the roots")
            .clone();
        for roots in elsewhere {
            for root in roots.roots().await? {
                self.mark_root(root).await?;
            }
        }
        let mut tags = Tags(self.inner.clone()).list_all();
        while let Some(tag) = tags.try_next().await? {
            self.mark_root(tag.root).await?;
        }
        Ok(self)
    }

    async fn mark_root(&mut self, root: Root) -> Result<()> {
        self.live.insert(root.hash);
        let mut waiting = Vec::new();
        self.deepen(root.hash, root.format.depth(), &mut waiting);
        self.mark_sequences(waiting).await
    }

    /// Notes a sequence to be read, unless it was read to this depth already.
    fn deepen(&mut self, hash: Hash, depth: u8, waiting: &mut Vec<(Hash, u8)>) {
        if depth > self.sequences.get(&hash).copied().unwrap_or(0) {
            self.sequences.insert(hash, depth);
            waiting.push((hash, depth));
        }
    }

    /// Marks what these sequences name, each to its depth.
    async fn mark_sequences(&mut self, mut waiting: Vec<(Hash, u8)>) -> Result<()> {
        while let Some((hash, depth)) = waiting.pop() {
            // It may have been noted again since, deeper.
            if self.sequences.get(&hash) == Some(&depth) {
                self.mark_children(hash, depth, &mut waiting).await?;
            }
        }
        Ok(())
    }

    /// Marks what a hash sequence names, as far as it is here.
    async fn mark_children(
        &mut self,
        hash: Hash,
        depth: u8,
        waiting: &mut Vec<(Hash, u8)>,
    ) -> Result<()> {
        let Some(found) = self.inner.lookup(hash).await? else {
            return Ok(());
        };
        let size = found.entry.size();
        let runs = match &found.entry.state {
            State::Partial(partial) => partial.runs.clone(),
            _ => Vec::from([(0, group_count(size))]),
        };
        for (start, end) in runs {
            let range = start * GROUP_LEN..(end * GROUP_LEN).min(size);
            // Groups are whole multiples of 32 bytes, so no hash crosses a range.
            let mut pieces = self
                .inner
                .clone()
                .read_entry(hash, found.entry.clone(), range);
            let mut rest = Bytes::new();
            let mut first = start == 0;
            while let Some(piece) = pieces.try_next().await? {
                debug_assert!(rest.is_empty());
                let hashes = piece.chunks_exact(32);
                rest = piece.slice_ref(hashes.remainder());
                for hash in hashes {
                    let bytes: [u8; 32] = hash.try_into().expect("chunks of 32 bytes");
                    let child = Hash::from(bytes);
                    self.live.insert(child);
                    if !std::mem::take(&mut first) && depth > 1 {
                        self.deepen(child, depth - 1, waiting);
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows what happened since the last call.
    async fn follow_news(&mut self) -> Result<()> {
        let news = self.watch.news()?;
        for root in news.roots {
            self.mark_root(root).await?;
        }
        for hash in news.changed {
            if let Some(depth) = self.sequences.get(&hash) {
                self.mark_sequences(vec![(hash, *depth)]).await?;
            }
        }
        Ok(())
    }

    async fn sweep(mut self) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut steps = self.inner.entries().chunks(STEP);
        while let Some(step) = steps.next().await {
            let mut entries = Vec::with_capacity(step.len());
            for found in step {
                entries.push(found?);
            }
            let deleting = loop {
                self.follow_news().await?;
                let doomed: Vec<Hash> = entries
                    .iter()
                    .filter(|(hash, found)| {
                        !self.live.contains(hash) && found.entry.added < self.keep_newer
                    })
                    .map(|(hash, _)| *hash)
                    .collect();
                if let Some(deleting) = self.watch.begin_deleting(&doomed) {
                    break deleting;
                }
            };
            let total = entries.len() as u64;
            entries.retain(|(hash, _)| deleting.hashes.contains(hash));
            let (deleted, freed) = self.inner.delete_step(&entries, deleting).await?;
            collected.kept += total - deleted;
            collected.deleted += deleted;
            collected.freed += freed;
        }
        Ok(collected)
    }
}

impl Inner {
    /// Deletes entries as they were read, and their payloads; says how many there were, and how
    /// many bytes. What was changed meanwhile stays.
    async fn delete_step(
        &self,
        doomed: &[(Hash, Indexed)],
        deleting: Deleting,
    ) -> Result<(u64, u64)> {
        if doomed.is_empty() {
            return Ok((0, 0));
        }
        let (mut expect, mut edits, mut garbage) = (Vec::new(), Vec::new(), Vec::new());
        for (hash, found) in doomed {
            let (collection, key) = (BLOBS, key(*hash));
            expect.push(Expect::At {
                collection: BLOBS,
                key: key.clone(),
                revision: found.revision,
            });
            edits.push(Edit::Delete { collection, key });
            if let Some(payload) = found.entry.payload() {
                edits.extend(discard(payload));
                garbage.push(payload);
            }
        }
        let mut batch = Batch::of(edits);
        batch.expect = expect;
        match self.collections.commit(batch).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Conflict => {
                // One of them was changed since it was read: the next collection sees them again.
                tracing::debug!(
                    blobs = doomed.len(),
                    "entries changed while being collected"
                );
                return Ok((0, 0));
            }
            Err(error) => return Err(error),
        }
        for (hash, _) in doomed {
            // An error says that nobody observes.
            self.changes.send(*hash).ok();
        }
        drop(deleting);
        self.remove_garbage(garbage).await;
        let freed = doomed
            .iter()
            .map(|(_, found)| match Status::of(&found.entry) {
                Status::Complete { size } => size,
                Status::Partial { present, .. } => present,
            });
        Ok((doomed.len() as u64, freed.sum()))
    }
}
