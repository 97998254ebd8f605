//! Suites, models and faulty stores that show whether a backend keeps the contracts of `store-api`.
//!
//! [`MemoryStore`] is the reference: the smallest store that keeps every contract.

pub mod stores;
#[cfg(feature = "suite")]
pub mod suite;

#[doc(hidden)]
pub use store_api;
pub use stores::MemoryStore;
