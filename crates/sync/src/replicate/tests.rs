//! Tests that need chosen keys: two members whose repos begin at the same slot.

mod hostile;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use larder_store_api::{BlobStore, CollectionStore, PublicKey, RecordStore, SecretKey};
use larder_store_engine::{Blobs, public_key};
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync_sim::{Link, SimNetwork};

use super::{ReplicateOptions, Replicator, Synced, index::GroupIndex, wire::Which};
use crate::{
    groups::{Group, Groups, Stores, first_slot},
    invite::InviteKind,
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

    async fn repos(&self) -> BTreeSet<PublicKey> {
        let repos = self.group().repos().await.unwrap();
        repos.iter().map(|repo| repo.key()).collect()
    }
}

/// Returns keys whose repos all begin at the same slot.
fn colliding(count: usize) -> Vec<SecretKey> {
    let key = |n: u16| {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_bytes(bytes)
    };
    let slot = |secret: &SecretKey| first_slot(public_key(secret));
    let first = slot(&key(0));
    let keys = (0..).map(key).filter(|secret| slot(secret) == first);
    keys.take(count).collect()
}

/// Starts a device that made a group, and two that joined it and know all of it.
async fn three(net: &SimNetwork) -> Vec<Device> {
    let first = Device::start(net, 1).await;
    let group = first.running.groups().create_group("g").await.unwrap();
    let at = first.running.addresses();
    let invite = group.invite(InviteKind::Write, at).await.unwrap();
    let mut devices = vec![first];
    for n in [2, 3] {
        let device = Device::start(net, n).await;
        device.running.groups().join(&invite).await.unwrap();
        devices.push(device);
    }
    agree(&devices).await;
    devices
}

async fn agree(devices: &[Device]) {
    for device in devices {
        let id = device.group().id();
        let synced = device.running.wait_synced(id, Synced::Everywhere, PATIENCE);
        synced.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_repos_in_one_slot_both_stay() {
    let net = SimNetwork::new(1);
    let devices = three(&net).await;
    for device in &devices {
        net.partition(&[device.key]);
    }
    for (device, secret) in devices.iter().zip(colliding(3)) {
        let repo = device.group().create_repo_with("member", secret).await;
        repo.unwrap().write("file", "1").await.unwrap();
        assert_eq!(device.repos().await.len(), 1);
    }
    net.heal();
    tokio::time::sleep(Duration::from_secs(120)).await;
    agree(&devices).await;
    let all = devices[0].repos().await;
    assert_eq!(all.len(), 3);
    for device in &devices {
        assert_eq!(device.repos().await, all);
        for repo in device.group().repos().await.unwrap() {
            assert_eq!(repo.read_to_bytes("file").await.unwrap(), "1");
            assert_eq!(repo.name().await.unwrap().as_deref(), Some("member"));
        }
        let group = device.group();
        let slots = group.records().values(group.id(), 0..1024).await.unwrap();
        // One slot for the group's name, and one for each repo: nobody took more slots than needed.
        assert_eq!(slots.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repo_that_a_crash_left_without_a_name_gets_one() {
    let net = SimNetwork::new(2);
    let devices = three(&net).await;
    let device = &devices[0];
    let [mine, other] = colliding(2).try_into().unwrap_or_else(|_| panic!("two"));
    // These are the steps of making a repo, up to the point where the group's record names it.
    let group = device.group();
    let elsewhere = Device::start(&net, 9).await;
    let invite = group.invite(InviteKind::Write, Vec::new()).await.unwrap();
    let there = elsewhere.running.groups().join(&invite).await.unwrap();
    let repo = there.create_repo_with("left", mine.clone()).await.unwrap();
    device
        .group()
        .create_repo_with("other", other)
        .await
        .unwrap();
    let records = device.group().records().clone();
    records
        .create(crate::records::repo_record(repo.key()))
        .await
        .unwrap();
    for (slot, signed) in there.records().values(repo.id(), 0..64).await.unwrap() {
        let import = larder_store_api::PutRecord::Import(signed);
        records.put(repo.id(), slot, import).await.unwrap();
    }
    let inner = device
        .group()
        .inner()
        .keep_repo(group.id(), repo.key(), &mine)
        .await;
    inner.unwrap();
    assert!(!device.repos().await.contains(&repo.key()));
    let again = Groups::open(device.stores.clone()).await.unwrap();
    let repos = again.groups().remove(0).repos().await.unwrap();
    assert!(repos.iter().any(|r| r.key() == repo.key() && r.is_ours()));
    assert_eq!(repos.len(), 2);
}

/// Two repos begin at the same slot. The member between their owners hears of one first, has its tree
/// at once, and announces that to the owner of the other, who does not know the repo yet. That
/// announcement must not be lost.
#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_repo_before_it_is_known_counts() {
    // Chance decides which of the two stays in the slot.
    for seed in 0..10 {
        let net = SimNetwork::new(seed);
        let devices = three(&net).await;
        let link = |ms| Link {
            latency: Duration::from_millis(ms),
            ..Link::default()
        };
        net.set_links(devices[0].key, devices[1].key, link(2_000));
        net.set_links(devices[0].key, devices[2].key, link(5));
        net.set_links(devices[1].key, devices[2].key, link(500));
        let at = &devices[1].running.0.network.addresses()[0];
        devices[2].running.connect(at).await.unwrap();
        // A second connection would start a new session.
        let connections = &devices[2].running.0.connections;
        connections.answered(at.clone(), devices[1].key);
        agree(&devices).await;
        let begun = devices.iter().zip(colliding(2)).map(async |(device, key)| {
            let repo = device.group().create_repo_with("member", key).await;
            repo.unwrap().write("file", "1").await.unwrap();
        });
        futures_util::future::join_all(begun).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        for device in &devices {
            assert_eq!(device.repos().await.len(), 2, "seed {seed}");
        }
        agree(&devices).await;
    }
}

/// A member that hears of a repo before the group's record names it takes nothing of it, so that the
/// index never has a repo without the slot that names it, however far it lags behind.
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
    // The events of a repo may be processed before those of the slot that names it.
    let keys = group.repo_keys().await.unwrap();
    for key in keys.iter() {
        let followed = shared.index_slot(&group, Which::Repo(*key), REPO_ROOT);
        assert!(followed.await.unwrap());
        let version = shared
            .index
            .version(group.id(), Which::Repo(*key), REPO_ROOT);
        assert_eq!(version, None);
    }
    // The record changed five times, and this processes the first change.
    let found = shared.index_members(&group).await.unwrap();
    assert_eq!(found.repos.len(), 5);
    let named = group.intact(group.id()).await.unwrap().len();
    let indexed = |index: &mut GroupIndex| index.versions[&Which::Group].len();
    assert_eq!(shared.index.look(group.id(), indexed), Some(named));
    for key in keys.iter() {
        let version = shared
            .index
            .version(group.id(), Which::Repo(*key), REPO_ROOT);
        assert!(version.is_some());
    }
    // All of it is announced, and before the repos.
    assert_eq!(found.slots.len(), 5);
    assert!(found.slots.iter().all(|(which, _)| *which == Which::Group));
    assert!(shared.index_members(&group).await.unwrap().repos.is_empty());
}
