//! Stores to test against.

#[cfg(feature = "suite")]
mod broken;
#[cfg(feature = "suite")]
mod faulty;
#[cfg(feature = "suite")]
mod late;
mod memory;
#[cfg(feature = "suite")]
mod power;
#[cfg(feature = "suite")]
mod strict;

#[cfg(feature = "suite")]
pub use broken::{BrokenStore, Defect};
#[cfg(feature = "suite")]
pub use faulty::{Fault, Faults, FaultyStore, Operation, When};
#[cfg(feature = "suite")]
pub use late::LateStore;
pub use memory::MemoryStore;
#[cfg(feature = "suite")]
pub use power::PowerStore;
#[cfg(feature = "suite")]
pub use strict::StrictStore;
