//! The records that are open in the node: those in use, and some that were used recently.

use std::{collections::HashMap, sync::Arc};

use larder_store_api::RecordId;
use tokio::sync::{Mutex, OnceCell, RwLock};

/// The number of idle records that stay open.
const MAX_IDLE: usize = 256;

/// A record in this process.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RecordId,
    /// The state of the record: using the record takes a read lock; opening, creating or closing it
    /// takes a write lock.
    pub(super) state: RwLock<State>,
    /// Allows one put at a time: two simultaneous puts to one slot would leave nodes with different
    /// values.
    pub(super) putting: Mutex<()>,
    /// Set once the values that were put here in earlier runs are in the node.
    pub(super) recovered: OnceCell<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open,
}

/// All records in use, and idle ones.
#[derive(Debug, Default)]
pub(super) struct Table(std::sync::Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<RecordId, (Arc<Record>, u64)>,
    /// Counts uses, to find those that were used last.
    clock: u64,
}

impl Table {
    /// Returns the record, and those to be closed in exchange.
    pub(super) fn get(&self, id: RecordId) -> (Arc<Record>, Vec<Arc<Record>>) {
        let mut inner = self
            .0
            .lock()
            .expect("nothing panics while it holds the lock");
        inner.clock += 1;
        let now = inner.clock;
        let (record, used) = inner.records.entry(id).or_insert_with(|| {
            let record = Record {
                id,
                state: RwLock::new(State::Closed),
                putting: Mutex::new(()),
                recovered: OnceCell::new(),
            };
            (Arc::new(record), now)
        });
        *used = now;
        let record = Arc::clone(record);
        let mut out = Vec::new();
        if inner.records.len() > MAX_IDLE {
            // Closes half of the idle ones at once, so that this is rare.
            let idle = inner.records.iter();
            let idle = idle.filter(|(_, (record, _))| Arc::strong_count(record) == 1);
            let mut idle: Vec<_> = idle.map(|(id, (_, used))| (*used, *id)).collect();
            idle.sort_unstable();
            idle.truncate(idle.len().div_ceil(2));
            out.extend(idle.iter().filter_map(|(_, id)| inner.records.remove(id)));
        }
        (record, out.into_iter().map(|(record, _)| record).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ones_go_and_used_ones_stay() {
        let table = Table::default();
        let id = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            RecordId(id)
        };
        let (used, _) = table.get(id(0));
        let mut closed = 0;
        for n in 1..2000 {
            let (_, out) = table.get(id(n));
            assert!(out.iter().all(|record| record.id != used.id));
            closed += out.len();
        }
        assert!(closed >= 2000 - MAX_IDLE - 1, "{closed} were closed");
        assert!(Arc::ptr_eq(&used, &table.get(id(0)).0));
    }
}
