//! Tests that a file that its owner or others have lost does not hold up any other.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use larder_store_api::{BlobStore, CollectionId, CollectionStore, Kind, Order, PayloadId, Scan};
use larder_store_engine::{Hash, Repair};
use larder_sync::{
    groups::{Groups, Missing, OwnTrees, Policy, Repo},
    invite::InviteKind::{self, Read, Replica, Write},
    replicate::{GroupStatus, RepoStatus, Synced},
};
use larder_sync_sim::SimNetwork;

use crate::{
    agree, link, noise,
    policies::{here, names, theirs},
    world::{Device, contents, options, own, world},
};

const PAYLOADS: CollectionId = CollectionId::from_static("larder/payloads");

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Removes the bytes of a blob; the index still claims them.
async fn lose(device: &Device, blob: Hash) {
    let all = Scan {
        collection: PAYLOADS,
        keys: (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
        order: Order::Ascending,
    };
    let claims: Vec<_> = device.memory.scan(all).try_collect().await.expect("claims");
    let claim = claims
        .iter()
        .find(|claim| claim.value == blob.as_bytes()[..]);
    let key = &claim.expect("the blob has a payload").key;
    let payload = PayloadId(key[..].try_into().expect("a payload's id"));
    let deleted = BlobStore::delete(&device.memory, vec![payload]).await;
    deleted.expect("it is deleted");
}

/// Removes the bytes of a device's own file.
async fn lose_file(device: &Device, name: &str) -> Hash {
    let entry = own(device).await.entry(name).await.expect("a tree");
    let blob = entry.expect("a file").blob;
    lose(device, blob).await;
    blob
}

/// Marks damaged data as missing.
async fn repair(device: &Device) {
    let scrubbed = device.stores.blobs.scrub(Repair::Yes);
    let scrubbed: Vec<_> = scrubbed.try_collect().await.expect("a scrub");
    assert!(!scrubbed.is_empty());
    let forgotten = Groups::forget_files(device.stores.collections()).await;
    forgotten.expect("it is noted");
}

async fn write(device: &Device, name: &str, n: u32) {
    let written = own(device).await.write(name, noise(n, 40_000)).await;
    written.expect("a write");
}

async fn status(device: &Device) -> GroupStatus {
    let status = device.replicator().status(device.group().id()).await;
    status.expect("a status")
}

/// Returns the status of the first device's repo.
async fn status_of(device: &Device, repo: &Repo) -> RepoStatus {
    let found = status(device).await.repos;
    let found = found.into_iter().find(|found| found.repo == repo.key());
    found.expect("the repo")
}

fn paths(missing: &Missing) -> BTreeSet<String> {
    let paths = missing.named.iter().map(|file| file.path.clone());
    paths.map(|path| path.expect("a path")).collect()
}

/// Creates a writer with five files, one of which is lost, and the other devices.
async fn with_a_lost_file(net: &SimNetwork, kinds: &[InviteKind]) -> Vec<Device> {
    net.set_default_link(link());
    let devices = world(net, &[], &options()).await;
    for n in 0..5 {
        write(&devices[0], &format!("{n}"), n).await;
    }
    lose_file(&devices[0], "2").await;
    let mut devices = devices;
    for (n, kind) in (2..).zip(kinds) {
        let at = devices[0].replicator().addresses();
        let invite = devices[0].group().invite(*kind, at).await;
        let mut device = Device::new(n).await;
        let groups = device.start(net, options()).await;
        groups
            .join(&invite.expect("an invite"))
            .await
            .expect("it joins");
        devices.push(device);
    }
    devices
}

#[tokio::test(start_paused = true)]
async fn all_other_files_come_and_later_ones_too() {
    let net = SimNetwork::new(81);
    let devices = with_a_lost_file(&net, &[Read, Replica]).await;
    pause(20).await;
    let repo = theirs(&devices, 1).await;
    assert_eq!(here(&devices[1], &repo).await, names(&["0", "1", "3", "4"]));
    let listed = repo.list("").await.expect("a list");
    assert_eq!(futures_util::StreamExt::count(listed).await, 5);
    let lost = repo.entry("2").await.expect("a tree").expect("a file");
    assert!(!repo.has(&lost).await.expect("a look"));
    let read = repo.read_to_bytes("2").await;
    assert_eq!(read.unwrap_err().kind(), Kind::NotFound);

    // All who know of the missing file report it, and nobody reports that all is well.
    for (n, device) in devices.iter().enumerate() {
        let found = status_of(device, &repo).await;
        assert!(found.is_settled() && !found.state.is_here(), "{found:?}");
        assert_eq!(found.missing.files, 1, "{n}: {found:?}");
        assert_eq!(found.state.missing, 1);
        assert_eq!(found.holders, [], "{n}");
        let file = &found.missing.named[0];
        assert_eq!(file.blob, lost.blob);
        assert_eq!(file.is_damaged, n == 0);
        assert_eq!(file.path.as_deref(), [Some("2"), Some("2"), None][n]);
        let limit = Duration::from_secs(1);
        let id = device.group().id();
        let synced = device.replicator().wait_synced(id, Synced::Here, limit);
        let error = synced.await.unwrap_err();
        assert!(
            error
                .message()
                .contains("nobody who is connected has 1 file"),
            "{error}"
        );
        for member in device.replicator().members(id).await.expect("members") {
            assert_eq!(member.in_sync_since, None, "{n}: {member:?}");
        }
    }
    assert!(devices[1].replicator().requests().is_empty());

    // A later root arrives, with everything that it has.
    write(&devices[0], "5", 5).await;
    write(&devices[0], "1", 7).await;
    own(&devices[0]).await.remove("0").await.expect("a removal");
    pause(20).await;
    assert_eq!(here(&devices[1], &repo).await, names(&["1", "3", "4", "5"]));
    let found = repo.read_to_bytes("1").await.expect("the newer one");
    assert!(found[..] == noise(7, 40_000));
    let found = status_of(&devices[1], &repo).await;
    assert!(found.is_settled());
    assert_eq!(paths(&found.missing), names(&["2"]));

    // It is not requested again and again.
    let before = net.traffic(devices[1].key).sent;
    pause(3600).await;
    let sent = net.traffic(devices[1].key).sent - before;
    assert!(sent < 1_000_000, "{sent} bytes in an hour");

    // Putting the file again repairs it, though the tree names it already.
    let root = own(&devices[0]).await.root().await.expect("a root");
    write(&devices[0], "2", 2).await;
    let read = own(&devices[0]).await.read_to_bytes("2").await;
    assert!(read.expect("it is here again")[..] == noise(2, 40_000));
    let after = own(&devices[0]).await.root().await.expect("a root");
    assert_ne!(root, after, "it has another time");
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    agree(&devices[..2]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_again_without_a_change_comes_too() {
    let net = SimNetwork::new(82);
    let devices = with_a_lost_file(&net, &[Read]).await;
    pause(20).await;
    let repo = theirs(&devices, 1).await;
    assert_eq!(here(&devices[1], &repo).await.len(), 4);
    // The bytes are the same, so the tree does not change.
    let ours = own(&devices[0]).await;
    let root = ours.root().await.expect("a root");
    let staged = ours.stage(noise(2, 40_000), 0).await.expect("a file");
    assert_eq!(ours.root().await.expect("a root"), root);
    let entry = ours.entry("2").await.expect("a tree").expect("a file");
    assert_eq!(staged.entry.blob, entry.blob);
    assert!(ours.has(&entry).await.expect("a look"));
    // At once, and not only at the next retry.
    pause(2).await;
    assert_eq!(here(&devices[1], &repo).await.len(), 5);
    agree(&devices).await;
}

#[tokio::test(start_paused = true)]
async fn what_its_owner_lost_comes_back_from_those_who_have_it() {
    let net = SimNetwork::new(83);
    net.set_default_link(link());
    let mut devices = world(&net, &[Read, Replica], &options()).await;
    for n in 0..5 {
        write(&devices[0], &format!("{n}"), n).await;
    }
    agree(&devices).await;
    lose_file(&devices[0], "2").await;
    lose_file(&devices[0], "3").await;
    devices[0].crash(&net);
    repair(&devices[0]).await;
    // It is known before anybody is asked.
    let groups = Groups::open(devices[0].stores.clone()).await;
    let group = groups.expect("groups").groups().remove(0);
    let repos = group.repos().await.expect("repos");
    let missing = repos[0].missing(&Policy::Everything).await;
    assert_eq!(paths(&missing.expect("a look")), names(&["2", "3"]));
    let state = repos[0].state(&Policy::Everything).await;
    assert!(!state.expect("a state").is_here());

    devices[0].start(&net, options()).await;
    pause(30).await;
    agree(&devices).await;
    let own = own(&devices[0]).await;
    assert_eq!(contents(&own).await.expect("files").len(), 5);

    // Files that others lost come back too.
    let entry = own.entry("4").await.expect("a tree").expect("a file");
    for n in [1, 2] {
        lose(&devices[n], entry.blob).await;
        devices[n].crash(&net);
        repair(&devices[n]).await;
        devices[n].start(&net, options()).await;
    }
    pause(30).await;
    agree(&devices).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_a_part_gives_it_and_says_so() {
    let net = SimNetwork::new(84);
    let mut devices = with_a_lost_file(&net, &[Write, Replica]).await;
    pause(20).await;
    let repo = own(&devices[0]).await;
    let at = devices[1..].iter().flat_map(|d| d.replicator().addresses());
    let invite = devices[0].group().invite(Read, at.collect()).await;
    pause(5).await;
    net.partition(&[devices[0].key]);
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    let joined = groups.join(&invite.expect("an invite")).await;
    let theirs = joined.expect("it joins");
    pause(20).await;
    let theirs = theirs.repo(repo.key()).await.expect("repos");
    let theirs = theirs.expect("it knows of it");
    assert_eq!(here(&late, &theirs).await, names(&["0", "1", "3", "4"]));
    let found = status_of(&late, &repo).await;
    assert_eq!((found.holders, found.missing.files), (Vec::new(), 1));
    // The announced numbers are exact.
    let id = late.group().id();
    let members = late.replicator().members(id).await.expect("members");
    for member in members.iter().filter(|member| member.connected) {
        let lacks = (member.they_have.files, member.we_have.files);
        assert_eq!(lacks, (0, 0), "{member:?}");
    }
    // A device that gets it later is asked at once.
    net.heal();
    own(&devices[0])
        .await
        .stage(noise(2, 40_000), 0)
        .await
        .expect("a file");
    pause(60).await;
    devices.push(late);
    agree(&devices).await;
    assert_eq!(devices[1].files().await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_was_whole_stays_until_the_newer_one_is() {
    let net = SimNetwork::new(85);
    net.set_default_link(link());
    let devices = world(&net, &[Read], &options()).await;
    write(&devices[0], "file", 1).await;
    write(&devices[0], "other", 2).await;
    agree(&devices).await;
    let repo = theirs(&devices, 1).await;
    let old = repo.entry("file").await.expect("a tree").expect("a file");
    net.partition(&[devices[1].key]);
    write(&devices[0], "file", 3).await;
    lose_file(&devices[0], "file").await;
    write(&devices[0], "new", 4).await;
    net.heal();
    pause(60).await;
    assert_eq!(here(&devices[1], &repo).await, names(&["new", "other"]));
    for n in 0..3 {
        let blobs = &devices[1].stores.blobs;
        let collected = blobs.collect(SystemTime::now()).await;
        collected.expect("a collection");
        // Whoever listed it before can still read it.
        let bytes: Vec<_> = repo
            .read_entry(&old, 0..u64::MAX)
            .try_collect()
            .await
            .expect("the old one");
        assert!(bytes.concat() == noise(1, 40_000));
        write(&devices[0], &format!("more {n}"), 10 + n).await;
        pause(20).await;
    }
    write(&devices[0], "file", 5).await;
    agree(&devices).await;
    let blobs = &devices[1].stores.blobs;
    let collected = blobs.collect(SystemTime::now()).await;
    collected.expect("a collection");
    assert_eq!(blobs.status(old.blob).await.expect("a status"), None);
    assert_eq!(contents(&repo).await.expect("files").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_lost_file_does_not_keep_devices_of_one_owner_apart() {
    let net = SimNetwork::new(86);
    let mut devices = with_a_lost_file(&net, &[Read]).await;
    let at = devices[0].replicator().addresses();
    let invite = devices[0].group().invite(InviteKind::Device, at).await;
    let mut phone = Device::new(9).await;
    let groups = phone.start(&net, options()).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    pause(30).await;
    let ours = own(&phone).await;
    assert_eq!(here(&phone, &ours).await, names(&["0", "1", "3", "4"]));
    assert_eq!(
        paths(&status_of(&phone, &ours).await.missing),
        names(&["2"])
    );
    // Both write while they are separated, and are merged.
    net.partition(&[phone.key]);
    write(&phone, "of the phone", 8).await;
    write(&devices[0], "of the computer", 9).await;
    net.heal();
    pause(60).await;
    let expected = ["0", "1", "3", "4", "of the computer", "of the phone"];
    assert_eq!(here(&phone, &ours).await, names(&expected));
    assert_eq!(
        paths(&status_of(&phone, &ours).await.missing),
        names(&["2"])
    );
    // The phone gets it from elsewhere, and so everybody gets it.
    write(&phone, "2", 2).await;
    devices.push(phone);
    agree(&devices).await;
    assert_eq!(devices[1].files().await.len(), 7);
}

/// The number of files in the repo of [`with_pages`].
const OF_PAGES: usize = 400;

/// A leaf of a tree: the sequence of its blobs, the first of them, which holds its names, and the number of its files.
struct Leaf {
    sequence: Hash,
    sealed: Hash,
    files: usize,
}

/// Creates files in a device's repo until its tree has several pages, and returns one of them.
async fn with_pages(device: &Device) -> Leaf {
    let repo = own(device).await;
    let mut changes = larder_sync::groups::Changes::new();
    for n in 0..OF_PAGES {
        let mut bytes = noise(n as u32, 20_000);
        bytes.extend(n.to_be_bytes());
        let staged = repo.stage(bytes, 0).await.expect("a file");
        // Long enough for the page to be a payload.
        let name = format!("{n:04}{}", "/x".repeat(250));
        changes.put(larder_sync::tree::Name::new(name).expect("a name"), staged);
    }
    let root = repo.change(changes).await.expect("a change");
    let blobs = &device.stores.blobs;
    assert!(root.level > 0);
    let sequence = blobs.read_to_bytes(root.hash, 32..64).await;
    let page = |bytes: &[u8]| Hash::from(<[u8; 32]>::try_from(bytes).expect("a hash"));
    let sequence = page(&sequence.expect("the root's sequence"));
    let leaf = blobs.read_to_bytes(sequence, 0..u64::MAX).await;
    let leaf = leaf.expect("a page's sequence");
    Leaf {
        sequence,
        sealed: page(&leaf[..32]),
        files: leaf.len() / 32 - 1,
    }
}

#[tokio::test(start_paused = true)]
async fn a_collection_deletes_nothing_while_a_page_of_an_own_repo_is_lost() {
    let net = SimNetwork::new(89);
    let devices = world(&net, &[], &options()).await;
    let store = &devices[0].stores;
    let watch = OwnTrees::new(store.collections());
    store.blobs.add_roots(std::sync::Arc::new(watch));
    let blobs = &store.blobs;
    let stray = async |n| {
        let added = blobs.add(noise(n, 40_000)).await;
        // A collection keeps blobs of the millisecond in which it begins.
        std::thread::sleep(Duration::from_millis(2));
        added.expect("a blob").hash()
    };
    let count = async || {
        let all: Vec<_> = blobs.list().try_collect().await.expect("a list");
        all.len()
    };
    let first = stray(1000).await;
    blobs
        .collect(SystemTime::now())
        .await
        .expect("a collection");
    assert_eq!(blobs.status(first).await.expect("a status"), None);

    let second = stray(1001).await;
    let leaf = with_pages(&devices[0]).await;
    let lost = blobs.delete(vec![leaf.sequence]).await;
    lost.expect("the page is deleted");
    let before = count().await;
    let error = blobs.collect(SystemTime::now()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.operation(), "groups.collect");
    assert_eq!(count().await, before);
    let status = blobs.status(second).await.expect("a status");
    assert!(status.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_lost_hides_its_names_and_no_file() {
    let net = SimNetwork::new(87);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let repo = own(&devices[0]).await;
    let leaf = with_pages(&devices[0]).await;
    lose(&devices[0], leaf.sealed).await;

    let at = devices[0].replicator().addresses();
    let invite = devices[0].group().invite(Read, at).await;
    let mut reader = Device::new(2).await;
    let groups = reader.start(&net, options()).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    pause(60).await;
    let found = status_of(&reader, &repo).await;
    assert!(!found.state.is_here() && found.state.local.is_empty());
    assert_eq!(found.missing.files, 1, "the page: {found:?}");
    let blobs = reader.stores.blobs.list();
    let blobs: Vec<_> = blobs.try_collect().await.expect("a list");
    let files = OF_PAGES - leaf.files;
    assert!(blobs.len() >= files, "{} blobs", blobs.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_found_to_be_damaged_is_fetched_from_those_who_have_it() {
    let net = SimNetwork::new(88);
    net.set_default_link(link());
    let mut devices = world(&net, &[Read, Replica], &options()).await;
    for n in 0..5 {
        write(&devices[0], &format!("{n}"), n).await;
    }
    agree(&devices).await;
    // Its owner and a replica lose it, and find out when somebody asks for it.
    let blob = lose_file(&devices[0], "2").await;
    lose(&devices[2], blob).await;
    let at = devices.iter().flat_map(|d| d.replicator().addresses());
    let invite = devices[0].group().invite(Read, at.collect()).await;
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    late.synced(Synced::Here).await;
    devices.push(late);
    pause(60).await;
    // The devices that were asked for it noticed, and have it again.
    let mut again = 0;
    for n in [0, 2] {
        let bytes = devices[n].stores.blobs.read_to_bytes(blob, 0..u64::MAX);
        again += u8::from(bytes.await.is_ok());
        let found = status(&devices[n]).await;
        assert!(found.has_all(), "{n}: {found:?}");
    }
    assert!(again > 0, "nobody was asked");
}
