//! Stores to test against.

mod memory;

pub use memory::MemoryStore;
