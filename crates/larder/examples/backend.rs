//! A whole backend: two ordered maps behind locks, and a driver that opens it by the URL `maps:`. One that keeps
//! them on a disk or in a cloud implements the same traits and passes the same suites. The book goes through it.

// ANCHOR: maps
use std::{
    collections::BTreeMap,
    ops::{Range, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::stream;
use larder::{
    Backend, Driver, Error, Kind, Listing, MemorySecrets, Result, StoreBuilder, StoreUrl, Unlocker,
    api::*,
};

/// Two maps: blocks of payloads, and the entries of all collections.
#[derive(Debug, Default)]
struct Maps {
    blocks: Mutex<BTreeMap<(PayloadId, Part, u64), Bytes>>,
    /// With the number of the last commit.
    entries: Mutex<(u64, Entries)>,
}

type Entries = BTreeMap<(CollectionId, Bytes), Entry>;

/// Locks a map. Every change below is whole before the lock is released, also where a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
// ANCHOR_END: maps

// ANCHOR: blobs
#[async_trait]
impl BlobStore for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn capabilities(&self) -> BlobCapabilities {
        let mut facts = BlobCapabilities::least();
        facts.block_len = GROUP_LEN as u32;
        facts.max_part_len = 1 << 40;
        facts
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            let message = "the range ends before it starts";
            return Err(Error::new(Kind::Invalid, "blobs.read", message));
        }
        let blocks = lock(&self.blocks);
        let (mut bytes, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let from = at % GROUP_LEN;
            let until = GROUP_LEN.min(from.saturating_add(range.end - at));
            let block = blocks.get(&(id, part, at / GROUP_LEN));
            let piece = block.and_then(|block| block.get(from as usize..until as usize));
            bytes.extend_from_slice(piece.ok_or_else(|| {
                let message = "the payload has no such bytes";
                Error::new(Kind::NotFound, "blobs.read", message).with("payload", id)
            })?);
            at += until - from;
        }
        Ok(bytes.into())
    }

    async fn write(&self, id: PayloadId, new: Vec<Block>) -> Result<()> {
        BlobStore::capabilities(self).check(&new)?; // before anything is written
        let mut blocks = lock(&self.blocks);
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
        let mut ids: Vec<_> = lock(&self.blocks).keys().map(|(id, ..)| *id).collect();
        ids.dedup();
        ids.retain(|id| after.is_none_or(|after| *id > after));
        Box::pin(stream::iter(ids.into_iter().map(Ok)))
    }

    async fn sync(&self, _ids: Vec<PayloadId>) -> Result<()> {
        Ok(()) // nothing here survives the loss of power, as the capabilities say
    }
}
// ANCHOR_END: blobs

// ANCHOR: collections
#[async_trait]
impl CollectionStore for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        CollectionCapabilities::least()
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        Ok(lock(&self.entries).1.get(&(collection, key)).cloned())
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let entries = lock(&self.entries);
        let of_collection = entries.1.range((scan.collection.clone(), Bytes::new())..);
        let mut found: Vec<_> = of_collection
            .take_while(|((collection, _), _)| *collection == scan.collection)
            .filter(|((_, key), _)| scan.keys.contains(key))
            .map(|(_, entry)| Ok(entry.clone()))
            .collect();
        if scan.order == Order::Descending {
            found.reverse();
        }
        Box::pin(stream::iter(found))
    }

    fn collections(&self) -> Listing<CollectionId> {
        let entries = lock(&self.entries);
        let mut ids: Vec<_> = entries.1.keys().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        Box::pin(stream::iter(ids.into_iter().map(Ok)))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        CollectionStore::capabilities(self).check(&batch)?;
        let mut guard = lock(&self.entries);
        let (last, entries) = &mut *guard;
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
            let message = "an expectation does not hold";
            return Err(Error::new(Kind::Conflict, "collection.commit", message));
        }
        *last += 1;
        let revision = Revision(*last);
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
        None // the engine then announces its own commits
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}
// ANCHOR_END: collections

// ANCHOR: driver
/// Opens stores whose URL is `maps:`.
#[derive(Debug)]
struct MapsDriver;

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

/// An open store.
#[derive(Debug, Default)]
struct OpenMaps {
    maps: Arc<Maps>,
    secrets: Arc<MemorySecrets>,
}

#[async_trait]
impl Backend for OpenMaps {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.maps.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.maps.clone()
    }

    // A backend that lasts keeps keys encrypted under `unlock`: `larder::FileSecrets` does.
    async fn secrets(&self, _unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        Ok(self.secrets.clone())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
// ANCHOR_END: driver

// ANCHOR: main
#[tokio::main]
async fn main() -> Result<()> {
    let builder = StoreBuilder::new("maps:").backend(MapsDriver);
    let store = builder.open().await?;
    let pin = store.blobs().add(vec![7; 1_000_000]).await?;
    let end = 999_990..u64::MAX;
    let bytes = store.blobs().read_to_bytes(pin.hash(), end).await?;
    assert_eq!(bytes, [7; 10].as_slice());
    store.close().await
}
// ANCHOR_END: main

// ANCHOR: tests
/// The suites, case by case: `cargo test -p larder --examples`.
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
// ANCHOR_END: tests
