//! Implements the traits for pointers to stores.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Batch, BlobCapabilities, BlobStore, Block, Change, CollectionCapabilities, CollectionId,
    CollectionStore, Entry, Freshness, Listing, Part, PayloadId, Put, PutRecord,
    RecordCapabilities, RecordDescriptor, RecordEvent, RecordId, RecordStore, Result, Revision,
    Scan, Secret, SecretName, Secrets, Slot, SlotSeq,
};

macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: BlobStore + ?Sized> BlobStore for $pointer<S> {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn capabilities(&self) -> BlobCapabilities {
                (**self).capabilities()
            }
            async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
                (**self).read(id, part, range).await
            }
            async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
                (**self).write(id, blocks).await
            }
            async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
                (**self).delete(ids).await
            }
            fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
                (**self).list(after)
            }
            async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
                (**self).sync(ids).await
            }
        }

        #[async_trait]
        impl<S: CollectionStore + ?Sized> CollectionStore for $pointer<S> {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn capabilities(&self) -> CollectionCapabilities {
                (**self).capabilities()
            }
            async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
                (**self).get(collection, key).await
            }
            fn scan(&self, scan: Scan) -> Listing<Entry> {
                (**self).scan(scan)
            }
            fn collections(&self) -> Listing<CollectionId> {
                (**self).collections()
            }
            async fn commit(&self, batch: Batch) -> Result<Revision> {
                (**self).commit(batch).await
            }
            fn watch(&self) -> Option<Listing<Change>> {
                (**self).watch()
            }
            async fn sync(&self) -> Result<()> {
                (**self).sync().await
            }
        }

        #[async_trait]
        impl<S: RecordStore + ?Sized> RecordStore for $pointer<S> {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn capabilities(&self) -> RecordCapabilities {
                (**self).capabilities()
            }
            async fn create(&self, record: RecordDescriptor) -> Result<RecordId> {
                (**self).create(record).await
            }
            async fn get(
                &self,
                id: RecordId,
                slot: Slot,
                fresh: Freshness,
            ) -> Result<Option<crate::Signed>> {
                (**self).get(id, slot, fresh).await
            }
            async fn put(&self, id: RecordId, slot: Slot, put: PutRecord) -> Result<Put> {
                (**self).put(id, slot, put).await
            }
            async fn inspect(
                &self,
                id: RecordId,
                slots: Range<Slot>,
                fresh: Freshness,
            ) -> Result<Vec<SlotSeq>> {
                (**self).inspect(id, slots, fresh).await
            }
            fn watch(&self, id: RecordId, slots: Range<Slot>) -> Option<Listing<RecordEvent>> {
                (**self).watch(id, slots)
            }
            async fn forget(&self, id: RecordId) -> Result<()> {
                (**self).forget(id).await
            }
        }

        #[async_trait]
        impl<S: Secrets + ?Sized> Secrets for $pointer<S> {
            fn name(&self) -> &str {
                (**self).name()
            }
            async fn get(&self, name: SecretName) -> Result<Option<Secret>> {
                (**self).get(name).await
            }
            async fn put(&self, name: SecretName, secret: Secret) -> Result<()> {
                (**self).put(name, secret).await
            }
            async fn delete(&self, name: SecretName) -> Result<()> {
                (**self).delete(name).await
            }
            async fn list(&self) -> Result<Vec<SecretName>> {
                (**self).list().await
            }
        }
    };
}

forward!(Arc);
forward!(Box);
