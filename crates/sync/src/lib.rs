//! Private groups: sealed files in repos, replicated between members over any network and store.

mod codec;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod groups;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod network;
pub mod records;
pub mod replicate;
pub mod root;
pub mod seal;
pub mod tree;
