//! Steps below the contracts, for stores that simulate a loss of power: single raw blocks, and copies.

use bytes::Bytes;
use larder_store_api::{Edit, Part, PayloadId, Result};

use super::{Facts, Guarded, MemoryStore, Shared};

impl MemoryStore {
    /// Returns a block, whatever its length.
    pub fn block_now(&self, id: PayloadId, part: Part, index: u64) -> Result<Option<Bytes>> {
        self.0.blobs.read("blobs.read", |payloads| {
            let payload = payloads.get(&id);
            Ok(payload.and_then(|payload| payload.part(part).get(&index).cloned()))
        })
    }

    /// Sets a block without the checks of a write: a crash respects no rules.
    pub fn force(&self, id: PayloadId, part: Part, index: u64, bytes: Bytes) -> Result<()> {
        self.0.blobs.write("blobs.write", |payloads| {
            let blocks = payloads.entry(id).or_default().part_mut(part);
            blocks.insert(index, bytes);
            Ok(())
        })
    }

    /// Applies edits that are known to be valid.
    pub fn apply_now(&self, edits: Vec<Edit>) -> Result<()> {
        self.0
            .collections
            .write("collection.commit", |collections| {
                collections.apply(edits);
                Ok(())
            })
    }

    /// Returns an independent store with the same content, including revisions.
    pub fn copy(&self) -> Result<Self> {
        let facts: Facts = self.0.facts;
        let blobs = self
            .0
            .blobs
            .read("blobs.read", |payloads| Ok(payloads.clone()))?;
        let collections = self
            .0
            .collections
            .read("collection.scan", |c| Ok(c.copy()))?;
        Ok(Self(std::sync::Arc::new(Shared {
            facts,
            blobs: Guarded::new(blobs),
            collections: Guarded::new(collections),
        })))
    }
}
