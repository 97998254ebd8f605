//! The backends that are built in.

mod foreign;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "veilid")]
mod veilid;
#[cfg(feature = "veilid")]
mod veilid_folder;

#[cfg(any(feature = "redb", feature = "veilid"))]
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(any(feature = "redb", feature = "veilid"))]
use store_api::{Error, Kind, Result};

pub(crate) use foreign::Foreign;

#[cfg(any(feature = "redb", feature = "veilid"))]
use crate::StoreUrl;
use crate::backend::Driver;

pub(crate) fn built_in() -> Vec<Arc<dyn Driver>> {
    vec![
        #[cfg(feature = "redb")]
        Arc::new(redb::Redb),
        #[cfg(feature = "veilid")]
        Arc::new(veilid::Veilid),
        Arc::new(memory::Memory),
    ]
}

/// The folder that a URL names.
#[cfg(any(feature = "redb", feature = "veilid"))]
fn folder(url: &StoreUrl) -> Result<PathBuf> {
    if url.rest().is_empty() {
        let scheme = url.scheme();
        let message = format!("the folder is missing: write {scheme}:DIR");
        return Err(Error::new(Kind::Invalid, "store.url", message).with("url", url));
    }
    Ok(url.rest().into())
}
