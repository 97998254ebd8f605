//! Backends that an app registers, and the keys of stores.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use async_trait::async_trait;
use larder::{
    Backend, Backends, Driver, Error, Kind, Result, Store, StoreBuilder, StoreUrl, Unlock,
    Unlocker,
    api::{BlobStore, CollectionStore, SecretKey, Secrets},
};
use larder_store_testkit::{
    MemorySecrets, MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, When},
};

/// Opens stores in memory whose URL is `app:NAME`.
#[derive(Debug, Clone)]
struct App {
    faults: Faults,
    closed: Arc<AtomicBool>,
}

impl App {
    fn new() -> Self {
        Self {
            faults: Faults::seeded(1),
            closed: Arc::default(),
        }
    }
}

#[derive(Debug)]
struct Open {
    store: Arc<FaultyStore<MemoryStore>>,
    closed: Arc<AtomicBool>,
}

#[async_trait]
impl Driver for App {
    fn schemes(&self) -> &[&str] {
        &["app"]
    }

    fn syntax(&self, scheme: &str) -> String {
        format!("{scheme}:NAME")
    }

    fn check(&self, url: &StoreUrl) -> Result<()> {
        match url.rest().is_empty() {
            true => Err(Error::new(
                Kind::Invalid,
                "app.url",
                "the name is missing: write app:NAME",
            )),
            false => Ok(()),
        }
    }

    async fn open(&self, _url: &StoreUrl) -> Result<Box<dyn Backend>> {
        let store = FaultyStore::new(MemoryStore::new(), self.faults.clone());
        Ok(Box::new(Open {
            store: Arc::new(store),
            closed: self.closed.clone(),
        }))
    }
}

#[async_trait]
impl Backend for Open {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.store.clone()
    }

    async fn secrets(&self, unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        unlock.unlock()?;
        Ok(Arc::new(MemorySecrets::new()))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn a_registered_backend_is_named_by_its_scheme() {
    let app = App::new();
    let error = Store::open("app:here").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    let builder = StoreBuilder::new("app:").backend(app.clone());
    let error = builder.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");

    let backends = Backends::none().with(app.clone());
    let builder = StoreBuilder::new("app:here").backends(backends.clone());
    let store = builder.clone().open().await.unwrap();
    let pin = store.blobs().add("a blob").await.unwrap();
    assert_eq!(
        store.blobs().read_to_bytes(pin.hash(), 2..6).await.unwrap(),
        "blob"
    );
    assert_eq!(store.disk_usage().await.unwrap(), None);
    store.reclaim_space().await.unwrap();
    store.close().await.unwrap();
    assert!(app.closed.load(Ordering::SeqCst));
    // It has no repair, and nothing else is known here.
    let error = builder.recover().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    let memory = StoreUrl::memory();
    assert_eq!(
        backends.check(&memory).unwrap_err().kind(),
        Kind::Unsupported
    );
    assert!(Backends::default().check(&memory).is_ok());
}

#[tokio::test]
async fn a_backend_that_cannot_be_used_is_closed() {
    let app = App::new();
    let everything = Fault::Error(Kind::Unavailable);
    for operation in [Operation::Get, Operation::Scan] {
        app.faults.inject(operation, When::Always, everything);
    }
    let builder = StoreBuilder::new("app:here").backend(app.clone());
    let error = builder.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(app.closed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn keys_are_unlocked_once_and_asked_for_again_only_after_a_failure() {
    let asked = Arc::new(AtomicU32::new(0));
    let ask = {
        let asked = asked.clone();
        move || match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::new(
                Kind::Denied,
                "app.ask",
                "the user closed the dialog",
            )),
            _ => Ok(Unlock::Key(SecretKey::from_bytes([7; 32]))),
        }
    };
    let builder = StoreBuilder::new("app:here").backend(App::new());
    let store = builder.unlock_with(ask).open().await.unwrap();
    store.blobs().add("blobs need no key").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(store.identity().await.unwrap_err().kind(), Kind::Denied);
    let first = store.identity().await.unwrap();
    let again = store.identity().await.unwrap();
    assert_eq!(first.expose(), again.expose());
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // Nobody said how.
    let builder = StoreBuilder::new("app:here").backend(App::new());
    let locked = builder.open().await.unwrap();
    assert_eq!(locked.secrets().await.unwrap_err().kind(), Kind::Denied);
}
