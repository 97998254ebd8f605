//! Tests of a device that loses power, and with it all data that was not durable; or that ends,
//! followed by a collection.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use larder_store_engine::Blobs;
use larder_store_testkit::{MemorySecrets, stores::PowerStore};
use larder_sync::{
    groups::{Changes, Stores},
    invite::InviteKind::{Read, Write},
    replicate::Synced,
    tree::Name,
};
use larder_sync_sim::{Link, SimNetwork};

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

/// Others rely on what a device announces: so all of it is there after a loss of power, whether that
/// happened afterwards or while data was arriving.
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
        // Long files are durable by themselves, and make everything before them durable.
        let files = [("small", 100), ("several", 40_000), ("long", 400_000)];
        let files = &files[..if life % 4 < 2 { 1 } else { 3 }];
        for &(name, len) in files {
            let name = format!("{name} {}", life % 3);
            let seed = u32::try_from(life).expect("a few") + len;
            let written = repo.write(&name, noise(seed, len as usize)).await;
            written.expect("a write");
        }
        // Either everything has arrived and was announced, or only a part has arrived.
        let was_told = life % 2 == 0;
        match was_told {
            true => devices[0].synced(Synced::Everywhere).await,
            false => tokio::time::sleep(Duration::from_millis(20 * life)).await,
        }
        let told = contents(&repo).await.expect("files");

        devices[1].crash(&net);
        store = store.lose_power(life);
        devices[1].stores = stores(&store, &secrets).await;
        // Nobody is connected who could provide it again.
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

/// While a tree is being fetched, its owner writes again; the device ends in the middle, and a
/// collection runs. The names that it showed can be read nevertheless.
#[tokio::test(start_paused = true)]
async fn a_tree_that_is_shown_is_kept_though_another_came_meanwhile() {
    let mut shown = 0;
    for (n, written_after) in (0..30).map(|n| (n, 20 * n * n)) {
        let net = SimNetwork::new(70 + n);
        net.set_default_link(Link {
            bandwidth: Some(300_000),
            ..link()
        });
        let mut devices = world(&net, &[Read], &options()).await;
        devices[1].synced(Synced::Here).await;
        let repo = own(&devices[0]).await;
        let mut changes = Changes::new();
        for n in 0..2000 {
            let len = if n < 10 { 200_000 } else { 50 };
            let file = repo.stage(noise(n, len), 0).await.expect("a file");
            changes.put(Name::new(format!("file {n}")).expect("a name"), file);
        }
        repo.change(changes).await.expect("a change");
        tokio::time::sleep(Duration::from_millis(written_after)).await;
        repo.write("again", noise(1, 100)).await.expect("a write");
        tokio::time::sleep(Duration::from_millis(2000)).await;
        devices[1].crash(&net);
        devices[0].crash(&net);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let late = SystemTime::now() + Duration::from_secs(3600);
        let blobs = &devices[1].stores.blobs;
        blobs.collect(late).await.expect("it collects");
        devices[1].start(&net, options()).await;
        let theirs = devices[1].group().repo(repo.key()).await.expect("repos");
        let Some(theirs) = theirs else { continue };
        let names = theirs.list("").await.expect("a tree");
        let names: Vec<_> = names.try_collect().await.expect("its names");
        shown += usize::from(!names.is_empty());
    }
    assert!(shown > 3, "it was cut off before anything came");
}
