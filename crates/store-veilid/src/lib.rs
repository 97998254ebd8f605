//! Larder's backend for phones: an app's Veilid node stores its blobs, collections, secrets and
//! records.
//!
//! ```no_run
//! # async fn run() -> larder_store_api::Result<()> {
//! use larder_store_veilid::VeilidStore;
//! use larder_veilid_node::{Node, NodeConfig, Protection};
//!
//! let node = Node::start(NodeConfig::new("/data/app", Protection::Keychain)).await?;
//! let store = VeilidStore::open(node.clone(), "photos").await?; // blobs and collections
//! store.close().await?;
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Durability
//!
//! A node's tables are stored in SQLite in WAL mode, which does not sync a commit: it survives the end
//! of the process, but not a loss of power. This store syncs the WAL itself before it answers, so that
//! acknowledged data survives both.

pub mod records;
mod secrets;
mod tables;

pub use records::VeilidRecords;
pub use secrets::VeilidSecrets;
pub use tables::{DiskUsage, MAX_NAMESPACE_LEN, Repaired, VeilidStore};
