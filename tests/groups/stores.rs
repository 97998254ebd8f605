//! What the stores of devices are made of, and all of their bytes.

use std::{io::ErrorKind, path::Path, sync::Arc};

use futures_util::TryStreamExt;
use larder::{
    Kind, Store, Unlock,
    api::{BlobStore, CollectionStore, Part, Scan, Secrets},
    engine::{FileSecrets, MemorySecrets},
    redb::{Options, RedbStore},
};
use store_testkit::{MemoryStore, stores::StrictStore};
use tempfile::TempDir;
use tests::store::files;

/// What devices keep their data in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Memory,
    Strict,
    Redb,
}

/// What a device has kept when its process has ended.
pub enum Kept {
    Memory(MemoryStore, MemorySecrets),
    Strict(StrictStore, MemorySecrets),
    Redb(TempDir, Option<(Arc<RedbStore>, FileSecrets)>),
}

impl Kept {
    pub fn new(kind: StoreKind) -> Self {
        match kind {
            StoreKind::Memory => Self::Memory(MemoryStore::new(), MemorySecrets::new()),
            StoreKind::Strict => Self::Strict(StrictStore::new(), MemorySecrets::new()),
            StoreKind::Redb => Self::Redb(tempfile::tempdir().expect("a folder"), None),
        }
    }

    /// Opens it, as a process does that starts.
    pub async fn open(&mut self) -> (Store, Arc<dyn Secrets>) {
        match self {
            Self::Memory(store, secrets) => over(Arc::new(store.clone()), secrets.clone()).await,
            Self::Strict(store, secrets) => over(Arc::new(store.clone()), secrets.clone()).await,
            Self::Redb(folder, opened) => {
                let store = RedbStore::open(folder.path().join("store"), Options::default()).await;
                let store = store.expect("the store opens");
                let secrets = match opened.take() {
                    Some((_, secrets)) => secrets,
                    None => {
                        let key = Unlock::key_file(&folder.path().join("key")).expect("a key");
                        let secrets = FileSecrets::open(folder.path().join("secrets"), key).await;
                        secrets.expect("the keys")
                    }
                };
                let store = Arc::new(store);
                *opened = Some((store.clone(), secrets.clone()));
                over(store, secrets).await
            }
        }
    }

    /// Ends it, as it does when its process does. Who crashes has not closed what is above.
    pub async fn end(&mut self) {
        if let Self::Redb(_, opened) = self
            && let Some((store, _)) = opened
        {
            store.close().await.expect("it closes");
        }
    }

    /// How many bytes it has, after what is freed little by little is.
    pub async fn len(&self) -> u64 {
        if let Self::Redb(_, Some((store, _))) = self {
            store.settle().await.expect("it settles");
        }
        let bytes = self.bytes().await;
        bytes.iter().map(|bytes| bytes.len() as u64).sum()
    }

    /// All that it keeps, piece by piece: of a store on disk the files, of another all payloads,
    /// keys and values. Payloads are read up to their first hole.
    pub async fn bytes(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Memory(store, _) => bytes_of(store).await,
            Self::Strict(store, _) => bytes_of(store).await,
            Self::Redb(folder, _) => {
                let files = files(&folder.path().join("store")).into_iter();
                files.filter_map(|path| read(&path)).collect()
            }
        }
    }

    /// What a strict store found wrong with how it was used.
    pub fn violations(&self) -> Vec<String> {
        match self {
            Self::Strict(store, _) => store.violations(),
            Self::Memory(..) | Self::Redb(..) => Vec::new(),
        }
    }
}

/// A file, unless it was removed meanwhile.
fn read(path: &Path) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

async fn over<S>(shared: Arc<S>, secrets: impl Secrets) -> (Store, Arc<dyn Secrets>)
where
    S: BlobStore + CollectionStore,
{
    let store = Store::over(shared.clone(), shared).await;
    (store.expect("the store opens"), Arc::new(secrets))
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
