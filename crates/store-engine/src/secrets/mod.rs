//! An encrypted file of secrets, for systems that have no keeper of their own.

mod file;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;

pub use file::{FileSecrets, Unlock};
