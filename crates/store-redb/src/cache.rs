//! Small values that were read or written lately, answered without a thread or the disk.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Mutex,
};

use bytes::Bytes;

use crate::disk::lock;

const SHARDS: usize = 16;
/// How many bytes all values, keys and their overhead take at most.
const CACHE_LEN: usize = 16 << 20;
/// Longer values are not kept.
pub(crate) const LONGEST: usize = 4096;
/// What an entry costs in memory beside its bytes, about.
const OVERHEAD: usize = 160;

/// A bounded map from composite key to value and revision. An entry that was used since the clock
/// last passed it gets a second round.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Bytes, Slot>,
    clock: VecDeque<Bytes>,
    bytes: usize,
    /// Counts the commits that touched this shard, so that a value that was read before a commit
    /// is not kept after it.
    commits: u64,
}

#[derive(Debug)]
struct Slot {
    cached: Cached,
    used: bool,
}

/// What is known of a key without looking further.
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

/// Tells whether anything was committed between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("less than the shards")]
    }

    /// What is known of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Cached {
        let mut shard = lock(self.shard(key));
        match shard.entries.get_mut(key) {
            Some(slot) => {
                slot.used = true;
                slot.cached.clone()
            }
            None => Cached::Unknown,
        }
    }

    /// To be called before a value is read that is then offered to [`fill`](Self::fill).
    pub(crate) fn moment(&self, key: &[u8]) -> Moment {
        Moment(lock(self.shard(key)).commits)
    }

    /// Keeps a value that was read, unless there were commits since `moment`.
    pub(crate) fn fill(&self, key: Bytes, value: Bytes, revision: u64, moment: Moment) {
        if value.len() <= LONGEST {
            let mut shard = lock(self.shard(&key));
            if shard.commits == moment.0 {
                shard.insert(key, Cached::Value(value, revision));
            }
        }
    }

    /// A commit put this value.
    pub(crate) fn put(&self, key: &Bytes, value: &[u8], revision: u64) {
        let mut shard = lock(self.shard(key));
        shard.commits += 1;
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
        let mut shard = lock(self.shard(key));
        shard.commits += 1;
        shard.replace(key, Cached::Absent);
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
