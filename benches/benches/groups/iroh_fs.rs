//! Two of iroh-blobs' own file stores.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use iroh::protocol::Router;
use iroh_blobs::{
    BlobsProtocol, Hash, HashAndFormat, format::collection::Collection, store::fs::FsStore,
};
use larder::iroh::{EndpointOptions, Reach, bind};

use crate::Load;

/// Measures the time from connecting until everything is here.
pub async fn fetch(load: &Load, dir: &Path) -> Duration {
    let from = FsStore::load(dir.join("from")).await.unwrap();
    let to = FsStore::load(dir.join("to")).await.unwrap();
    let content = if load.is_long() {
        let path = dir.join("long");
        load.write_long(&path);
        let added = from.blobs().add_path(path).await.unwrap();
        HashAndFormat::raw(added.hash)
    } else {
        let mut entries: Vec<(String, Hash)> = Vec::new();
        for (n, data) in load.files().enumerate() {
            let added = from.blobs().add_bytes(data).with_named_tag(format!("{n}"));
            entries.push((format!("folder/file {n}"), added.await.unwrap().hash));
        }
        let collection: Collection = entries.into_iter().collect();
        let tag = collection.store(&from).await.unwrap();
        let kept = tag.hash_and_format();
        from.tags().set("collection", kept).await.unwrap();
        kept
    };
    let loopback = || EndpointOptions::new(Reach::Loopback);
    let endpoint = bind(loopback()).await.unwrap();
    let router = Router::builder(endpoint.clone())
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(&from, None))
        .spawn();
    let client = bind(loopback()).await.unwrap();

    let start = Instant::now();
    let connection = client
        .connect(endpoint.addr(), iroh_blobs::ALPN)
        .await
        .unwrap();
    to.remote()
        .fetch(connection, content)
        .complete()
        .await
        .unwrap();
    let took = start.elapsed();

    to.shutdown().await.unwrap();
    // This closes the store too.
    router.shutdown().await.unwrap();
    client.close().await;
    took
}
