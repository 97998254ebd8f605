//! Garbage collection: deletes what no tag and no pin reaches.
//!
//! Marking begins by listening for news (what is pinned, tagged or changed from then on), then
//! reads pins, and then tags: whoever moves from a pin to a tag is seen at least once. Sweeping
//! goes in small steps. Before each, news is followed; a step begins only when there is none, in
//! one moment with declaring its blobs as dying; and whoever pins a dying blob waits until it is
//! gone, and then finds it missing. An entry is deleted only as it was read, by its revision. Any
//! error ends the collection before it deletes more.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Error, Kind, Result};

use super::{
    Blobs, Inner,
    change::{Change, Outcome},
    entry::Indexed,
    index::Replaced,
    pins::{Collecting, Deleting, Watch},
    reachable::Reachable,
    read::BlobStatus,
    tags::Tags,
};
use crate::{Hash, Root, metrics::Counter};

/// The number of blobs that one step deletes: each is an expectation and up to three edits, and every store takes
/// 128 of them, the session's among them.
const STEP: usize = 31;

/// Pins that are kept elsewhere, as the temporary tags of iroh are.
#[async_trait]
pub trait Roots: Debug + Send + Sync {
    /// Returns the roots to keep now. A new one must be held by a [`Pin`](super::Pin) from before
    /// it can be seen until this lists it.
    ///
    /// # Errors
    /// Any error ends the collection before it deletes anything.
    async fn roots(&self, blobs: &Blobs) -> Result<Vec<Root>>;
}

/// The outcome of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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
    /// The time of a blob that was added while the clock was ahead says nothing. Such a blob counts as added when
    /// this store was opened; one that stays gets the present time in place of its own.
    ///
    /// Safe at any time, beside anything in this process. Pins of other processes are not known here: while
    /// another one has a session in the same store, the answer is [`Kind::Unavailable`]. Any error, also of
    /// reading what a tag reaches, ends it before it deletes more; what is simply not here is not an error. One
    /// runs at a time.
    pub async fn collect(&self, keep_newer: SystemTime) -> Result<Collected> {
        let _running = self.0.enter("blobs.collect")?;
        self.0.check_alone("blobs.collect").await?;
        let one = self.0.collecting.clone().lock_owned().await;
        let marked = Collection::begin(self.0.clone(), keep_newer, Arc::new(one)).mark();
        let collected = marked.await?.sweep().await?;
        Counter::BlobsCollected.add(collected.deleted);
        Counter::BytesCollected.add(collected.freed);
        Ok(collected)
    }

    /// Deletes blobs whatever tags say. Deleting what is not here is not an error; a pinned blob is
    /// [`Kind::Conflict`], and those before it may be deleted by then.
    pub async fn delete(&self, hashes: Vec<Hash>) -> Result<()> {
        let _running = self.0.enter("blobs.delete")?;
        for hashes in hashes.chunks(STEP) {
            let deleting = self.0.pins.delete(hashes).await;
            let deleting = deleting.map_err(|pinned| {
                Error::new(Kind::Conflict, "blobs.delete", "the blob is in use")
                    .with("hash", pinned)
            })?;
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
    marks: Reachable,
    one: Collecting,
}

impl Collection {
    fn begin(inner: Arc<Inner>, keep_newer: SystemTime, one: Collecting) -> Self {
        // Blobs that are added from now on are never collected.
        let keep_newer = keep_newer.min(SystemTime::now());
        Self {
            watch: inner.pins.begin(),
            marks: Reachable::new(inner.clone()),
            inner,
            keep_newer: millis(keep_newer),
            one,
        }
    }

    async fn mark(mut self) -> Result<Self> {
        for root in self.inner.pins.roots() {
            self.marks.add(root).await?;
        }
        let elsewhere = self
            .inner
            .roots
            .lock()
            .expect("no code panics while it holds the roots")
            .clone();
        for roots in elsewhere {
            for root in roots.roots(&Blobs(self.inner.clone())).await? {
                self.marks.add(root).await?;
            }
        }
        let mut tags = Tags(self.inner.clone()).list(..);
        while let Some(tag) = tags.try_next().await? {
            self.marks.add(tag.root).await?;
        }
        Ok(self)
    }

    /// Follows what happened since the last call.
    async fn follow_news(&mut self) -> Result<()> {
        let news = self.watch.news()?;
        for root in news.roots {
            self.marks.add(root).await?;
        }
        for hash in news.changed {
            self.marks.has_changed(hash).await?;
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
                        !self.marks.contains(hash) && self.is_old(found.entry.added)
                    })
                    .map(|(hash, _)| *hash)
                    .collect();
                if let Some(deleting) = self.watch.begin_deleting(&doomed) {
                    break deleting.by(&self.one);
                }
            };
            let total = entries.len() as u64;
            self.correct_times(&entries, &deleting.hashes).await?;
            entries.retain(|(hash, _)| deleting.hashes.contains(hash));
            let (deleted, freed) = self.inner.delete_step(&entries, deleting).await?;
            collected.kept += total - deleted;
            collected.deleted += deleted;
            collected.freed += freed;
        }
        Ok(collected)
    }

    /// Returns true if a blob with this time was added before what is to be kept.
    fn is_old(&self, added: u64) -> bool {
        match added > millis(SystemTime::now()) {
            true => millis(self.inner.opened) <= self.keep_newer,
            false => added < self.keep_newer,
        }
    }

    /// Gives the blobs that stay, and whose time is still to come, the present time: from now on they grow old.
    async fn correct_times(&self, entries: &[(Hash, Indexed)], doomed: &[Hash]) -> Result<()> {
        let now = millis(SystemTime::now());
        let ahead =
            |(hash, found): &&(Hash, Indexed)| found.entry.added > now && !doomed.contains(hash);
        for (hash, found) in entries.iter().filter(ahead) {
            let mut entry = found.entry.clone();
            entry.added = now;
            if self.inner.replace(*hash, Some(found), Some(&entry)).await? == Replaced::Conflict {
                tracing::debug!(%hash, "a blob changed while its time was set right");
            }
        }
        Ok(())
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Inner {
    /// Deletes entries as they were read, and their payloads; says how many there were, and how
    /// many bytes. Entries that were changed meanwhile stay.
    async fn delete_step(
        self: &Arc<Self>,
        doomed: &[(Hash, Indexed)],
        deleting: Deleting,
    ) -> Result<(u64, u64)> {
        if doomed.is_empty() {
            return Ok((0, 0));
        }
        let mut change = Change::default().deleting(deleting);
        for (hash, found) in doomed {
            change.replace(*hash, Some(found), None);
        }
        if let Outcome::Conflict(_) = self.commit(change).await? {
            // One of them was changed since it was read: the next collection sees them again.
            tracing::debug!(
                blobs = doomed.len(),
                "entries changed while being collected"
            );
            return Ok((0, 0));
        }
        let freed = doomed
            .iter()
            .map(|(_, found)| match BlobStatus::of(&found.entry) {
                BlobStatus::Complete { size } => size,
                BlobStatus::Partial { present, .. } => present,
            });
        Ok((doomed.len() as u64, freed.sum()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_store_memory::MemoryStore;

    use super::*;

    const YEAR: u64 = 365 * 24 * 3600 * 1000;

    async fn open() -> (Arc<MemoryStore>, Blobs) {
        let store = Arc::new(MemoryStore::new());
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        (store, blobs)
    }

    /// Adds a blob as it is added while the clock is a year ahead.
    async fn add_ahead(blobs: &Blobs, content: Vec<u8>) -> Hash {
        let hash = blobs.add(content).await.unwrap().hash();
        let found = blobs.0.lookup(hash).await.unwrap().unwrap();
        let mut entry = found.entry.clone();
        entry.added += YEAR;
        blobs
            .0
            .replace(hash, Some(&found), Some(&entry))
            .await
            .unwrap();
        hash
    }

    #[tokio::test]
    async fn a_time_in_the_future_keeps_nothing() {
        let (_, blobs) = open().await;
        let mut hashes = Vec::new();
        for len in [10, 100_000] {
            hashes.push(add_ahead(&blobs, vec![1; len]).await);
        }
        let collected = blobs.collect(SystemTime::now()).await.unwrap();
        assert_eq!((collected.kept, collected.deleted), (0, 2));
        for hash in hashes {
            assert_eq!(blobs.status(hash).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_time_in_the_future_is_set_right_and_grows_old() {
        let (store, blobs) = open().await;
        let hash = add_ahead(&blobs, vec![1; 100_000]).await;
        let hour = Duration::from_secs(3600);
        let collected = blobs.collect(SystemTime::now() - hour).await.unwrap();
        assert_eq!((collected.kept, collected.deleted), (1, 0));
        let found = blobs.0.lookup(hash).await.unwrap().unwrap();
        let now = millis(SystemTime::now());
        assert!(found.entry.added <= now && now - found.entry.added < 60_000);
        blobs.close().await.unwrap();
        let blobs = Blobs::open(store.clone(), store).await.unwrap();
        let bytes = blobs.read_to_bytes(hash, 0..100_000).await.unwrap();
        assert_eq!(bytes, vec![1; 100_000]);
        tokio::time::sleep(Duration::from_millis(2)).await;
        let collected = blobs.collect(SystemTime::now()).await.unwrap();
        assert_eq!((collected.kept, collected.deleted), (0, 1));
    }
}
