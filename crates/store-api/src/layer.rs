//! Stores that wrap stores.

use std::sync::Arc;

use crate::{BlobStore, CollectionStore, RecordStore};

/// Wraps stores in others: sealing, metering, retry, cache, fault injection.
///
/// The only trait here with default methods: each is the identity, so that a layer names just what
/// it changes.
///
/// ```
/// use std::sync::Arc;
/// use larder_store_api::{BlobStore, Layer};
///
/// struct Nothing;
/// impl Layer for Nothing {}
/// fn wrap(blobs: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
///     Nothing.blobs(blobs)
/// }
/// ```
pub trait Layer {
    /// Wraps a blob store.
    fn blobs(&self, inner: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        inner
    }

    /// Wraps a collection store.
    fn collections(&self, inner: Arc<dyn CollectionStore>) -> Arc<dyn CollectionStore> {
        inner
    }

    /// Wraps a record store.
    fn records(&self, inner: Arc<dyn RecordStore>) -> Arc<dyn RecordStore> {
        inner
    }
}
