//! The plan of which calls fail, when, and how.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use larder_store_api::{Error, Kind, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::space::Space;

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`BlobStore::read`](larder_store_api::BlobStore::read)
    Read,
    /// [`BlobStore::write`](larder_store_api::BlobStore::write)
    Write,
    /// [`BlobStore::delete`](larder_store_api::BlobStore::delete)
    Delete,
    /// [`BlobStore::list`](larder_store_api::BlobStore::list)
    List,
    /// [`BlobStore::sync`](larder_store_api::BlobStore::sync)
    SyncBlobs,
    /// [`CollectionStore::get`](larder_store_api::CollectionStore::get)
    Get,
    /// [`CollectionStore::scan`](larder_store_api::CollectionStore::scan)
    Scan,
    /// [`CollectionStore::collections`](larder_store_api::CollectionStore::collections)
    Collections,
    /// [`CollectionStore::commit`](larder_store_api::CollectionStore::commit)
    Commit,
    /// [`CollectionStore::sync`](larder_store_api::CollectionStore::sync)
    SyncCollections,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "blobs.read",
            Self::Write => "blobs.write",
            Self::Delete => "blobs.delete",
            Self::List => "blobs.list",
            Self::SyncBlobs => "blobs.sync",
            Self::Get => "collection.get",
            Self::Scan => "collection.scan",
            Self::Collections => "collection.list",
            Self::Commit => "collection.commit",
            Self::SyncCollections => "collection.sync",
        }
    }
}

/// Selects the calls of an [`Operation`] that a fault affects, counted from 1 since it was injected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Every call.
    Always,
    /// Only this call.
    Nth(u64),
    /// This call and all later ones.
    From(u64),
    /// Every call with this probability, from 0 to 1.
    Chance(f64),
}

/// The effect of a fault on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and changes nothing. A listing fails after a few items.
    Error(Kind),
    /// The call fails half-way: after a write, some blocks are there and one is torn; after a delete,
    /// some payloads are gone. Other calls fail and change nothing.
    Torn(Kind),
    /// The call takes effect, but fails nevertheless. After a commit, all further commits and syncs
    /// fail until [`Faults::reopen`], as the contract requires of a store that cannot know what it did.
    LostAnswer(Kind),
    /// A sync does nothing but succeeds, as on a lying disk. Other calls work.
    LostSync,
    /// One bit of the data that is read is flipped. Other calls work.
    FlippedBit,
    /// The call first waits this long, by tokio's clock, which a test can pause.
    Delay(Duration),
    /// The call never ends.
    Hang,
}

/// The part of a fault that remains after its delays.
pub(super) enum Verdict {
    Do,
    Fail(Error),
    Tear(Error),
    Lose(Error),
    Skip,
    Flip,
}

impl Verdict {
    /// Returns the error of a call that a fault can only make fail.
    pub(super) fn or_fail(self) -> Result<()> {
        match self {
            Self::Fail(error) | Self::Tear(error) | Self::Lose(error) => Err(error),
            Self::Do | Self::Skip | Self::Flip => Ok(()),
        }
    }
}

/// The plan of faults, shared by stores. Randomness comes from the seed alone, so that the same calls
/// in the same order fail in the same way.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// use larder_store_api::{BlobStore, Kind, PayloadId};
/// use larder_store_testkit::{MemoryStore, stores::{Fault, Faults, FaultyStore, Operation, When}};
///
/// let faults = Faults::seeded(1);
/// let store = FaultyStore::new(MemoryStore::new(), faults.clone());
/// faults.inject(Operation::Delete, When::Nth(2), Fault::Error(Kind::Unavailable));
/// let id = PayloadId([7; 16]);
/// assert!(store.delete(vec![id]).await.is_ok());
/// assert_eq!(store.delete(vec![id]).await.unwrap_err().kind(), Kind::Unavailable);
/// assert!(store.delete(vec![id]).await.is_ok());
/// # });
/// ```
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    plan: Mutex<Plan>,
    space: Mutex<Space>,
}

struct Plan {
    rng: ChaCha8Rng,
    rules: Vec<Rule>,
    calls: BTreeMap<Operation, u64>,
    struck: u64,
    commits: Commits,
}

struct Rule {
    on: Operation,
    when: When,
    fault: Fault,
    calls: u64,
}

/// Tells whether commits are possible.
#[derive(PartialEq, Eq)]
enum Commits {
    Possible,
    Broken,
}

impl Faults {
    /// Creates a plan without faults.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Shared {
            plan: Mutex::new(Plan {
                rng: ChaCha8Rng::seed_from_u64(seed),
                rules: Vec::new(),
                calls: BTreeMap::new(),
                struck: 0,
                commits: Commits::Possible,
            }),
            space: Mutex::default(),
        }))
    }

    /// Applies `fault` to the calls of `on` that `when` selects, in addition to earlier faults. If
    /// several affect one call, their delays add up, and the first of the other faults counts.
    pub fn inject(&self, on: Operation, when: When, fault: Fault) {
        self.plan().rules.push(Rule {
            on,
            when,
            fault,
            calls: 0,
        });
    }

    /// Removes all faults. The limit of space stays.
    pub fn clear(&self) {
        self.plan().rules.clear();
    }

    /// Makes commits possible again after one whose answer was lost, as opening a store again does.
    pub fn reopen(&self) {
        self.plan().commits = Commits::Possible;
    }

    /// Limits the bytes that blocks, keys and values may use together; `None` removes the limit. Beyond
    /// it, a write stores the blocks that fit and fails with [`Kind::Full`], and a commit fails and
    /// changes nothing. Deleting frees space. Only data written through these faults counts.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.space().limit(bytes);
    }

    /// Returns the number of bytes that blocks, keys and values use.
    pub fn used_space(&self) -> u64 {
        self.space().used()
    }

    /// Returns the number of calls of `on` that were made, whatever their outcome.
    pub fn calls(&self, on: Operation) -> u64 {
        self.plan().calls.get(&on).copied().unwrap_or(0)
    }

    /// Returns the number of times that a fault took effect.
    pub fn struck(&self) -> u64 {
        self.plan().struck
    }

    /// Counts a call, waits for its delays, and returns what else happens to it.
    pub(super) async fn verdict(&self, on: Operation) -> Verdict {
        let faults = self.plan().strike(on);
        let error = |kind| Error::new(kind, on.name(), "injected by a test");
        for fault in faults {
            return match fault {
                Fault::Delay(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Fault::Hang => std::future::pending().await,
                Fault::Error(kind) => Verdict::Fail(error(kind)),
                Fault::Torn(kind) => Verdict::Tear(error(kind)),
                Fault::LostAnswer(kind) => Verdict::Lose(error(kind)),
                Fault::LostSync => Verdict::Skip,
                Fault::FlippedBit => Verdict::Flip,
            };
        }
        Verdict::Do
    }

    /// Returns a random number below `end`, which is not zero.
    pub(super) fn chance(&self, end: usize) -> usize {
        self.plan().rng.random_range(0..end)
    }

    /// Returns an error if the answer of an earlier commit was lost.
    pub(super) fn check_unbroken(&self, operation: &'static str) -> Result<()> {
        if self.plan().commits == Commits::Possible {
            return Ok(());
        }
        let message = "an earlier commit failed without an answer; open the store again";
        Err(Error::new(Kind::Internal, operation, message))
    }

    pub(super) fn break_commits(&self) {
        self.plan().commits = Commits::Broken;
    }

    pub(super) fn space(&self) -> MutexGuard<'_, Space> {
        self.0.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Returns the faults that affect this call, delays first.
    fn strike(&mut self, on: Operation) -> Vec<Fault> {
        *self.calls.entry(on).or_default() += 1;
        let mut faults = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.on == on) {
            rule.calls += 1;
            let strikes = match rule.when {
                When::Always => true,
                When::Nth(n) => rule.calls == n,
                When::From(n) => rule.calls >= n,
                When::Chance(chance) => self.rng.random_bool(chance.clamp(0.0, 1.0)),
            };
            if strikes {
                faults.push(rule.fault);
            }
        }
        self.struck += faults.len() as u64;
        faults.sort_by_key(|fault| !matches!(fault, Fault::Delay(_)));
        faults
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("struck", &self.struck())
            .finish_non_exhaustive()
    }
}
