//! An encrypted file of secrets, for systems without a keychain.

mod file;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod private;
mod unlock;

pub use self::{file::FileSecrets, unlock::Unlock};
