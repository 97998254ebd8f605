//! Pins: what must not be collected while somebody works with it; and the protocol by which a
//! running collection learns of what was protected after it began.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use larder_store_api::{Error, Kind, Result};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::{Format, Hash, Root};

/// The most that may be protected or changed between two steps of a collection; a busier collection
/// gives up, deleting nothing more.
const MAX_NEWS: usize = 1 << 20;

/// Keeps a blob, or all that a hash sequence names, from being collected until the last clone is
/// dropped. It lives in memory: to keep something longer, tag it.
#[derive(Clone)]
pub struct Pin(Arc<Held>);

struct Held {
    root: Root,
    size: Option<u64>,
    pins: Arc<Pins>,
}

impl Pin {
    /// The blob's hash.
    pub fn hash(&self) -> Hash {
        self.0.root.hash
    }

    /// Returns the root that the pin keeps.
    pub fn root(&self) -> Root {
        self.0.root
    }

    /// The blob's size, where it was just added.
    pub fn size(&self) -> Option<u64> {
        self.0.size
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("root", &self.0.root)
            .field("size", &self.0.size)
            .finish_non_exhaustive()
    }
}

impl From<&Pin> for Root {
    fn from(pin: &Pin) -> Self {
        pin.root()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        if let Some(count) = state.counts.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(&self.root);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pins {
    state: Mutex<Protection>,
    /// Told when `dying` became empty.
    deleted: Notify,
}

#[derive(Debug, Default)]
struct Protection {
    /// Ordered, so that all that keeps one blob lies together.
    counts: BTreeMap<Root, usize>,
    /// The blobs that are being deleted now.
    dying: HashSet<Hash>,
    /// The events since the running collection last looked.
    news: Option<News>,
}

/// The events since a collection last looked.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Protected, though perhaps no longer.
    pub roots: HashSet<Root>,
    /// Blobs that gained content: as hash sequences they may name more.
    pub changed: HashSet<Hash>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.changed.is_empty()
    }
}

impl Protection {
    fn is_pinned(&self, hash: Hash) -> bool {
        // Raw is the first of the formats.
        let mut from = self.counts.range(Root::raw(hash)..);
        from.next().is_some_and(|(root, _)| root.hash == hash)
    }

    fn hold(&mut self, root: Root) {
        *self.counts.entry(root).or_default() += 1;
        if let Some(news) = &mut self.news {
            news.roots.insert(root);
        }
    }
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, Protection> {
        self.state
            .lock()
            .expect("no code panics while it holds the pins")
    }

    /// Protects `root`, of a blob of `size` bytes where that is known, from now on. Waits while it is
    /// being deleted, so that whatever the caller then finds stays.
    pub(crate) async fn pin(self: &Arc<Self>, root: Root, size: Option<u64>) -> Pin {
        loop {
            let deleted = self.deleted.notified();
            tokio::pin!(deleted);
            deleted.as_mut().enable();
            {
                let mut state = self.lock();
                let dying = match root.format {
                    Format::Raw => state.dying.contains(&root.hash),
                    // Any of what is dying may be named by the sequence.
                    Format::HashSeq | Format::Tree { .. } => !state.dying.is_empty(),
                };
                if !dying {
                    state.hold(root);
                    return Pin(Arc::new(Held {
                        root,
                        size,
                        pins: self.clone(),
                    }));
                }
            }
            deleted.await;
        }
    }

    pub(crate) fn roots(&self) -> Vec<Root> {
        self.lock().counts.keys().copied().collect()
    }

    /// Tells a running collection that `hash` gained content.
    pub(crate) fn changed(&self, hash: Hash) {
        if let Some(news) = &mut self.lock().news {
            news.changed.insert(hash);
        }
    }

    /// Begins a collection: from now on it can ask for news.
    pub(crate) fn begin(self: &Arc<Self>) -> Watch {
        self.lock().news = Some(News::default());
        Watch(self.clone())
    }

    /// Marks all of `hashes` as dying, once nothing else deletes one of them; or says which is pinned.
    pub(crate) async fn delete(self: &Arc<Self>, hashes: &[Hash]) -> Result<Deleting, Hash> {
        loop {
            let deleted = self.deleted.notified();
            {
                let mut state = self.lock();
                if let Some(pinned) = hashes.iter().find(|hash| state.is_pinned(**hash)) {
                    return Err(*pinned);
                }
                if !hashes.iter().any(|hash| state.dying.contains(hash)) {
                    state.dying.extend(hashes);
                    return Ok(self.deleting(hashes.to_vec()));
                }
            }
            deleted.await;
        }
    }

    /// Marks what is neither pinned nor already dying as dying, and returns it.
    pub(crate) fn begin_deleting(self: &Arc<Self>, hashes: &[Hash]) -> Deleting {
        let mut state = self.lock();
        let mut doomed = Vec::with_capacity(hashes.len());
        for hash in hashes {
            if !state.is_pinned(*hash) && state.dying.insert(*hash) {
                doomed.push(*hash);
            }
        }
        self.deleting(doomed)
    }

    fn deleting(self: &Arc<Self>, hashes: Vec<Hash>) -> Deleting {
        Deleting {
            hashes,
            pins: self.clone(),
            collecting: None,
        }
    }
}

/// A running collection's view of what is protected.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Pins>);

impl Watch {
    /// Returns the events since the last call.
    pub(crate) fn news(&self) -> Result<News> {
        let mut state = self.0.lock();
        let news = state.news.replace(News::default()).unwrap_or_default();
        if news.roots.len() + news.changed.len() > MAX_NEWS {
            return Err(Error::new(
                Kind::Unavailable,
                "blobs.collect",
                "too much was added meanwhile; try again",
            ));
        }
        Ok(news)
    }

    /// Begins to delete `hashes`, unless there is news, which must be looked at first.
    pub(crate) fn begin_deleting(&self, hashes: &[Hash]) -> Option<Deleting> {
        if self.0.lock().news.as_ref().is_some_and(|n| !n.is_empty()) {
            return None;
        }
        // Between the two locks something may be pinned: then it is not dying, and is left alone.
        // A hash sequence pinned in between is news for the next step, and waits for this one.
        let deleting = self.0.begin_deleting(hashes);
        if self.0.lock().news.as_ref().is_some_and(|n| !n.is_empty()) {
            return None;
        }
        Some(deleting)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().news = None;
    }
}

/// Blobs that are being deleted; whoever wants to pin one waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Deleting {
    pub hashes: Vec<Hash>,
    pins: Arc<Pins>,
    /// The collection whose step it is: the next one waits for it, though this one is given up.
    collecting: Option<Collecting>,
}

/// Held by the one collection that runs.
pub(crate) type Collecting = Arc<OwnedMutexGuard<()>>;

impl Deleting {
    #[must_use]
    pub(crate) fn by(mut self, collecting: &Collecting) -> Self {
        self.collecting = Some(collecting.clone());
        self
    }
}

impl Drop for Deleting {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        for hash in &self.hashes {
            state.dying.remove(hash);
        }
        drop(state);
        self.pins.deleted.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pin_ends_with_its_last_clone() {
        let pins = Arc::new(Pins::default());
        let pin = pins.pin(Root::raw(Hash::EMPTY), None).await;
        let clone = pin.clone();
        drop(pin);
        assert_eq!(pins.roots().len(), 1);
        assert!(pins.begin_deleting(&[Hash::EMPTY]).hashes.is_empty());
        drop(clone);
        assert!(pins.roots().is_empty());
        assert_eq!(pins.begin_deleting(&[Hash::EMPTY]).hashes.len(), 1);
    }

    #[tokio::test]
    async fn a_pin_of_any_format_keeps_the_blob() {
        let pins = Arc::new(Pins::default());
        let hashes = [
            Hash::from([0; 32]),
            Hash::from([1; 32]),
            Hash::from([255; 32]),
        ];
        let [_, middle, _] = hashes;
        for root in [
            Root::raw(middle),
            Root::hash_seq(middle),
            Root::tree(middle, 9),
        ] {
            let _pin = pins.pin(root, None).await;
            let deleting = pins.begin_deleting(&hashes);
            assert_eq!(deleting.hashes, [hashes[0], hashes[2]]);
        }
    }

    #[tokio::test]
    async fn a_pin_shows_itself_and_no_other() {
        let pins = Arc::new(Pins::default());
        let other = pins.pin(Root::raw(Hash::of(b"other")), Some(5)).await;
        let pin = pins.pin(Root::raw(Hash::EMPTY), Some(0)).await;
        let text = format!("{pin:?}");
        let hash = format!("{:?}", other.hash());
        assert!(text.contains("Some(0)") && !text.contains(&hash), "{text}");
    }

    #[tokio::test]
    async fn pinning_waits_for_deletion() {
        let pins = Arc::new(Pins::default());
        let deleting = pins.begin_deleting(&[Hash::EMPTY]);
        let waiting = tokio::spawn({
            let pins = pins.clone();
            async move { pins.pin(Root::raw(Hash::EMPTY), None).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(deleting);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_collection_sees_what_was_pinned_and_dropped() {
        let pins = Arc::new(Pins::default());
        let watch = pins.begin();
        drop(pins.pin(Root::raw(Hash::EMPTY), None).await);
        assert!(watch.begin_deleting(&[Hash::of(b"x")]).is_none());
        assert_eq!(watch.news().unwrap().roots.len(), 1);
        assert!(watch.begin_deleting(&[Hash::of(b"x")]).is_some());
    }
}
