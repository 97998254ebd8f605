//! Records of nodes on Veilid's mock network, which is shared by the whole process.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use larder_store_api::Result;
use larder_store_testkit::MemoryStore;
use larder_store_veilid::VeilidRecords;
use larder_veilid_node::{Bootstrap, Node, NodeConfig, Protection};

/// Nodes of one process must have different names.
static NODES: AtomicU32 = AtomicU32::new(0);

/// Starts a node of its own, attaches it, and returns its records.
pub async fn records(dir: &Path) -> Result<VeilidRecords> {
    let mut config = NodeConfig::new(dir, Protection::InsecureFile);
    config.namespace = format!("n{}", NODES.fetch_add(1, Ordering::Relaxed));
    config.bootstrap = Bootstrap::Nobody;
    let node = Node::start(config).await?;
    node.attach(Duration::from_secs(10)).await?;
    VeilidRecords::new(node, Arc::new(MemoryStore::new()))
}
