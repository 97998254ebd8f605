//! The secrets of a store, until it is closed.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use larder_store_api::{Error, Kind, Result, Secret, SecretName, Secrets};

/// Drops the inner keeper of the secrets when the store is closed, even if handles are left: a file of secrets
/// is open to one program at a time, and the store may be opened again.
pub(crate) struct UntilClosed {
    name: String,
    inner: Mutex<Option<Arc<dyn Secrets>>>,
}

impl UntilClosed {
    pub(crate) fn new(inner: Arc<dyn Secrets>) -> Self {
        Self {
            name: inner.name().to_owned(),
            inner: Mutex::new(Some(inner)),
        }
    }

    /// Later calls are [`Kind::Closed`].
    pub(crate) fn close(&self) {
        drop(self.lock().take());
    }

    fn inner(&self, operation: &'static str) -> Result<Arc<dyn Secrets>> {
        let closed = || {
            Error::new(
                Kind::Closed,
                operation,
                "the store of these secrets was closed",
            )
        };
        self.lock().clone().ok_or_else(closed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Secrets>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for UntilClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UntilClosed").field(&self.name).finish()
    }
}

#[async_trait]
impl Secrets for UntilClosed {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(&self, name: SecretName) -> Result<Option<Secret>> {
        self.inner("secrets.get")?.get(name).await
    }

    async fn put(&self, name: SecretName, secret: Secret) -> Result<()> {
        self.inner("secrets.put")?.put(name, secret).await
    }

    async fn delete(&self, name: SecretName) -> Result<()> {
        self.inner("secrets.delete")?.delete(name).await
    }

    async fn list(&self) -> Result<Vec<SecretName>> {
        self.inner("secrets.list")?.list().await
    }
}
