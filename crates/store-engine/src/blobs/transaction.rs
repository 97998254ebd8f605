//! Transactions: blobs, tags, slots of records and entries of collections that become durable in one
//! atomic commit.
//!
//! To write something that consists of several things, stage them in a [`Transaction`] and commit it
//! once. Stage blobs first: their hashes are known at once, and their bytes can be read from the
//! transaction. Tags and entries that refer to them come next, and the commit comes last.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_store_api::Result<()> {
//! use std::sync::Arc;
//! use larder_store_api::{Kind, PutRecord, RecordDescriptor, RecordStore, SeqExpect};
//! use larder_store_engine::{Blobs, Hashed, Records, Root, TagName, generate_key, public_key};
//! use larder_store_testkit::MemoryStore;
//!
//! let store = Arc::new(MemoryStore::new());
//! let blobs = Blobs::open(store.clone(), store).await?;
//! let records = Records::new(blobs.collections().clone());
//! let writer = generate_key()?;
//! let (owner, owner_slots, members) = (public_key(&writer), 1, Vec::new());
//! let id = records.create(RecordDescriptor { owner, owner_slots, members }).await?;
//!
//! let transaction = blobs.transaction()?;
//! // Bytes of any length; those that are there already cost nothing.
//! let file = transaction.add("a sealed file").await?;
//! loop {
//!     // What the next value follows from.
//!     let slot = records.slot(id, 0).await?;
//!     let page = Hashed::new(file.hash().as_bytes().to_vec());
//!     transaction.add_all(vec![page.clone()]).await?;
//!     // What is staged can be read before it is committed.
//!     assert_eq!(transaction.read_to_bytes(page.hash(), 0..32).await?, page.bytes());
//!
//!     let root = Root::hash_seq(page.hash());
//!     transaction.set_tag(TagName::try_from("newest")?, root).await?;
//!     transaction.delete_tag(TagName::try_from("older")?)?;
//!     let value = page.hash().as_bytes().to_vec().into();
//!     let put = PutRecord::Write { value, writer: writer.clone(), expect: SeqExpect::Any };
//!     transaction.put_slot(&records, &slot, put).await?;
//!     match transaction.commit().await {
//!         Ok(_) => break,
//!         // Somebody changed the slot: decide again. The blobs stay staged.
//!         Err(error) if error.kind() == Kind::Conflict => transaction.begin_again()?,
//!         Err(error) => return Err(error),
//!     }
//! }
//! assert_eq!(blobs.read_to_bytes(file.hash(), 2..8).await?, "sealed");
//! # Ok(())
//! # }
//! ```

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use larder_store_api::{
    Durability, Edit, Error, Expect, GROUP_LEN, Kind, Put, PutRecord, Result, Revision, positions,
};

use super::{
    AddOptions, Blobs, Hashed, Inner, Progress, Running, Source,
    add::{Windows, count_added, now},
    entry::{BlobEntry, Indexed, State},
    pins::Pin,
    read::BlobStatus,
    stage::{Claims, Staged},
    tags::{TAGS, TagName, put_tag},
};
use crate::{
    Format, Hash, Root,
    collections::deny_reserved,
    records::{Records, SlotState, stage::Staging},
};

/// The most inline bytes of blobs that are staged: beyond it, blobs are committed before the rest.
pub const MAX_STAGED_BYTES: usize = 4 * 1024 * 1024;
/// The most blobs that are staged: beyond it, they are committed before the rest.
pub const MAX_STAGED_BLOBS: usize = 4096;

/// Blobs, tags, slots of records and entries of collections that become durable in one atomic commit.
/// Made by [`Blobs::transaction`]. A clone is a handle to the same transaction; if the last one is
/// dropped uncommitted, nothing takes effect, and the written data is deleted.
///
/// Up to [`MAX_STAGED_BLOBS`] blobs with [`MAX_STAGED_BYTES`] of inline data are one commit, if the
/// store accepts a batch of that many edits:
/// [`max_batch_len`](larder_store_api::CollectionCapabilities) is the limit, and each blob needs up to
/// three edits. If there are more blobs, they are committed first, as if they had been added before;
/// everything that refers to them is still one commit, the last. Tags, slots and entries that are too
/// many for one commit are refused.
///
/// The transaction keeps its blobs from being collected until it is dropped. [`Blobs::close`] waits for
/// that.
#[derive(Debug, Clone)]
pub struct Transaction(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    state: Mutex<Stage>,
    records: tokio::sync::Mutex<Staging>,
    /// Allows one commit of it at a time.
    committing: tokio::sync::Mutex<()>,
    /// Dropped last: dropping the fields before it may require cleaning up.
    _running: Running,
}

#[derive(Debug)]
struct Stage {
    phase: Phase,
    /// The entries that are staged and not committed; for readers also those that are being committed.
    entries: HashMap<Hash, BlobEntry>,
    staged: Vec<Staged>,
    /// The number of inline bytes in `staged`.
    bytes: usize,
    pins: Vec<Pin>,
    /// `None` deletes the tag.
    tags: BTreeMap<TagName, Option<Pin>>,
    expect: Vec<Expect>,
    edits: Vec<Edit>,
}

#[derive(Debug)]
enum Phase {
    Open,
    Committing,
    Committed(Option<Revision>),
    /// An expectation was not met.
    Conflict(Error),
    /// A store failed.
    Failed(Error),
}

impl Blobs {
    /// Begins a [`Transaction`]. [`Kind::Closed`] if the store is closed.
    pub fn transaction(&self) -> Result<Transaction> {
        let running = self.0.enter("blobs.transaction")?;
        Ok(Transaction(Arc::new(Shared {
            inner: self.0.clone(),
            state: Mutex::new(Stage::new()),
            records: tokio::sync::Mutex::default(),
            committing: tokio::sync::Mutex::default(),
            _running: running,
        })))
    }
}

impl Stage {
    fn new() -> Self {
        Self {
            phase: Phase::Open,
            entries: HashMap::new(),
            staged: Vec::new(),
            bytes: 0,
            pins: Vec::new(),
            tags: BTreeMap::new(),
            expect: Vec::new(),
            edits: Vec::new(),
        }
    }

    fn check_open(&self) -> Result<()> {
        let message = match &self.phase {
            Phase::Open => return Ok(()),
            Phase::Conflict(error) | Phase::Failed(error) => return Err(error.clone()),
            Phase::Committing => "the transaction is being committed; begin another one",
            Phase::Committed(_) => "the transaction was committed; begin another one",
        };
        Err(Error::new(Kind::Invalid, "blobs.transaction", message))
    }

    /// Returns true if more is staged than allowed.
    fn is_full(&self) -> bool {
        self.bytes > MAX_STAGED_BYTES || self.staged.len() > MAX_STAGED_BLOBS
    }

    fn take(&mut self) -> Vec<Staged> {
        self.bytes = 0;
        std::mem::take(&mut self.staged)
    }
}

impl Transaction {
    fn state(&self) -> MutexGuard<'_, Stage> {
        // Nothing panics while it holds the lock, except because of a bug.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a blob, and returns a pin that keeps it; its bytes are written once, while they are
    /// hashed. A blob that exists already is not staged.
    pub async fn add(&self, source: impl Into<Source>) -> Result<Pin> {
        self.add_with(source, Format::Raw, None).await
    }

    /// Adds a blob; `format` determines what the pin keeps, and `progress` receives the number of bytes
    /// read so far.
    pub async fn add_with(
        &self,
        source: impl Into<Source>,
        format: Format,
        progress: Option<Progress>,
    ) -> Result<Pin> {
        self.state().check_open()?;
        let options = AddOptions {
            format: Some(format),
            progress,
            ..AddOptions::default()
        };
        let mut windows = Windows::of(source.into()).await?;
        let first = windows.next().await?;
        if first.len() as u64 <= GROUP_LEN {
            options.report(first.len() as u64);
            let pin = self.add_inline(Hash::of(&first), first, format).await?;
            count_added([&pin]);
            return Ok(pin);
        }
        let staged = self.0.inner.write_draft(first, windows, &options).await?;
        let pin = self.stage(staged).await?;
        count_added([&pin]);
        Ok(pin)
    }

    /// Stages blobs, and returns a pin for each, in the same order.
    pub async fn add_all(&self, blobs: Vec<Hashed>) -> Result<Vec<Pin>> {
        self.state().check_open()?;
        let mut pins = Vec::with_capacity(blobs.len());
        for blob in blobs {
            pins.push(match blob.bytes().len() as u64 <= GROUP_LEN {
                true => {
                    let bytes = blob.bytes().clone();
                    let pin = self.add_inline(blob.hash(), bytes, Format::Raw).await?;
                    count_added([&pin]);
                    pin
                }
                false => self.add(blob.bytes().clone()).await?,
            });
        }
        Ok(pins)
    }

    async fn add_inline(&self, hash: Hash, bytes: Bytes, format: Format) -> Result<Pin> {
        let root = Root { hash, format };
        let pin = self.0.inner.pins.pin(root, Some(bytes.len() as u64)).await;
        let entry = BlobEntry {
            added: now(),
            state: State::Inline(bytes),
        };
        self.stage(Staged::new(pin, entry, None)).await
    }

    async fn stage(&self, mut staged: Staged) -> Result<Pin> {
        let pin = staged.pin.clone();
        let hash = pin.hash();
        // The commit itself checks small blobs. A payload uses space as long as it exists.
        if staged.draft.is_some() {
            let found = self.0.inner.lookup(hash).await?;
            if found.as_ref().is_some_and(Indexed::is_complete) {
                self.state().pins.push(pin.clone());
                staged.discard().await;
                return Ok(pin);
            }
            staged.old = found;
        }
        let (again, is_full) = {
            let mut state = self.state();
            state.check_open()?;
            state.pins.push(pin.clone());
            if hash == Hash::EMPTY || state.entries.contains_key(&hash) {
                (Some(staged), false)
            } else {
                if let State::Inline(bytes) = &staged.entry.state {
                    state.bytes += bytes.len();
                }
                state.entries.insert(hash, staged.entry.clone());
                state.staged.push(staged);
                (None, state.is_full())
            }
        };
        if let Some(again) = again {
            again.discard().await;
        }
        if is_full {
            self.commit_first().await?;
        }
        Ok(pin)
    }

    /// Commits the staged blobs, before the rest.
    async fn commit_first(&self) -> Result<()> {
        let this = self.clone();
        let committing = self.0.inner.to_end(async move {
            let _one = this.0.committing.lock().await;
            let mut staged = {
                let mut state = this.state();
                state.check_open()?;
                match state.is_full() {
                    true => state.take(),
                    false => return Ok(()),
                }
            };
            let hashes: Vec<_> = staged.iter().map(|staged| staged.pin.hash()).collect();
            let put = this.0.inner.put(&mut staged, &Claims::default()).await;
            let mut state = this.state();
            match put {
                Ok(_) => hashes.iter().for_each(|hash| {
                    state.entries.remove(hash);
                }),
                Err(error) => {
                    state.phase = Phase::Failed(error.clone());
                    return Err(error);
                }
            }
            Ok(())
        });
        committing.await
    }

    /// Returns the status of a blob, staged or committed; `None` if nothing of it is here.
    pub async fn status(&self, hash: Hash) -> Result<Option<BlobStatus>> {
        let staged = self.state().entries.get(&hash).map(BlobStatus::of);
        match staged {
            Some(status) => Ok(Some(status)),
            None => self.blobs().status(hash).await,
        }
    }

    /// Returns the verified bytes of `range` of a staged or committed blob, as [`Blobs::read_to_bytes`]
    /// does.
    pub async fn read_to_bytes(&self, hash: Hash, range: impl RangeBounds<u64>) -> Result<Bytes> {
        let range = positions(range);
        let staged = self.state().entries.get(&hash).cloned();
        match staged {
            Some(entry) => self.0.inner.read_entry_to_bytes(hash, entry, range).await,
            None => self.blobs().read_to_bytes(hash, range).await,
        }
    }

    /// Returns the store of the transaction.
    pub fn blobs(&self) -> Blobs {
        Blobs(self.0.inner.clone())
    }

    /// Sets a tag, whether or not it exists. The blob need not exist.
    pub async fn set_tag(&self, name: TagName, root: Root) -> Result<()> {
        put_tag(&name, root)?;
        // A collection that has already read the tags must still learn of this one.
        let pin = self.0.inner.pins.pin(root, None).await;
        let mut state = self.state();
        state.check_open()?;
        state.tags.insert(name, Some(pin));
        Ok(())
    }

    /// Deletes a tag. It is not an error if there is none.
    pub fn delete_tag(&self, name: TagName) -> Result<()> {
        let mut state = self.state();
        state.check_open()?;
        state.tags.insert(name, None);
        Ok(())
    }

    /// Puts into a slot of a record, if the slot has not changed since it was read; earlier puts of
    /// this transaction into it are taken into account. [`Put::Published`] has the slot's content after
    /// the commit; if the result is [`Put::Superseded`], nothing was staged.
    ///
    /// `records` must be those of [`Blobs::collections`], otherwise the result is [`Kind::Invalid`].
    /// Other errors are those of [`RecordStore::put`](larder_store_api::RecordStore::put).
    pub async fn put_slot(
        &self,
        records: &Records,
        slot: &SlotState,
        put: PutRecord,
    ) -> Result<Put> {
        self.state().check_open()?;
        if !records.collections().is(&self.0.inner.collections) {
            let message = "the records are not those of this store's collections";
            return Err(Error::new(Kind::Invalid, "records.put", message));
        }
        let mut staging = self.0.records.lock().await;
        // It may have been committed while this waited.
        self.state().check_open()?;
        records.stage_put(&mut staging, slot, put).await
    }

    /// Edits an entry of an app's collection; of two edits of one key, the later wins. A collection
    /// that belongs to the engine is [`Kind::Denied`].
    pub fn edit(&self, edit: Edit) -> Result<()> {
        deny_reserved(&edit)?;
        let mut state = self.state();
        state.check_open()?;
        state.edits.push(edit);
        Ok(())
    }

    /// Makes the commit depend on this expectation.
    pub fn expect(&self, expect: Expect) -> Result<()> {
        let mut state = self.state();
        state.check_open()?;
        state.expect.push(expect);
        Ok(())
    }

    /// Commits everything that is staged atomically and durably; `None` means that everything existed
    /// already. Once begun, the commit runs to its end, even if the call is dropped; calling this again
    /// then returns the outcome.
    ///
    /// [`Kind::Conflict`] means that an expectation is not met, or that a slot has changed since it was
    /// read. Nothing took effect then, and the transaction can continue with
    /// [`begin_again`](Self::begin_again). After any other error the transaction is over.
    pub async fn commit(&self) -> Result<Option<Revision>> {
        self.commit_with(Durability::OnWrite).await
    }

    /// Commits with this durability. With [`Durability::OnSync`] the transaction becomes durable with
    /// the next commit that is durable on write, or with [`Blobs::make_durable`]; until then a loss of
    /// power may undo it, together with everything that was committed after it. Payloads, and blobs
    /// that are too many for one commit, are durable in any case.
    ///
    /// # Errors
    /// The errors of [`commit`](Self::commit).
    pub async fn commit_with(&self, durability: Durability) -> Result<Option<Revision>> {
        let this = self.clone();
        let committing = async move { this.commit_now(durability).await };
        self.0.inner.to_end(committing).await
    }

    async fn commit_now(&self, durability: Durability) -> Result<Option<Revision>> {
        let _one = self.0.committing.lock().await;
        let records = self.0.records.lock().await;
        let (mut staged, claims) = {
            let mut state = self.state();
            if let Phase::Committed(revision) = state.phase {
                return Ok(revision);
            }
            state.check_open()?;
            let claims = state.claims(&records, durability)?;
            state.phase = Phase::Committing;
            (state.take(), claims)
        };
        let put = self.0.inner.put(&mut staged, &claims).await;
        let mut state = self.state();
        match &put {
            Ok(revision) => {
                state.phase = Phase::Committed(*revision);
                state.entries.clear();
            }
            Err(error) if error.kind() == Kind::Conflict => {
                state.phase = Phase::Conflict(error.clone());
                let left: HashSet<_> = staged.iter().map(|staged| staged.pin.hash()).collect();
                state.entries.retain(|hash, _| left.contains(hash));
                state.staged = staged;
            }
            Err(error) => state.phase = Phase::Failed(error.clone()),
        }
        put
    }

    /// Forgets all tags, slots, entries and expectations after a [`Kind::Conflict`], because they were
    /// based on outdated reads. The blobs stay staged. After another error, or after a successful
    /// commit, the transaction is over, and this returns an error.
    pub fn begin_again(&self) -> Result<()> {
        let Ok(mut records) = self.0.records.try_lock() else {
            let message = "the transaction is in use; wait until its other calls have ended";
            return Err(Error::new(Kind::Unavailable, "blobs.transaction", message));
        };
        let mut state = self.state();
        if !matches!(state.phase, Phase::Conflict(_)) {
            state.check_open()?;
        }
        state.phase = Phase::Open;
        state.tags.clear();
        state.expect.clear();
        state.edits.clear();
        *records = Staging::default();
        Ok(())
    }
}

impl Stage {
    fn claims(&self, records: &Staging, durability: Durability) -> Result<Claims> {
        let (mut expect, mut edits) = records.batch()?;
        expect.extend_from_slice(&self.expect);
        edits.extend_from_slice(&self.edits);
        let mut pins = Vec::new();
        for (name, pin) in &self.tags {
            edits.push(match pin {
                Some(pin) => {
                    pins.push(pin.clone());
                    put_tag(name, pin.root())?
                }
                None => Edit::Delete {
                    collection: TAGS,
                    key: name.as_bytes().clone(),
                },
            });
        }
        Ok(Claims {
            expect,
            edits,
            pins,
            durability,
        })
    }
}
