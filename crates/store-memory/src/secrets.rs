//! In-memory secrets: gone when the last handle is dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use larder_store_api::{Result, Secret, SecretName, Secrets};

/// In-memory secrets. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySecrets(Arc<Mutex<BTreeMap<SecretName, Secret>>>);

impl MemorySecrets {
    /// Creates an empty keeper of secrets.
    pub fn new() -> Self {
        Self::default()
    }

    fn secrets(&self) -> MutexGuard<'_, BTreeMap<SecretName, Secret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Secrets for MemorySecrets {
    fn name(&self) -> &str {
        "memory"
    }

    async fn get(&self, name: SecretName) -> Result<Option<Secret>> {
        Ok(self.secrets().get(&name).cloned())
    }

    async fn put(&self, name: SecretName, secret: Secret) -> Result<()> {
        self.secrets().insert(name, secret);
        Ok(())
    }

    async fn delete(&self, name: SecretName) -> Result<()> {
        self.secrets().remove(&name);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SecretName>> {
        Ok(self.secrets().keys().cloned().collect())
    }
}
