//! Items and accounts: what the store knows of keys and of segments, in memory, in the index, and
//! on the way between them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::log::{Counters, Pointer, Position};

/// A generation with this many keys is handed to the index.
const GENERATION_KEYS: usize = 16_384;
/// A generation with this many bytes in memory is handed to the index.
const GENERATION_BYTES: usize = 4 << 20;
/// A generation that covers this much of the log is handed to the index, so that there is little to
/// replay after a crash.
const GENERATION_LOG: u64 = 64 << 20;
/// The approximate memory that a key takes beside its bytes.
const KEY_OVERHEAD: usize = 128;
/// Values up to this length are kept with their key, in memory and in the index.
pub(crate) const INLINE: usize = 64;

/// The known facts about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The commit that put or deleted it.
    pub(crate) revision: u64,
    /// The record in the log.
    pub(crate) at: Pointer,
    pub(crate) value: Value,
}

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// The bytes, which are few.
    Inline(Bytes),
    /// In the log.
    Stored,
    /// There is none.
    Deleted,
}

/// The numbers of bytes of a segment in records of each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Records that put.
    pub(crate) puts: u64,
    /// Of those, the ones that are still their key's value.
    pub(crate) live: u64,
    /// Records that delete.
    pub(crate) deletes: u64,
}

/// The accounts of each segment, which say how much of it is alive.
pub(crate) type Accounts = BTreeMap<u32, Account>;

/// Everything up to a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The end of the last frame.
    pub(crate) position: Position,
    /// Its number.
    pub(crate) sequence: u64,
    /// The last commit.
    pub(crate) revision: u64,
}

impl Applied {
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            sequence: self.sequence,
            revision: self.revision,
        }
    }
}

/// Consecutive commits, folded into the newest item of each key.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    items: BTreeMap<Bytes, Item>,
    bytes: usize,
    log_bytes: u64,
    /// The amounts that its records add to the accounts of their segments.
    added: Accounts,
    /// The place in the log where the generation ends.
    end: Option<Applied>,
}

impl Generation {
    pub(crate) fn is_empty(&self) -> bool {
        self.end.is_none()
    }

    pub(crate) fn items(&self) -> &BTreeMap<Bytes, Item> {
        &self.items
    }

    pub(crate) fn added(&self) -> &Accounts {
        &self.added
    }

    pub(crate) fn end(&self) -> Option<Applied> {
        self.end
    }

    /// Has the generation go as far as `end`.
    pub(crate) fn reach(&mut self, end: Applied) {
        self.end = Some(end);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= GENERATION_KEYS
            || self.bytes >= GENERATION_BYTES
            || self.log_bytes >= GENERATION_LOG
    }

    pub(crate) fn put(&mut self, key: Bytes, item: Item) {
        let len = u64::from(item.at.len);
        let account = self.added.entry(item.at.segment).or_default();
        if item.value == Value::Deleted {
            account.deletes += len;
        } else {
            account.puts += len;
            account.live += len;
        }
        self.log_bytes += len;
        self.bytes += key.len() + KEY_OVERHEAD;
        if let Some(old) = self.items.insert(key, item)
            && old.value != Value::Deleted
            && let Some(account) = self.added.get_mut(&old.at.segment)
        {
            account.live -= u64::from(old.at.len);
        }
    }
}

/// Returns a value as it is kept in memory and in the index.
pub(crate) fn item_value(value: Option<&[u8]>) -> Value {
    match value {
        None => Value::Deleted,
        Some(value) if value.len() <= INLINE => Value::Inline(Bytes::copy_from_slice(value)),
        Some(_) => Value::Stored,
    }
}
