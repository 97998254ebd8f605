//! The one way to work that blocks or takes long.

use store_api::{Error, Kind, Result};

/// What is hashed inline; beyond it, another thread does it.
pub(crate) const INLINE_HASH_LEN: usize = 64 * 1024;

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(Kind::Internal, operation, "a worker failed").because(error))
}
