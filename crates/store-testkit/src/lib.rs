//! Suites, models and faulty stores that show whether a backend keeps the contracts of `store-api`.
//!
//! [`MemoryStore`] is the reference: the smallest store that keeps every contract.

pub mod stores;

pub use stores::MemoryStore;
