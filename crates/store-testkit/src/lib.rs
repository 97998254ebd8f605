//! Suites, models and faulty stores that show whether a backend keeps the contracts of `store-api`.
//!
//! The author of a backend adds this crate as a dev-dependency and, in `tests/conformance.rs`, says how to
//! make a fresh store, close it and open it again:
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
//! Each case is a `#[test]` of its own, so that a case that is added here is a test of every backend.
//! A case that needs what the backend lacks shows as ignored, with the reason given; lacking what is
//! there, or hiding what is not, fails. [`record_store_suite!`] is the same for records, which most
//! backends get from the engine.
//!
//! * [`suite`] has the cases, and [`run_all`](suite::run_all) to run them from a program.
//! * [`model`] drives a store and a map side by side, by the same random steps.
//! * [`MemoryStore`] is the reference: the smallest store that keeps every contract. It is
//!   `store-memory`'s, as is [`MemorySecrets`].
//! * [`cancel`] drops a call at every one of its awaits.
//! * [`stores`] has others that make life hard for what is built on stores:
//!   [`StrictStore`](stores::StrictStore) finds wrong assumptions, [`FaultyStore`](stores::FaultyStore)
//!   fails on demand, [`LateStore`](stores::LateStore) finishes what a dropped call began,
//!   [`GatedStore`](stores::GatedStore) sleeps, or is killed, beside others,
//!   [`PowerStore`](stores::PowerStore) loses power, and [`BrokenStore`](stores::BrokenStore) shows
//!   what the suites are worth.

pub mod cancel;
pub mod model;
pub mod stores;
pub mod suite;

#[doc(hidden)]
pub use larder_store_api;
pub use larder_store_memory::{MemorySecrets, MemoryStore};
