//! Implements [`CollectionStore`].

use async_stream::try_stream;
use async_trait::async_trait;
use larder_store_api::{
    Batch, Bytes, Change, CollectionCapabilities, CollectionId, CollectionStore, Durability, Edit,
    Entry, Expect, Listing, Result, Revision, Scan, Sharing,
};

use super::{
    VeilidStore,
    entries::{self, Expected},
    row,
};

/// The longest key.
const MAX_KEY_LEN: u32 = 1024;
/// The longest value.
const MAX_VALUE_LEN: u32 = 256 << 10;
/// The most expectations and edits in a batch.
const MAX_BATCH_LEN: u32 = 1024;

#[async_trait]
impl CollectionStore for VeilidStore {
    fn name(&self) -> &str {
        "veilid"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut facts = CollectionCapabilities::least();
        facts.max_key_len = MAX_KEY_LEN;
        facts.max_value_len = MAX_VALUE_LEN;
        facts.max_batch_len = MAX_BATCH_LEN;
        facts.durability = Durability::OnWrite;
        // A node belongs to one process.
        facts.sharing = Sharing::Exclusive;
        facts
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        const OPERATION: &str = "collection.get";
        let found = self.entries.get(OPERATION, collection.as_bytes(), &key);
        Ok(found.await?.map(|(revision, value)| Entry {
            key,
            value,
            revision: Revision(revision),
        }))
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let name = Bytes::copy_from_slice(scan.collection.as_bytes());
        self.entries
            .scan("collection.scan", name, scan.keys, scan.order)
    }

    fn collections(&self) -> Listing<CollectionId> {
        let store = self.clone();
        Box::pin(try_stream! {
            let mut after = Bytes::new();
            loop {
                store.check_open("collection.list")?;
                let Some(name) = store.entries.order().next_collection(&after) else {
                    break;
                };
                after = name.clone();
                yield CollectionId::new(name)?;
            }
        })
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        const OPERATION: &str = "collection.commit";
        self.check_open(OPERATION)?;
        CollectionStore::capabilities(self).check(&batch)?;
        let row =
            |collection: &CollectionId, key: &Bytes| row::entry_key(collection.as_bytes(), key);
        let expect = batch.expect.iter().map(|expect| match expect {
            Expect::Absent { collection, key } => (row(collection, key), Expected::Absent),
            Expect::At {
                collection,
                key,
                revision,
            } => (row(collection, key), Expected::At(revision.0)),
        });
        let change = entries::Change {
            expect: expect.collect(),
            edits: batch
                .edits
                .into_iter()
                .map(|edit| match edit {
                    Edit::Put {
                        collection,
                        key,
                        value,
                    } => (row(&collection, &key), Some(value)),
                    Edit::Delete { collection, key } => (row(&collection, &key), None),
                })
                .collect(),
        };
        let committed = self.entries.commit(OPERATION, change, batch.durability);
        Ok(Revision(committed.await?))
    }

    fn watch(&self) -> Option<Listing<Change>> {
        None
    }

    async fn sync(&self) -> Result<()> {
        self.entries.sync("collection.sync").await
    }
}
