//! Suites, models and faulty stores that check whether a backend keeps the contracts of `store-api`.
//!
//! The author of a backend adds this crate as a dev-dependency and writes a `tests/conformance.rs` that
//! makes a fresh store, closes it and opens it again:
//!
//! ```no_run
//! use larder_store_testkit::suite::Subject;
//! # use larder_store_testkit::MemoryStore as MyStore;
//! # struct Folder;
//! # impl Folder { fn new() -> larder_store_api::Result<Self> { Ok(Self) } fn path(&self) -> String { String::new() } }
//! # async fn open(_: String) -> larder_store_api::Result<MyStore> { Ok(MyStore::new()) }
//! # async fn close(_: std::sync::Arc<MyStore>) -> larder_store_api::Result<()> { Ok(()) }
//!
//! async fn subject() -> larder_store_api::Result<Subject<MyStore>> {
//!     let folder = Folder::new()?;
//!     let path = folder.path();
//!     let subject = Subject::new(open(path.clone()).await?);
//!     Ok(subject.opening(move || open(path.clone())).closing(close).keeping(folder))
//! }
//!
//! mod blobs { larder_store_testkit::blob_store_suite!(super::subject); }
//! mod collections { larder_store_testkit::collection_store_suite!(super::subject, lacks: [Watch = "sees no changes"]); }
//! larder_store_testkit::model_suite!(blobs: subject, collections: subject);
//! ```
//!
//! Each case is a `#[test]` of its own, so that a case that is added here becomes a test of every
//! backend. A case that needs a capability that the backend lacks shows as ignored, with the reason
//! given. Claiming to lack a capability that is there, or not naming one that is lacking, fails.
//! [`record_store_suite!`] does the same for records, which most backends get from the engine.
//!
//! * [`suite`] has the cases, and [`run_all`](suite::run_all) to run them from a program.
//! * [`model`] drives a store and a map side by side, with the same random steps.
//! * [`MemoryStore`] is the reference: the smallest store that keeps every contract. It comes from
//!   `store-memory`, as does [`MemorySecrets`].
//! * [`cancel`] drops a call at every one of its awaits.
//! * [`stores`] has stores that are hard to build on: [`StrictStore`](stores::StrictStore) finds wrong
//!   assumptions, [`FaultyStore`](stores::FaultyStore) fails on demand,
//!   [`LateStore`](stores::LateStore) finishes the work of a dropped call,
//!   [`GatedStore`](stores::GatedStore) suspends or kills one of several processes that share a store,
//!   [`PowerStore`](stores::PowerStore) loses power, and [`BrokenStore`](stores::BrokenStore) has
//!   deliberate defects that the suites must find.

pub mod cancel;
pub mod model;
pub mod stores;
pub mod suite;

#[doc(hidden)]
pub use larder_store_api;
pub use larder_store_memory::{MemorySecrets, MemoryStore};
