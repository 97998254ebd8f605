//! The conformance suites: one per trait, one macro each, one `#[test]` per case.

pub mod blob;
pub mod collection;
mod macros;
pub mod record;
mod run;
mod secrets;
mod subject;
pub(crate) mod support;

pub(crate) use run::runtime;
pub use run::{Report, check_lacks, run_all, run_case};
pub use secrets::{check_secrets, check_secrets_kept};
pub use subject::{Erase, Fixture, Subject};

use futures_util::future::BoxFuture;

/// One case of a suite.
pub struct Case<T: ?Sized> {
    /// Its name, which is that of its function and of its `#[test]`.
    pub name: &'static str,
    /// The ability that a store must have for the case to run.
    pub need: Need,
    /// Runs it; panics where the store breaks its contract.
    pub run: fn(Fixture<T>) -> BoxFuture<'static, ()>,
}

/// An ability that a case needs and a backend may honestly lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing; such a case runs for every backend.
    Always,
    /// Data that is there after the store was opened again: a [`Subject`] with a way to open it.
    Reopen,
    /// A [`Subject`] with a way to close it.
    Close,
    /// A `watch` that is not `None`.
    Watch,
    /// Values that were signed elsewhere can be imported.
    Import,
    /// A record's slots share its room as they need it.
    SharedRoom,
}

impl Need {
    /// Each that a backend may lack.
    pub const ALL: [Need; 5] = [
        Need::Reopen,
        Need::Close,
        Need::Watch,
        Need::Import,
        Need::SharedRoom,
    ];

    /// Its name, as listed in a suite's `lacks`.
    pub const fn name(self) -> &'static str {
        match self {
            Need::Always => "Always",
            Need::Reopen => "Reopen",
            Need::Close => "Close",
            Need::Watch => "Watch",
            Need::Import => "Import",
            Need::SharedRoom => "SharedRoom",
        }
    }
}

/// A trait that has a suite: implemented for `dyn BlobStore`, `dyn CollectionStore` and
/// `dyn RecordStore`.
pub trait Suite: Send + Sync + 'static {
    /// All its cases.
    fn cases() -> &'static [Case<Self>];

    /// Returns the store's own claim to have what `need` names; `None` if only the [`Subject`] can
    /// tell.
    fn claims(&self, need: Need) -> Option<bool>;
}
