//! Stores for tests.

mod broken;
mod faulty;
mod gate;
mod late;
mod power;
mod strict;

pub use broken::{BrokenStore, Defect};
pub use faulty::{Fault, Faults, FaultyStore, Operation, When};
pub use gate::{Gate, GatedStore};
pub use larder_store_memory::MemoryStore;
pub use late::LateStore;
pub use power::PowerStore;
pub use strict::StrictStore;
