//! Verified import of a blob whose hash is known: from peers, in any ranges, resumable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Blobs, Inner, Running,
    bitfield::Bitfield,
    items::Encoded,
    pins::Pin,
    tree::{Cv, hash_pair, hash_subtree},
};
use crate::{Hash, Root, to_end::ToEnd};
use bao_tree::io::{Leaf, Parent};
use futures_util::future::BoxFuture;
use larder_store_api::{Error, GROUP_LEN, Kind, Result};

mod live;

use live::{Live, Node};

/// The number of bytes after which verified data is recorded, unless [`RECORD_EVERY`] comes first. At
/// most about as much is fetched again after a crash.
pub const RECORD_EVERY_BYTES: u64 = 8 * 1024 * 1024;
/// See [`RECORD_EVERY_BYTES`].
pub const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Tells if the items of an import were verified before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// No: each item is verified against the hash before it is stored.
    Untrusted,
    /// Yes, by the caller, as the get side of iroh-blobs does.
    Verified,
}

/// The running imports, so that several imports of one blob share their state. Imports with a size that
/// is only claimed are kept apart from others.
#[derive(Debug, Default)]
pub(crate) struct Imports(Mutex<HashMap<(Hash, u64), Weak<Shared>>>);

#[derive(Debug)]
pub(crate) struct Shared {
    /// A reference to itself: a record that is being written holds it, so that a resumed import finds
    /// it.
    this: Weak<Shared>,
    hash: Hash,
    size: u64,
    inner: Arc<Inner>,
    /// Keeps the recorded data from being collected.
    _pin: Pin,
    /// True if the last chunk was verified, which proves the size.
    proven: AtomicBool,
    live: tokio::sync::Mutex<Live>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut imports = self.inner.imports.lock();
        if imports
            .get(&(self.hash, self.size))
            .is_some_and(|shared| shared.strong_count() == 0)
        {
            imports.remove(&(self.hash, self.size));
        }
        drop(imports);
        self.live.get_mut().end(&self.inner);
    }
}

impl Imports {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Hash, u64), Weak<Shared>>> {
        self.0
            .lock()
            .expect("no code panics while it holds the imports")
    }
}

/// A running import. Only verified data is stored.
///
/// Verified data is recorded durably every [`RECORD_EVERY_BYTES`] or [`RECORD_EVERY`], and by
/// [`finish`](Self::finish). Dropping the import keeps the recorded data, and the next import continues
/// from there. As long as another import of the same blob is open, dropping one loses nothing.
#[derive(Debug)]
pub struct Import {
    shared: Arc<Shared>,
    trust: Trust,
    /// The hashes of subtrees whose nodes were verified, by first chunk and number of chunks.
    expected: BTreeMap<u64, (u64, Cv)>,
    _running: Running,
}

impl Blobs {
    /// Begins or resumes the import of a blob of `size` bytes, which must not be zero.
    ///
    /// Imports of one blob may run at once, each for its own ranges. If the size contradicts what is
    /// proven here, the result is [`Kind::Invalid`]. If the blob is complete, items are checked and
    /// then ignored.
    pub async fn import(&self, hash: Hash, size: u64, trust: Trust) -> Result<Import> {
        let running = self.0.enter("blobs.import")?;
        let limit = self.0.payloads.capabilities().max_part_len;
        if size == 0 || size > limit {
            let kind = if size == 0 {
                Kind::Invalid
            } else {
                Kind::TooLarge
            };
            return Err(Error::new(
                kind,
                "blobs.import",
                format!("a blob has 1 to {limit} bytes here"),
            )
            .with("hash", hash)
            .with("size", size));
        }
        match self.0.share_import(hash, size).await? {
            Ok(shared) => Ok(Import::of(shared, trust, running)),
            Err(known) => Err(wrong_size(hash, size, known)),
        }
    }

    /// Begins an import, as [`import`](Self::import) does, for items that the caller has verified, of a
    /// blob whose size this store can hold; `None` if the size contradicts what is proven here.
    pub(crate) async fn import_verified(&self, hash: Hash, size: u64) -> Result<Option<Import>> {
        let running = self.0.enter("blobs.import")?;
        let shared = self.0.share_import(hash, size).await?.ok();
        Ok(shared.map(|shared| Import::of(shared, Trust::Verified, running)))
    }
}

fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(1024).max(1)
}

fn wrong_size(hash: Hash, size: u64, known: u64) -> Error {
    Error::new(
        Kind::Invalid,
        "blobs.import",
        "the claimed size is not the blob's",
    )
    .with("hash", hash)
    .with("claimed", size)
    .with("known", known)
}

impl Inner {
    /// Returns the shared state of all imports of a blob; or the size that is proven here, if it
    /// differs.
    async fn share_import(
        self: &Arc<Self>,
        hash: Hash,
        size: u64,
    ) -> Result<Result<Arc<Shared>, u64>> {
        let pin = self.pins.pin(Root::raw(hash), None).await;
        let shared = match self.imports.share(self, pin, size) {
            Ok(shared) => shared,
            known => return Ok(known),
        };
        // Only now: an earlier import's record is in the index before its state is no longer shared.
        let known = shared.live.lock().await.load(&shared).await?;
        Ok(known.map_or(Ok(shared), Err))
    }
}

impl Imports {
    fn share(&self, inner: &Arc<Inner>, pin: Pin, size: u64) -> Result<Arc<Shared>, u64> {
        let hash = pin.hash();
        // Dropped after the lock is released, because dropping the last handle takes the lock.
        let mut others = Vec::new();
        let mut imports = self.lock();
        if let Some(shared) = imports.get(&(hash, size)).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        // An import with a wrong claimed size must not block one that knows the size: both continue,
        // apart.
        let same = imports.iter().filter(|((other, _), _)| *other == hash);
        others.extend(same.filter_map(|(_, shared)| shared.upgrade()));
        let proven = |shared: &&Arc<Shared>| shared.proven.load(Ordering::Acquire);
        if let Some(shared) = others.iter().find(proven) {
            return Err(shared.size);
        }
        let shared = Arc::new_cyclic(|this| Shared {
            this: this.clone(),
            hash,
            size,
            inner: inner.clone(),
            _pin: pin,
            proven: AtomicBool::new(false),
            live: tokio::sync::Mutex::default(),
        });
        imports.insert((hash, size), Arc::downgrade(&shared));
        Ok(shared)
    }
}

impl Import {
    fn of(shared: Arc<Shared>, trust: Trust, running: Running) -> Self {
        let root = (chunk_count(shared.size), *shared.hash.as_bytes());
        Self {
            shared,
            trust,
            expected: BTreeMap::from([(0, root)]),
            _running: running,
        }
    }

    /// Returns the blob's hash.
    pub fn hash(&self) -> Hash {
        self.shared.hash
    }

    /// Takes the next item. A wrong one is [`Kind::Invalid`]: data verified before it stays.
    ///
    /// After an error of the store the import is over. Cancelling this may lose the item, which is then
    /// missing when the import is finished.
    pub async fn push(&mut self, item: Encoded) -> Result<()> {
        match item {
            Encoded::Size(size) if size == self.shared.size => Ok(()),
            Encoded::Size(size) => Err(wrong_size(self.shared.hash, self.shared.size, size)),
            Encoded::Parent(parent) => self.push_parent(parent).await,
            Encoded::Leaf(leaf) => self.push_leaf(leaf).await,
        }
    }

    async fn push_parent(&mut self, parent: Parent) -> Result<()> {
        let chunks = parent.node.chunk_range();
        let total = chunk_count(self.shared.size);
        let start = chunks.start.0;
        let count = chunks.end.0.min(total).saturating_sub(start);
        let (left, right) = (*parent.pair.0.as_bytes(), *parent.pair.1.as_bytes());
        if self.trust == Trust::Untrusted {
            let cv = self.expect(start, count)?;
            if count < 2 || hash_pair(&left, &right, start == 0 && count == total) != cv {
                return Err(self.wrong(start));
            }
            let half = count.next_power_of_two() / 2;
            self.expected.insert(start, (half, left));
            self.expected.insert(start + half, (count - half, right));
        } else if count < 2 {
            return Err(self.wrong(start));
        }
        let node = Node {
            start,
            count,
            children: [left, right],
        };
        let block_len = self.shared.inner.block_len;
        if self.shared.live.lock().await.take_node(block_len, &node) {
            return Ok(());
        }
        self.work(move |live, shared| Box::pin(async move { live.put_node(shared, &node).await }))
            .await
    }

    async fn push_leaf(&mut self, leaf: Leaf) -> Result<()> {
        let start = leaf.offset / 1024;
        let len = leaf.data.len() as u64;
        let end = leaf.offset.checked_add(len);
        let whole = end == Some(self.shared.size) || len.is_multiple_of(1024);
        let fits = leaf.offset.is_multiple_of(1024)
            && len > 0
            && end.is_some_and(|end| end <= self.shared.size)
            && leaf.offset % GROUP_LEN + len <= GROUP_LEN;
        if !fits || !whole {
            return Err(self.wrong(start));
        }
        if self.trust == Trust::Untrusted {
            let cv = self.expect(start, chunk_count(len))?;
            let is_root = len == self.shared.size;
            if hash_subtree(leaf.offset, &leaf.data, is_root) != cv {
                return Err(self.wrong(start));
            }
        }
        // If the caller has verified the items, the size was its claim as well.
        if end == Some(self.shared.size) {
            self.shared.proven.store(true, Ordering::Release);
        }
        let size = self.shared.size;
        let rest = {
            let mut live = self.shared.live.lock().await;
            let rest = live.take_leaf(size, leaf);
            let rest = live.note(rest)?;
            if rest.is_none() && !live.is_due(size) {
                return Ok(());
            }
            rest
        };
        self.work(move |live, shared| {
            Box::pin(async move {
                if let Some(leaf) = rest {
                    live.put_leaf(shared, leaf).await?;
                }
                live.record_if_due(shared).await
            })
        })
        .await
    }

    /// Reads and writes. Once begun, it runs to its end; until then others wait.
    fn work<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Live, &'a Shared) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> ToEnd<Result<T>> {
        let shared = self.shared.clone();
        self.shared.inner.to_end(async move {
            let mut live = shared.live.lock().await;
            let result = work(&mut live, &shared).await;
            live.note(result)
        })
    }

    /// Returns the verified hash of a subtree. Items come in order, so earlier hashes are no longer
    /// needed: no more hashes are kept than the height of the tree.
    fn expect(&mut self, start: u64, count: u64) -> Result<Cv> {
        self.expected = self.expected.split_off(&start);
        match self.expected.remove(&start) {
            Some((chunks, cv)) if chunks == count => Ok(cv),
            _ => Err(self.wrong(start)),
        }
    }

    fn wrong(&self, chunk: u64) -> Error {
        Error::new(
            Kind::Invalid,
            "blobs.import",
            "the sender's bytes are not those of the hash",
        )
        .with("hash", self.shared.hash)
        .with("offset", chunk.saturating_mul(1024))
    }

    /// Returns true if all of the blob is verified, durable or not, from any source.
    pub async fn is_verified(&self) -> bool {
        let live = self.shared.live.lock().await;
        live.is_verified(self.shared.size)
    }

    /// Makes everything that was pushed durable, and returns which parts of the blob are here.
    pub async fn finish(self) -> Result<Bitfield> {
        let here = self.work(|live, shared| Box::pin(live.finish(shared)));
        let here = here.await?;
        // This includes data that was here already.
        self.shared.inner.collections.make_durable().await?;
        Ok(here)
    }
}
