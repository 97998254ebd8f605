//! A disk that can be full: counts the bytes that are written through it.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_store_api::{Block, CollectionId, Edit, Error, Kind, Part, PayloadId, Result};

use larder_store_memory::split;

#[derive(Default)]
pub(crate) struct Space {
    limit: Option<u64>,
    used: u64,
    blocks: BTreeMap<(PayloadId, Part, u64), u64>,
    entries: BTreeMap<(CollectionId, Bytes), u64>,
}

/// The part of a write for which there is space.
pub(super) struct Fitting {
    pub(super) blocks: Vec<Block>,
    pub(super) taken: Taken,
    pub(super) full: Option<Error>,
}

/// The lengths of the blocks after a running write.
pub(super) struct Taken(BTreeMap<(PayloadId, Part, u64), u64>);

/// The lengths of the entries after a running commit.
pub(super) struct Held(BTreeMap<(CollectionId, Bytes), u64>);

impl Space {
    pub(super) fn limit(&mut self, bytes: Option<u64>) {
        self.limit = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns the first blocks, as many as there is space for.
    pub(super) fn write(&self, id: PayloadId, blocks: Vec<Block>, block_len: u32) -> Fitting {
        let mut fitting = Vec::new();
        let mut taken = BTreeMap::new();
        let (mut before, mut after) = (0, 0);
        for (part, index, bytes) in split(&blocks, block_len) {
            let place = (id, part, index);
            let len = bytes.len() as u64;
            before += self.blocks.get(&place).copied().unwrap_or(0);
            after += len;
            if let Err(error) = self.check("blobs.write", before, after) {
                return Fitting {
                    blocks: fitting,
                    taken: Taken(taken),
                    full: Some(error),
                };
            }
            taken.insert(place, len);
            fitting.push(Block { part, index, bytes });
        }
        Fitting {
            blocks,
            taken: Taken(taken),
            full: None,
        }
    }

    /// Counts the changes of a write after it is done.
    pub(super) fn written(&mut self, taken: Taken) {
        for (place, len) in taken.0 {
            let old = self.blocks.insert(place, len);
            self.used = self.used - old.unwrap_or(0) + len;
        }
    }

    pub(super) fn delete(&mut self, ids: &[PayloadId]) {
        for id in ids {
            let all = (*id, Part::Data, 0)..=(*id, Part::Outboard, u64::MAX);
            let places: Vec<_> = self.blocks.range(all).map(|(place, _)| *place).collect();
            for place in places {
                self.used -= self.blocks.remove(&place).unwrap_or(0);
            }
        }
    }

    /// Checks that there is space for these edits.
    pub(super) fn commit(&self, edits: &[Edit]) -> Result<Held> {
        let mut held = BTreeMap::new();
        for edit in edits {
            let (collection, key, len) = match edit {
                Edit::Put {
                    collection,
                    key,
                    value,
                } => (collection, key, (key.len() + value.len()) as u64),
                Edit::Delete { collection, key } => (collection, key, 0),
            };
            held.insert((collection.clone(), key.clone()), len);
        }
        let old = |place| self.entries.get(place).copied().unwrap_or(0);
        let before = held.keys().map(old).sum();
        self.check("collection.commit", before, held.values().sum())?;
        Ok(Held(held))
    }

    /// Counts the changes of a commit after it is applied.
    pub(super) fn applied(&mut self, held: Held) {
        for (place, len) in held.0 {
            let old = match len {
                0 => self.entries.remove(&place),
                _ => self.entries.insert(place, len),
            };
            self.used = self.used - old.unwrap_or(0) + len;
        }
    }

    /// Checks that `new` bytes fit in the place of `old` ones; a change that does not grow always
    /// fits.
    fn check(&self, operation: &'static str, old: u64, new: u64) -> Result<()> {
        let after = self.used - old + new;
        match self.limit {
            Some(limit) if new > old && after > limit => {
                Err(
                    Error::new(Kind::Full, operation, "the store has no space for this")
                        .with("needed", after - limit)
                        .with("limit", limit),
                )
            }
            _ => Ok(()),
        }
    }
}
