//! Stores in nodes of their own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use larder_store_api::Result;
use larder_store_testkit::suite::Subject;
use larder_store_veilid::VeilidStore;
use larder_veilid_node::{Bootstrap, Node, NodeConfig, Protection};

/// Nodes of one process must have different names.
static NODES: AtomicU32 = AtomicU32::new(0);

/// Returns a name that no other node of this process has.
pub fn name() -> String {
    format!("n{}", NODES.fetch_add(1, Ordering::Relaxed))
}

/// Starts a node in `dir`, not attached. Opening it again needs the same name.
pub async fn node(dir: &Path, namespace: &str) -> Result<Node> {
    let mut config = NodeConfig::new(dir, Protection::InsecureFile);
    namespace.clone_into(&mut config.namespace);
    config.bootstrap = Bootstrap::Nobody;
    Node::start(config).await
}

/// Creates a store in a node of its own.
pub async fn subject() -> Result<Subject<VeilidStore>> {
    let dir = Arc::new(tempfile::tempdir().expect("a folder"));
    let namespace = name();
    let open = |dir: Arc<tempfile::TempDir>, namespace: String| async move {
        let node = node(dir.path(), &namespace).await?;
        VeilidStore::open(node, "").await
    };
    let store = open(Arc::clone(&dir), namespace.clone()).await?;
    let again = Arc::clone(&dir);
    Ok(Subject::new(store)
        .opening(move || open(Arc::clone(&again), namespace.clone()))
        .closing(|store| async move {
            store.close().await?;
            store.node().shutdown().await;
            Result::<()>::Ok(())
        })
        .keeping(dir))
}
