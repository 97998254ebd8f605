//! Larder's phone backend: an app's Veilid node keeps its blobs, collections, secrets and records.
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
//! # What is durable
//!
//! Below a node's tables is SQLite in WAL mode, which does not sync a commit: it survives the end of
//! the process, not the loss of power. This store syncs the WAL itself before it answers, so that
//! what is acknowledged survives both.

pub mod records;
mod secrets;
mod tables;

pub use records::VeilidRecords;
pub use secrets::VeilidSecrets;
pub use tables::{DiskUsage, MAX_NAMESPACE_LEN, Repaired, VeilidStore};
