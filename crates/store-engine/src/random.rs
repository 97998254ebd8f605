//! The one source of what nobody may guess: keys and nonces.

use larder_store_api::{Error, Kind, Result};

/// Fills `bytes` with the operating system's randomness.
///
/// # Errors
/// [`Kind::Unavailable`] if it has none.
pub fn random(operation: &'static str, bytes: &mut [u8]) -> Result<()> {
    #[cfg(feature = "simulation")]
    if crate::simulation::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|error| {
        let message = "the operating system gives no randomness";
        Error::new(Kind::Unavailable, operation, message).because(error)
    })
}
