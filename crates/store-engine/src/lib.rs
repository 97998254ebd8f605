//! The engine: what Larder makes of any three stores.
//!
//! [`Blobs`] keeps immutable bytes by their BLAKE3 hash over a
//! [`BlobStore`](larder_store_api::BlobStore) and a [`CollectionStore`](larder_store_api::CollectionStore):
//! hashed as they are written, verified as they are read, fetched in verified ranges and resumed,
//! kept by tags and pins, collected, scrubbed. [`Collections`] and [`Records`] give apps ordered
//! maps and signed slots over any collection store.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> larder_store_api::Result<()> {
//! use std::sync::Arc;
//! use larder_store_engine::Blobs;
//! use larder_store_testkit::MemoryStore;
//!
//! let store = Arc::new(MemoryStore::new());
//! let blobs = Blobs::open(store.clone(), store).await?;
//! let pin = blobs.add("hello").await?;
//! blobs.tags().set("greeting", &pin).await?;
//! assert_eq!(blobs.read_to_bytes(pin.hash(), 1..4).await?, "ell");
//! # Ok(())
//! # }
//! ```

mod blobs;
mod blocking;
mod collections;
pub mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod hash;
pub mod metrics;
mod random;
mod records;
mod secrets;
#[cfg(feature = "simulation")]
pub mod simulation;
mod to_end;

/// Ranges of chunks and the items of an encoding, in the types of `bao-tree`, as iroh-blobs has them.
pub use bao_tree::{
    ChunkNum, ChunkRanges, TreeNode,
    io::{Leaf, Parent},
};
pub use blobs::{
    AddOptions, BEAT, Bitfield, BlobStatus, Blobs, ByteStream, Collected, Encoded, Finding, Hashed,
    Import, IntoTagName, LEASE, MAX_READ_TO_BYTES, MAX_STAGED_BLOBS, MAX_STAGED_BYTES,
    MAX_TAG_NAME_LEN, Pin, Progress, RECORD_EVERY, RECORD_EVERY_BYTES, Reachable, Reader, Repair,
    Roots, Scrubbed, Source, Tag, TagName, Tags, Transaction, Trust,
};
pub use blocking::blocking;
pub use collections::{
    Collection, Collections, MAX_ANNOUNCED_COMMITS, MAX_ANNOUNCED_KEYS, RESERVED, Swap,
    WATCH_BACKLOG,
};
pub use hash::{Format, Hash, MAX_TREE_DEPTH, MAX_TREE_SEQUENCE_LEN, Root};
pub use random::random;
pub use records::{
    ID_CONTEXT, Intact, MAX_RECORD_LEN, MAX_SLOTS, MAX_VALUE_LEN, MAX_WRITERS, Records,
    SIGNATURE_CONTEXT, SlotState, format as record_format, generate_key, public_key, record_id,
    sign, verify,
};
pub use secrets::{FileSecrets, Unlock};
