//! The backends that URLs can name, by scheme: those that are built in, and those that an app registers.

mod foreign;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "veilid")]
mod veilid;
#[cfg(feature = "veilid")]
mod veilid_folder;

use std::{path::PathBuf, sync::Arc};

use larder_store_api::{Error, Kind, Result};

pub(crate) use foreign::Foreign;

use crate::{StoreUrl, backend::Driver};

/// The backends that URLs can name, by scheme. The default has those that are built in.
#[derive(Debug, Clone)]
pub struct Backends(Vec<Arc<dyn Driver>>);

impl Default for Backends {
    fn default() -> Self {
        Self(built_in())
    }
}

impl Backends {
    /// No backend at all.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a backend, in place of another one with a scheme of its own.
    #[must_use]
    pub fn with(mut self, driver: impl Driver) -> Self {
        self.add(Arc::new(driver));
        self
    }

    pub(crate) fn add(&mut self, driver: Arc<dyn Driver>) {
        self.0.insert(0, driver);
    }

    /// Checks that a URL names a backend that is here, and is written as that one wants.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if no backend has its scheme; [`Kind::Invalid`] if it is written otherwise.
    pub fn check(&self, url: &StoreUrl) -> Result<()> {
        self.driver(url)?.check(url)
    }

    /// Returns the folder that a store lies in, or `None` if it lies in none or its scheme is not known.
    pub fn folder(&self, url: &StoreUrl) -> Option<PathBuf> {
        self.driver(url).ok()?.folder(url)
    }

    /// The backend of a URL.
    pub(crate) fn driver(&self, url: &StoreUrl) -> Result<&dyn Driver> {
        let found = self
            .0
            .iter()
            .find(|driver| driver.schemes().contains(&url.scheme()));
        if let Some(found) = found {
            return Ok(found.as_ref());
        }
        let known = self.0.iter();
        let known = known.flat_map(|driver| driver.schemes().iter().map(|s| driver.syntax(s)));
        let known: Vec<_> = known.collect();
        let message = format!(
            "there is no backend for {}: here; write one of {}",
            url.scheme(),
            known.join(", ")
        );
        Err(Error::new(Kind::Unsupported, "store.url", message).with("url", url))
    }
}

fn built_in() -> Vec<Arc<dyn Driver>> {
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
