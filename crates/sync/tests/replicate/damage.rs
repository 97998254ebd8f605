//! Tests of damage to a member's records: values that others have too are restored from them.

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, Bytes, CollectionId, CollectionStore, Edit, Kind, Order, RecordId, Scan, SeqExpect,
};
use larder_sync::{
    groups::Groups,
    invite::InviteKind::{Read, Replica, Write},
    records::{REPO_PROFILE, REPO_ROOT, values_id},
    replicate::Synced,
};
use larder_sync_sim::SimNetwork;

use crate::{
    link,
    world::{Device, options, own, world},
};

const SLOTS: CollectionId = CollectionId::from_static("larder/slots");

/// Returns the stored bytes of all slots.
async fn stored(device: &Device) -> BTreeMap<Bytes, Bytes> {
    let all = Scan {
        collection: SLOTS,
        keys: (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
        order: Order::Ascending,
    };
    let entries: Vec<_> = device.memory.scan(all).try_collect().await.expect("a scan");
    let pair = |entry: larder_store_api::Entry| (entry.key, entry.value);
    entries.into_iter().map(pair).collect()
}

async fn store(device: &Device, key: Bytes, value: Bytes) {
    let edit = Edit::Put {
        collection: SLOTS,
        key,
        value,
    };
    let stored = device.memory.commit(Batch::of(vec![edit])).await;
    stored.expect("a commit");
}

fn slot_key(record: RecordId, slot: u16) -> Bytes {
    [&record.0[..], &slot.to_be_bytes()].concat().into()
}

/// Changes a byte in a slot's stored value; returns the original value.
async fn damage(device: &Device, key: Bytes) -> Bytes {
    let before = stored(device).await.remove(&key).expect("a value");
    let mut bytes = before.to_vec();
    *bytes.last_mut().expect("it is not empty") ^= 1;
    store(device, key, bytes.into()).await;
    before
}

async fn pause() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

async fn all_synced(devices: &[Device]) {
    for device in devices {
        device.synced(Synced::Everywhere).await;
    }
    // A sent value counts as received, but is still in transit.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn write(device: &Device, name: &str) {
    let repo = own(device).await;
    let written = repo.write(name, name.as_bytes().to_vec());
    written.await.expect("a write");
}

async fn names(device: &Device) -> Vec<String> {
    let files = own(device).await.list("").await.expect("a list");
    let name = |larder_sync::tree::Named { name, .. }| name.as_str().to_owned();
    files.map_ok(name).try_collect().await.expect("names")
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_healed_by_those_who_have_it() {
    let net = SimNetwork::new(41);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read, Replica], &options()).await;
    write(&devices[0], "first").await;
    write(&devices[1], "second").await;
    let group = devices[0].group();
    let put = group.record_put(3, b"shared", SeqExpect::Any);
    put.await.expect("a put");
    all_synced(&devices).await;
    // Routes change; the group's record, and profiles and roots of others, stay.
    for device in &devices[1..] {
        let mut lasting: Vec<Bytes> = Vec::new();
        for repo in device.group().repos().await.expect("repos") {
            lasting.push(slot_key(repo.id(), REPO_PROFILE));
            if !repo.is_ours() {
                lasting.push(slot_key(repo.id(), REPO_ROOT));
            }
        }
        let before = stored(device).await;
        let values = values_id(device.group().id(), group.device());
        let shared = |key: &&Bytes| key.starts_with(&values.0);
        lasting.extend(before.keys().filter(shared).cloned());
        assert_eq!(
            lasting.len(),
            2 + 2 - usize::from(own_count(device).await) + 2
        );
        for key in &lasting {
            damage(device, key.clone()).await;
        }
        pause().await;
        let after = stored(device).await;
        for key in &lasting {
            assert_eq!(after[key], before[key], "{key:?} of {}", device.key);
        }
        all_synced(&devices).await;
    }
    write(&devices[0], "third").await;
    all_synced(&devices).await;
    assert_eq!(devices[2].files().await.len(), 3);
}

async fn own_count(device: &Device) -> u8 {
    let repos = device.group().repos().await.expect("repos");
    repos.iter().map(|repo| u8::from(repo.is_ours())).sum()
}

#[tokio::test(start_paused = true)]
async fn groups_open_over_damage() {
    let net = SimNetwork::new(42);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write], &options()).await;
    all_synced(&devices).await;
    let group = devices[1].group();
    let repo = own(&devices[1]).await;
    let before = stored(&devices[1]).await;
    devices[1].crash(&net);
    let mut damaged = vec![slot_key(repo.id(), REPO_PROFILE)];
    let values = values_id(group.id(), devices[0].group().device());
    let shared = |key: &&Bytes| key.starts_with(&values.0);
    damaged.extend(before.keys().filter(shared).cloned());
    for key in &damaged {
        damage(&devices[1], key.clone()).await;
    }
    let groups: Groups = devices[1].start(&net, options()).await;
    let repos = groups.groups().remove(0).repos().await.expect("repos");
    assert_eq!(repos.len(), 2);
    assert_eq!(stored(&devices[1]).await.len(), before.len());
    pause().await;
    all_synced(&devices).await;
    let after = stored(&devices[1]).await;
    for key in &damaged {
        assert_eq!(after[key], before[key], "{key:?}");
    }
    let shared = after.keys().filter(|key| key.starts_with(&values.0));
    assert_eq!(shared.count(), 1);
    write(&devices[1], "after").await;
    all_synced(&devices).await;
    assert_eq!(devices[0].files().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn our_own_root_comes_back_and_no_number_is_used_again() {
    let net = SimNetwork::new(43);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    write(&devices[0], "kept").await;
    all_synced(&devices).await;
    // The others know the current tree, but not that there was another one in between.
    net.partition(&[devices[0].key]);
    write(&devices[0], "gone").await;
    let repo = own(&devices[0]).await;
    repo.remove("gone").await.expect("a removal");
    let (seq, _) = repo.known_root().await.expect("a root").expect("one");
    damage(&devices[0], slot_key(repo.id(), REPO_ROOT)).await;
    for result in [
        repo.write("new", "new").await.map(drop),
        repo.root().await.map(drop),
        repo.list("").await.map(drop),
    ] {
        assert_eq!(result.expect_err("it is damaged").kind(), Kind::Corrupt);
    }
    net.heal();
    pause().await;
    all_synced(&devices).await;
    assert_eq!(names(&devices[0]).await, ["kept"]);
    let (healed, _) = repo.known_root().await.expect("a root").expect("one");
    assert!(healed > seq, "{healed} after {seq}");
    write(&devices[0], "new").await;
    all_synced(&devices).await;
    assert_eq!(names(&devices[0]).await, ["kept", "new"]);
    for device in &devices {
        assert_eq!(device.files().await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_root_is_not_replaced_by_an_older_one() {
    let net = SimNetwork::new(44);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    write(&devices[0], "old").await;
    all_synced(&devices).await;
    let repo = own(&devices[0]).await;
    net.partition(&[devices[0].key]);
    write(&devices[0], "acknowledged").await;
    let key = slot_key(repo.id(), REPO_ROOT);
    let before = damage(&devices[0], key.clone()).await;
    let damaged = stored(&devices[0]).await[&key].clone();
    net.heal();
    pause().await;
    // The others' version lacks acknowledged changes. So it stays an error, and nothing is lost;
    // everything else replicates.
    let refused = repo.write("new", "new").await;
    assert_eq!(refused.expect_err("it is damaged").kind(), Kind::Corrupt);
    assert_eq!(stored(&devices[0]).await[&key], damaged);
    write(&devices[1], "of another").await;
    pause().await;
    let theirs = own(&devices[1]).await.key();
    let seen = devices[0].group().repo(theirs).await.expect("repos");
    let seen = seen.expect("a repo").read_to_bytes("of another").await;
    assert_eq!(seen.expect("a file"), "of another");

    // Once the bytes are back, everything is back.
    store(&devices[0], key, before).await;
    pause().await;
    all_synced(&devices).await;
    assert_eq!(names(&devices[0]).await, ["acknowledged", "old"]);
    for device in &devices {
        assert_eq!(device.files().await.len(), 3);
    }
}
