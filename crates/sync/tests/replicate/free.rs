//! Tests of what is freed, and of what must never be.

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::{PutRecord, RecordStore, SecretKey, SecretName, SeqExpect};
use larder_store_engine::{Hash, Records, Source, TagName};
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::{Read, Replica, Write},
    records::{REPO_ROOT, RepoRoot},
    replicate::{Copies, Freed, Synced},
    seal::file::FileKey,
    tree::{FileEntry, Name, Root, Tree},
};
use larder_sync_sim::{Link, SimNetwork};

use crate::{
    agree, link, noise,
    policies::{FILES, here, members, names, theirs},
    world::{Device, contents, options, own, world},
};

async fn free(device: &Device, copies: Copies) -> Freed {
    let freed = device.replicator().free(device.group().id(), copies).await;
    freed.expect("it is freed")
}

async fn set(device: &Device, policy: Option<Policy>) {
    let set = device.group().set_policy(policy.clone()).await;
    set.expect("a policy");
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// All have everything, the first does not answer, and the others want nothing any more.
async fn without_the_owner(seed: u64, others: usize) -> (SimNetwork, Vec<Device>) {
    let net = SimNetwork::new(seed);
    let devices = members(&net, &vec![Write; others]).await;
    net.set_default_link(Link {
        latency: Duration::from_millis(seed % 7 * 10),
        jitter: Duration::from_millis(seed % 5 * 10),
        ..link()
    });
    for device in &devices[1..] {
        set(device, None).await;
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    net.partition(&[devices[0].key]);
    pause(60).await;
    for device in &devices[1..] {
        set(device, Some(Policy::Pinned)).await;
    }
    pause(10).await;
    (net, devices)
}

async fn somebody_has_all(devices: &[Device]) {
    let mut found = names(&[]);
    for (n, device) in devices.iter().enumerate() {
        let repo = theirs(devices, n).await;
        if n > 0 {
            found.extend(here(device, &repo).await);
        }
    }
    assert_eq!(found, names(&FILES.map(|(name, _)| name)));
}

#[tokio::test(start_paused = true)]
async fn those_who_free_at_once_keep_a_copy() {
    for seed in 50..60 {
        let others = 2 + (seed % 3) as usize;
        let (_net, devices) = without_the_owner(seed, others).await;
        let freeing = devices[1..]
            .iter()
            .map(|device| free(device, Copies::RequireOtherCopy));
        let freed = futures_util::future::join_all(freeing).await;
        somebody_has_all(&devices).await;
        let files: u64 = freed.iter().map(|freed| freed.files).sum();
        assert!(files >= 5, "one of them can free: {freed:?}");
        // It is repeated, and the remaining copies stay.
        for _ in 0..4 {
            for device in &devices[1..] {
                free(device, Copies::RequireOtherCopy).await;
            }
            somebody_has_all(&devices).await;
            pause(700).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_shown_is_kept_over_a_crash() {
    let (net, mut devices) = without_the_owner(63, 2).await;
    let stays = (0, 5);
    // The third one shows the files that the second then deletes.
    assert_eq!(free(&devices[1], Copies::RequireOtherCopy).await.files, 5);
    let freed = free(&devices[2], Copies::RequireOtherCopy).await;
    assert_eq!((freed.files, freed.stay), stays);
    // Another one could provide it, but the second counts on the third.
    net.heal();
    devices[2].crash(&net);
    devices[2].start(&net, options()).await;
    pause(100).await;
    let freed = free(&devices[2], Copies::RequireOtherCopy).await;
    assert_eq!((freed.files, freed.stay), stays);
    pause(800).await;
    assert_eq!(free(&devices[2], Copies::RequireOtherCopy).await.files, 5);
    for device in &devices[1..] {
        set(device, None).await;
    }
    agree(&devices).await;
}

/// Makes this root, valid or not, the tree of a member's repo.
async fn put_root(device: &Device, root: Root) {
    let repo = own(device).await;
    let name = SecretName::new(format!("repo/{}", repo.id())).expect("a name");
    let secret = device.stores.secrets.get(name).await.expect("secrets");
    let secret = secret.expect("the repo's secret");
    let key: [u8; 32] = secret.expose().try_into().expect("a key");
    let group = device.group();
    let value = RepoRoot {
        root,
        time: 1,
        earlier: Vec::new(),
    };
    let keys = group.keyring().sealing().expect("keys");
    let value = value.seal(keys.locate(), repo.id());
    let write = PutRecord::Write {
        value: value.expect("a value"),
        writer: SecretKey::from_bytes(key),
        expect: SeqExpect::Any,
    };
    let records = Records::new(device.stores.collections().clone());
    let put = records.put(repo.id(), REPO_ROOT, write).await;
    put.expect("it is put");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_freed_because_somebody_names_it() {
    let net = SimNetwork::new(64);
    net.set_default_link(link());
    let devices = world(&net, &[Write], &options()).await;
    let stores = &devices[0].stores;
    let ours = own(&devices[0]).await;
    let written = ours.write("ours", noise(1, 50_000)).await;
    let ours_blob = written.expect("a write").blob;
    let root = ours.root().await.expect("a root");
    let sequence = stores.blobs.read_to_bytes(root.hash, 0..32).await;
    let page: [u8; 32] = sequence.expect("a page")[..].try_into().expect("a hash");
    // Data that has nothing to do with the group.
    let groups = devices[0].groups();
    let other = groups.create_group("other").await.expect("a group");
    let other = other.create_repo("me").await.expect("a repo");
    let written = other.write("there", noise(2, 50_000)).await;
    let other_blob = written.expect("a write").blob;
    let plain = noise(3, 50_000);
    let pin = stores.blobs.add(Source::Bytes(plain.clone().into())).await;
    let pin = pin.expect("a blob");
    let name = TagName::try_from("plain").expect("a name");
    let tagged = stores.blobs.tags().set(name, pin.root()).await;
    tagged.expect("a tag");
    let plain_blob = pin.hash();
    drop(pin);

    let group = devices[1].group();
    let keys = group.keyring().clone();
    let tree = Tree::new(devices[1].stores.blobs.clone(), keys);
    let entry = |blob| FileEntry {
        size: 50_000,
        modified: 0,
        hash: Hash::of("x"),
        blob,
        key: FileKey::random().expect("a key"),
    };
    let all = [root.hash, page.into(), ours_blob, other_blob, plain_blob];
    let edits: BTreeMap<Name, Option<FileEntry>> = (0..)
        .zip(all)
        .map(|(n, blob)| {
            (
                Name::new(format!("{n}")).expect("a name"),
                Some(entry(blob)),
            )
        })
        .collect();
    let edited = tree.edit(Root::EMPTY, edits).await.expect("a tree");
    put_root(&devices[1], edited.root).await;
    let first = devices[0].groups().group(group.id()).expect("the group");
    let set = first.set_policy(Policy::Names).await;
    set.expect("a policy");
    pause(60).await;
    let set = first.set_policy(Policy::Pinned).await;
    set.expect("a policy");
    let replicator = devices[0].replicator();
    for copies in [Copies::RequireOtherCopy, Copies::AllowLastCopy] {
        let freed = replicator.free(group.id(), copies).await;
        assert_eq!(freed.expect("it is freed"), Freed::default());
    }
    let theirs = first.repo(own(&devices[1]).await.key()).await;
    let theirs = theirs.expect("repos").expect("the repo");
    assert_eq!(theirs.root().await.expect("a root"), edited.root);
    let found = contents(&ours).await.expect("ours is whole");
    assert!(found == [("ours".to_owned(), noise(1, 50_000))]);
    let found = contents(&other).await.expect("the other is whole");
    assert!(found == [("there".to_owned(), noise(2, 50_000))]);
    let found = stores.blobs.read_to_bytes(plain_blob, 0..u64::MAX).await;
    assert!(found.expect("what is tagged stays") == plain);
}

#[tokio::test(start_paused = true)]
async fn what_another_repo_wants_again_is_fetched_again() {
    let net = SimNetwork::new(65);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read], &options()).await;
    let same = noise(1, 100_000);
    let mut repos: Vec<Repo> = Vec::new();
    for device in &devices[..2] {
        let repo = own(device).await;
        repo.write("same", same.clone()).await.expect("a write");
        pause(10).await;
        let theirs = devices[2].group().repo(repo.key()).await.expect("repos");
        repos.push(theirs.expect("it knows of it"));
    }
    for wanted in &repos {
        for repo in &repos {
            let set = repo.set_policy(Policy::Everything).await;
            set.expect("a policy");
        }
        devices[2].synced(Synced::Here).await;
        for repo in &repos {
            let set = repo.set_policy(Policy::Pinned).await;
            set.expect("a policy");
        }
        devices[2].synced(Synced::Here).await;
        assert_eq!(free(&devices[2], Copies::RequireOtherCopy).await.files, 1);
        let set = wanted.set_policy(Policy::Everything).await;
        set.expect("a policy");
        devices[2].synced(Synced::Here).await;
        let found = wanted.read_to_bytes("same").await;
        assert!(found.expect("it is here again") == same);
    }
    // Contents that were read under names stay, even if another repo would not keep them.
    for repo in &repos {
        for names in &repos {
            let policy = match repo.key() == names.key() {
                true => Policy::Names,
                false => Policy::Pinned,
            };
            names.set_policy(policy.clone()).await.expect("a policy");
        }
        devices[2].synced(Synced::Here).await;
        let read = devices[2].replicator().read(repo, "same", 0..1).await;
        drop(read.expect("it is read"));
        assert_eq!(free(&devices[2], Copies::AllowLastCopy).await.files, 0);
    }
}

/// Builds a tree in which each page names the same page below it repeatedly.
async fn endless(device: &Device, level: u8) -> Root {
    let blobs = &device.stores.blobs;
    let add = async |bytes: Vec<u8>| {
        let pin = blobs.add(Source::Bytes(bytes.into())).await;
        pin.expect("a blob").hash()
    };
    let page = add(b"no page".to_vec()).await;
    let mut below = add(b"a file".to_vec()).await;
    for _ in 0..=level {
        let mut sequence = page.as_bytes().to_vec();
        for _ in 0..400 {
            sequence.extend(below.as_bytes());
        }
        below = add(sequence).await;
    }
    Root {
        hash: below,
        level,
        files: 1,
        bytes: 1,
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_names_a_page_again_and_again_has_an_end() {
    let net = SimNetwork::new(66);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Replica, Read], &options()).await;
    set(&devices[3], Some(Policy::Pinned)).await;
    let root = endless(&devices[1], 8).await;
    put_root(&devices[1], root).await;
    let bad = own(&devices[1]).await.key();
    let written = own(&devices[0]).await.write("file", "1").await;
    written.expect("a write");
    pause(60).await;
    for device in &devices[2..] {
        let repos = device.group().repos().await.expect("repos");
        assert_eq!(repos.len(), 2);
        for repo in repos {
            let held = repo.root().await.expect("a root");
            assert_eq!(held.hash == root.hash, repo.key() == bad);
            assert_eq!(held.files, 1);
        }
    }
    free(&devices[3], Copies::RequireOtherCopy).await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_nobody_can_read_keeps_nobody_from_being_in_sync() {
    let net = SimNetwork::new(67);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read], &options()).await;
    let root = endless(&devices[1], 0).await;
    put_root(&devices[1], root).await;
    let written = own(&devices[0]).await.write("file", "1").await;
    written.expect("a write");
    pause(10).await;
    devices[2].synced(Synced::Here).await;
    let repos = devices[2].group().repos().await.expect("repos");
    for repo in repos {
        let held = repo.root().await.expect("a root");
        let is_bad = held.hash == root.hash;
        assert_eq!(is_bad, repo.key() == own(&devices[1]).await.key());
        // It does not count as an empty list either.
        let list = repo.list("").await.expect("a list");
        let list: Result<Vec<_>, _> = list.try_collect().await;
        assert_eq!(list.is_err(), is_bad);
    }
}
