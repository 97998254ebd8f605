//! Measures staging in this profile.
use larder_store_engine::Blobs;
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync::groups::{Groups, Stores};
use std::{sync::Arc, time::Instant};

#[allow(clippy::all)]
#[tokio::main]
async fn main() {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores {
        blobs: Blobs::open(store.clone(), store.clone()).await.unwrap(),
        secrets: Arc::new(MemorySecrets::new()),
    };
    let groups = Groups::open(stores.clone()).await.unwrap();
    let group = groups.create_group("g").await.unwrap();
    let repo = group.create_repo("r").await.unwrap();
    let start = Instant::now();
    let mut staged = Vec::new();
    for n in 0..200u32 {
        let bytes: Vec<u8> = (0..50_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) ^ n) as u8)
            .collect();
        staged.push(repo.stage(bytes, 0).await.unwrap());
    }
    eprintln!("200 x 50 KB staged in {:?}", start.elapsed());
    let start = Instant::now();
    stores.blobs.add(vec![7; 32 << 20]).await.unwrap();
    eprintln!("32 MiB added in {:?}", start.elapsed());
}
