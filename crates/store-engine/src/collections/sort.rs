//! Ordered scans over stores whose scans are not: as many passes as it takes, in bounded memory.
//!
//! A pass scans all that is left and keeps the first entries in order, up to a budget. The first key
//! that did not fit is where the next pass begins.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use larder_store_api::{CollectionStore, Entry, Listing, Order, Result, Scan};

/// The most entries that are sorted at once.
pub const SORT_ENTRIES: usize = 16 * 1024;

/// The most bytes of keys and values that are sorted at once, but for a single longer entry.
pub const SORT_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn sorted(store: Arc<dyn CollectionStore>, scan: Scan) -> Listing<Entry> {
    let passes = stream::try_unfold(Some(scan), move |left| {
        let store = Arc::clone(&store);
        async move {
            let Some(scan) = left else { return Ok(None) };
            let (entries, left) = pass(&*store, scan).await?;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), left)))
        }
    });
    Box::pin(passes.try_flatten())
}

/// The first entries of `scan` in order, and the scan for those after them.
async fn pass(store: &dyn CollectionStore, scan: Scan) -> Result<(Vec<Entry>, Option<Scan>)> {
    let mut window = Window::new(scan.order);
    let mut entries = store.scan(scan.clone());
    while let Some(entry) = entries.try_next().await? {
        window.insert(entry);
    }
    let left = window.cut.take().map(|cut| {
        let (start, end) = scan.keys;
        let keys = match scan.order {
            Order::Ascending => (Bound::Included(cut), end),
            Order::Descending => (start, Bound::Included(cut)),
        };
        Scan { keys, ..scan }
    });
    Ok((window.into_entries(), left))
}

/// The first entries in order among those inserted, within the budget.
struct Window {
    order: Order,
    entries: BTreeMap<Bytes, Entry>,
    bytes: usize,
    /// The first key that did not fit; nothing from there on is kept.
    cut: Option<Bytes>,
}

impl Window {
    fn new(order: Order) -> Self {
        Self {
            order,
            entries: BTreeMap::new(),
            bytes: 0,
            cut: None,
        }
    }

    fn insert(&mut self, entry: Entry) {
        let beyond = self.cut.as_ref().is_some_and(|cut| match self.order {
            Order::Ascending => entry.key >= *cut,
            Order::Descending => entry.key <= *cut,
        });
        if beyond {
            return;
        }
        self.bytes += len(&entry);
        if let Some(replaced) = self.entries.insert(entry.key.clone(), entry) {
            self.bytes -= len(&replaced);
        }
        while self.entries.len() > 1
            && (self.entries.len() > SORT_ENTRIES || self.bytes > SORT_BYTES)
        {
            let last = match self.order {
                Order::Ascending => self.entries.pop_last(),
                Order::Descending => self.entries.pop_first(),
            };
            if let Some((key, entry)) = last {
                self.bytes -= len(&entry);
                self.cut = Some(key);
            }
        }
    }

    fn into_entries(self) -> Vec<Entry> {
        let entries = self.entries.into_values();
        match self.order {
            Order::Ascending => entries.collect(),
            Order::Descending => entries.rev().collect(),
        }
    }
}

fn len(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len()
}
