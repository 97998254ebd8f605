//! Private groups in a store and between members: sealed files in repos, replicated over any network.
//!
//! [`groups`] has the truth of this device, [`replicate`] exchanges it with other members. Both are made of
//! crates of their own, which are offered here too: the bytes of groups in `sync-model`, the interface of
//! networks in `net-api`.

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
#[path = "../../sync-model/src/golden.rs"]
mod golden;
pub mod groups;
pub mod replicate;

pub use larder_net_api as network;
use larder_sync_model::codec;
pub use larder_sync_model::{ids, invite, keyring, keys, membership, records, root, seal, tree};

/// Every address of a network fits into a route and into an invite.
const _: () = assert!(network::MAX_ADDRESS_LEN <= records::MAX_ADDRESS_LEN);
