//! A handle of one collection.

use bytes::Bytes;
use larder_store_api::{
    Change, CollectionId, Entry, IntoBytes, KeyRange, Listing, Result, Revision,
};

use super::{Collections, Swap};

/// One collection: an ordered map from key to small value. A cheap handle; its clones are the same collection.
///
/// A collection exists while it has entries, so that opening one makes nothing. A [`Batch`](larder_store_api::Batch)
/// changes several collections in one step.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder_store_api::Result<()> {
/// # let collections = larder_store_engine::Collections::new(std::sync::Arc::new(larder_store_testkit::MemoryStore::new()));
/// use futures_util::TryStreamExt;
///
/// let notes = collections.open("notes")?;
/// notes.put("milk", "2 litres").await?;
/// let note = notes.get("milk").await?.expect("it was just put");
/// assert_eq!(note.value, "2 litres");
/// let up_to_m: Vec<_> = notes.list(.."n").try_collect().await?;
/// assert_eq!(up_to_m, [note]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Collection {
    all: Collections,
    id: CollectionId,
}

impl Collection {
    pub(super) fn new(all: Collections, id: CollectionId) -> Self {
        Self { all, id }
    }

    /// Returns its name.
    pub fn id(&self) -> &CollectionId {
        &self.id
    }

    /// Returns the collections that it is one of.
    pub fn collections(&self) -> &Collections {
        &self.all
    }

    /// Returns the key's entry, as [`Collections::get`] does.
    pub async fn get(&self, key: impl IntoBytes) -> Result<Option<Entry>> {
        self.all.get(&self.id, key).await
    }

    /// Sets the key's value, as [`Collections::put`] does.
    pub async fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Result<Revision> {
        self.all.put(&self.id, key, value).await
    }

    /// Removes the key's entry, as [`Collections::delete`] does.
    pub async fn delete(&self, key: impl IntoBytes) -> Result<Revision> {
        self.all.delete(&self.id, key).await
    }

    /// Sets or removes the key's value if its entry is the expected one, as [`Collections::compare_and_swap`] does.
    pub async fn compare_and_swap(
        &self,
        key: impl IntoBytes,
        expected: Option<Revision>,
        value: Option<Bytes>,
    ) -> Result<Swap> {
        let all = &self.all;
        all.compare_and_swap(&self.id, key, expected, value).await
    }

    /// Lists the entries whose keys lie in `keys`, ascending; `..` is all of them.
    pub fn list(&self, keys: impl KeyRange) -> Listing<Entry> {
        self.all.scan_range(&self.id, keys)
    }

    /// Lists the entries whose keys begin with `prefix`, ascending.
    pub fn list_prefix(&self, prefix: impl IntoBytes) -> Listing<Entry> {
        self.all.scan_prefix(&self.id, prefix)
    }

    /// Tells of changes from now on, as [`Collections::watch`] does.
    pub fn watch(&self) -> Listing<Change> {
        self.all.watch_collection(&self.id)
    }
}
