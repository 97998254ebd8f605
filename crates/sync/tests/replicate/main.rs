//! Tests of groups that replicate over a simulated network, on virtual time.

mod addresses;
mod changes;
mod chaos;
mod damage;
mod devices;
mod faults;
mod free;
mod holders;
mod hostile;
mod joining;
mod liars;
mod lost;
mod members;
mod policies;
mod power;
mod security;
mod seeds;
mod status;
mod values;
mod world;

use std::{collections::BTreeSet, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::{Kind, PublicKey, Result};
use larder_store_engine::{BlobStatus, Hash};
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::{Read, Replica, Write},
    replicate::{Push, Synced},
    tree::Named,
};
use larder_sync_sim::{Flow, Link, SimNetwork};
use world::{Device, contents, let_in, options, own, world};

fn link() -> Link {
    Link {
        latency: Duration::from_millis(20),
        bandwidth: Some(20_000_000),
        ..Link::default()
    }
}

fn noise(n: u32, len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) ^ n) as u8)
        .collect()
}

async fn agree(devices: &[Device]) {
    for device in devices {
        device.synced(Synced::Everywhere).await;
    }
    let first = devices[0].files().await;
    // Members that cannot read it have the same blobs.
    let mut blobs = BTreeSet::new();
    for repo in devices[0].group().repos().await.expect("repos") {
        let mut listed = repo.list("").await.expect("a list");
        while let Some(Named { entry, .. }) = listed.try_next().await.expect("a name") {
            blobs.insert(*entry.blob.as_bytes());
        }
    }
    assert!(devices.len() > 1, "there is nobody to agree with");
    for device in &devices[1..] {
        if device.group().can_read() {
            assert!(device.files().await == first, "they differ");
        }
        for blob in &blobs {
            let blob = Hash::from(*blob);
            let status = device.stores.blobs.status(blob).await.expect("a status");
            let is_here = matches!(status, Some(BlobStatus::Complete { .. }));
            assert!(
                is_here || blob == Hash::EMPTY,
                "{} lacks {blob}",
                device.key
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_sees_everything_and_a_replica_nothing() {
    let net = SimNetwork::new(1);
    net.set_default_link(link());
    const CANARY: &[u8] = b"a canary in every file";
    net.search_for(&[CANARY]).expect("a pattern");
    let devices = world(&net, &[Write, Write, Read, Replica], &options()).await;
    for (n, device) in devices[..3].iter().enumerate() {
        let repo = own(device).await;
        for (i, len) in [0, 1, 1000, 16_384, 16_385, 70_000, 3_000_000]
            .iter()
            .enumerate()
        {
            let mut bytes = CANARY.to_vec();
            bytes.extend(noise((n * 10 + i) as u32, *len));
            repo.write(&format!("folder {n}/file {i}"), bytes)
                .await
                .expect("a write");
        }
        repo.write("empty", "").await.expect("a write");
    }
    agree(&devices).await;
    let files = devices[0].files().await;
    assert_eq!(files.len(), 3 * 8);
    let members = devices[3].group().members().await.expect("members");
    let mut names: Vec<_> = members.iter().filter_map(|m| m.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["member 1", "member 2", "member 3"]);

    // Nobody in between, not even the replica, ever sees a byte of it.
    assert!(net.findings().is_empty(), "{:?}", net.findings());
    let replica = &devices[4];
    let group = replica.group();
    assert_eq!(group.name().await.unwrap_err().kind(), Kind::Denied);
    assert!(!replica.has_bytes(CANARY).await);
    let status = replica
        .replicator()
        .status(group.id())
        .await
        .expect("a status");
    assert!(status.has_all() && status.repos.len() == 3, "{status:?}");
    for device in &devices {
        assert!(device.replicator().requests().is_empty());
    }

    // Removing is seen as well.
    own(&devices[1])
        .await
        .remove("folder 1/file 3")
        .await
        .expect("a removal");
    agree(&devices).await;
    assert_eq!(devices[0].files().await.len(), 3 * 8 - 1);
}

#[tokio::test(start_paused = true)]
async fn without_pushing_it_converges_too() {
    let net = SimNetwork::new(2);
    net.set_default_link(link());
    let mut options = options();
    options.push = Push::Never;
    let devices = world(&net, &[Write, Write], &options).await;
    for (n, device) in devices.iter().enumerate() {
        own(device)
            .await
            .write("file", noise(n as u32, 1000))
            .await
            .expect("a write");
    }
    agree(&devices).await;
    assert_eq!(devices[2].files().await.len(), 3);
}

/// Repos that are made faster than their events are processed reach a member without waiting for the
/// next comparison.
#[tokio::test(start_paused = true)]
async fn many_repos_at_once_come_without_comparing() {
    let net = SimNetwork::new(8);
    net.set_default_link(link());
    let mut options = options();
    options.compare_every = Duration::from_secs(3600);
    let devices = world(&net, &[Read], &options).await;
    agree(&devices).await;
    for n in 0..20 {
        let repo = devices[0].group().create_repo(&format!("repo {n}")).await;
        let repo = repo.expect("a repo");
        repo.write("file", noise(n, 1000)).await.expect("a write");
    }
    let soon = tokio::time::timeout(Duration::from_secs(20), agree(&devices));
    soon.await.expect("they are in sync soon");
    assert_eq!(devices[1].files().await.len(), 20);
}

/// Values of a third device, which two others received from it and not from each other, are known to be
/// equal.
#[tokio::test(start_paused = true)]
async fn all_are_in_sync_again_after_a_partition_without_pushing() {
    let net = SimNetwork::new(7);
    net.set_default_link(link());
    let mut options = options();
    options.push = Push::Never;
    let devices = world(&net, &[Write, Write], &options).await;
    for round in 1..=2 {
        for (n, device) in devices.iter().enumerate() {
            let repo = own(device).await;
            let data = noise(n as u32 + 10 * round, 1000);
            repo.write(&format!("file {round}"), data)
                .await
                .expect("a write");
        }
        if round == 1 {
            agree(&devices).await;
            net.partition(&[devices[2].key]);
            continue;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        net.heal();
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    assert_eq!(devices[2].files().await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn who_was_cut_off_catches_up() {
    let net = SimNetwork::new(3);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write, Write], &options()).await;
    own(&devices[0])
        .await
        .write("before", "1")
        .await
        .expect("a write");
    agree(&devices).await;
    net.partition(&[devices[2].key]);
    own(&devices[2])
        .await
        .write("alone", "2")
        .await
        .expect("a write");
    own(&devices[0])
        .await
        .write("together", "3")
        .await
        .expect("a write");
    tokio::time::sleep(Duration::from_secs(120)).await;
    devices[1].synced(Synced::Here).await;
    let found = devices[1].files().await;
    assert_eq!(found.len(), 2, "{:?}", found.keys());
    net.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    agree(&devices).await;
    assert_eq!(devices[1].files().await.len(), 3);

    // A crashed device continues where it stopped.
    devices[2].crash(&net);
    own(&devices[0])
        .await
        .write("meanwhile", noise(4, 100_000))
        .await
        .expect("a write");
    tokio::time::sleep(Duration::from_secs(60)).await;
    devices[2].start(&net, options()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    agree(&devices).await;
    assert_eq!(devices[2].files().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_replica_alone_serves_who_joins_later() {
    let net = SimNetwork::new(4);
    net.set_default_link(link());
    let mut devices = world(&net, &[Replica], &options()).await;
    own(&devices[0])
        .await
        .write("kept", noise(1, 500_000))
        .await
        .expect("a write");
    agree(&devices).await;
    let group = devices[0].group();
    let at = devices[1].replicator().addresses();
    let invite = group.invite(Write, at).await.expect("an invite");
    // The replica hears of it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    devices[0].crash(&net);
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    let joined = groups.join(&invite).await.expect("it joins");
    let_in(&joined).await;
    late.synced(Synced::Here).await;
    let repos = joined.repos().await.expect("repos");
    assert_eq!(
        contents(&repos[0]).await.expect("files"),
        [("kept".to_owned(), noise(1, 500_000))]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_nothing() {
    let net = SimNetwork::new(5);
    net.set_default_link(link());
    let devices = world(&net, &[Write], &options()).await;
    // Sealed, plain and in names: nothing of it may be sent to others.
    const CANARY: &[u8] = b"a canary that nobody else may see";
    let repo = own(&devices[0]).await;
    let mut bytes = CANARY.repeat(3000);
    bytes.extend(noise(1, 100_000));
    let entry = repo.write("secret", bytes).await.expect("a write");
    agree(&devices).await;
    let blobs = &devices[0].stores.blobs;
    let sealed = blobs.read_to_bytes(entry.blob, 1000..1064).await;
    let sealed = sealed.expect("the sealed file");
    let root = repo.root().await.expect("a root").hash;
    let page = blobs.read_to_bytes(root, 0..32).await.expect("a page");
    net.search_for(&[
        CANARY,
        &sealed,
        &page,
        root.as_bytes(),
        &repo.key().0,
        &repo.id().0,
        &devices[0].group().id().0,
    ])
    .expect("patterns");
    // A stranger with a group of its own that knows the address.
    let mut stranger = Device::new(8).await;
    let groups = stranger.start(&net, options()).await;
    groups.create_group("other").await.expect("a group");
    let before = net.traffic(stranger.key);
    for address in devices[0].replicator().addresses() {
        let address = address.parse().expect("an address");
        let connected = stranger.replicator().connect(&address).await;
        connected.expect("anybody can connect");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let got = net.traffic(stranger.key).received - before.received;
    assert!(got < 2000, "a stranger was told {got} bytes");
    assert!(net.findings().is_empty(), "{:?}", net.findings());
    let group = stranger.group();
    let status = stranger
        .replicator()
        .status(group.id())
        .await
        .expect("a status");
    assert!(status.peers.is_empty() && status.repos.is_empty());
    let status = devices[0]
        .replicator()
        .status(devices[0].group().id())
        .await;
    assert!(!status.expect("a status").peers.contains(&stranger.key));
}

async fn read(
    device: &Device,
    repo: &Repo,
    name: &str,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>> {
    let bytes = device.replicator().read(repo, name, range).await?;
    let pieces: Vec<_> = bytes.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test(start_paused = true)]
async fn names_alone_take_little() {
    let net = SimNetwork::new(6);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let repo = own(&devices[0]).await;
    for n in 0..20 {
        repo.write(&format!("{n}"), noise(n, 200_000))
            .await
            .expect("a write");
    }
    let mut reader = Device::new(7).await;
    let mut names = options();
    names.policy = Policy::Names;
    let groups = reader.start(&net, names).await;
    let at = devices[0].replicator().addresses();
    let invite = devices[0]
        .group()
        .invite(Read, at)
        .await
        .expect("an invite");
    let joined = groups.join(&invite).await.expect("it joins");
    reader.synced(Synced::Here).await;
    let repos = joined.repos().await.expect("repos");
    let listed = repos[0].list("").await.expect("a list");
    assert_eq!(futures_util::StreamExt::count(listed).await, 20);
    assert_eq!(
        repos[0].read_to_bytes("1").await.unwrap_err().kind(),
        Kind::NotFound
    );
    let received = net.traffic(PublicKey([7; 32])).received;
    assert!(received < 50_000, "{received} bytes for 20 names");

    // Contents are fetched when they are read, and stay.
    assert_eq!(
        read(&reader, &repos[0], "7", 100_000..u64::MAX)
            .await
            .expect("bytes"),
        noise(7, 200_000)[100_000..]
    );
    let more = net.traffic(PublicKey([7; 32])).received - received;
    assert!(
        (200_000..220_000).contains(&more),
        "{more} bytes for one file"
    );
    assert_eq!(
        read(&reader, &repos[0], "none", 0..1)
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    net.partition(&[reader.key]);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        read(&reader, &repos[0], "8", 0..1)
            .await
            .unwrap_err()
            .kind(),
        Kind::Unavailable
    );
    reader
        .stores
        .blobs
        .collect(std::time::SystemTime::now())
        .await
        .expect("a collection");
    assert_eq!(
        read(&reader, &repos[0], "7", 0..10).await.expect("bytes"),
        noise(7, 200_000)[..10]
    );
    assert!(reader.replicator().requests().is_empty());

    // Wanting more later brings the rest.
    net.heal();
    reader.crash(&net);
    reader.start(&net, options()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    reader.synced(Synced::Here).await;
    assert_eq!(reader.files().await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_file_comes_from_all_who_have_it() {
    let net = SimNetwork::new(7);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    let len = 64 << 20;
    own(&devices[0])
        .await
        .write("large", noise(1, len))
        .await
        .expect("a write");
    agree(&devices).await;
    // Two are as fast as before, and one is slow.
    let late = PublicKey([9; 32]);
    net.set_links(
        late,
        devices[2].key,
        Link {
            bandwidth: Some(1_000_000),
            ..link()
        },
    );
    let sent = |n: usize| net.traffic(devices[n].key).sent;
    let before: Vec<_> = (0..3).map(sent).collect();
    let mut device = Device::new(9).await;
    let groups = device.start(&net, options()).await;
    let mut addresses = Vec::new();
    for device in &devices {
        addresses.extend(device.replicator().addresses());
    }
    let invite = devices[0]
        .group()
        .invite(Read, addresses)
        .await
        .expect("an invite");
    let start = tokio::time::Instant::now();
    groups.join(&invite).await.expect("it joins");
    device.synced(Synced::Here).await;
    let took = start.elapsed();
    let sent: Vec<_> = (0..3).map(|n| sent(n) - before[n]).collect();
    // One alone would take 3.4 s.
    assert!(took < Duration::from_millis(2700), "{took:?}, {sent:?}");
    assert!(sent[0] > 16 << 20 && sent[1] > 16 << 20, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn who_was_dialled_does_not_dial_back() {
    let net = SimNetwork::new(36);
    net.set_default_link(link());
    let devices = world(&net, &[Write], &options()).await;
    agree(&devices).await;
    // Both announced their addresses long ago.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(net.total().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_it_later_is_asked_again() {
    let net = SimNetwork::new(34);
    net.set_default_link(link());
    // A writer, a device in between, and a replica that the writer's bytes do not reach any more,
    // though the connection looks alive.
    let devices = world(&net, &[Write, Replica], &options()).await;
    own(&devices[0])
        .await
        .write("before", "1")
        .await
        .expect("a write");
    agree(&devices).await;
    let silent = Link {
        flow: Flow::Stalled,
        ..link()
    };
    net.set_links(devices[0].key, devices[2].key, silent);
    let slow = Link {
        bandwidth: Some(1_000_000),
        ..link()
    };
    net.set_links(devices[0].key, devices[1].key, slow);
    own(&devices[0])
        .await
        .write("after", noise(1, 2_000_000))
        .await
        .expect("a write");
    // The device in between announces the new tree as soon as it learns of it, and has it 2 s later.
    let newest = own(&devices[0]).await.root().await.expect("a root");
    let key = own(&devices[0]).await.key();
    let theirs = devices[2].group().repo(key).await.expect("repos");
    let theirs = theirs.expect("the writer's");
    let start = tokio::time::Instant::now();
    while theirs.root().await.expect("a root").hash != newest.hash {
        let took = start.elapsed();
        assert!(took < Duration::from_secs(6), "after {took:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
