//! Tests that look inside.

mod hostile;

use std::{sync::Arc, time::Duration};

use larder_store_api::{BlobStore, CollectionStore, PublicKey, SecretKey};
use larder_store_engine::{Blobs, public_key};
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync_sim::SimNetwork;

use super::{ReplicateOptions, Replicator, wire::Which};
use crate::{
    groups::{Group, Groups, Stores},
    records::REPO_ROOT,
};

const PATIENCE: Duration = Duration::from_secs(600);

struct Device {
    key: PublicKey,
    stores: Stores,
    running: Replicator,
}

impl Device {
    async fn start(net: &SimNetwork, n: u8) -> Self {
        Self::start_over(net, n, MemoryStore::new()).await
    }

    async fn start_over(net: &SimNetwork, n: u8, store: impl BlobStore + CollectionStore) -> Self {
        let store = Arc::new(store);
        let stores = Stores {
            blobs: Blobs::open(store.clone(), store.clone()).await.unwrap(),
            secrets: Arc::new(MemorySecrets::new()),
        };
        let key = PublicKey([n; 32]);
        let groups = Groups::open(stores.clone()).await.unwrap();
        let options = ReplicateOptions::default().compare_every(Duration::from_secs(10));
        let running = Replicator::start(groups, net.node(key), options);
        Self {
            key,
            stores,
            running,
        }
    }

    fn group(&self) -> Group {
        self.running.groups().groups().remove(0)
    }
}

/// A crash after a repo became ours, and before the group's operations name it.
#[tokio::test(start_paused = true)]
async fn a_repo_that_a_crash_left_without_a_name_gets_one() {
    let net = SimNetwork::new(2);
    let device = Device::start(&net, 1).await;
    let group = device.running.groups().create_group("g").await.unwrap();
    let secret = SecretKey::from_bytes([9; 32]);
    let (key, inner) = (public_key(&secret), group.inner());
    inner.keep_repo(group.id(), key, &secret).await.unwrap();
    assert!(!group.has_repo(key).await.unwrap());
    let again = Groups::open(device.stores.clone()).await.unwrap();
    let repo = again.groups().remove(0).repo(key).await.unwrap().unwrap();
    assert!(repo.is_ours());
    repo.write("file", "1").await.unwrap();
}

/// A member that hears of a repo before the operation that names it takes nothing of it, however far it lags behind.
#[tokio::test(start_paused = true)]
async fn a_repo_is_indexed_with_what_names_it() {
    let net = SimNetwork::new(9);
    let device = Device::start(&net, 1).await;
    let group = device.running.groups().create_group("g").await.unwrap();
    let shared = &device.running.0;
    // From here on nothing processes the changes.
    device.running.abort().await;
    shared.index_group(&group).await.unwrap();
    for n in 0..5 {
        let repo = group.create_repo(&format!("repo {n}")).await.unwrap();
        repo.write("file", "content").await.unwrap();
    }
    // The events of a repo may be processed before that of the operation that names it.
    let keys = group.repo_keys();
    for key in keys.iter() {
        let followed = shared.index_slot(&group, Which::Repo(*key), REPO_ROOT);
        assert!(followed.await.unwrap());
        let version = shared
            .index
            .version(group.id(), Which::Repo(*key), REPO_ROOT);
        assert_eq!(version, None);
    }
    // There were five such events, and this processes the first.
    let found = shared.index_members(&group).await.unwrap().unwrap();
    assert_eq!(found.repos.len(), 5);
    for key in keys.iter() {
        let version = shared
            .index
            .version(group.id(), Which::Repo(*key), REPO_ROOT);
        assert!(version.is_some());
    }
    let again = shared.index_members(&group).await.unwrap().unwrap();
    assert!(again.repos.is_empty());
}
