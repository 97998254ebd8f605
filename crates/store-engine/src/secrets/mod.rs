//! Keepers of secrets for systems that have none of their own: memory, and an encrypted file.

mod file;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod memory;

pub use file::{FileSecrets, Unlock};
pub use memory::MemorySecrets;
