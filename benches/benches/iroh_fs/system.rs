//! The operations of a system under test.

use std::{ops::Range, path::Path};

use bytes::Bytes;

/// A blob's hash.
pub type Hash = [u8; 32];

/// A store on disk.
pub trait System: Clone + Send + Sync + Sized + 'static {
    /// Opens or creates the store in a folder.
    fn open(dir: &Path) -> impl Future<Output = Self> + Send;
    /// Adds a blob and tags it.
    fn add_tagged(&self, name: String, data: Bytes) -> impl Future<Output = Hash> + Send;
    /// Adds a blob of `len` bytes from a stream.
    fn add_stream(&self, len: u64) -> impl Future<Output = Hash> + Send;
    /// Returns all of a small blob.
    fn get(&self, hash: Hash) -> impl Future<Output = Bytes> + Send;
    /// Reads all of a blob through `AsyncRead`, and returns its length.
    fn read_all(&self, hash: Hash) -> impl Future<Output = u64> + Send;
    /// Reads a verified range, and returns its length.
    fn read_verified(&self, hash: Hash, range: Range<u64>) -> impl Future<Output = u64> + Send;
    /// Exports all of a blob, verified, and returns the number of bytes.
    fn export(&self, hash: Hash) -> impl Future<Output = u64> + Send;
    /// Closes the store.
    fn close(self) -> impl Future<Output = ()> + Send;
}
