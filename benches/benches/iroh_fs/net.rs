//! Transfers between two nodes over loopback, in one process.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use iroh::{EndpointAddr, protocol::Router};
use iroh_blobs::{BlobsProtocol, HashAndFormat, format::collection::Collection};
use larder::iroh::{EndpointOptions, Reach, bind};
use larder_store_engine::{AddOptions, Root, TagName};
use larder_store_iroh::{Endpoint, FetchOptions, Shares, connect, fetch, serve, store_collection};

use crate::{
    data::small,
    figures::rate,
    ours::{Backend, Larder},
    system::{Hash, System},
    theirs::IrohFs,
};

const GIB: u64 = 1 << 30;
const FILES: u64 = 10_000;

/// A system that serves and fetches.
pub trait Node: System {
    /// Serves these blobs, or hash sequences and the blobs that they name.
    fn serve(&self, endpoint: &Endpoint, roots: &[(Hash, bool)]) -> Router;
    /// Fetches a blob, or a hash sequence and the blobs that it names.
    fn fetch(
        &self,
        endpoint: &Endpoint,
        from: EndpointAddr,
        root: Hash,
        list: bool,
    ) -> impl Future<Output = ()> + Send;
    /// Makes a collection of small blobs.
    fn add_collection(&self, blobs: Vec<Bytes>) -> impl Future<Output = Hash> + Send;
}

fn root_of(hash: Hash, list: bool) -> Root {
    if list {
        Root::hash_seq(hash.into())
    } else {
        Root::raw(hash.into())
    }
}

fn content_of(hash: Hash, list: bool) -> HashAndFormat {
    larder_store_iroh::to_iroh_root(root_of(hash, list))
}

impl<B: Backend> Node for Larder<B> {
    fn serve(&self, endpoint: &Endpoint, roots: &[(Hash, bool)]) -> Router {
        let shares = Shares::new(&self.blobs);
        for (root, list) in roots {
            shares.allow(root_of(*root, *list)).unwrap();
        }
        serve(endpoint, &self.blobs, &shares)
    }

    async fn fetch(&self, endpoint: &Endpoint, from: EndpointAddr, root: Hash, list: bool) {
        let patience = std::time::Duration::from_secs(10);
        let connection = connect(endpoint, from, patience).await.unwrap();
        let root = root_of(root, list);
        let options = FetchOptions::default();
        fetch(&self.blobs, &connection, root, options)
            .await
            .unwrap();
    }

    async fn add_collection(&self, blobs: Vec<Bytes>) -> Hash {
        let mut entries = Vec::new();
        for (i, data) in blobs.into_iter().enumerate() {
            let options =
                AddOptions::default().tag(TagName::try_from(format!("{i}").as_str()).unwrap());
            let pin = self.blobs.add_with(data, options).await.unwrap();
            entries.push((format!("file {i}"), pin.hash()));
        }
        let pin = store_collection(&self.blobs, entries, None).await.unwrap();
        let tag = TagName::try_from("collection").unwrap();
        self.blobs.tags().set(tag, pin.root()).await.unwrap();
        *pin.hash().as_bytes()
    }
}

impl Node for IrohFs {
    fn serve(&self, endpoint: &Endpoint, _roots: &[(Hash, bool)]) -> Router {
        Router::builder(endpoint.clone())
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&self.0, None))
            .spawn()
    }

    async fn fetch(&self, endpoint: &Endpoint, from: EndpointAddr, root: Hash, list: bool) {
        let connection = endpoint.connect(from, iroh_blobs::ALPN).await.unwrap();
        let content = content_of(root, list);
        let got = self.0.remote().fetch(connection, content).complete().await;
        got.unwrap();
    }

    async fn add_collection(&self, blobs: Vec<Bytes>) -> Hash {
        let mut entries = Vec::new();
        for (i, data) in blobs.into_iter().enumerate() {
            let added = self.add_tagged(format!("{i}"), data).await;
            entries.push((format!("file {i}"), iroh_blobs::Hash::from_bytes(added)));
        }
        let collection: Collection = entries.into_iter().collect();
        let tag = collection.store(&self.0).await.unwrap();
        let name = "collection";
        self.0
            .tags()
            .set(name, tag.hash_and_format())
            .await
            .unwrap();
        *tag.hash().as_bytes()
    }
}

async fn loopback() -> Endpoint {
    bind(EndpointOptions::new(Reach::Loopback)).await.unwrap()
}

pub async fn transfers<S: Node>(dir: &Path) {
    let from = S::open(&dir.join("from")).await;
    let to = S::open(&dir.join("to")).await;
    let blob = from.add_stream(GIB).await;
    let collection = from.add_collection(small(FILES, 1024)).await;
    let roots = [(blob, false), (collection, true)];
    let client = loopback().await;
    let endpoint = loopback().await;
    let router = from.serve(&endpoint, &roots);
    for (root, list) in roots {
        let start = Instant::now();
        to.fetch(&client, endpoint.addr(), root, list).await;
        if list {
            rate("fetch 10,000 × 1 KiB (1/s)", FILES, start.elapsed());
        } else {
            rate("fetch 1 GiB (MB/s)", GIB / 1_000_000, start.elapsed());
        }
    }
    to.close().await;
    // This closes the other system's store too.
    router.shutdown().await.unwrap();
    client.close().await;
}
