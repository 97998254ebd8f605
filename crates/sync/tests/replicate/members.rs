//! Members come and go: by invites, through replicas alone, removed, and cut off from what comes later.

use std::time::Duration;

use futures_util::TryStreamExt;
use larder_store_api::{Kind, Result};
use larder_sync::{
    groups::{Group, InviteOptions, Removal, Standing},
    invite::InviteKind::{Admin, Read, Replica, Write},
    membership::Rights,
    replicate::Synced,
    tree::Tree,
};
use larder_sync_sim::SimNetwork;

use crate::{
    link,
    world::{Device, let_in, options, own, world},
};

pub async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A device that accepted an invite of this kind from the first one, to be met at these devices.
pub async fn invited(
    net: &SimNetwork,
    by: &Device,
    at: &[&Device],
    n: u8,
    how: InviteOptions,
) -> (Device, Group) {
    let addresses = at.iter().flat_map(|device| device.replicator().addresses());
    let invite = by.group().invite_with(how, addresses.collect()).await;
    let mut device = Device::new(n).await;
    let groups = device.start(net, options()).await;
    let group = groups.join(&invite.expect("an invite")).await;
    (device, group.expect("it joins"))
}

pub async fn write(device: &Device, name: &str, bytes: &str) {
    let written = own(device).await.write(name, bytes.to_owned()).await;
    written.expect("a write");
}

#[tokio::test(start_paused = true)]
async fn a_replica_alone_lets_somebody_in_who_reads_and_writes() {
    let net = SimNetwork::new(201);
    net.set_default_link(link());
    let mut devices = world(&net, &[Replica], &options()).await;
    write(&devices[0], "file", "the first").await;
    devices[1].synced(Synced::Here).await;
    let how = InviteOptions::new(Write);
    let (ann, replica) = (&devices[0], &devices[1]);
    let addresses = replica.replicator().addresses();
    let invite = ann.group().invite_with(how, addresses).await;
    let invite = invite.expect("an invite");
    // The replica hears of the invite, and then everybody else is gone.
    pause(5).await;
    devices[0].crash(&net);
    let mut bob = Device::new(9).await;
    let groups = bob.start(&net, options()).await;
    let group = groups.join(&invite).await.expect("it joins");
    assert_eq!(group.standing(), Standing::Waiting);
    assert_eq!(
        group.name().await.expect("a name").as_deref(),
        Some("the group")
    );
    // A repo that is made before it is let in comes after that.
    let repo = group.create_repo("bob").await.expect("a repo");
    let error = repo.write("early", "1").await.expect_err("too early");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(let_in(&group).await, Standing::Member);
    bob.synced(Synced::Here).await;
    assert_eq!(bob.files().await.len(), 1);
    repo.write("file", "of bob").await.expect("a write");
    pause(5).await;
    devices[0].start(&net, options()).await;
    devices.push(bob);
    for device in [&devices[0], &devices[2]] {
        device.synced(Synced::Everywhere).await;
        assert_eq!(device.files().await.len(), 2);
    }
    let people = devices[0].group().people().await.expect("people");
    let bob = people
        .iter()
        .find(|person| person.name.as_deref() == Some("bob"));
    assert_eq!(bob.expect("bob").rights, Rights::WRITE);
    assert_eq!(people.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_invite_is_for_as_many_as_it_says_and_as_long() {
    let net = SimNetwork::new(202);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let ann = &devices[0];
    let how = InviteOptions::new(Read)
        .uses(2)
        .for_time(Duration::from_secs(3600));
    let addresses = ann.replicator().addresses();
    let invite = ann.group().invite_with(how, addresses).await;
    let invite = invite.expect("an invite");
    let mut joined = Vec::new();
    for n in 2..5 {
        let mut device = Device::new(n).await;
        let groups = device.start(&net, options()).await;
        let group = groups.join(&invite).await.expect("it joins");
        pause(10).await;
        let expected = match n {
            4 => Standing::Waiting,
            _ => Standing::Member,
        };
        assert_eq!(group.standing(), expected, "{n}");
        joined.push(device);
    }
    let [found] = &ann.group().invites()[..] else {
        panic!("one invite");
    };
    assert!(!found.is_open && found.used_by.len() == 2);

    // Another one lapses.
    let how = InviteOptions::new(Write).for_time(Duration::from_secs(60));
    let (late, group) = invited(&net, ann, &[], 6, how).await;
    pause(61).await;
    let address = ann.replicator().addresses().remove(0);
    let address = address.parse().expect("an address");
    late.replicator()
        .connect(&address)
        .await
        .expect("it is there");
    pause(20).await;
    assert_eq!(group.standing(), Standing::Waiting);
    // It gets nothing.
    assert!(!group.can_read() && group.repos().await.expect("repos").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_invite_lets_nobody_in() {
    let net = SimNetwork::new(203);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let group = devices[0].group();
    let (_late, late) = invited(&net, &devices[0], &[], 6, InviteOptions::new(Write)).await;
    let key = group.invites()[0].key;
    group.revoke(key).await.expect("it is revoked");
    let address = devices[0].replicator().addresses().remove(0);
    let address = address.parse().expect("an address");
    _late
        .replicator()
        .connect(&address)
        .await
        .expect("it is there");
    pause(20).await;
    assert_eq!(late.standing(), Standing::Waiting);
    assert!(!late.can_read());
}

#[tokio::test(start_paused = true)]
async fn a_removal_cuts_off_what_comes_later() {
    let net = SimNetwork::new(204);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write, Replica], &options()).await;
    for device in &devices[..3] {
        write(device, "before", "written before").await;
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let (ann, bob, carol, replica) = (&devices[0], &devices[1], &devices[2], &devices[3]);
    let bobs = own(bob).await;
    let removed = ann
        .group()
        .remove(bob.group().device(), Removal::new())
        .await;
    let removed = removed.expect("a removal");
    assert_eq!(removed.devices, [bob.group().device()]);
    assert_eq!(removed.frozen[0].0, bobs.key());
    pause(10).await;
    for device in [carol, replica, ann] {
        let state = device.group().people().await.expect("people");
        assert_eq!(state.iter().filter(|person| person.is_out).count(), 1);
    }
    assert_eq!(bob.group().standing(), Standing::Out);
    // He can write nothing, and what he has stays.
    let error = bobs.write("after", "1").await.expect_err("he is out");
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(bob.files().await.len(), 3);

    const CANARY: &str = "a canary that nobody may read who was removed";
    write(ann, "after", CANARY).await;
    write(carol, "after", CANARY).await;
    for device in [ann, carol, replica] {
        device.synced(Synced::Here).await;
    }
    pause(60).await;
    assert_eq!(carol.files().await.len(), 5);
    // His files stay as they were.
    let frozen = carol.group().repo(bobs.key()).await.expect("repos");
    let frozen = frozen.expect("his repo");
    let kept = frozen.read_to_bytes("before").await.expect("a file");
    assert_eq!(kept, "written before");
    assert_eq!(bob.files().await.len(), 3);
    assert!(
        bob.replicator()
            .status(bob.group().id())
            .await
            .expect("a status")
            .peers
            .is_empty()
    );

    // With all that a replica has, he opens nothing of it.
    for owner in [ann, carol] {
        cannot_open(bob, replica, owner).await;
    }
    assert!(!bob.has_bytes(CANARY.as_bytes()).await);
}

/// Says that a removed device opens nothing that others sealed since, with all that a replica has.
async fn cannot_open(removed: &Device, replica: &Device, owner: &Device) {
    give_everything(replica, removed).await;
    let theirs = own(owner).await;
    let seen = replica.group().repo(theirs.key()).await.expect("repos");
    let root = seen.expect("a repo").known_root().await.expect("a root");
    let root = root.expect("a root").1.root;
    let ring = removed.group().keyring().clone();
    let tree = Tree::new(removed.stores.blobs.clone(), ring);
    let listed: Result<Vec<_>> = tree.list(root, "", None).try_collect().await;
    let error = listed.expect_err("it opens nothing");
    assert_eq!(error.kind(), Kind::Denied, "{} {}", removed.key, owner.key);
}

pub fn admin() -> InviteOptions {
    InviteOptions::new(Admin).confirm(false)
}

#[tokio::test(start_paused = true)]
async fn two_removals_at_once_cut_off_both() {
    let net = SimNetwork::new(205);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write, Write, Replica], &options()).await;
    let (carol, group) = invited(&net, &devices[0], &[&devices[0]], 8, admin()).await;
    let_in(&group).await;
    group.create_repo("carol").await.expect("a repo");
    devices.push(carol);
    for device in [0, 1, 2, 4] {
        write(&devices[device], "before", "1").await;
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let (ann, bob, dave, replica, carol) = (
        &devices[0],
        &devices[1],
        &devices[2],
        &devices[3],
        &devices[4],
    );
    net.partition(&[carol.key]);
    let (bobs, daves) = (bob.group().device(), dave.group().device());
    ann.group()
        .remove(bobs, Removal::new())
        .await
        .expect("a removal");
    carol
        .group()
        .remove(daves, Removal::new())
        .await
        .expect("a removal");
    // Each seals with a key that the other one's removed member may have.
    write(ann, "between", "2").await;
    write(carol, "between", "2").await;
    pause(10).await;
    net.heal();
    pause(60).await;
    for device in [bob, dave] {
        assert_eq!(device.group().standing(), Standing::Out, "{}", device.key);
    }
    write(ann, "after", "3").await;
    write(carol, "after", "3").await;
    for device in [ann, carol, replica] {
        device.synced(Synced::Here).await;
    }
    pause(20).await;
    for device in [ann, carol] {
        let files = device.files().await;
        let after = files.keys().filter(|(_, name)| name == "after");
        assert_eq!(after.count(), 2, "{}", device.key);
    }
    for removed in [bob, dave] {
        for owner in [ann, carol] {
            cannot_open(removed, replica, owner).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_before_a_removal_is_heard_of_does_not_count() {
    let net = SimNetwork::new(206);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    for device in &devices {
        write(device, "before", "1").await;
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let (ann, bob, carol) = (&devices[0], &devices[1], &devices[2]);
    net.partition(&[bob.key]);
    write(bob, "late", "he does not know").await;
    let removed = ann
        .group()
        .remove(bob.group().device(), Removal::new())
        .await;
    removed.expect("a removal");
    pause(10).await;
    net.heal();
    pause(60).await;
    assert_eq!(bob.group().standing(), Standing::Out);
    assert_eq!(bob.files().await.len(), 4, "what he has stays");
    for device in [ann, carol] {
        assert_eq!(device.files().await.len(), 3, "{}", device.key);
        device.synced(Synced::Here).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_many_keys_opens_what_was_sealed_under_each() {
    let net = SimNetwork::new(207);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Replica], &options()).await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let (ann, bob) = (&devices[0], &devices[1]);
    net.partition(&[bob.key]);
    for n in 0..30 {
        ann.group().rotate().await.expect("a new key");
        write(ann, &format!("{n}"), "text").await;
    }
    pause(20).await;
    net.heal();
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    assert_eq!(bob.files().await.len(), 30);
    // Also after both were ended, from what they kept.
    let mut devices = devices;
    for device in &mut devices {
        device.crash(&net);
        device.start(&net, options()).await;
    }
    write(&devices[1], "of bob", "text").await;
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    assert_eq!(devices[0].files().await.len(), 31);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_out_for_all() {
    let net = SimNetwork::new(208);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Replica], &options()).await;
    for device in &devices[..2] {
        write(device, "before", "1").await;
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let (ann, bob, replica) = (&devices[0], &devices[1], &devices[2]);
    bob.group().resign().await.expect("he leaves");
    pause(20).await;
    assert_eq!(bob.group().standing(), Standing::Out);
    let people = ann.group().people().await.expect("people");
    assert_eq!(people.iter().filter(|person| person.is_out).count(), 1);
    assert_eq!(ann.files().await.len(), 2, "his files stay");
    write(ann, "after", "2").await;
    pause(5).await;
    for device in [ann, replica] {
        device.synced(Synced::Here).await;
    }
    cannot_open(bob, replica, ann).await;
    // He may be invited again, with the same device.
    let invite = ann
        .group()
        .invite(Write, ann.replicator().addresses())
        .await;
    bob.groups()
        .join(&invite.expect("an invite"))
        .await
        .expect("he joins");
    pause(60).await;
    assert_eq!(bob.group().standing(), Standing::Member);
    bob.synced(Synced::Here).await;
    assert_eq!(bob.files().await.len(), 3);
    // The repo of before has ended.
    let error = own(bob).await.write("again", "3").await;
    assert_eq!(error.expect_err("it ended").kind(), Kind::Denied);
    assert!(bob.group().own_repo().await.expect("repos").is_none());
    let new = bob.group().create_repo("bob again").await.expect("a repo");
    new.write("again", "3").await.expect("a write");
    pause(20).await;
    assert_eq!(ann.files().await.len(), 4);
}

/// Copies all blobs of one device to another.
async fn give_everything(from: &Device, to: &Device) {
    let mut blobs = from.stores.blobs.list();
    while let Some((hash, _)) = blobs.try_next().await.expect("a list") {
        let bytes = from.stores.blobs.read_to_bytes(hash, ..).await;
        if let Ok(bytes) = bytes {
            let pin = to.stores.blobs.add(bytes).await.expect("a blob");
            let name = larder_store_engine::TagName::new(format!("given/{hash}"));
            let tags = to.stores.blobs.tags();
            let tagged = tags.set(name.expect("a name"), pin.root()).await;
            tagged.expect("a tag");
        }
    }
}
