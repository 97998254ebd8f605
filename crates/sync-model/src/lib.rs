//! The bytes of private groups: names, keys, sealed data, records, invites and trees, without a network and
//! without a runtime.
//!
//! With the right keys, all of it can be made and read from bytes alone. Only [`tree`], and opening a
//! sealed file, also read and write blobs in a `store-engine`; its `blocking` seals long files on other
//! threads.
//!
//! * [`ids`] has the ids of groups and repos, [`root`] the roots of trees.
//! * [`keys`] has the keys of one epoch, [`keyring`] those of all epochs that a device holds.
//! * [`seal`] encrypts values, pages and files.
//! * [`tree`] keeps names of files in pages, so that the cost of a change depends on its size.
//! * [`records`] has the contents of the slots of a group's and a repo's record.
//! * [`invite`] has the invites by which members join.
//! * [`membership`] has the operations by which members come and go.

pub mod codec;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod ids;
pub mod invite;
pub mod keyring;
pub mod keys;
pub mod membership;
pub mod records;
pub mod root;
pub mod seal;
pub mod tree;
