//! A backend in about a hundred lines: two ordered maps behind locks. One that keeps them on a disk
//! or in a cloud has the same two traits to implement, and the same suites to pass.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::stream;
use larder::{
    Backend, Driver, Error, Kind, Listing, Result, StoreBuilder, StoreUrl, Unlocker, api::*,
};
use larder_store_memory::MemorySecrets;

const MAX_PART_LEN: u64 = 1 << 40;
const MAX_KEY_LEN: usize = 1024;
const MAX_VALUE_LEN: usize = 1 << 20;
const MAX_BATCH_LEN: usize = 1024;

#[derive(Debug, Default)]
struct Maps {
    blocks: Mutex<BTreeMap<(PayloadId, Part, u64), Bytes>>,
    entries: Mutex<BTreeMap<(CollectionId, Bytes), Entry>>,
    revision: Mutex<u64>,
}

/// Every change below is whole before its lock is given back, also where a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl BlobStore for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn capabilities(&self) -> BlobCapabilities {
        {
            let mut facts = BlobCapabilities::least();
            facts.block_len = GROUP_LEN as u32;
            facts.max_part_len = MAX_PART_LEN;
            facts.durability = Durability::Memory;
            facts.concurrency = 32;
            facts
        }
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            return Err(Error::new(
                Kind::Invalid,
                "blobs.read",
                "the range ends first",
            ));
        }
        let absent = || {
            Error::new(
                Kind::NotFound,
                "blobs.read",
                "the payload has no such bytes",
            )
            .with("payload", id)
        };
        let blocks = lock(&self.blocks);
        let (mut bytes, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let block = blocks.get(&(id, part, at / GROUP_LEN)).ok_or_else(absent)?;
            let from = at % GROUP_LEN;
            let until = GROUP_LEN.min(from.saturating_add(range.end - at));
            let piece = block
                .get(from as usize..until as usize)
                .ok_or_else(absent)?;
            bytes.extend_from_slice(piece);
            at += until - from;
        }
        Ok(bytes.into())
    }

    async fn write(&self, id: PayloadId, new: Vec<Block>) -> Result<()> {
        let mut blocks = lock(&self.blocks);
        // All are checked before any is written.
        for Block { part, index, bytes } in &new {
            let (part, len) = (*part, bytes.len() as u64);
            let end = index.saturating_mul(GROUP_LEN).saturating_add(len);
            if end > MAX_PART_LEN {
                return Err(Error::new(
                    Kind::TooLarge,
                    "blobs.write",
                    "beyond the longest part",
                ));
            }
            let next = end.div_ceil(GROUP_LEN);
            let later = new
                .iter()
                .any(|other| other.part == part && other.index >= next)
                || blocks
                    .range((id, part, next)..=(id, part, u64::MAX))
                    .next()
                    .is_some();
            if len == 0 || (!len.is_multiple_of(GROUP_LEN) && later) {
                return Err(Error::new(
                    Kind::Invalid,
                    "blobs.write",
                    "a block is not whole",
                ));
            }
        }
        for Block { part, index, bytes } in new {
            for (index, piece) in (index..).zip(bytes.chunks(GROUP_LEN as usize)) {
                blocks.insert((id, part, index), Bytes::copy_from_slice(piece));
            }
        }
        Ok(())
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        lock(&self.blocks).retain(|(id, ..), _| !ids.contains(id));
        Ok(())
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        let blocks = lock(&self.blocks);
        let mut ids: Vec<_> = blocks.keys().map(|(id, ..)| *id).collect();
        ids.dedup();
        ids.retain(|id| after.is_none_or(|after| *id > after));
        Box::pin(stream::iter(ids.into_iter().map(Ok)))
    }

    async fn sync(&self, _ids: Vec<PayloadId>) -> Result<()> {
        Ok(()) // Nothing here survives the loss of power, as the capabilities say.
    }
}

#[async_trait]
impl CollectionStore for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut facts = CollectionCapabilities::least();
        facts.max_key_len = MAX_KEY_LEN as u32;
        facts.max_value_len = MAX_VALUE_LEN as u32;
        facts.max_batch_len = MAX_BATCH_LEN as u32;
        facts
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        Ok(lock(&self.entries).get(&(collection, key)).cloned())
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let entries = lock(&self.entries);
        let found = entries
            .range((scan.collection.clone(), Bytes::new())..)
            .take_while(|((collection, _), _)| *collection == scan.collection)
            .filter(|((_, key), _)| scan.keys.contains(key));
        let mut found: Vec<_> = found.map(|(_, entry)| Ok(entry.clone())).collect();
        if scan.order == Order::Descending {
            found.reverse();
        }
        Box::pin(stream::iter(found))
    }

    fn collections(&self) -> Listing<CollectionId> {
        let entries = lock(&self.entries);
        let mut ids: Vec<_> = entries
            .keys()
            .map(|(collection, _)| collection.clone())
            .collect();
        ids.dedup();
        Box::pin(stream::iter(ids.into_iter().map(Ok)))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let too_large =
            |(key, value): (&Bytes, usize)| key.len() > MAX_KEY_LEN || value > MAX_VALUE_LEN;
        let expected = batch.expect.iter().map(|expect| match expect {
            Expect::Absent { key, .. } | Expect::At { key, .. } => (key, 0),
        });
        let edited = batch.edits.iter().map(|edit| match edit {
            Edit::Put { key, value, .. } => (key, value.len()),
            Edit::Delete { key, .. } => (key, 0),
        });
        if batch.expect.len() + batch.edits.len() > MAX_BATCH_LEN
            || expected.chain(edited).any(too_large)
        {
            return Err(Error::new(
                Kind::TooLarge,
                "collection.commit",
                "the batch is over a limit; split it",
            ));
        }
        let (mut entries, mut revision) = (lock(&self.entries), lock(&self.revision));
        let holds = |expect| match expect {
            Expect::Absent { collection, key } => !entries.contains_key(&(collection, key)),
            Expect::At {
                collection,
                key,
                revision,
            } => entries
                .get(&(collection, key))
                .is_some_and(|entry| entry.revision == revision),
        };
        if !batch.expect.into_iter().all(holds) {
            return Err(Error::new(
                Kind::Conflict,
                "collection.commit",
                "an expectation does not hold",
            ));
        }
        *revision += 1;
        let revision = Revision(*revision);
        for edit in batch.edits {
            match edit {
                Edit::Put {
                    collection,
                    key,
                    value,
                } => {
                    let entry = Entry {
                        key: key.clone(),
                        value,
                        revision,
                    };
                    entries.insert((collection, key), entry);
                }
                Edit::Delete { collection, key } => {
                    entries.remove(&(collection, key));
                }
            }
        }
        Ok(revision)
    }

    fn watch(&self) -> Option<Listing<Change>> {
        None // The engine announces its own commits then.
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Opens stores whose URL is `maps:`.
#[derive(Debug)]
struct MapsDriver;

/// An open one.
#[derive(Debug, Default)]
struct OpenMaps {
    maps: Arc<Maps>,
    secrets: Arc<MemorySecrets>,
}

#[async_trait]
impl Driver for MapsDriver {
    fn schemes(&self) -> &[&str] {
        &["maps"]
    }

    fn syntax(&self, scheme: &str) -> String {
        format!("{scheme}:")
    }

    fn check(&self, url: &StoreUrl) -> Result<()> {
        if url.rest().is_empty() {
            return Ok(());
        }
        let message = "these maps have no name: write maps:";
        Err(Error::new(Kind::Invalid, "store.url", message).with("url", url))
    }

    async fn open(&self, _url: &StoreUrl) -> Result<Box<dyn Backend>> {
        Ok(Box::new(OpenMaps::default()))
    }
}

#[async_trait]
impl Backend for OpenMaps {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.maps.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.maps.clone()
    }

    /// One that lasts keeps keys encrypted under `unlock`, as `larder::engine::FileSecrets` does.
    async fn secrets(&self, _unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        Ok(self.secrets.clone())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let store = StoreBuilder::new("maps:")
        .backend(MapsDriver)
        .open()
        .await?;
    let pin = store.blobs().add(vec![7; 1_000_000]).await?;
    let end = store
        .blobs()
        .read_to_bytes(pin.hash(), 999_990..u64::MAX)
        .await?;
    assert_eq!(end, [7; 10].as_slice());
    store.close().await
}

/// The suite of what a backend must keep, case by case: `cargo test -p larder --examples`.
#[cfg(test)]
mod tests {
    use larder_store_testkit::suite::Subject;

    async fn subject() -> larder::Result<Subject<super::Maps>> {
        Ok(Subject::new(super::Maps::default()))
    }

    mod blobs {
        larder_store_testkit::blob_store_suite!(
            super::subject,
            lacks: [Reopen = "it lives in memory", Close = "it has nothing to close"],
        );
    }

    mod collections {
        larder_store_testkit::collection_store_suite!(
            super::subject,
            lacks: [
                Reopen = "it lives in memory",
                Close = "it has nothing to close",
                Watch = "the engine announces instead",
            ],
        );
    }

    #[test]
    fn the_engine_works_over_it() {
        super::main().expect("every step works");
    }
}
