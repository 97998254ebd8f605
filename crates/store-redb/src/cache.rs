//! Small values that were read or written lately, answered without a thread or the disk.
//!
//! While a group of commits is made visible, the cache answers nothing: whoever saw one edit of a
//! commit in the overlay must not see an old value of another here.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::disk::lock;

const SHARDS: usize = 16;
/// The most bytes that all values, keys and their overhead take.
const CACHE_LEN: usize = 16 << 20;
/// Longer values are not kept.
pub(crate) const LONGEST: usize = 4096;
/// The approximate memory that an entry takes beside its bytes.
const OVERHEAD: usize = 160;

/// A bounded map from composite key to value and revision. An entry that was used since the clock
/// last passed it gets a second round.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Counts how often commits began or ended to be made visible: odd in between.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Bytes, Slot>,
    clock: VecDeque<Bytes>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    cached: Cached,
    used: bool,
}

/// The cached knowledge about a key.
#[derive(Debug, Clone)]
pub(crate) enum Cached {
    /// Its value and revision.
    Value(Bytes, u64),
    /// It was deleted.
    Absent,
    /// Nothing.
    Unknown,
}

impl Cached {
    fn len(&self) -> usize {
        match self {
            Cached::Value(value, _) => value.len(),
            Cached::Absent | Cached::Unknown => 0,
        }
    }
}

/// Tells whether anything was made visible between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            changes: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("less than the shards")]
    }

    /// Returns the cached knowledge about a key.
    pub(crate) fn get(&self, key: &[u8]) -> Cached {
        let moment = self.moment();
        let cached = match lock(self.shard(key)).entries.get_mut(key) {
            Some(slot) => {
                slot.used = true;
                slot.cached.clone()
            }
            None => Cached::Unknown,
        };
        if self.is_now(moment) {
            cached
        } else {
            Cached::Unknown
        }
    }

    /// To be called before a value is read that is then offered to [`fill`](Self::fill).
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.changes.load(Ordering::SeqCst))
    }

    /// Returns true if no commit was made visible since `moment`, and none is now.
    fn is_now(&self, moment: Moment) -> bool {
        moment.0.is_multiple_of(2) && self.changes.load(Ordering::SeqCst) == moment.0
    }

    /// Keeps what was read, or that there is nothing, unless there were commits since `moment`.
    pub(crate) fn fill(&self, key: Bytes, found: Option<(Bytes, u64)>, moment: Moment) {
        let cached = found.map_or(Cached::Absent, |(value, revision)| {
            Cached::Value(value, revision)
        });
        if cached.len() <= LONGEST {
            let mut shard = lock(self.shard(&key));
            if self.is_now(moment) {
                shard.insert(key, cached);
            }
        }
    }

    /// Runs `publish`, which makes commits visible elsewhere and here. For one thread at a time.
    pub(crate) fn while_changing(&self, publish: impl FnOnce()) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        publish();
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// A commit put this value.
    pub(crate) fn put(&self, key: &Bytes, value: &[u8], revision: u64) {
        let mut shard = lock(self.shard(key));
        if value.len() <= LONGEST {
            // A copy, because the caller's may be a small part of something large.
            let value = Bytes::copy_from_slice(value);
            shard.insert(key.clone(), Cached::Value(value, revision));
        } else {
            shard.replace(key, Cached::Unknown);
        }
    }

    /// A commit deleted this key.
    pub(crate) fn delete(&self, key: &[u8]) {
        lock(self.shard(key)).replace(key, Cached::Absent);
    }
}

impl Shard {
    fn insert(&mut self, key: Bytes, cached: Cached) {
        if self.entries.contains_key(&key) {
            self.replace(&key, cached);
        } else {
            self.bytes += key.len() + cached.len() + OVERHEAD;
            let slot = Slot {
                cached,
                used: false,
            };
            self.entries.insert(key.clone(), slot);
            self.clock.push_back(key);
        }
        while self.bytes > CACHE_LEN / SHARDS {
            let Some(oldest) = self.clock.pop_front() else {
                break;
            };
            match self.entries.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.clock.push_back(oldest);
                }
                _ => {
                    if let Some(old) = self.entries.remove(&oldest) {
                        self.bytes -= oldest.len() + old.cached.len() + OVERHEAD;
                    }
                }
            }
        }
    }

    /// Changes what is known of a key that is here; every key has one place on the clock.
    fn replace(&mut self, key: &[u8], cached: Cached) {
        if let Some(slot) = self.entries.get_mut(key) {
            self.bytes += cached.len();
            self.bytes -= slot.cached.len();
            slot.cached = cached;
        }
    }
}
