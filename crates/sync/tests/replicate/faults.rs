//! Tests that a failure of this device's store is not blamed on others.

use std::{sync::Arc, time::Duration};

use larder_store_api::Kind;
use larder_store_engine::Blobs;
use larder_store_testkit::{
    MemorySecrets, MemoryStore,
    stores::{Fault, Faults, FaultyStore, Operation, When},
};
use larder_sync::{
    groups::{Removal, Stores},
    invite::InviteKind::Write,
    replicate::Synced,
};
use larder_sync_sim::SimNetwork;

use crate::{
    link, noise,
    world::{Device, let_in, options, own, world},
};

const KINDS: [Kind; 5] = [
    Kind::Denied,
    Kind::Unavailable,
    Kind::Full,
    Kind::Corrupt,
    Kind::Internal,
];
const OPERATIONS: [Operation; 6] = [
    Operation::Read,
    Operation::Write,
    Operation::SyncBlobs,
    Operation::Get,
    Operation::Scan,
    Operation::Commit,
];

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Creates a device whose store fails as these faults define.
async fn with_faults(n: u8, faults: &Faults) -> Device {
    let mut device = Device::new(n).await;
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), faults.clone()));
    device.stores = Stores {
        blobs: Blobs::open(store.clone(), store.clone())
            .await
            .expect("blobs"),
        secrets: Arc::new(MemorySecrets::new()),
    };
    device
}

#[tokio::test(start_paused = true)]
async fn no_peer_is_blamed_for_a_store_of_ours() {
    for (n, operation) in (0..).zip(OPERATIONS) {
        for (m, kind) in (0..).zip(KINDS) {
            let net = SimNetwork::new(200 + 10 * n + m);
            net.set_default_link(link());
            let mut devices = world(&net, &[Write], &options()).await;
            let faults = Faults::seeded(n);
            let mut sick = with_faults(9, &faults).await;
            let groups = sick.start(&net, options()).await;
            let at = devices.iter().flat_map(|d| d.replicator().addresses());
            let invite = devices[0].group().invite(Write, at.collect()).await;
            let joined = groups.join(&invite.expect("an invite")).await;
            let joined = joined.expect("it joins");
            let_in(&joined).await;
            let repo = joined.create_repo("sick").await;
            let written = repo
                .expect("a repo")
                .write("its own", noise(1, 40_000))
                .await;
            written.expect("a write");
            devices.push(sick);
            pause(20).await;
            for device in &devices {
                device.synced(Synced::Everywhere).await;
            }
            let connections = net.total().connections;

            let case = format!("{operation:?} fails with {kind:?}");
            faults.inject(operation, When::Always, Fault::Error(kind));
            for (i, device) in devices[..2].iter().enumerate() {
                let repo = own(device).await;
                for (name, len) in [("small", 100), ("long", 400_000)] {
                    let written = repo.write(name, noise(i as u32, len)).await;
                    written.expect("a write");
                }
            }
            pause(200).await;
            // Nobody is avoided, and no connection has ended.
            for device in &devices {
                let avoided = device.replicator().left_alone();
                assert_eq!(avoided, [], "{case}: {}", device.key);
            }
            assert_eq!(net.total().connections, connections, "{case}");
            // The failed work is named, if there was any.
            let troubles = devices[2].replicator().troubles();
            assert_eq!(
                faults.struck() > 0,
                !troubles.is_empty(),
                "{case}: {troubles:?}"
            );
            for trouble in &troubles {
                assert_eq!(trouble.error.kind(), kind, "{case}: {troubles:?}");
            }
            // The others continue.
            for (device, other) in [(0, 1), (1, 0)] {
                let key = own(&devices[other]).await.key();
                let repo = devices[device].group().repo(key).await.expect("repos");
                let repo = repo.expect("the other's");
                let found = repo.read_to_bytes("long").await.expect("a file");
                assert!(found[..] == noise(other as u32, 400_000), "{case}");
            }

            faults.clear();
            pause(400).await;
            for device in &devices {
                device.synced(Synced::Everywhere).await;
                assert_eq!(device.files().await.len(), 5, "{case}");
            }
            let troubles = devices[2].replicator().troubles();
            assert!(troubles.is_empty(), "{case}: {troubles:?}");
        }
    }
}

/// A removal is for ever, and freezes the repos of who goes. Whichever one read fails, it fails as a whole or freezes
/// what is here.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_freezes_no_repo_as_empty() {
    let (mut failed, mut removed) = (0, false);
    for n in 1..1000 {
        let net = SimNetwork::new(300);
        net.set_default_link(link());
        let devices = world(&net, &[], &options()).await;
        let faults = Faults::seeded(7);
        let mut sick = with_faults(9, &faults).await;
        let groups = sick.start(&net, options()).await;
        let group = groups.create_group("sick").await.expect("a group");
        let invite = group.invite(Write, sick.replicator().addresses()).await;
        let joined = devices[0].groups().join(&invite.expect("an invite")).await;
        let joined = joined.expect("it joins");
        let_in(&joined).await;
        let theirs = joined.create_repo("bob").await.expect("a repo");
        theirs.write("a", noise(1, 100)).await.expect("a write");
        pause(20).await;
        let newest = theirs.root().await.expect("a root");
        let here = group.repo(theirs.key()).await.expect("repos");
        let here = here.expect("theirs").root().await.expect("a root");
        assert_eq!(here, newest);

        let people = group.people().await.expect("people");
        let bob = people.iter().find(|person| !person.is_you).expect("bob");
        faults.inject(
            Operation::Get,
            When::Nth(n),
            Fault::Error(Kind::Unavailable),
        );
        match group.remove(bob.key, Removal::new()).await {
            Ok(done) => {
                assert_eq!(done.frozen, [(theirs.key(), newest)], "read {n}");
                removed |= faults.struck() == 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable, "read {n}: {error}");
                failed += 1;
            }
        }
        if removed {
            break;
        }
    }
    assert!(removed && failed > 0, "{failed}");
}
