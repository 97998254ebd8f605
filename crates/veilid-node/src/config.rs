//! The configuration of a node.

use std::path::PathBuf;

use larder_store_api::{Error, Kind, Result};
use veilid_core::VeilidConfig;
use zeroize::Zeroizing;

/// The place of the key that encrypts all of the node's data on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The system's keychain. Starting fails on a system without one.
    Keychain,
    /// A plain file beside the data. It protects only if somebody gets the data folder without this
    /// file, unless [`NodeConfig::password`] is set too.
    InsecureFile,
}

/// How a node finds others for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// The bootstraps of Veilid's public network.
    Public,
    /// These bootstrap records, as `0|0|PUBLIC_KEY|ADDRESS|U5150,T5150,W5150/ws`: a private network.
    Records(Vec<String>),
    /// None: the node is only found by others.
    Nobody,
}

/// The configuration of a node.
#[derive(Clone)]
pub struct NodeConfig {
    /// The folder for all of the node's data. Created if it is missing.
    pub directory: PathBuf,
    /// The app's name: letters, digits and `_`. It must never change, because it names the keychain's
    /// entries.
    pub program: String,
    /// Distinguishes nodes of one app, on disk and in the keychain.
    pub namespace: String,
    /// The place of the device key; there is no default.
    pub protection: Protection,
    /// Encrypts the device key itself. If it is empty, the key is stored unencrypted.
    pub password: Zeroizing<String>,
    /// How the node finds others for the first time.
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
    /// Returns a configuration of the program `larder` on the public network, without a password.
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

    /// Returns the configuration in Veilid's type, so that more can be set before
    /// [`Node::start_with`](crate::Node::start_with).
    ///
    /// Makes Veilid keep data that it cannot decrypt, whatever Veilid's default is.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the folder's path is not Unicode, which Veilid requires.
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
