//! The stores of devices, and access to all of their bytes.

use std::{
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use larder::{
    Kind, Store, StoreBuilder, StoreUrl, Unlock,
    api::{BlobStore, CollectionStore, Part, Scan, Secrets},
};
use larder_store_testkit::{MemorySecrets, MemoryStore, stores::StrictStore};
use tempfile::TempDir;
use tests::store::files;

/// The time for which a store may be in use after the process that had it open has crashed.
const LET_GO: Duration = Duration::from_secs(20);

/// The kind of store in which devices keep their data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Memory,
    Strict,
    Redb,
}

/// The data of a device after its process has ended.
pub enum Kept {
    Memory(MemoryStore, MemorySecrets),
    Strict(StrictStore, MemorySecrets),
    Redb(TempDir),
}

impl Kept {
    pub fn new(kind: StoreKind) -> Self {
        match kind {
            StoreKind::Memory => Self::Memory(MemoryStore::new(), MemorySecrets::new()),
            StoreKind::Strict => Self::Strict(StrictStore::new(), MemorySecrets::new()),
            StoreKind::Redb => Self::Redb(tempfile::tempdir().expect("a folder")),
        }
    }

    /// Opens the store, as a starting process does.
    pub async fn open(&self) -> (Store, Arc<dyn Secrets>) {
        match self {
            Self::Memory(store, secrets) => over(store.clone(), secrets.clone()).await,
            Self::Strict(store, secrets) => over(store.clone(), secrets.clone()).await,
            Self::Redb(folder) => {
                let url = StoreUrl::redb(folder.path().join("store"));
                let key = folder.path().join("key");
                let start = Instant::now();
                let store = loop {
                    let key = key.clone();
                    let builder = StoreBuilder::from_url(url.clone());
                    match builder
                        .unlock_with(move || Unlock::key_file(&key))
                        .open()
                        .await
                    {
                        // If it was not closed, running work still has it open.
                        Err(error) if error.kind() == Kind::Unavailable => {
                            assert!(start.elapsed() < LET_GO, "{error}");
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        store => break store.expect("the store opens"),
                    }
                };
                let secrets = store.secrets().await;
                (store, secrets.expect("the keys"))
            }
        }
    }

    /// Returns all that it contains, piece by piece: of a store on disk the files, of another one all
    /// payloads, keys and values. Payloads are read up to their first hole.
    pub async fn bytes(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Memory(store, _) => bytes_of(store).await,
            Self::Strict(store, _) => bytes_of(store).await,
            Self::Redb(folder) => {
                let files = files(&folder.path().join("store")).into_iter();
                files.filter_map(|path| read(&path)).collect()
            }
        }
    }

    /// Returns the violations that a strict store found.
    pub fn violations(&self) -> Vec<String> {
        match self {
            Self::Strict(store, _) => store.violations(),
            Self::Memory(..) | Self::Redb(_) => Vec::new(),
        }
    }
}

/// Reads a file, unless it was removed meanwhile.
fn read(path: &Path) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

async fn over<S>(store: S, secrets: impl Secrets) -> (Store, Arc<dyn Secrets>)
where
    S: BlobStore + CollectionStore,
{
    let shared = Arc::new(store);
    let secrets: Arc<dyn Secrets> = Arc::new(secrets);
    let store = Store::over(shared.clone(), shared, secrets.clone()).await;
    (store.expect("the store opens"), secrets)
}

async fn bytes_of<S: BlobStore + CollectionStore>(store: &S) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut ids = store.list(None);
    while let Some(id) = ids.try_next().await.expect("payloads") {
        for part in [Part::Data, Part::Outboard] {
            let (mut bytes, mut at) = (Vec::new(), 0);
            let mut step = u64::from(BlobStore::capabilities(store).block_len);
            while step > 0 {
                match store.read(id, part, at..at + step).await {
                    Ok(read) => {
                        bytes.extend_from_slice(&read);
                        at += step;
                    }
                    Err(error) if error.kind() == Kind::NotFound => step /= 2,
                    Err(error) => panic!("{error}"),
                }
            }
            all.push(bytes);
        }
    }
    let mut collections = store.collections();
    while let Some(id) = collections.try_next().await.expect("collections") {
        let mut entries = store.scan(Scan::all(id));
        while let Some(entry) = entries.try_next().await.expect("entries") {
            all.push(entry.key.to_vec());
            all.push(entry.value.to_vec());
        }
    }
    all
}
