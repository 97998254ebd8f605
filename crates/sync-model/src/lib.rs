//! The bytes of private groups: names, keys, sealed data, records, invites and trees, without a network and
//! without a runtime.
//!
//! Whoever holds the right keys makes and reads all of it from bytes alone. [`tree`], and opening a
//! sealed file, also read and write the blobs that they are made of, in a `store-engine`; its `blocking`
//! seals long files on other threads.
//!
//! * [`ids`] has the names of groups and repos, [`root`] those of trees.
//! * [`keys`] derives what each member may do from a group's secret.
//! * [`seal`] makes values, pages and files unreadable to others.
//! * [`tree`] keeps names of files in pages, so that cost follows the change.
//! * [`records`] has what the slots of a group's and a repo's record hold.
//! * [`invite`] is how somebody joins.
//! * [`membership`] is how members come and go.

pub mod codec;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod membership;
pub mod records;
pub mod root;
pub mod seal;
pub mod tree;
