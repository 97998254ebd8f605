//! Secrets in the node's protected store: in the system's keychain, or as its
//! [`Protection`](larder_veilid_node::Protection) says.

use async_trait::async_trait;
use larder_store_api::{Error, Kind, Result, Secret, SecretName, Secrets};
use larder_veilid_node::{Node, api_error};

/// Distinguishes our secrets from those that the app stores there itself.
const PREFIX: &str = "larder/";

/// Secrets in a node's protected store.
///
/// The system's keychain determines how durable a change is when it returns. Not every keychain can
/// list its entries: [`list`](Secrets::list) is [`Kind::Unsupported`] there.
#[derive(Debug, Clone)]
pub struct VeilidSecrets(Node);

impl VeilidSecrets {
    /// Returns the secrets of this node.
    pub fn new(node: Node) -> Self {
        Self(node)
    }
}

fn key(name: &SecretName) -> String {
    format!("{PREFIX}{name}")
}

#[async_trait]
impl Secrets for VeilidSecrets {
    fn name(&self) -> &str {
        "veilid"
    }

    async fn get(&self, name: SecretName) -> Result<Option<Secret>> {
        const OPERATION: &str = "secrets.get";
        let load = async {
            let found = self.0.api().load_user_secret(key(&name)).await;
            found.map_err(|error| api_error(OPERATION, error).with("name", &name))
        };
        self.0
            .call(OPERATION, load)
            .await?
            .map(Secret::new)
            .transpose()
    }

    async fn put(&self, name: SecretName, secret: Secret) -> Result<()> {
        const OPERATION: &str = "secrets.put";
        let node = self.0.clone();
        let save = async move {
            let value = secret.expose().to_vec();
            let saved = node.api().save_user_secret(key(&name), value).await;
            saved
                .map(drop)
                .map_err(|error| api_error(OPERATION, error).with("name", &name))
        };
        self.0.finish(OPERATION, save).await
    }

    async fn delete(&self, name: SecretName) -> Result<()> {
        const OPERATION: &str = "secrets.delete";
        let node = self.0.clone();
        let remove = async move {
            let removed = node.api().remove_user_secret(key(&name)).await;
            removed
                .map(drop)
                .map_err(|error| api_error(OPERATION, error).with("name", &name))
        };
        self.0.finish(OPERATION, remove).await
    }

    async fn list(&self) -> Result<Vec<SecretName>> {
        const OPERATION: &str = "secrets.list";
        let list = async {
            self.0.api().list_user_secrets().await.map_err(|error| {
                if error.to_string().contains("does not support listing") {
                    let message = "this system's keychain cannot list its entries";
                    return Error::new(Kind::Unsupported, OPERATION, message).because(error);
                }
                api_error(OPERATION, error)
            })
        };
        let keys = self.0.call(OPERATION, list).await?;
        // Other names belong to the app.
        let ours = keys.iter().filter_map(|key| key.strip_prefix(PREFIX));
        let mut names = ours
            .map(SecretName::new)
            .collect::<Result<Vec<SecretName>>>()?;
        names.sort();
        Ok(names)
    }
}
