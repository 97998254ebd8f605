//! Tests of which of others' contents devices want, and which they delete.

use std::{collections::BTreeSet, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::Kind;
use larder_store_engine::BlobStatus;
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::{Read, Replica, Write},
    replicate::{Copies, Freed, Synced},
    tree::Named,
};
use larder_sync_sim::SimNetwork;

use crate::{
    agree, link, noise, read,
    world::{Device, let_in, options, own, world},
};

pub const FILES: [(&str, usize); 5] = [
    ("photos/small", 20_000),
    ("photos/sub/long", 9_000_000),
    ("photos2/other", 30_000),
    ("video", 2_000_000),
    ("note", 100),
];

/// Creates a writer with some files, and devices of these kinds that do not want any contents yet.
pub async fn members(net: &SimNetwork, kinds: &[larder_sync::invite::InviteKind]) -> Vec<Device> {
    net.set_default_link(link());
    let devices = world(net, kinds, &options()).await;
    for device in &devices[1..] {
        let group = device.group();
        group.set_policy(Policy::Names).await.expect("a policy");
    }
    let repo = own(&devices[0]).await;
    for (n, (name, len)) in (0..).zip(FILES) {
        repo.write(name, noise(n, len)).await.expect("a write");
    }
    // They hear of it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    devices
}

/// Returns the first device's repo, as another device sees it.
pub async fn theirs(devices: &[Device], n: usize) -> Repo {
    let key = own(&devices[0]).await.key();
    let repo = devices[n].group().repo(key).await.expect("repos");
    repo.expect("it knows of it")
}

/// Returns the files of the repo that are complete on this device.
pub async fn here(device: &Device, repo: &Repo) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut all = repo.list("").await.expect("a list");
    while let Some(Named { name, entry }) = all.try_next().await.expect("a name") {
        let status = device.stores.blobs.status(entry.blob).await;
        if let Some(BlobStatus::Complete { .. }) = status.expect("a status") {
            names.insert(name.as_str().to_owned());
        }
    }
    names
}

pub fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn selected(prefixes: &[&str], up_to: u64) -> Policy {
    Policy::Selected {
        prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
        up_to,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_selected_comes_and_nothing_else() {
    let net = SimNetwork::new(41);
    let mut devices = members(&net, &[Read]).await;
    devices[1].synced(Synced::Here).await;
    let repo = theirs(&devices, 1).await;
    assert_eq!(here(&devices[1], &repo).await, names(&[]));

    let some = selected(&["photos/", "no"], 1_000_000);
    repo.set_policy(some.clone()).await.expect("a policy");
    devices[1].synced(Synced::Here).await;
    assert_eq!(
        here(&devices[1], &repo).await,
        names(&["photos/small", "note"])
    );
    // The policy is stored, and applies to later files, even under another name.
    devices[1].crash(&net);
    devices[1].start(&net, options()).await;
    let repo = theirs(&devices, 1).await;
    assert_eq!(repo.policy().await.expect("a policy"), Some(some));
    let writer = own(&devices[0]).await;
    let rename = writer.rename("photos2/other", "photos/other");
    rename.await.expect("a rename");
    writer
        .write("no more", noise(7, 70_000))
        .await
        .expect("a write");
    devices[1].synced(Synced::Everywhere).await;
    let found = here(&devices[1], &repo).await;
    assert_eq!(
        found,
        names(&["photos/small", "photos/other", "no more", "note"])
    );
    // Wanting more brings the rest.
    repo.set_policy(None).await.expect("a policy");
    let group = devices[1].group();
    group.set_policy(None).await.expect("a policy");
    devices[1].synced(Synced::Here).await;
    assert_eq!(here(&devices[1], &repo).await.len(), 6);
    agree(&devices).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_comes_whatever_else_is_wanted() {
    let net = SimNetwork::new(42);
    let devices = members(&net, &[Read]).await;
    devices[1].synced(Synced::Here).await;
    let repo = theirs(&devices, 1).await;
    let group = devices[1].group();
    group.set_policy(Policy::Pinned).await.expect("a policy");
    repo.pin("photos").await.expect("a pin");
    repo.pin("later").await.expect("a pin");
    repo.pin("later").await.expect("it is pinned already");
    devices[1].synced(Synced::Here).await;
    let photos = names(&["photos/small", "photos/sub/long"]);
    assert_eq!(here(&devices[1], &repo).await, photos);
    own(&devices[0])
        .await
        .write("later", "x")
        .await
        .expect("a write");
    devices[0].synced(Synced::Everywhere).await;
    assert!(here(&devices[1], &repo).await.contains("later"));
    repo.unpin("photos").await.expect("a pin less");
    assert_eq!(repo.pinned().await.expect("pins"), names(&["later"]));
    assert_eq!(repo.pin("../x").await.unwrap_err().kind(), Kind::Invalid);
    // Leaving the group deletes the policy.
    let invite = devices[0].group().invite(Read, Vec::new()).await;
    devices[1]
        .groups()
        .leave(group.id())
        .await
        .expect("it leaves");
    let group = devices[1].groups().join(&invite.expect("an invite")).await;
    let group = group.expect("it joins again");
    assert_eq!(group.policy().await.expect("a policy"), None);
}

#[tokio::test(start_paused = true)]
async fn a_replica_goes_by_size() {
    let net = SimNetwork::new(43);
    let devices = members(&net, &[Replica]).await;
    let group = devices[1].group();
    let refused = group.set_policy(selected(&["photos/"], 9)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    let limit = selected(&[], 1_000_000);
    group.set_policy(limit.clone()).await.expect("a policy");
    devices[1].synced(Synced::Everywhere).await;
    let (mut whole, mut parts) = (0, 0);
    let mut blobs = devices[1].stores.blobs.list();
    while let Some((_, status)) = blobs.try_next().await.expect("a list") {
        match status {
            BlobStatus::Complete { size } => {
                assert!(size < 1_000_000);
                whole += 1;
            }
            // Their ends, which show their lengths.
            BlobStatus::Partial { present, .. } => {
                assert!(present <= 32 * 1024, "{present} bytes");
                parts += 1;
            }
        }
    }
    // A page consists of two blobs.
    assert_eq!((whole, parts), (2 + 3, 2));
    let received = net.traffic(devices[1].key).received;
    assert!(received < 300_000, "{received} bytes");

    group.set_policy(None).await.expect("a policy");
    devices[1].synced(Synced::Everywhere).await;
    let repo = &group.repos().await.expect("repos")[0];
    assert_eq!(repo.root().await.expect("a root").files, 5);
    let mut blobs = devices[1].stores.blobs.list();
    while let Some((hash, status)) = blobs.try_next().await.expect("a list") {
        assert!(matches!(status, BlobStatus::Complete { .. }), "{hash}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_who_have_a_part_give_all() {
    let net = SimNetwork::new(44);
    let mut devices = members(&net, &[Write, Write]).await;
    for (n, prefix) in [(1, "photos"), (2, "")] {
        devices[n].synced(Synced::Here).await;
        let repo = theirs(&devices, n).await;
        let limit = if n == 1 { u64::MAX } else { 2_000_000 };
        let some = selected(&[prefix], limit);
        repo.set_policy(some.clone()).await.expect("a policy");
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let first = devices.remove(0);
    let repo = own(&first).await;
    let at = devices.iter().flat_map(|d| d.replicator().addresses());
    let invite = first.group().invite(Read, at.collect()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    net.partition(&[first.key]);
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    let joined = groups.join(&invite.expect("an invite")).await;
    let theirs = joined.expect("it joins");
    let_in(&theirs).await;
    late.synced(Synced::Here).await;
    let theirs = theirs.repo(repo.key()).await.expect("repos");
    let theirs = theirs.expect("it knows of it");
    for (n, (name, len)) in (0..).zip(FILES) {
        let bytes = theirs.read_to_bytes(name).await.expect("a file");
        assert!(bytes == noise(n, len), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_copy_stays_unless_told() {
    let net = SimNetwork::new(45);
    let devices = members(&net, &[Write]).await;
    let (group, id) = (devices[1].group(), devices[1].group().id());
    group.set_policy(None).await.expect("a policy");
    devices[1].synced(Synced::Here).await;
    let repo = theirs(&devices, 1).await;
    let ours = own(&devices[1]).await;
    // Equal bytes are one blob, and our own files stay.
    ours.write("mine", noise(3, 2_000_000))
        .await
        .expect("a write");
    devices[1].synced(Synced::Everywhere).await;
    let replicator = devices[1].replicator();
    let free = async |copies| replicator.free(id, copies).await.expect("it is freed");
    assert_eq!(free(Copies::RequireOtherCopy).await, Freed::default());

    group.set_policy(Policy::Pinned).await.expect("a policy");
    repo.pin("note").await.expect("a pin");
    devices[1].synced(Synced::Here).await;
    // Nobody is connected who could prove to have them.
    net.partition(&[devices[0].key]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let freed = free(Copies::RequireOtherCopy).await;
    assert_eq!((freed.files, freed.stay), (0, 3));
    assert_eq!(here(&devices[1], &repo).await.len(), 5);
    net.heal();
    devices[1].synced(Synced::Everywhere).await;
    let freed = free(Copies::RequireOtherCopy).await;
    assert_eq!((freed.files, freed.stay), (3, 0));
    assert!(freed.bytes > 9_050_000, "{freed:?}");
    assert_eq!(here(&devices[1], &repo).await, names(&["note", "video"]));
    let mine = ours.read_to_bytes("mine").await.expect("ours");
    assert!(mine == noise(3, 2_000_000));
    // It is fetched again when it is read, and deleted again.
    let bytes = read(&devices[1], &repo, "photos/small", 0..u64::MAX).await;
    assert!(bytes.expect("bytes") == noise(0, 20_000));
    net.partition(&[devices[0].key]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(free(Copies::AllowLastCopy).await.files, 1);
    net.heal();
    // Nobody counts them as still here.
    group.set_policy(None).await.expect("a policy");
    devices[1].synced(Synced::Everywhere).await;
    agree(&devices).await;
}

#[tokio::test(start_paused = true)]
async fn all_of_a_repo_comes_on_demand() {
    let net = SimNetwork::new(46);
    let devices = members(&net, &[Read]).await;
    devices[1].synced(Synced::Here).await;
    let repo = theirs(&devices, 1).await;
    let mut seen = Vec::new();
    let replicator = devices[1].replicator();
    let root = replicator.sync_all(&repo, |now| seen.push(now)).await;
    assert_eq!(root.expect("it comes").files, 5);
    assert_eq!(here(&devices[1], &repo).await.len(), 5);
    assert!(seen.len() > 3, "{seen:?}");
    assert!(seen.is_sorted_by_key(|now| now.bytes_here), "{seen:?}");
    let last = seen.last().expect("it was said");
    assert_eq!((last.files, last.files_here), (5, 5), "{last:?}");
    assert_eq!(last.bytes, last.bytes_here, "{last:?}");
    assert!(last.bytes > 11_050_100, "{last:?}");
    // Nobody is connected who could provide more.
    let writer = own(&devices[0]).await;
    writer
        .write("new", noise(8, 90_000))
        .await
        .expect("a write");
    devices[0].synced(Synced::Everywhere).await;
    net.partition(&[devices[0].key]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let failed = replicator.sync_all(&repo, |_| {}).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_a_limit_gets_short_files_too() {
    let net = SimNetwork::new(47);
    net.set_default_link(link());
    let devices = world(&net, &[Replica], &options()).await;
    let limit = selected(&[], 5_000);
    let group = devices[1].group();
    group.set_policy(limit.clone()).await.expect("a policy");
    let repo = own(&devices[0]).await;
    for (n, len) in (0..).zip([0, 1_000, 3_000, 5_000, 5_328, 16_384, 17_000, 40_000]) {
        let name = format!("{len}");
        repo.write(&name, noise(n, len)).await.expect("a write");
    }
    devices[0].synced(Synced::Everywhere).await;
    devices[1].synced(Synced::Everywhere).await;
    for len in [0, 1_000, 3_000, 5_000] {
        let entry = repo.entry(&format!("{len}")).await.expect("a tree");
        let blob = entry.expect("a file").blob;
        let status = devices[1].stores.blobs.status(blob).await;
        let status = status.expect("a status");
        assert!(matches!(status, Some(BlobStatus::Complete { .. })), "{len}");
    }
}
