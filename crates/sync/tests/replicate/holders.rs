//! Tests that a device that can provide a file proves it.

use std::time::Duration;

use futures_util::StreamExt;
use larder_store_api::Kind;
use larder_store_engine::Hash;
use larder_sync::{
    groups::{Changes, Policy},
    invite::InviteKind::{Read, Replica, Write},
    replicate::Synced,
    tree::Name,
};
use larder_sync_sim::{SimNetwork, garble};

use crate::{
    liars::PROOF,
    link, noise,
    world::{Device, options, own, world},
};

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_a_file_shows_it() {
    let net = SimNetwork::new(68);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write, Replica, Write], &options()).await;
    let repo = own(&devices[0]).await;
    for (n, len) in [0, 10, 16_384, 16_385, 3_000_000].into_iter().enumerate() {
        let bytes = noise(n as u32, len);
        repo.write(&format!("{n}"), bytes).await.expect("a write");
    }
    // Enough names for pages above pages.
    let mut changes = Changes::new();
    for n in 0..1000 {
        let staged = repo
            .stage(format!("small {n}").into_bytes(), 0)
            .await
            .expect("a file");
        changes.put(Name::new(format!("small/{n}")).expect("a name"), staged);
    }
    repo.change(changes).await.expect("a change");
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let mut names = options();
    names.policy = Policy::Names;
    let mut reader = Device::new(9).await;
    let groups = reader.start(&net, names).await;
    let mut addresses = Vec::new();
    for device in &devices {
        addresses.extend(device.replicator().addresses());
    }
    let invite = devices[0].group().invite(Read, addresses).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    reader.synced(Synced::Here).await;
    pause(10).await;
    devices.push(reader);

    let id = devices[0].group().id();
    let keys: Vec<_> = devices.iter().map(|device| device.key).collect();
    let who_has = async |n: usize, hash: Hash| devices[n].replicator().who_has(id, hash).await;
    let before = devices[4].stores.blobs.list().count().await;
    for name in ["0", "1", "2", "3", "4", "small/0", "small/555"] {
        let entry = repo.entry(name).await.expect("a tree").expect("a file");
        for hash in [entry.hash, entry.blob] {
            // The reader announces that it holds the tree, but has only its names.
            assert_eq!(who_has(4, hash).await.expect("peers"), keys[..4], "{name}");
            let others = [1, 2, 3].map(|n| keys[n]);
            assert_eq!(who_has(0, hash).await.expect("peers"), others, "{name}");
        }
        let others = [0, 1, 3].map(|n| keys[n]);
        assert_eq!(who_has(2, entry.blob).await.expect("peers"), others);
        let plain = who_has(2, entry.hash).await.unwrap_err();
        assert_eq!(plain.kind(), Kind::NotFound);
    }
    assert_eq!(devices[4].stores.blobs.list().count().await, before);
    let unknown = who_has(0, Hash::of("nothing")).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);

    // A disconnected member is not asked, and one that sends wrong bytes does not count.
    net.partition(&[keys[3]]);
    pause(60).await;
    net.set_tamper(keys[1], Some(garble(3, PROOF, 0.01)));
    let long = repo.entry("4").await.expect("a tree").expect("a file");
    assert_eq!(
        who_has(4, long.blob).await.expect("peers"),
        [keys[0], keys[2]]
    );
    pause(1).await;
    let status = devices[4].replicator().status(id).await.expect("a status");
    assert!(!status.peers.contains(&keys[1]), "it lied");
}
