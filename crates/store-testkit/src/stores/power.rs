//! A store that can lose power: changes that were not synced are kept, lost or torn.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Durability, Edit, Entry, Error, Kind, Listing, Part, PayloadId, Result,
    Revision, Scan,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use larder_store_memory::{MemoryStore, split};

/// The most changes that wait for a sync; beyond it the oldest becomes durable, as on real systems.
const MAX_PENDING: usize = 64 * 1024;
/// The number of bytes that a disk writes atomically. A torn block ends at a multiple of it.
const SECTOR: usize = 512;

/// An in-memory store that tracks which changes are durable, and can lose the others.
///
/// Payloads are durable once synced; commits are durable once they or a later commit requested
/// [`Durability::OnWrite`], or once synced. Clones share one store. [`lose_power`](Self::lose_power)
/// returns the store as it comes up afterwards: each block that was written and not synced is there,
/// missing or torn, in any combination; deleted payloads may be back; of the commits that were not
/// durable, a random number of the last ones is gone. The seed determines the outcome.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// use larder_store_api::{BlobStore, Block, Bytes, Part, PayloadId};
/// use larder_store_testkit::stores::PowerStore;
///
/// let store = PowerStore::new();
/// let id = PayloadId([7; 16]);
/// let block = Block { part: Part::Data, index: 0, bytes: Bytes::from_static(b"hello") };
/// store.write(id, vec![block]).await?;
/// store.sync(vec![id]).await?;
/// let store = store.lose_power(42);
/// assert_eq!(store.read(id, Part::Data, 0..5).await?, "hello");
/// # larder_store_api::Result::<()>::Ok(()) })?;
/// # larder_store_api::Result::<()>::Ok(())
/// ```
#[derive(Clone)]
pub struct PowerStore(Arc<Shared>);

struct Shared {
    /// The content that callers see.
    now: MemoryStore,
    state: Mutex<State>,
}

struct State {
    /// The content that is durable.
    disk: MemoryStore,
    /// The changes to payloads since then, in order.
    blobs: VecDeque<BlobChange>,
    /// The commits since then, in order.
    commits: VecDeque<Vec<Edit>>,
    /// The number of calls that change or sync something.
    calls: u64,
    /// The call during which the power fails.
    cut_at: Option<u64>,
}

enum BlobChange {
    Write {
        id: PayloadId,
        part: Part,
        index: u64,
        bytes: Bytes,
    },
    Delete {
        id: PayloadId,
    },
}

impl BlobChange {
    fn id(&self) -> PayloadId {
        match self {
            Self::Write { id, .. } | Self::Delete { id } => *id,
        }
    }
}

/// The outcome of a call: done, or interrupted by the loss of power.
enum Power {
    Stays,
    Fails,
}

impl PowerStore {
    /// Creates an empty store with blocks of 16 KiB.
    pub fn new() -> Self {
        Self::of(MemoryStore::new())
    }

    /// Creates an empty store with blocks of `block_len` bytes.
    ///
    /// # Panics
    /// If `block_len` is not a positive multiple of [`GROUP_LEN`](larder_store_api::GROUP_LEN).
    pub fn with_block_len(block_len: u32) -> Self {
        Self::of(MemoryStore::with_block_len(block_len))
    }

    fn of(disk: MemoryStore) -> Self {
        Self(Arc::new(Shared {
            now: disk.copy().expect("nobody else has it, to close it"),
            state: Mutex::new(State {
                disk,
                blobs: VecDeque::new(),
                commits: VecDeque::new(),
                calls: 0,
                cut_at: None,
            }),
        }))
    }

    /// Cuts the power and restores it: returns the store as it comes up, as `seed` determines. Calls to
    /// this store return [`Kind::Closed`] from now on.
    pub fn lose_power(&self, seed: u64) -> Self {
        self.cut();
        self.restore(seed)
    }

    /// Cuts the power: calls return [`Kind::Closed`] from now on.
    pub fn cut(&self) {
        self.0.now.close();
    }

    /// Cuts the power during a call that writes, deletes, commits or syncs: the `call`th of them,
    /// counted from 1 over the life of the store. That call returns [`Kind::Closed`], and its effect is
    /// as uncertain as that of everything else that is not durable. A test that tries all of
    /// [`calls`](Self::calls) covers every moment at which the power can fail.
    pub fn cut_during(&self, call: u64) {
        self.state().cut_at = Some(call);
    }

    /// Returns the number of calls so far that write, delete, commit or sync.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Returns the store as it comes up when the power is back, as `seed` determines. Other seeds show
    /// other possible outcomes of the same loss of power.
    pub fn restore(&self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let state = self.state();
        let mut survived = || -> Result<MemoryStore> {
            let disk = state.disk.copy()?;
            for change in &state.blobs {
                survive(&disk, change, &mut rng)?;
            }
            let kept = rng.random_range(0..=state.commits.len());
            for edits in state.commits.iter().take(kept) {
                disk.apply_now(edits.clone())?;
            }
            Ok(disk)
        };
        Self::of(survived().expect("nobody else has the disk, to close it"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call that changes or syncs something. `change` is told whether the power stays on.
    fn call<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut State, &MemoryStore, Power) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        state.calls += 1;
        if state.cut_at != Some(state.calls) {
            return change(&mut state, &self.0.now, Power::Stays);
        }
        change(&mut state, &self.0.now, Power::Fails)?;
        self.cut();
        Err(Error::new(
            Kind::Closed,
            operation,
            "the power of the store failed",
        ))
    }
}

impl State {
    fn push(&mut self, change: BlobChange) -> Result<()> {
        self.blobs.push_back(change);
        match self.blobs.len() > MAX_PENDING {
            true => self.settle_blobs(1, |_| true),
            false => Ok(()),
        }
    }

    /// Makes the first `limit` changes of `chosen` ids durable.
    fn settle_blobs(&mut self, limit: usize, chosen: impl Fn(PayloadId) -> bool) -> Result<()> {
        let mut left = limit;
        let mut pending = VecDeque::new();
        for change in self.blobs.drain(..) {
            if left == 0 || !chosen(change.id()) {
                pending.push_back(change);
                continue;
            }
            left -= 1;
            match change {
                BlobChange::Write {
                    id,
                    part,
                    index,
                    bytes,
                } => self.disk.force(id, part, index, bytes)?,
                BlobChange::Delete { id } => self.disk.delete_now(vec![id])?,
            }
        }
        self.blobs = pending;
        Ok(())
    }

    fn settle_commits(&mut self, limit: usize) -> Result<()> {
        let settled = limit.min(self.commits.len());
        self.commits
            .drain(..settled)
            .try_for_each(|edits| self.disk.apply_now(edits))
    }
}

/// Applies to `disk` the part of a change that survives the loss of power.
fn survive(disk: &MemoryStore, change: &BlobChange, rng: &mut ChaCha8Rng) -> Result<()> {
    let fate = rng.random_range(0..3);
    match change {
        BlobChange::Delete { id } if fate == 0 => disk.delete_now(vec![*id]),
        BlobChange::Write {
            id,
            part,
            index,
            bytes,
        } if fate < 2 => {
            let bytes = match fate {
                0 => bytes.clone(),
                _ => {
                    let old = disk.block_now(*id, *part, *index)?.unwrap_or_default();
                    tear(
                        bytes,
                        &old,
                        rng.random_range(0..=bytes.len() / SECTOR) * SECTOR,
                    )
                }
            };
            disk.force(*id, *part, *index, bytes)
        }
        _ => Ok(()),
    }
}

/// Returns a block as long as `new`: `new` up to `at`, then the old content, or zeros.
pub(super) fn tear(new: &Bytes, old: &Bytes, at: usize) -> Bytes {
    let mut torn = new.to_vec();
    for (place, byte) in torn.iter_mut().enumerate().skip(at) {
        *byte = old.get(place).copied().unwrap_or(0);
    }
    torn.into()
}

impl Default for PowerStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PowerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerStore")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlobStore for PowerStore {
    fn name(&self) -> &str {
        "power"
    }

    fn capabilities(&self) -> BlobCapabilities {
        {
            let mut facts = BlobStore::capabilities(&self.0.now);
            facts.durability = Durability::OnSync;
            facts
        }
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        self.0.now.read(id, part, range).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let block_len = BlobStore::capabilities(self).block_len;
        self.call("blobs.write", |state, now, _| {
            now.write_now(id, blocks.clone())?;
            split(&blocks, block_len)
                .into_iter()
                .try_for_each(|(part, index, bytes)| {
                    state.push(BlobChange::Write {
                        id,
                        part,
                        index,
                        bytes,
                    })
                })
        })
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        self.call("blobs.delete", |state, now, _| {
            now.delete_now(ids.clone())?;
            ids.into_iter()
                .try_for_each(|id| state.push(BlobChange::Delete { id }))
        })
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        self.0.now.list(after)
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        // This returns the error if the store has no power.
        BlobStore::sync(&self.0.now, Vec::new()).await?;
        self.call("blobs.sync", |state, _, power| match power {
            Power::Stays => state.settle_blobs(usize::MAX, |id| ids.contains(&id)),
            Power::Fails => Ok(()),
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CollectionStore for PowerStore {
    fn name(&self) -> &str {
        "power"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut facts = CollectionStore::capabilities(&self.0.now);
        facts.durability = Durability::OnWrite;
        facts
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        self.0.now.get(collection, key).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        self.0.now.scan(scan)
    }

    fn collections(&self) -> Listing<CollectionId> {
        self.0.now.collections()
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.call("collection.commit", |state, now, power| {
            let edits = batch.edits.clone();
            let durability = batch.durability;
            let revision = now.commit_now(batch)?;
            state.commits.push_back(edits);
            match (power, durability) {
                (Power::Stays, Durability::OnWrite) => state.settle_commits(usize::MAX)?,
                _ if state.commits.len() > MAX_PENDING => state.settle_commits(1)?,
                _ => {}
            }
            Ok(revision)
        })
    }

    fn watch(&self) -> Option<Listing<Change>> {
        self.0.now.watch()
    }

    async fn sync(&self) -> Result<()> {
        // This returns the error if the store has no power.
        CollectionStore::sync(&self.0.now).await?;
        self.call("collection.sync", |state, _, power| match power {
            Power::Stays => state.settle_commits(usize::MAX),
            Power::Fails => Ok(()),
        })
    }
}
