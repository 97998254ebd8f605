//! Their nodes and ours, with test data.

use iroh::{endpoint::Connection, protocol::Router};
use iroh_blobs::{
    Hash as TheirHash,
    api::{Store as TheirStore, TempTag},
    format::collection::Collection,
    store::{fs::FsStore, mem::MemStore},
};
use larder::{DeviceKey, Hash, Root, Store, StoreUrl, iroh::store_collection};
use tests::{
    data::{SIZES, bytes},
    node::{connection, iroh_node, loopback, our_node},
    store::open_url,
};

/// A name and its bytes.
pub type File = (String, bytes::Bytes);

pub fn their_hash(hash: Hash) -> TheirHash {
    larder::iroh::to_iroh_hash(hash)
}

/// A node of iroh-blobs.
pub struct Theirs {
    pub kind: &'static str,
    pub store: TheirStore,
    pub node: Router,
    _folder: Option<tempfile::TempDir>,
}

impl Theirs {
    pub async fn in_memory() -> Self {
        let store = TheirStore::from(MemStore::new());
        Self {
            kind: "MemStore",
            node: iroh_node(&store).await,
            store,
            _folder: None,
        }
    }

    pub async fn in_files() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = FsStore::load(folder.path().join("blobs")).await.unwrap();
        let store = TheirStore::from(store);
        Self {
            kind: "FsStore",
            node: iroh_node(&store).await,
            store,
            _folder: Some(folder),
        }
    }

    pub async fn both() -> [Self; 2] {
        [Self::in_memory().await, Self::in_files().await]
    }

    /// Adds a collection of one blob of each size, some of them twice.
    pub async fn collection(&self) -> (TempTag, Vec<File>) {
        let mut files = Vec::new();
        let mut collection = Collection::default();
        let mut tags = Vec::new();
        for (seed, size) in (0..).zip(SIZES) {
            let data = bytes(seed, size);
            let tag = self.store.add_slice(&data).temp_tag().await.unwrap();
            for copy in 0..1 + seed % 2 {
                let name = format!("{size}/{copy}");
                collection.push(name.clone(), tag.hash());
                files.push((name, data.clone()));
            }
            tags.push(tag);
        }
        (collection.store(&self.store).await.unwrap(), files)
    }

    pub async fn end(self) {
        self.node.shutdown().await.unwrap();
    }
}

/// The backend of our store.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Redb,
    Veilid,
}

/// A store of ours, in a folder.
pub struct Ours {
    pub store: Store,
    url: StoreUrl,
    _folder: tempfile::TempDir,
}

/// Makes each case a test on each backend.
#[macro_export]
macro_rules! on_each_backend {
    ($($case:ident),+) => {
        $crate::on_each_backend!(@ redb Redb $($case)+);
        $crate::on_each_backend!(@ veilid Veilid $($case)+);
    };
    (@ $module:ident $backend:ident $($case:ident)+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::nodes::Backend::$backend).await;
                }
            )+
        }
    };
}

impl Ours {
    pub async fn new(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("store");
        let url = match backend {
            Backend::Redb => StoreUrl::redb(dir),
            Backend::Veilid => StoreUrl::veilid(dir, DeviceKey::InsecureFile),
        };
        Self {
            store: open_url(&url).await,
            url,
            _folder: folder,
        }
    }

    /// Opens the store again, as after the end of the program.
    pub async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open_url(&self.url).await;
    }

    /// Adds a collection of one blob of each size.
    pub async fn collection(&self) -> (Root, Vec<File>) {
        let blobs = self.store.blobs();
        let (mut entries, mut files, mut pins) = (Vec::new(), Vec::new(), Vec::new());
        for (seed, size) in (0..).zip(SIZES) {
            let data = bytes(seed, size);
            let pin = blobs.add(data.clone()).await.unwrap();
            entries.push((format!("{size}"), pin.hash()));
            files.push((format!("{size}"), data));
            pins.push(pin);
        }
        let tag = Some("collection".try_into().unwrap());
        let pin = store_collection(blobs, entries, tag).await.unwrap();
        (pin.root(), files)
    }

    /// Serves a root, and connects a client to it. The endpoint must live as long as the connection.
    pub async fn serve(&self, root: Root) -> (Router, iroh::Endpoint, Connection) {
        let node = our_node(self.store.blobs(), &[root]).await;
        let endpoint = loopback().await;
        let connection = connection(&endpoint, node.endpoint()).await;
        (node, endpoint, connection)
    }
}
