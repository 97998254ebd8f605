//! Owns a Veilid node: starts it, passes its updates to all listeners, and shuts it down in order.
//!
//! ```no_run
//! # async fn run() -> larder_store_api::Result<()> {
//! use std::time::Duration;
//! use larder_veilid_node::{Node, NodeConfig, Protection};
//!
//! let node = Node::start(NodeConfig::new("/data/app", Protection::Keychain)).await?;
//! node.attach(Duration::from_secs(60)).await?; // only what needs the network needs this
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! An app that runs a Veilid node itself keeps doing so: it passes each update to [`Updates::send`] in
//! its callback, and its `VeilidAPI` to [`Node::adopt`].

mod config;
mod error;
mod node;
mod updates;

pub use config::{Bootstrap, NodeConfig, Protection};
pub use error::api_error;
pub use node::Node;
pub use updates::{Event, Subscription, Updates};
pub use veilid_core;
