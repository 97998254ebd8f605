//! Helpers for the tests that cross crates: seeded data, child processes, stores in folders, nodes on
//! the loopback, peak memory.

pub mod child;
pub mod data;
pub mod memory;
pub mod node;
pub mod store;
