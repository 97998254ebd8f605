//! The directory of payloads, which records the extents of their blocks, as entries of the store
//! itself.
//!
//! A table cannot list the rows of a payload, so an entry gives an upper bound of the indexes of its
//! blocks. The bound at least doubles whenever it grows, so that few writes change it.

use std::{ops::Bound, sync::Arc};

use futures_util::StreamExt;
use larder_store_api::{Bytes, Durability, Error, Kind, Listing, Order, Part, PayloadId, Result};
use tokio::sync::Mutex;

use super::{
    entries::{Change, Entries},
    row,
};

/// The store's own collection has no name; callers' collections always have one.
const NAME: &[u8] = b"";
/// A new payload has room for at least this many blocks.
const FIRST_EXTENT: u64 = 8;

/// The upper bounds of the indexes of each part's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extents {
    pub(crate) data: u64,
    pub(crate) outboard: u64,
}

impl Extents {
    /// Returns extents that contain `end` blocks of `part`.
    #[must_use]
    pub(crate) fn with(mut self, part: Part, end: u64) -> Self {
        let extent = match part {
            Part::Data => &mut self.data,
            Part::Outboard => &mut self.outboard,
        };
        if end > *extent {
            *extent = end.next_power_of_two().max(FIRST_EXTENT);
        }
        self
    }

    fn encode(self) -> Bytes {
        [self.data.to_le_bytes(), self.outboard.to_le_bytes()]
            .concat()
            .into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (data, rest) = bytes.split_first_chunk::<8>()?;
        let outboard: &[u8; 8] = rest.try_into().ok()?;
        Some(Self {
            data: u64::from_le_bytes(*data),
            outboard: u64::from_le_bytes(*outboard),
        })
    }
}

/// The directory of payloads.
#[derive(Debug)]
pub(crate) struct Directory {
    entries: Arc<Entries>,
    /// Allows one change at a time, so that no change is lost.
    changing: Mutex<()>,
}

impl Directory {
    pub(crate) fn new(entries: Arc<Entries>) -> Self {
        Self {
            entries,
            changing: Mutex::default(),
        }
    }

    /// Returns the extents of the payload's blocks; `None` if there is no such payload.
    pub(crate) async fn extents(
        &self,
        operation: &'static str,
        id: PayloadId,
    ) -> Result<Option<Extents>> {
        let found = self.entries.get(operation, NAME, &id.0).await?;
        let decode = |(_, value): (u64, Bytes)| {
            Extents::decode(&value).ok_or_else(|| {
                let message = "a payload's entry is damaged";
                Error::new(Kind::Corrupt, operation, message).with("payload", id)
            })
        };
        found.map(decode).transpose()
    }

    /// Grows the payload's extents to contain `wanted`.
    pub(crate) async fn extend(
        &self,
        operation: &'static str,
        id: PayloadId,
        wanted: impl Fn(Extents) -> Extents,
    ) -> Result<()> {
        let is_within = |found: Option<Extents>| found.filter(|found| wanted(*found) == *found);
        if is_within(self.extents(operation, id).await?).is_some() {
            return Ok(());
        }
        let _one = self.changing.lock().await;
        let found = self.extents(operation, id).await?;
        if is_within(found).is_some() {
            return Ok(());
        }
        let extents = wanted(found.unwrap_or_default());
        self.put(operation, id, Some(extents.encode())).await
    }

    /// Removes the payload, whose blocks are gone.
    pub(crate) async fn remove(&self, operation: &'static str, id: PayloadId) -> Result<()> {
        let _one = self.changing.lock().await;
        self.put(operation, id, None).await
    }

    async fn put(
        &self,
        operation: &'static str,
        id: PayloadId,
        value: Option<Bytes>,
    ) -> Result<()> {
        let change = Change {
            expect: Vec::new(),
            edits: vec![(row::entry_key(NAME, &id.0), value)],
        };
        // It becomes durable with the payload: its sync syncs entries too.
        let committed = self.entries.commit(operation, change, Durability::OnSync);
        committed.await.map(drop)
    }

    /// Lists the ids after `after`.
    pub(crate) fn list(
        &self,
        operation: &'static str,
        after: Option<PayloadId>,
    ) -> Listing<PayloadId> {
        let start = match after {
            Some(id) => Bound::Excluded(Bytes::copy_from_slice(&id.0)),
            None => Bound::Unbounded,
        };
        let bounds = (start, Bound::Unbounded);
        let keys = self.entries.keys(
            operation,
            Bytes::from_static(NAME),
            bounds,
            Order::Ascending,
        );
        Box::pin(keys.map(move |key| {
            let id = <[u8; 16]>::try_from(&key?[..])
                .map_err(|_| Error::new(Kind::Corrupt, operation, "a payload's id is damaged"))?;
            Ok(PayloadId(id))
        }))
    }
}
