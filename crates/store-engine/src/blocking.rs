//! The one way to work that blocks or takes long.

use larder_store_api::{Error, Kind, Result};

/// The most bytes that are hashed inline; beyond it, another thread hashes them.
pub(crate) const INLINE_HASH_LEN: usize = 64 * 1024;

/// Runs `work` on a thread that may block. It begins at once, and ends even if nobody waits for it.
/// In a simulation it is done here and now, and must not wait for anything.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Errors
/// [`Kind::Internal`] if `work` panics.
pub fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return futures_util::future::Either::Left(std::future::ready(Ok(work())));
    }
    let working = tokio::task::spawn_blocking(work);
    let done = async move {
        working.await.map_err(|error| {
            Error::new(
                Kind::Internal,
                operation,
                "a worker thread of the store failed",
            )
            .because(error)
        })
    };
    #[cfg(feature = "simulation")]
    let done = futures_util::future::Either::Right(done);
    done
}
