//! Blobs and collections in two tables of a node.

mod blobs;
mod collections;
mod directory;
mod entries;
mod order;
mod repair;
mod row;
mod table;

use std::sync::{Arc, atomic::AtomicBool};

use larder_store_api::{Error, Kind, Result};
use larder_veilid_node::Node;

use directory::Directory;
use entries::Entries;
use table::Table;

/// The longest namespace, in bytes.
pub const MAX_NAMESPACE_LEN: usize = 32;

/// The columns of each table: one for the head, one for the other rows.
const COLUMNS: u32 = 2;

pub use repair::Repaired;

/// The number of bytes that a store's files use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// The bytes of the table of entries: collections, and the directory of payloads.
    pub entries: u64,
    /// The bytes of the table of payloads' blocks.
    pub blocks: u64,
}

/// An app's blobs and collections, in the table store of its Veilid node.
///
/// Clones are handles to the same store. Everything is encrypted under the node's device key. The store
/// needs no network: the node need not be attached.
#[derive(Debug, Clone)]
pub struct VeilidStore {
    node: Node,
    entries: Arc<Entries>,
    directory: Arc<Directory>,
    blocks: Arc<Table>,
    closed: Arc<AtomicBool>,
}

impl VeilidStore {
    /// Opens the store called `namespace` of a node, or creates it. The name has up to
    /// [`MAX_NAMESPACE_LEN`] letters, digits, `_` and `-`, and may be empty; stores with other names in
    /// the same node are independent.
    ///
    /// Reads the keys of all entries, which takes about a second for each 300,000 of them.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the store is open already, here or elsewhere; [`Kind::Unsupported`] if
    /// a newer version wrote it; [`Kind::Corrupt`] if entries are missing; and [`Kind::Closed`] if the
    /// node was shut down.
    pub async fn open(node: Node, namespace: &str) -> Result<Self> {
        const OPERATION: &str = "store.open";
        let names = names(namespace)?;
        let opening = node.clone();
        let open = async move {
            let entries = Table::open(&opening, &names.entries, COLUMNS).await?;
            let blocks = Table::open(&opening, &names.blocks, COLUMNS).await?;
            let entries = Arc::new(Entries::open(opening.clone(), entries).await?);
            Ok(Self {
                node: opening,
                directory: Arc::new(Directory::new(Arc::clone(&entries))),
                entries,
                blocks,
                closed: Arc::default(),
            })
        };
        node.finish(OPERATION, open).await
    }

    /// Repairs a store that [`open`](Self::open) refuses because entries are missing, or that returns
    /// [`Kind::Corrupt`]. Nobody may have it open. Everything that can still be read is kept, the rest
    /// is lost.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open).
    pub async fn repair(node: Node, namespace: &str) -> Result<Repaired> {
        const OPERATION: &str = "store.repair";
        let names = names(namespace)?;
        let repairing = node.clone();
        let repair = async move { repair::repair(&repairing, &names.entries).await };
        node.finish(OPERATION, repair).await
    }

    /// Completes pending work, makes everything durable, and closes the store; the node keeps running.
    ///
    /// # Errors
    /// An error if it is unknown whether everything is durable.
    pub async fn close(&self) -> Result<()> {
        const OPERATION: &str = "store.close";
        self.closed.store(true, std::sync::atomic::Ordering::SeqCst);
        let entries = self.entries.sync(OPERATION).await;
        self.entries.close().await;
        let blocks = self.blocks.sync(OPERATION).await;
        self.entries.release();
        self.blocks.release();
        match entries.and(blocks) {
            Err(error) if error.kind() == Kind::Closed => Ok(()),
            result => result,
        }
    }

    /// Returns the store's node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the number of bytes that the store's files use.
    ///
    /// # Errors
    /// An error if the files cannot be inspected.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        Ok(DiskUsage {
            entries: self.entries.table().disk_usage().await?,
            blocks: self.blocks.disk_usage().await?,
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        match self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(entries::closed(operation)),
            false => Ok(()),
        }
    }
}

/// The names of a store's tables.
struct Names {
    entries: String,
    blocks: String,
}

fn names(namespace: &str) -> Result<Names> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if namespace.len() > MAX_NAMESPACE_LEN || !namespace.chars().all(is_allowed) {
        let message = "a namespace has at most 32 letters, digits, _ and -";
        return Err(Error::new(Kind::Invalid, "store.open", message)
            .with("namespace", namespace.escape_debug()));
    }
    Ok(Names {
        entries: format!("larder_{namespace}_entries"),
        blocks: format!("larder_{namespace}_blocks"),
    })
}
