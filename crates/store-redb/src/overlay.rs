//! The newest commits, in memory: those that the log has and the index lacks.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use larder_store_api::{Order, Result};

use crate::{
    index::Snapshot,
    item::{Applied, Generation, Item, Value},
    key::KeyRange,
};

/// One instant of all collections: what is newer hides what is older.
#[derive(Debug)]
struct State {
    /// Takes new commits.
    active: Generation,
    /// Being applied to the index.
    frozen: Option<Arc<Generation>>,
    /// The index as it was last applied.
    snapshot: Arc<Snapshot>,
}

/// The newest commits over the index.
#[derive(Debug)]
pub(crate) struct Overlay(RwLock<State>);

/// The outcome for the active generation when it was asked to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    /// It waits for the index now.
    Frozen,
    /// There was nothing in it.
    Empty,
    /// The one before it is not in the index yet.
    Busy,
}

impl Overlay {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self(RwLock::new(State {
            active: Generation::default(),
            frozen: None,
            snapshot: Arc::new(snapshot),
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes commits visible, all at once. They must be in the log up to `end`.
    pub(crate) fn publish(&self, items: impl IntoIterator<Item = (Bytes, Item)>, end: Applied) {
        let mut state = self.write();
        for (key, item) in items {
            state.active.put(key, item);
        }
        state.active.reach(end);
    }

    /// Returns true if the active generation should go to the index.
    pub(crate) fn is_full(&self) -> bool {
        self.read().active.is_full()
    }

    /// Returns true if the index has everything.
    pub(crate) fn is_applied(&self) -> bool {
        let state = self.read();
        state.active.is_empty() && state.frozen.is_none()
    }

    /// Returns the number of keys that wait for the index.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.read();
        state.active.items().len()
            + state
                .frozen
                .as_ref()
                .map_or(0, |frozen| frozen.items().len())
    }

    /// Hands the active generation to the index. All of it must be durable in the log.
    pub(crate) fn freeze(&self) -> Freeze {
        let mut state = self.write();
        if state.frozen.is_some() {
            return Freeze::Busy;
        }
        if state.active.is_empty() {
            return Freeze::Empty;
        }
        let active = std::mem::take(&mut state.active);
        state.frozen = Some(Arc::new(active));
        Freeze::Frozen
    }

    /// Returns the generation that waits for the index.
    pub(crate) fn frozen(&self) -> Option<Arc<Generation>> {
        self.read().frozen.clone()
    }

    /// The index has the frozen generation now.
    pub(crate) fn applied(&self, snapshot: Snapshot) {
        let mut state = self.write();
        let old = std::mem::replace(&mut state.snapshot, Arc::new(snapshot));
        let frozen = state.frozen.take();
        drop(state);
        // Freed without the lock: it is large.
        drop((old, frozen));
    }

    /// Lets go of the index, which is being closed.
    pub(crate) fn forget_index(&self) {
        let old = std::mem::replace(&mut self.write().snapshot, Arc::new(Snapshot::closed()));
        drop(old);
    }

    /// Returns the known item of `key`; `None` if it was deleted or never put.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Item>> {
        let snapshot = {
            let state = self.read();
            let newest = state.active.items().get(key).or_else(|| {
                let frozen = state.frozen.as_ref()?;
                frozen.items().get(key)
            });
            if let Some(item) = newest {
                return Ok((item.value != Value::Deleted).then(|| item.clone()));
            }
            Arc::clone(&state.snapshot)
        };
        snapshot.get(key)
    }

    /// Up to `limit` keys within `range` and what is known of them, all of one instant.
    pub(crate) fn page(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Page> {
        if crate::key::is_empty(range) {
            return Ok(Page::default());
        }
        let bounds = (as_slice(&range.0), as_slice(&range.1));
        let (active, frozen, snapshot) = {
            let state = self.read();
            let cloned = |(key, item): (&Bytes, &Item)| (key.clone(), item.clone());
            let found = state.active.items().range::<[u8], _>(bounds);
            let active: Vec<_> = match order {
                Order::Ascending => found.take(limit).map(cloned).collect(),
                Order::Descending => found.rev().take(limit).map(cloned).collect(),
            };
            (active, state.frozen.clone(), Arc::clone(&state.snapshot))
        };
        // If the active generation has more items, nothing is known beyond those that were taken of it.
        let active_end = (active.len() == limit).then(|| active[limit - 1].0.clone());
        let frozen = frozen.as_ref().map(|frozen| {
            let found = frozen.items().range::<[u8], _>(bounds);
            let cloned = |(key, item): (&Bytes, &Item)| (key.clone(), item.clone());
            let boxed: Box<dyn Iterator<Item = (Bytes, Item)> + '_> = match order {
                Order::Ascending => Box::new(found.map(cloned)),
                Order::Descending => Box::new(found.rev().map(cloned)),
            };
            boxed
        });
        let mut merge = Merge {
            active: active.into_iter().peekable(),
            frozen: frozen.into_iter().flatten().peekable(),
            order,
        };
        let mut page = Page::default();
        snapshot.range(bounds, order, |next| {
            // Everything newer that comes before the index's next key, then that key.
            loop {
                if page.items.len() == limit {
                    page.more = true;
                    return false;
                }
                let Some((key, item)) = merge.next(next.as_ref().map(|(key, _)| key)) else {
                    break;
                };
                let last = active_end.as_ref() == Some(&key);
                let hides = next.as_ref().is_some_and(|(other, _)| *other == key);
                page.take(key, item);
                if last {
                    page.more = true;
                    return false;
                }
                if hides {
                    return true;
                }
            }
            match next {
                Some((key, item)) => page.take(key, item),
                None => return false,
            }
            true
        })?;
        Ok(page)
    }
}

/// Keys in order, and whether there may be more.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The items that have a value.
    pub(crate) items: Vec<(Bytes, Item)>,
    /// The last key that was looked at.
    pub(crate) last: Option<Bytes>,
    /// True if there may be keys after the page.
    pub(crate) more: bool,
}

impl Page {
    fn take(&mut self, key: Bytes, item: Item) {
        self.last = Some(key.clone());
        if item.value != Value::Deleted {
            self.items.push((key, item));
        }
    }
}

/// Two generations as one; the newer hides the older.
struct Merge<A: Iterator, F: Iterator> {
    active: std::iter::Peekable<A>,
    frozen: std::iter::Peekable<F>,
    order: Order,
}

impl<A, F> Merge<A, F>
where
    A: Iterator<Item = (Bytes, Item)>,
    F: Iterator<Item = (Bytes, Item)>,
{
    /// The next item, unless `limit` comes before it.
    fn next(&mut self, limit: Option<&Bytes>) -> Option<(Bytes, Item)> {
        let order = self.order;
        let before = move |a: &Bytes, b: &Bytes| match order {
            Order::Ascending => a < b,
            Order::Descending => a > b,
        };
        let from_active = match (self.active.peek(), self.frozen.peek()) {
            (None, None) => return None,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((a, _)), Some((f, _))) => !before(f, a),
        };
        let head = if from_active {
            self.active.peek()
        } else {
            self.frozen.peek()
        };
        if let (Some((key, _)), Some(limit)) = (head, limit)
            && before(limit, key)
        {
            return None;
        }
        if !from_active {
            return self.frozen.next();
        }
        let (key, item) = self.active.next()?;
        if self.frozen.peek().is_some_and(|(other, _)| *other == key) {
            self.frozen.next();
        }
        Some((key, item))
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
