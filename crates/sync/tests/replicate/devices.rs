//! Tests of two devices of one owner: a new one gets everything, and simultaneous changes of both are
//! merged.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use larder_sync::{
    groups::Policy,
    invite::InviteKind::{self, Replica, Write},
    replicate::Synced,
    tree::Root,
};
use larder_sync_sim::{Link, SimNetwork};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    link, noise, seeds,
    world::{Device, contents, let_in, options, own, world},
};

/// Joins as another device of the first one's owner.
async fn second(net: &SimNetwork, devices: &[Device], n: u8) -> Device {
    let mut addresses = Vec::new();
    for device in devices {
        addresses.extend(device.replicator().addresses());
    }
    let group = devices[0].group();
    let invite = group.invite(InviteKind::Device, addresses).await;
    let invite = invite.expect("an invite");
    let mut device = Device::new(n).await;
    let groups = device.start(net, options()).await;
    let group = groups.join(&invite).await.expect("it joins");
    let_in(&group).await;
    device
}

async fn write(device: &Device, name: &str, bytes: impl Into<Vec<u8>>) {
    let written = own(device).await.write(name, bytes.into()).await;
    written.expect("a write");
}

/// Returns the newest roots of all repos, in order.
async fn roots(device: &Device) -> Vec<Root> {
    let id = device.group().id();
    let status = device.replicator().status(id).await.expect("a status");
    assert!(status.has_all(), "{status:?}");
    let mut repos = status.repos;
    repos.sort_by_key(|repo| repo.repo);
    repos.iter().map(|repo| repo.state.wanted).collect()
}

async fn agree(devices: &[Device]) {
    for device in devices {
        device.synced(Synced::Everywhere).await;
    }
    let (roots_of_first, files) = (roots(&devices[0]).await, devices[0].files().await);
    for device in &devices[1..] {
        assert_eq!(roots(device).await, roots_of_first, "{}", device.key);
        if device.group().can_read() {
            assert!(device.files().await == files, "they differ");
        }
    }
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

type Files = BTreeMap<String, Vec<u8>>;

async fn own_files(device: &Device) -> Files {
    let files = contents(&own(device).await).await.expect("files");
    files.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_device_gets_what_its_owner_has() {
    let net = SimNetwork::new(21);
    net.set_default_link(Link {
        bandwidth: Some(1_000_000),
        ..link()
    });
    let mut devices = world(&net, &[Write, Replica], &options()).await;
    write(&devices[0], "large", noise(1, 10_000_000)).await;
    for n in 0..200 {
        write(&devices[0], &format!("{n}"), noise(n, 100)).await;
    }
    agree(&devices).await;
    let phone = second(&net, &devices, 9).await;
    pause(3).await;
    // It knows that there is something, and shows nothing of it before everything is there.
    let status = phone.replicator().status(phone.group().id()).await;
    let status = status.expect("a status");
    assert!(!status.has_all() && !status.compared, "{status:?}");
    assert_eq!(own(&phone).await.root().await.expect("a root"), Root::EMPTY);
    phone.synced(Synced::Here).await;
    assert_eq!(own_files(&phone).await.len(), 201);
    devices.push(phone);
    agree(&devices).await;
    // Both write, one after the other.
    write(&devices[3], "of the phone", "1").await;
    agree(&devices).await;
    write(&devices[0], "of the computer", "2").await;
    own(&devices[3]).await.remove("7").await.expect("a removal");
    agree(&devices).await;
    let files = own_files(&devices[1]).await;
    assert!(files.is_empty(), "the other member's own");
    assert_eq!(own_files(&devices[3]).await.len(), 202);
    assert_eq!(devices[1].files().await.len(), 202);
    // After it has left, nothing of the group remains.
    let group = devices[3].group().id();
    devices[3].groups().leave(group).await.expect("it leaves");
    let left = devices[3].stores.collections().scan_prefix(
        larder_store_api::CollectionId::from_static("sync/others"),
        bytes::Bytes::new(),
    );
    assert_eq!(futures_util::StreamExt::count(left).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_two_devices_write_at_once_is_merged() {
    for policy in [Policy::Everything, Policy::Names] {
        let net = SimNetwork::new(22);
        net.set_default_link(link());
        let mut devices = world(&net, &[Write, Replica], &options()).await;
        write(&devices[0], "both", "first").await;
        write(&devices[0], "gone", "first").await;
        write(&devices[0], "changed", "first").await;
        let mut phone = second(&net, &devices, 9).await;
        phone.crash(&net);
        let mut names = options();
        names.policy = policy.clone();
        phone.start(&net, names).await;
        phone.synced(Synced::Here).await;
        devices.push(phone);

        net.partition(&[devices[3].key]);
        let (computer, phone) = (&devices[0], &devices[3]);
        write(computer, "both", "of the computer").await;
        write(computer, "changed", "later").await;
        write(phone, "both", "of the phone").await;
        write(phone, "only here", "phone").await;
        own(phone).await.remove("gone").await.expect("a removal");
        write(computer, "only there", "computer").await;
        pause(60).await;
        assert!(own_files(computer).await.len() == 4);
        net.heal();
        pause(60).await;
        for device in &devices {
            device.synced(Synced::Everywhere).await;
        }
        for device in &devices[1..] {
            assert_eq!(roots(device).await, roots(&devices[0]).await);
        }
        if policy == Policy::Everything {
            agree(&devices).await;
        }
        let files = devices[1].files().await;
        let mut found: Vec<_> = files
            .iter()
            .map(|((_, name), bytes)| (name.as_str(), str::from_utf8(bytes).expect("text")))
            .collect();
        let (copy, lost) = found.remove(1);
        assert!(copy.starts_with("both (conflict "), "{copy}");
        let mut both = [found[0].1, lost];
        both.sort_unstable();
        assert_eq!(both, ["of the computer", "of the phone"]);
        assert_eq!(
            found[1..],
            [
                ("changed", "later"),
                ("only here", "phone"),
                ("only there", "computer")
            ]
        );
        // They merge once or twice, and then come to rest.
        let (seq, _) = own(&devices[0])
            .await
            .known_root()
            .await
            .expect("a root")
            .expect("one");
        assert!(seq <= 3 + 3 + 3, "{seq}");
        pause(300).await;
        let (later, _) = own(&devices[3])
            .await
            .known_root()
            .await
            .expect("a root")
            .expect("one");
        assert_eq!(seq, later);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_becomes_another_device() {
    for wait in [0, 1, 5, 60] {
        let net = SimNetwork::new(23);
        net.set_default_link(Link {
            bandwidth: Some(1_000_000),
            ..link()
        });
        let devices = world(&net, &[InviteKind::Read], &options()).await;
        write(&devices[0], "before", "1").await;
        devices[1].synced(Synced::Here).await;
        // Its root is known there before its tree is complete.
        write(&devices[0], "large", noise(1, 5_000_000)).await;
        pause(wait).await;
        let group = devices[0].group();
        let invite = group.invite(InviteKind::Device, Vec::new()).await;
        let invite = invite.expect("an invite");
        let joined = devices[1].groups().join(&invite).await;
        let joined = joined.expect("it joins");
        while !joined.can_write() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A tree that is not here yet is merged with changes that were written before it arrives.
        let repo = own(&devices[1]).await;
        repo.write("early", "2").await.expect("a write");
        pause(60).await;
        agree(&devices).await;
        let names: Vec<_> = own_files(&devices[0]).await.into_keys().collect();
        assert_eq!(names, ["before", "early", "large"], "after {wait} s");
    }
}

#[tokio::test(start_paused = true)]
async fn crashes_in_the_middle_lose_nothing() {
    for seed in 0..24 {
        let net = SimNetwork::new(100 + seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        net.set_default_link(Link {
            bandwidth: Some(2_000_000),
            ..link()
        });
        let mut devices = world(&net, &[Write], &options()).await;
        write(&devices[0], "before", "0").await;
        devices.push(second(&net, &devices, 9).await);
        devices[2].synced(Synced::Here).await;
        net.partition(&[devices[2].key]);
        let mut expected = Files::from([("before".to_owned(), b"0".to_vec())]);
        for (n, writer) in [0, 2].into_iter().enumerate() {
            for file in 0..rng.random_range(1..5) {
                let name = format!("{writer}/{file}");
                let bytes = noise(n as u32, rng.random_range(0..1_000_000));
                write(&devices[writer], &name, bytes.clone()).await;
                expected.insert(name, bytes);
            }
        }
        net.heal();
        for _ in 0..8 {
            let wait = rng.random_range(0..4000);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let n = [0, 2][rng.random_range(0..2)];
            devices[n].crash(&net);
            if rng.random() {
                let blobs = &devices[n].stores.blobs;
                blobs
                    .collect(SystemTime::now())
                    .await
                    .expect("a collection");
            }
            devices[n].start(&net, options()).await;
        }
        pause(200).await;
        agree(&devices).await;
        assert!(own_files(&devices[2]).await == expected, "seed {seed}");
        for device in &devices {
            drop(device.replicator().abort());
        }
    }
}

/// Counts what happened in all seeds: a scenario in which nothing happens shows nothing.
static CONFLICTS: AtomicU64 = AtomicU64::new(0);
static COLLECTED: AtomicU64 = AtomicU64::new(0);

#[test]
fn devices_of_one_owner_agree() {
    if seeds::run(scenario) >= 16 {
        for (what, count) in [("conflict copies", &CONFLICTS), ("collections", &COLLECTED)] {
            assert!(count.load(Ordering::Relaxed) > 0, "there were no {what}");
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    seeds::run_again(0..4, scenario);
}

/// Two devices of one owner and a member write at random, and are cut off, collected and ended. In the
/// end the last write under each name is there, or beside it as a conflict copy.
async fn scenario(seed: u64, net: &SimNetwork) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    net.set_default_link(Link {
        latency: Duration::from_millis(rng.random_range(1..100)),
        bandwidth: Some(rng.random_range(200_000..20_000_000)),
        breaks_per_second: [0.0, 0.002][rng.random_range(0..2)],
        ..link()
    });
    let mut devices = world(net, &[Write], &options()).await;
    devices.push(second(net, &devices, 9).await);
    let owner = own(&devices[0]).await.key();
    // The device that it met first may not know the owner yet.
    while !devices[2].group().has_repo(owner).await.expect("repos") {
        pause(1).await;
    }
    assert_eq!(own(&devices[2]).await.key(), owner);
    // By owner and name; `None` if the last change removed it, which a merge may override.
    let mut last: BTreeMap<(bool, String), Option<Vec<u8>>> = BTreeMap::new();
    for _ in 0..60 {
        let n = rng.random_range(0..devices.len());
        match rng.random_range(0..12) {
            0 => net.partition(&[devices[n].key]),
            1 => net.heal(),
            2 => devices[n].crash(net),
            3 | 4 if devices[n].running.is_none() => {
                devices[n].start(net, options()).await;
            }
            5 => {
                let blobs = &devices[n].stores.blobs;
                let collected = blobs.collect(SystemTime::now()).await;
                collected.expect("a collection");
                COLLECTED.fetch_add(1, Ordering::Relaxed);
            }
            6 | 7 => pause(rng.random_range(1..20)).await,
            _ if devices[n].running.is_some() => {
                let repo = own(&devices[n]).await;
                let name = format!("{}", rng.random_range(0..12));
                let key = (repo.key() == owner, name.clone());
                if rng.random_bool(0.2) {
                    repo.remove(&name).await.expect("a removal");
                    last.insert(key, None);
                } else {
                    let len = [10, 5_000, 100_000][rng.random_range(0..3)];
                    let bytes = noise(rng.random(), rng.random_range(0..len));
                    repo.write(&name, bytes.clone()).await.expect("a write");
                    last.insert(key, Some(bytes));
                }
            }
            _ => {}
        }
    }
    net.heal();
    for device in &mut devices {
        if device.running.is_none() {
            device.start(net, options()).await;
        }
    }
    pause(400).await;
    agree(&devices).await;
    let files = devices[1].files().await;
    let conflicts = files
        .keys()
        .filter(|(_, name)| name.contains(" (conflict "));
    CONFLICTS.fetch_add(conflicts.count() as u64, Ordering::Relaxed);
    for ((is_owners, name), bytes) in last {
        let Some(bytes) = bytes else { continue };
        let copy = format!("{name} (conflict ");
        let is_there = files.iter().any(|((repo, found), content)| {
            (*repo == owner) == is_owners
                && (*found == name || found.starts_with(&copy))
                && *content == bytes
        });
        assert!(is_there, "seed {seed}: {name} was lost: {:?}", files.keys());
    }
    for device in &devices {
        drop(device.replicator().abort());
    }
}

#[tokio::test(start_paused = true)]
async fn who_wanted_only_names_gets_all_once_it_is_its_own() {
    let net = SimNetwork::new(29);
    net.set_default_link(link());
    let devices = world(&net, &[InviteKind::Read], &options()).await;
    let group = devices[1].group();
    group.set_policy(Policy::Names).await.expect("a policy");
    write(&devices[0], "file", noise(1, 100_000)).await;
    devices[1].synced(Synced::Everywhere).await;
    let group = devices[0].group();
    let invite = group.invite(InviteKind::Device, Vec::new()).await;
    let invite = invite.expect("an invite");
    devices[1].groups().join(&invite).await.expect("it joins");
    agree(&devices).await;
    assert_eq!(own_files(&devices[1]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_was_coming_as_anothers_still_comes_as_its_own() {
    let net = SimNetwork::new(30);
    net.set_default_link(Link {
        bandwidth: Some(100_000),
        ..link()
    });
    let mut devices = world(&net, &[InviteKind::Read], &options()).await;
    write(&devices[0], "file", noise(1, 5_000_000)).await;
    let key = own(&devices[0]).await.key();
    let knows = async || {
        let repo = devices[1].group().repo(key).await.expect("repos");
        match repo {
            Some(repo) => repo.known_root().await.expect("a root").is_some(),
            None => false,
        }
    };
    while !knows().await {
        pause(1).await;
    }
    let group = devices[0].group();
    let invite = group.invite(InviteKind::Device, Vec::new()).await;
    let invite = invite.expect("an invite");
    devices[1].groups().join(&invite).await.expect("it joins");
    devices[1].crash(&net);
    devices[1].start(&net, options()).await;
    agree(&devices).await;
    assert_eq!(own_files(&devices[1]).await.len(), 1);
}
