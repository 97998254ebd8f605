//! A device loses power, and with it whatever was not durable.

use std::{sync::Arc, time::Duration};

use store_engine::Blobs;
use store_testkit::{MemorySecrets, stores::PowerStore};
use sync::{groups::Stores, invite::InviteKind::Write, replicate::Synced};
use sync_sim::SimNetwork;

use crate::{
    link, noise,
    world::{Device, contents, options, own, world},
};

const LIVES: u64 = 12;

async fn stores(store: &PowerStore, secrets: &Arc<MemorySecrets>) -> Stores {
    let shared = Arc::new(store.clone());
    let blobs = Blobs::open(shared.clone(), shared).await;
    Stores {
        blobs: blobs.expect("blobs"),
        secrets: secrets.clone(),
    }
}

/// Others count on what a device says to hold: so all of it is there after power was lost, whether it was
/// lost then or while something came.
#[tokio::test(start_paused = true)]
async fn what_others_were_told_is_here_after_power_was_lost() {
    let net = SimNetwork::new(7);
    net.set_default_link(link());
    let mut devices = world(&net, &[], &options()).await;
    let (secrets, mut store) = (Arc::new(MemorySecrets::new()), PowerStore::new());
    let mut other = Device::new(9).await;
    other.stores = stores(&store, &secrets).await;
    let groups = other.start(&net, options()).await;
    let at = devices[0].replicator().addresses();
    let invite = devices[0].group().invite(Write, at).await;
    let joined = groups.join(&invite.expect("an invite")).await;
    let joined = joined.expect("it joins");
    joined.create_repo("the other").await.expect("a repo");
    devices.push(other);

    for life in 0..LIVES {
        let repo = own(&devices[0]).await;
        devices[0].synced(Synced::Everywhere).await;
        // Long ones are durable by themselves, and make what came before them so.
        let files = [("small", 100), ("several", 40_000), ("long", 400_000)];
        let files = &files[..if life % 4 < 2 { 1 } else { 3 }];
        for &(name, len) in files {
            let name = format!("{name} {}", life % 3);
            let seed = u32::try_from(life).expect("a few") + len;
            let written = repo.write(&name, noise(seed, len as usize)).await;
            written.expect("a write");
        }
        // All came and was told; or some of it has come.
        let was_told = life % 2 == 0;
        match was_told {
            true => devices[0].synced(Synced::Everywhere).await,
            false => tokio::time::sleep(Duration::from_millis(20 * life)).await,
        }
        let told = contents(&repo).await.expect("files");

        devices[1].crash(&net);
        store = store.lose_power(life);
        devices[1].stores = stores(&store, &secrets).await;
        // Nobody is there who could give it again.
        devices[0].crash(&net);
        devices[1].start(&net, options()).await;
        let theirs = devices[1].group().repo(repo.key()).await.expect("repos");
        let here = contents(&theirs.expect("a repo")).await;
        if was_told {
            assert!(here.expect("files") == told, "in life {life}");
        }
        devices[0].start(&net, options()).await;
        devices[0].synced(Synced::Everywhere).await;
        devices[1].synced(Synced::Everywhere).await;
        assert!(devices[1].files().await == devices[0].files().await);
    }
}
