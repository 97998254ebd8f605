//! A Veilid node in a folder, for a store that has one of its own.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use larder_descriptors::Descriptors;
use larder_store_api::{Error, Kind, Result};
use larder_store_veilid::VeilidStore;
use larder_veilid_node::{Node, NodeConfig, Protection};

/// Names the node: a process runs one of each name, and the keychain knows the key by it. So it lies
/// in the folder, and moves with it.
const NAME_FILE: &str = "larder-node";
/// The number of random bytes in a name.
const NAME_LEN: usize = 8;

/// The number of descriptors that a node and its store need: about thirty for the databases of its
/// tables, and some for the rest of the process.
const DESCRIPTORS: u64 = 64;

/// Starts the node in `dir`, offline, and makes it if there is none.
pub(crate) async fn start(dir: &Path, protection: Protection) -> Result<Node> {
    Descriptors::of_process().check("store.open", DESCRIPTORS)?;
    let mut config = NodeConfig::new(dir, protection);
    config.namespace = name(dir)?;
    Node::start(config).await
}

/// Opens the store of the node in `dir`.
pub(crate) async fn open(dir: &Path, protection: Protection) -> Result<VeilidStore> {
    let node = start(dir, protection).await?;
    match VeilidStore::open(node.clone(), "").await {
        Ok(store) => Ok(store),
        Err(error) => {
            node.shutdown().await;
            Err(error)
        }
    }
}

fn name(dir: &Path) -> Result<String> {
    let path = dir.join(NAME_FILE);
    let fail = |error| Error::io("store.open", &path, error);
    match std::fs::read_to_string(&path) {
        Ok(name) if is_name(&name) => return Ok(name),
        Ok(_) => {
            let message = "the file that names the node is damaged; bring it back from a backup";
            return Err(
                Error::new(Kind::Corrupt, "store.open", message).with("path", path.display())
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    if let Ok(mut entries) = std::fs::read_dir(dir)
        && entries.next().is_some()
    {
        let message = "the folder has something else in it; name an empty folder, or a new one";
        return Err(Error::new(Kind::Invalid, "store.open", message).with("path", dir.display()));
    }
    let mut bytes = [0; NAME_LEN];
    getrandom::fill(&mut bytes).map_err(|error| fail(io::Error::other(error.to_string())))?;
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::create_dir_all(dir).map_err(fail)?;
    write_durably(dir, &path, &name).map_err(fail)?;
    Ok(name)
}

fn is_name(text: &str) -> bool {
    text.len() == 2 * NAME_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn write_durably(dir: &Path, path: &Path, name: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, name)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(dir)?.sync_all()
}
