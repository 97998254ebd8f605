//! The backend for servers and desktops: collections in an append-only log that redb indexes, and
//! payloads as plain files.
//!
//! ```text
//! DIR/FORMAT            name and version of the format
//! DIR/lock              who has the store open
//! DIR/log/00000001.log  the truth: all commits, in segments of 64 MiB
//! DIR/index.redb        where each key's record is; made again from the log where it is damaged
//! DIR/payload/…         one file per part of a payload
//! DIR/reserve           2 MiB that say nothing, for a full disk
//! ```
//!
//! Callers that commit at the same time share one write and one sync. Entries that the index lacks are kept
//! in memory and are found again in the log after a crash. `docs/design/0001-log-before-index.md` has the
//! format, what was measured, and what happens when something fails.
//!
//! A folder that cannot be written, because of its rights or because its disk is mounted read-only, can still
//! be read: see [`RedbStore::open`]. On a full disk the store gives up its reserve to be opened, and for commits
//! that delete; it takes it again when there is room.
//!
//! ```no_run
//! # async fn example() -> larder_store_api::Result<()> {
//! use larder_store_api::{Batch, CollectionId, CollectionStore, Edit};
//! use larder_store_redb::{Options, RedbStore};
//!
//! let store = RedbStore::open("data", Options::default()).await?;
//! let edit = Edit::Put {
//!     collection: CollectionId::from_static("names"),
//!     key: "ada".into(),
//!     value: "Lovelace".into(),
//! };
//! store.commit(Batch::of(vec![edit])).await?;
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

mod append;
mod apply;
mod blobs;
mod cache;
mod collections;
mod compact;
mod core;
mod disk;
mod error;
mod folder;
mod frame;
#[cfg(fuzzing)]
pub mod fuzz;
mod index;
mod item;
mod key;
mod log;
mod overlay;
mod pages;
mod payload;
mod read;
mod repair;
mod replay;
mod request;
mod reserve;
mod shadow;
mod silence;
mod stats;
mod store;
mod write;
mod writer;

pub use repair::Repaired;
pub use stats::Stats;
pub use store::{Options, RedbStore};
