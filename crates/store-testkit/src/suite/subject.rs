//! The subject of a suite: a store, what keeps it alive, and how to close it and open it again.

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use larder_store_api::{BlobStore, CollectionStore, RecordStore};

use super::{Need, Suite};

/// The time for which a case waits for a change that must come before it reports that none came.
const PATIENCE: Duration = Duration::from_secs(60);

type Outcome<T> = Result<T, String>;
type Opener<S> = Box<dyn Fn() -> BoxFuture<'static, Outcome<S>> + Send + Sync>;
type Closer<S> = Arc<dyn Fn(Arc<S>) -> BoxFuture<'static, Outcome<()>> + Send + Sync>;

/// A fresh store to run one case on.
///
/// ```
/// use larder_store_testkit::{MemoryStore, suite::Subject};
///
/// let subject = Subject::new(MemoryStore::new()).closing(|store| async move {
///     store.close();
///     larder_store_api::Result::<()>::Ok(())
/// });
/// ```
pub struct Subject<S> {
    store: S,
    open: Option<Opener<S>>,
    close: Option<Closer<S>>,
    patience: Duration,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl<S: Send + Sync + 'static> Subject<S> {
    /// Creates a subject from an empty store.
    pub fn new(store: S) -> Self {
        Self {
            store,
            open: None,
            close: None,
            patience: PATIENCE,
            kept: Vec::new(),
        }
    }

    /// Keeps `value`, such as a temporary folder, and drops it after the store.
    #[must_use]
    pub fn keeping(mut self, value: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(value));
        self
    }

    /// Sets how to open the same data again, after the store was closed and dropped. Every store that
    /// claims to be durable needs this.
    #[must_use]
    pub fn opening<F, E>(mut self, open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<S, E>> + Send + 'static,
        E: fmt::Debug,
    {
        self.open = Some(Box::new(move || {
            let opened = open();
            Box::pin(async move { opened.await.map_err(|error| format!("{error:?}")) })
        }));
        self
    }

    /// Sets how to close the store, as an app does when it exits.
    #[must_use]
    pub fn closing<F, E>(mut self, close: impl Fn(Arc<S>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Debug,
    {
        self.close = Some(Arc::new(move |store| {
            let closed = close(store);
            Box::pin(async move { closed.await.map_err(|error| format!("{error:?}")) })
        }));
        self
    }

    /// Sets how long to wait for a change that must come; the default is a minute. Shorten it only for
    /// a store that is known to be broken.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn erase<T>(self) -> Fixture<T>
    where
        T: Send + Sync + ?Sized + 'static,
        S: Erase<T>,
    {
        let close = self.close;
        let opened = Opened::new(self.store, close.clone());
        let open = self.open.map(|open| -> Opener<Opened<T>> {
            Box::new(move || {
                let opening = open();
                let close = close.clone();
                Box::pin(async move { Ok(Opened::new(opening.await?, close)) })
            })
        });
        Fixture {
            opened: Some(opened),
            open,
            patience: self.patience,
            kept: self.kept,
        }
    }
}

/// Converts a store to the trait that a suite tests.
pub trait Erase<T: ?Sized>: Send + Sync + Sized + 'static {
    /// Returns the same store as a trait object.
    fn erase(self: Arc<Self>) -> Arc<T>;
}

impl<S: BlobStore> Erase<dyn BlobStore> for S {
    fn erase(self: Arc<Self>) -> Arc<dyn BlobStore> {
        self
    }
}

impl<S: CollectionStore> Erase<dyn CollectionStore> for S {
    fn erase(self: Arc<Self>) -> Arc<dyn CollectionStore> {
        self
    }
}

impl<S: RecordStore> Erase<dyn RecordStore> for S {
    fn erase(self: Arc<Self>) -> Arc<dyn RecordStore> {
        self
    }
}

/// A [`Subject`] as a case sees it. A case panics if one of its steps fails.
pub struct Fixture<T: ?Sized> {
    /// `None` only while the store is reopened.
    opened: Option<Opened<T>>,
    open: Option<Opener<Opened<T>>>,
    patience: Duration,
    /// Dropped last.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

struct Opened<T: ?Sized> {
    store: Arc<T>,
    close: Option<Box<dyn FnOnce() -> BoxFuture<'static, Outcome<()>> + Send + Sync>>,
}

impl<T: ?Sized> Opened<T> {
    fn new<S: Erase<T>>(store: S, close: Option<Closer<S>>) -> Self {
        let store = Arc::new(store);
        Self {
            store: store.clone().erase(),
            close: close.map(|close| -> Box<dyn FnOnce() -> _ + Send + Sync> {
                Box::new(move || close(store))
            }),
        }
    }
}

impl<T: Suite + ?Sized> Fixture<T> {
    /// Returns the store.
    pub fn store(&self) -> &T {
        &self.opened().store
    }

    /// Returns a shared handle to the store, for tasks; they must end before it is reopened.
    pub fn shared(&self) -> Arc<T> {
        self.opened().store.clone()
    }

    /// Returns the time to wait for a change that must come.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Closes the store, which can still be called.
    pub async fn close(&mut self) {
        let opened = self.opened.as_mut().expect("reopening is over");
        let close = opened.close.take().expect("the subject can be closed");
        close().await.expect("the store closes");
    }

    /// Closes the store if it can be closed, drops it, and opens its data again.
    pub async fn reopen(&mut self) {
        let Opened { store, close } = self.opened.take().expect("reopening is over");
        if let Some(close) = close {
            close().await.expect("the store closes");
        }
        drop(store);
        let open = self.open.as_ref().expect("the subject can be opened again");
        self.opened = Some(open().await.expect("the store opens again"));
    }

    /// Opens the data of a store that was closed, beside the handles of it that still live. `None` if the subject
    /// cannot be opened again.
    pub async fn open_beside(&self) -> Option<Arc<T>> {
        let opened = self.open.as_ref()?().await;
        let opened = opened.expect("a closed store lets go of its data, although handles live");
        Some(opened.store)
    }

    /// Returns true if the subject has what `need` names. A store that claims durability must have a
    /// subject that can reopen it: an untested claim does not count as lacking.
    pub(crate) fn has(&self, need: Need) -> bool {
        let claimed = self.store().claims(need);
        match need {
            Need::Always => true,
            Need::Reopen => claimed.unwrap_or(self.open.is_some()),
            Need::Close => self.opened().close.is_some(),
            Need::Watch | Need::Import | Need::SharedRoom => claimed.unwrap_or(false),
        }
    }

    fn opened(&self) -> &Opened<T> {
        self.opened.as_ref().expect("reopening is over")
    }
}

impl<T: ?Sized> fmt::Debug for Fixture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}
