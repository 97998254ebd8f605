//! The interface of a Larder backend: three small, object-safe traits, one [`Error`], and the types
//! that they share.
//!
//! * [`BlobStore`] keeps payloads, the bytes of blobs, in blocks.
//! * [`CollectionStore`] keeps named, ordered maps from key to small value.
//! * [`RecordStore`] keeps signed slots that others can find by key.
//!
//! Beside them, [`Secrets`] keeps a few keys.
//!
//! A backend never hashes, packs, signs or tags: that is the engine's work (`store-engine`), once,
//! for every backend. Implement the first two traits, run the suites of `store-testkit` over them,
//! and the engine gives you blobs, tags, garbage collection and records.
//!
//! Nothing here depends on an async runtime or on any storage library.
//!
//! # What every method has in common
//!
//! * **Absence is not failure.** `Ok(None)`, an empty listing or, if a method says so,
//!   [`Kind::NotFound`] mean absence. Any other error is failure, and is never turned into absence.
//! * **A stream ends at its first error**; a clean end means that it was complete.
//! * **Cancelling** (dropping the future) is always safe for the store. It is then unknown if the work was
//!   done, unless a method says more.
//! * After a store was closed, calls return [`Kind::Closed`].

mod blob;
mod collection;
mod convert;
mod error;
mod forward;
mod record;
mod secrets;

use std::pin::Pin;

pub use blob::{BlobCapabilities, BlobStore, Block, GROUP_LEN, Part, PayloadId};
pub use bytes::Bytes;
pub use collection::{
    Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Edit, Entry, Expect,
    IntoCollectionId, MAX_COLLECTION_ID_LEN, Order, Revision, Scan, Sharing,
};
pub use convert::{IntoBytes, KeyRange, positions};
pub use error::{Error, Kind, Result, is_out_of_descriptors};
pub use futures_core::Stream;
pub use record::{
    Freshness, ImportSupport, PublicKey, Put, PutRecord, RecordCapabilities, RecordDescriptor,
    RecordEvent, RecordId, RecordMember, RecordStore, Room, SecretKey, SeqExpect, Signed, Slot,
    SlotSeq,
};
pub use secrets::{MAX_SECRET_LEN, MAX_SECRET_NAME_LEN, Secret, SecretName, Secrets};

/// A stream of results. It ends at its first error, and a clean end means that it was complete.
pub type Listing<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// The time at which a write survives the loss of power, from weakest to strongest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Never: it lives in memory.
    Memory,
    /// Once a later `sync` has returned.
    OnSync,
    /// Once the write itself has returned.
    #[default]
    OnWrite,
}
