//! Members who hold valid keys and sign whatever they like, and strangers who only connect: none of them ends
//! a call of an honest member, divides the honest ones, or gets what is not the group's.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_store_api::{
    Freshness, Kind, PublicKey, PutRecord, RecordStore, SecretKey, SecretName, SeqExpect, Slot,
};
use larder_store_engine::{Hash, MAX_VALUE_LEN, Records, Source, sign};
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::{Read, Replica, Write},
    network::{Address, Connection},
    records::{FIRST_ROUTE, MAX_SEQ, REPO_PROFILE, REPO_ROOT, REPO_SLOTS, RepoRoot},
    replicate::Synced,
    seal::file::FileKey,
    tree::{FileEntry, MAX_LEVEL, Name, Root, Tree, is_unreadable},
};
use larder_sync_sim::SimNetwork;

use crate::{
    link, noise,
    world::{Device, PATIENCE, contents, options, own, world},
};

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The key that signs a repo's record: what its owner has.
async fn key_of(device: &Device, repo: &Repo) -> SecretKey {
    let name = SecretName::new(format!("repo/{}", repo.id())).expect("a name");
    let secret = device.stores.secrets.get(name).await.expect("secrets");
    let secret = secret.expect("the repo's secret");
    SecretKey::from_bytes(secret.expose().try_into().expect("a key"))
}

/// Writes into the record of the device's own repo, as a malicious owner may.
async fn put_own(device: &Device, slot: Slot, value: Bytes) {
    let repo = own(device).await;
    let write = PutRecord::Write {
        value,
        writer: key_of(device, &repo).await,
        expect: SeqExpect::Any,
    };
    let records = Records::new(device.stores.collections().clone());
    records
        .put(repo.id(), slot, write)
        .await
        .expect("it is put");
}

async fn put_root(device: &Device, root: Root) {
    let repo = own(device).await;
    let value = RepoRoot {
        root,
        time: 1,
        earlier: Vec::new(),
    };
    let keys = device.group().keyring().sealing().expect("keys");
    let value = value.seal(keys.locate(), repo.id());
    put_own(device, REPO_ROOT, value.expect("a value")).await;
}

/// A tree of one file, of which its author says what it likes.
async fn tree_of(device: &Device, name: &str, entry: FileEntry) -> Root {
    let keys = device.group().keyring().clone();
    let tree = Tree::new(device.stores.blobs.clone(), keys);
    let files = BTreeMap::from([(Name::new(name).expect("a name"), Some(entry))]);
    tree.edit(Root::EMPTY, files).await.expect("a tree").root
}

async fn add(device: &Device, bytes: Vec<u8>) -> Hash {
    let pin = device.stores.blobs.add(Source::Bytes(bytes.into())).await;
    pin.expect("a blob").hash()
}

/// The owner of one repo signs 62 values of 32 KiB, and gives one half to each of two honest members.
/// Either half fits the record's 1 MiB, both do not: each takes the other one for a liar, for ever.
#[tokio::test(start_paused = true)]
async fn one_owner_does_not_divide_the_others() {
    let net = SimNetwork::new(102);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write, Write], &options()).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let bad = own(&devices[1]).await;
    let key = key_of(&devices[1], &bad).await;
    net.partition(&[devices[2].key]);
    devices[1].crash(&net);
    pause(60).await;
    // As two sessions of the attacker would have brought them.
    for (n, slots) in [(0, 2..33), (2, 33..64)] {
        let records = Records::new(devices[n].stores.collections().clone());
        for slot in slots {
            let value = Bytes::from(vec![slot as u8; MAX_VALUE_LEN as usize]);
            let signed = sign(bad.id(), slot, 1 << 40, value, &key).expect("it is signed");
            let put = records.put(bad.id(), slot, PutRecord::Import(signed)).await;
            put.expect("one half fits");
        }
    }
    net.heal();
    let ours = own(&devices[0]).await;
    ours.write("news", "1").await.expect("a write");
    let mut together = 0;
    for _ in 0..600 {
        pause(1).await;
        let status = devices[2]
            .replicator()
            .status(devices[2].group().id())
            .await;
        together += u32::from(!status.expect("a status").peers.is_empty());
    }
    assert!(together > 500, "connected for {together} of 600 s");
    let files = devices[2].files().await;
    assert!(
        files.contains_key(&(ours.key(), "news".to_owned())),
        "the third one never gets what the first one wrote"
    );
}

/// A value beyond the bounds of its slot, or with a number that nobody reaches, stays with its writer; who passes it on
/// is not taken for a liar.
#[tokio::test(start_paused = true)]
async fn a_value_beyond_its_bounds_is_taken_by_nobody() {
    let net = SimNetwork::new(105);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let bad = own(&devices[1]).await;
    let key = key_of(&devices[1], &bad).await;
    let records = |device: &Device| Records::new(device.stores.collections().clone());
    let beyond = [
        (REPO_PROFILE, 100, 10_000),
        (REPO_ROOT, 100, 5_000),
        (FIRST_ROUTE, 100, 2_000),
        (FIRST_ROUTE + 1, MAX_SEQ + 1, 10),
        (FIRST_ROUTE + 2, u64::MAX, 10),
    ];
    for (slot, seq, len) in beyond {
        let value = Bytes::from(vec![0xff; len]);
        let signed = sign(bad.id(), slot, seq, value, &key).expect("it is signed");
        let put = PutRecord::Import(signed);
        let put = records(&devices[1]).put(bad.id(), slot, put).await;
        put.expect("it is here");
    }
    let ours = own(&devices[1]).await;
    pause(120).await;
    for device in [&devices[0], &devices[2]] {
        for (slot, _, len) in beyond {
            let records = records(device);
            let value = records.get(ours.id(), slot, Freshness::Local).await;
            let value = value.expect("a read");
            assert!(
                value.is_none_or(|value| value.value != vec![0xff; len]),
                "slot {slot}"
            );
        }
        let replicator = device.replicator();
        assert!(replicator.left_alone().is_empty() && replicator.troubles().is_empty());
        let status = replicator
            .status(device.group().id())
            .await
            .expect("a status");
        assert_eq!(status.peers.len(), 2, "nobody was sent away");
    }
}

/// The values that an owner may sign although no honest one does: of another layout, cut off, of another epoch,
/// sealed with another key, and longer than any.
fn faults() -> Vec<(&'static str, Bytes)> {
    let of_epoch = |epoch: u32, len| {
        let head = [&[1_u8][..], &epoch.to_be_bytes()].concat();
        [head, vec![0; len]].concat()
    };
    vec![
        ("empty", Bytes::new()),
        ("another layout", Bytes::from_static(b"this is nothing")),
        ("cut off", vec![1].into()),
        ("another epoch", of_epoch(1, 40).into()),
        ("the last epoch", of_epoch(u32::MAX, 40).into()),
        ("another key", of_epoch(0, 100).into()),
        ("as long as any", vec![0xff; MAX_VALUE_LEN as usize].into()),
        ("long, of an epoch", of_epoch(0, 30_000).into()),
    ]
}

/// Makes every call about a group and its members that an app can make.
async fn every_call(device: &Device, what: &str, is_synced: bool) {
    let (group, replicator) = (device.group(), device.replicator());
    let id = group.id();
    let fine = |call: &str, error: Option<larder_store_api::Error>| {
        assert!(
            error.is_none(),
            "{what}: {call}: {}",
            error.expect("an error")
        );
    };
    if group.keyring().reads() {
        fine("name", group.name().await.err());
    }
    fine("routes", group.routes().await.err());
    fine("members of the group", group.members().await.err());
    fine("members", replicator.members(id).await.err());
    fine("status", replicator.status(id).await.err());
    fine("policy", group.policy().await.err());
    drop(replicator.attempts(id));
    let searched = replicator.who_has(id, Hash::of("nothing")).await.err();
    fine(
        "who_has",
        searched.filter(|error| error.kind() != Kind::NotFound),
    );
    for repo in group.repos().await.expect("repos") {
        fine("root", repo.root().await.err());
        fine("known root", repo.known_root().await.err());
        fine("history", repo.history().await.err());
        fine("snapshot", repo.snapshot().await.err());
        fine("state", repo.state(&Policy::Everything).await.err());
        if group.keyring().reads() {
            fine("name of a repo", repo.name().await.err());
            // Only a call for the files of that very repo may say that they cannot be read.
            let error = contents(&repo).await.err();
            fine("files", error.filter(|error| !is_unreadable(error)));
        }
    }
    assert!(
        replicator.troubles().is_empty(),
        "{what}: {:?}",
        replicator.troubles()
    );
    if is_synced {
        let synced = replicator.wait_synced(id, Synced::Here, PATIENCE).await;
        fine("synced", synced.err());
    }
}

/// Whatever one owner signs in any slot of its repo's record ends no call of anybody else.
#[tokio::test(start_paused = true)]
async fn no_value_of_one_owner_ends_a_call_of_another_member() {
    let net = SimNetwork::new(103);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read, Replica], &options()).await;
    own(&devices[0])
        .await
        .write("file", "1")
        .await
        .expect("a write");
    for device in &devices {
        device.synced(Synced::Here).await;
    }
    let others = [&devices[0], &devices[2], &devices[3]];
    for slot in [REPO_PROFILE, REPO_ROOT, FIRST_ROUTE, REPO_SLOTS - 1] {
        for (fault, value) in faults() {
            let what = format!("slot {slot}, {fault}");
            put_own(&devices[1], slot, value).await;
            pause(30).await;
            for device in others {
                every_call(device, &what, true).await;
            }
        }
    }
}

/// Whatever one owner names as a page ends no call of anybody else, whatever they want of it.
#[tokio::test(start_paused = true)]
async fn no_page_of_one_owner_ends_a_call_of_another_member() {
    let net = SimNetwork::new(104);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read, Read, Replica], &options()).await;
    let policies = [
        Policy::Names,
        Policy::Selected {
            prefixes: vec!["photos/".to_owned()],
            up_to: 1 << 20,
        },
    ];
    for (device, policy) in devices[2..].iter().zip(policies) {
        let set = device.group().set_policy(policy).await;
        set.expect("a policy");
    }
    own(&devices[0])
        .await
        .write("file", "1")
        .await
        .expect("a write");
    for device in &devices {
        device.synced(Synced::Here).await;
    }
    let file = add(&devices[1], noise(1, 100)).await;
    for (fault, page) in faults() {
        let page = add(&devices[1], page.to_vec()).await;
        for level in [0, 1, MAX_LEVEL] {
            let sequence = [page.as_bytes().as_slice(), file.as_bytes()].concat();
            let hash = add(&devices[1], sequence).await;
            let root = Root {
                hash,
                level,
                files: 1,
                bytes: u64::MAX,
            };
            put_root(&devices[1], root).await;
            pause(30).await;
            for (n, device) in devices.iter().enumerate().filter(|(n, _)| *n != 1) {
                // Below a level are pages: nobody is in sync with a file in the place of one.
                every_call(
                    device,
                    &format!("level {level}, {fault}, device {n}"),
                    level == 0,
                )
                .await;
            }
        }
    }
}

/// 256 strangers connect and say nothing.
#[tokio::test(start_paused = true)]
async fn strangers_leave_room_for_members() {
    let net = SimNetwork::new(105);
    let devices = world(&net, &[], &options()).await;
    let address = devices[0].replicator().addresses().remove(0);
    let address: Address = address.parse().expect("an address");
    let mut held = Vec::new();
    for n in 0..256_u32 {
        let mut key = [0xee; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let node = net.node(PublicKey(key));
        let connection = node.connect(&address, None).await.expect("a connection");
        held.push((node, connection));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let closed = |(_, connection): &(_, Connection)| connection.closed().now_or_never().is_some();
    assert!(
        held.iter().filter(|held| !closed(held)).count() <= 32,
        "they are few"
    );
    pause(30).await;
    assert!(held.iter().all(closed), "they are let go");
    let group = devices[0].group();
    let invite = group
        .invite(Write, devices[0].replicator().addresses())
        .await;
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    let synced = late
        .replicator()
        .wait_synced(group.id(), Synced::Here, PATIENCE)
        .await;
    assert!(synced.is_ok(), "no member gets in any more: {synced:?}");
    drop(held);
}

/// A search visits a page once, however often its author names it: 400 times more for each level.
/// With level 8 or more it never ends; here it is measured with small ones.
#[tokio::test(start_paused = true)]
async fn a_search_visits_a_page_once() {
    for level in [0, 1, 2_u8] {
        let net = SimNetwork::new(110);
        let devices = world(&net, &[Write], &options()).await;
        let entry = FileEntry {
            size: 1,
            modified: 0,
            hash: Hash::of("a"),
            blob: add(&devices[1], b"sealed".to_vec()).await,
            key: FileKey::from_bytes([1; 32]),
        };
        // A leaf that every reader can open.
        let mut below = tree_of(&devices[1], "a", entry).await.hash;
        let page = add(&devices[1], b"no page".to_vec()).await;
        for _ in 0..level {
            let mut sequence = page.as_bytes().to_vec();
            for _ in 0..400 {
                sequence.extend(below.as_bytes());
            }
            below = add(&devices[1], sequence).await;
        }
        let root = Root {
            hash: below,
            level,
            files: 1,
            bytes: 1,
        };
        put_root(&devices[1], root).await;
        pause(60).await;
        let start = std::time::Instant::now();
        let id = devices[0].group().id();
        let found = devices[0]
            .replicator()
            .who_has(id, Hash::of("nothing"))
            .await;
        assert_eq!(found.map_err(|error| error.kind()), Err(Kind::NotFound));
        assert!(start.elapsed() < Duration::from_secs(1), "level {level}");
    }
}

/// A file whose blob is the empty one: asking who has it subtracts 1 from 0 (`receive.rs:202`), and
/// overflow checks are on in release.
#[tokio::test(start_paused = true)]
async fn asking_who_has_an_empty_blob_does_not_panic() {
    let net = SimNetwork::new(112);
    let devices = world(&net, &[Write], &options()).await;
    let entry = FileEntry {
        size: 0,
        modified: 0,
        hash: Hash::of("wanted"),
        blob: Hash::EMPTY,
        key: FileKey::from_bytes([1; 32]),
    };
    put_root(&devices[1], tree_of(&devices[1], "x", entry).await).await;
    pause(60).await;
    let id = devices[0].group().id();
    drop(
        devices[0]
            .replicator()
            .who_has(id, Hash::of("wanted"))
            .await,
    );
}

/// If only some files are wanted, one page of nonsense does not keep the device from being in sync.
#[tokio::test(start_paused = true)]
async fn nonsense_keeps_nobody_with_a_policy_from_being_in_sync() {
    let net = SimNetwork::new(117);
    let devices = world(&net, &[Write, Read], &options()).await;
    let policy = Policy::Selected {
        prefixes: vec!["photos/".to_owned()],
        up_to: 1 << 20,
    };
    devices[2]
        .group()
        .set_policy(policy)
        .await
        .expect("a policy");
    let page = add(&devices[1], b"no page".to_vec()).await;
    let file = add(&devices[1], noise(1, 100)).await;
    let sequence = [page.as_bytes().as_slice(), file.as_bytes()].concat();
    let root = Root {
        hash: add(&devices[1], sequence).await,
        level: 0,
        files: 1,
        bytes: 1,
    };
    put_root(&devices[1], root).await;
    pause(60).await;
    let id = devices[2].group().id();
    let limit = Duration::from_secs(60);
    let synced = devices[2]
        .replicator()
        .wait_synced(id, Synced::Here, limit)
        .await;
    assert!(
        synced.is_ok(),
        "{:?}",
        synced.map_err(|error| error.kind() == Kind::Unavailable)
    );
}
