//! The configuration of a node.

use std::path::PathBuf;

use larder_store_api::{Error, Kind, Result};
use veilid_core::VeilidConfig;
use zeroize::Zeroizing;

/// The place of the key that encrypts everything the node has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// In the system's keychain. A system without one is refused.
    Keychain,
    /// In a plain file beside the data. It protects from nothing but a lost data folder without it,
    /// unless [`NodeConfig::password`] is set too.
    InsecureFile,
}

/// The way in which a node finds others for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// Veilid's public network.
    Public,
    /// These bootstrap records, as `0|0|PUBLIC_KEY|ADDRESS|U5150,T5150,W5150/ws`: a private network.
    Records(Vec<String>),
    /// Nobody: attaching finds only who finds us.
    Nobody,
}

/// The configuration with which a node is started.
#[derive(Clone)]
pub struct NodeConfig {
    /// The folder in which all lies that the node keeps. Made where it is missing.
    pub directory: PathBuf,
    /// The app's name: letters, digits, `_`. It must never change; it names the keychain's entries.
    pub program: String,
    /// Tells nodes of one app apart, on disk and in the keychain.
    pub namespace: String,
    /// The place of the device key; there is no default.
    pub protection: Protection,
    /// Encrypts the device key itself. Empty: it is kept as it is.
    pub password: Zeroizing<String>,
    /// The way in which the node finds others.
    pub bootstrap: Bootstrap,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("directory", &self.directory)
            .field("program", &self.program)
            .field("namespace", &self.namespace)
            .field("protection", &self.protection)
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

impl NodeConfig {
    /// A node of the program `larder` on the public network, without a password.
    pub fn new(directory: impl Into<PathBuf>, protection: Protection) -> Self {
        Self {
            directory: directory.into(),
            program: "larder".to_owned(),
            namespace: String::new(),
            protection,
            password: Zeroizing::default(),
            bootstrap: Bootstrap::Public,
        }
    }

    /// Returns the configuration as Veilid knows it, so that more can be set before
    /// [`Node::start_with`](crate::Node::start_with).
    ///
    /// Never erases what it cannot decrypt, whatever Veilid's default is.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the folder's path is not Unicode, which Veilid needs.
    pub fn to_veilid(&self) -> Result<VeilidConfig> {
        let Some(directory) = self.directory.to_str() else {
            let message = "Veilid needs a folder whose path is Unicode";
            return Err(Error::new(Kind::Invalid, "node.start", message)
                .with("path", self.directory.display()));
        };
        let mut config = VeilidConfig::new(
            &self.program,
            "larder",
            "org",
            Some(directory),
            Some(directory),
        );
        config.namespace.clone_from(&self.namespace);
        config.table_store.wipe_on_invalid_device_encryption_key = false;
        let insecure = self.protection == Protection::InsecureFile;
        config.protected_store.always_use_insecure_storage = insecure;
        config.protected_store.allow_insecure_fallback = insecure;
        config.protected_store.device_encryption_key_password = self.password.to_string();
        let routing = &mut config.network.routing_table;
        match &self.bootstrap {
            Bootstrap::Public => {}
            Bootstrap::Records(records) => {
                routing.bootstrap = Vec::new();
                routing.bootstrap_keys = Vec::new();
                routing.bootstrap_records.clone_from(records);
            }
            Bootstrap::Nobody => {
                routing.bootstrap = Vec::new();
                routing.bootstrap_keys = Vec::new();
                routing.bootstrap_records = Vec::new();
            }
        }
        Ok(config)
    }
}
