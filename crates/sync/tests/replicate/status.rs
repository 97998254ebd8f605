//! Tests of each member's status: its last contact, and the progress of both sides.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{CollectionId, PublicKey};
use larder_sync::{
    groups::Policy,
    invite::InviteKind::{Read, Replica, Write},
    replicate::{Lack, MemberStatus, Push, Synced},
};
use larder_sync_sim::{Crossing, Link, SimNetwork, Tamper};

use crate::{
    link, noise,
    world::{Device, PATIENCE, START_MS, options, own, world},
};

const NOTHING: Lack = lack(0, 0);
const CONTACTS: CollectionId = CollectionId::from_static("sync/contacts");

const fn lack(files: u64, bytes: u64) -> Lack {
    Lack {
        files,
        bytes,
        exact: true,
    }
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn write(device: &Device, name: &str, len: usize) {
    let bytes = noise(len as u32, len);
    own(device).await.write(name, bytes).await.expect("a write");
}

async fn all(device: &Device) -> Vec<MemberStatus> {
    let id = device.group().id();
    let members = device.replicator().members(id).await;
    members.expect("a status")
}

/// Returns one device's status of another.
async fn of(device: &Device, other: PublicKey) -> MemberStatus {
    let all = all(device).await;
    let found = all.iter().find(|member| member.device == Some(other));
    found.unwrap_or_else(|| panic!("{all:#?}")).clone()
}

async fn agree(devices: &[Device]) {
    for device in devices {
        device.synced(Synced::Everywhere).await;
    }
    // Devices that learned of each other from the first one connect too.
    pause(10).await;
}

/// Returns since when one device has been in sync with another, if it is.
async fn in_sync(device: &Device, other: PublicKey) -> Option<i64> {
    let member = of(device, other).await;
    if member.in_sync_since.is_some() {
        assert_eq!((member.they_have, member.we_have), (NOTHING, NOTHING));
    }
    member.in_sync_since
}

#[tokio::test(start_paused = true)]
async fn who_is_in_sync_is_so_since_it_is() {
    let net = SimNetwork::new(61);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Read], &options()).await;
    write(&devices[0], "first", 1000).await;
    agree(&devices).await;
    let keys: Vec<_> = devices.iter().map(|device| device.key).collect();
    for device in &devices {
        let others = all(device).await;
        assert_eq!(others.len(), 2, "{others:#?}");
        for member in others {
            assert!(member.connected && member.last_contact > Some(START_MS));
            assert_eq!((member.they_have, member.we_have), (NOTHING, NOTHING));
            let other = member.device.expect("it was met");
            let n = keys.iter().position(|key| *key == other).expect("one");
            let repo = match n {
                2 => None,
                n => Some(own(&devices[n]).await.key()),
            };
            assert_eq!(member.repo, repo, "{n}");
        }
    }
    let since = in_sync(&devices[0], keys[1]).await.expect("in sync");
    // Nobody asks meanwhile, and routes are renewed.
    pause(3600).await;
    assert_eq!(in_sync(&devices[0], keys[1]).await, Some(since));
    let heard = of(&devices[0], keys[1]).await.last_contact;
    assert!(heard > Some(since + 3_500_000));

    let before = devices[0].now();
    write(&devices[1], "second", 10).await;
    agree(&devices).await;
    let after = devices[0].now();
    for (device, other) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
        let since = in_sync(&devices[device], keys[other]).await;
        assert!((Some(before)..Some(after)).contains(&since), "{since:?}");
    }
    pause(3600).await;
    let since = in_sync(&devices[0], keys[1]).await;
    assert!((Some(before)..Some(after)).contains(&since), "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_lacks_what_is_new() {
    let net = SimNetwork::new(62);
    net.set_default_link(link());
    let devices = world(&net, &[Write], &options()).await;
    for n in 0..200 {
        write(&devices[0], &format!("{n}"), 100 + n).await;
    }
    agree(&devices).await;
    let [one, two] = [devices[0].key, devices[1].key];
    net.set_links(
        one,
        two,
        Link {
            bandwidth: Some(1_000_000),
            ..link()
        },
    );
    write(&devices[0], "long", 9_000_000).await;
    pause(1).await;
    let long = lack(1, 9_000_000);
    let member = of(&devices[0], two).await;
    assert_eq!((member.they_have, member.we_have), (NOTHING, long));
    assert_eq!(member.in_sync_since, None);
    let member = of(&devices[1], one).await;
    assert_eq!((member.they_have, member.we_have), (long, NOTHING));
    assert_eq!(member.in_sync_since, None);

    // Data that has arrived is no longer lacking.
    pause(5).await;
    net.partition(&[two]);
    pause(60).await;
    let member = of(&devices[1], one).await;
    let Lack {
        files,
        bytes,
        exact,
    } = member.they_have;
    assert!(!member.connected && exact && files == 1);
    assert!((1..5_000_000).contains(&bytes), "{bytes}");
    assert_eq!(of(&devices[0], two).await.we_have, long);

    // A replaced file is not lacking, nor is one that only got another name.
    own(&devices[0])
        .await
        .rename("7", "8")
        .await
        .expect("it is renamed");
    write(&devices[0], "9", 50_000).await;
    write(&devices[1], "theirs", 10).await;
    assert_eq!(of(&devices[0], two).await.we_have, lack(2, 9_050_000));
    assert_eq!(of(&devices[1], one).await.we_have, lack(1, 10));

    net.heal();
    pause(60).await;
    agree(&devices).await;
    assert!(in_sync(&devices[0], two).await.is_some());
    assert!(in_sync(&devices[1], one).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_is_away_was_there_last_when_it_left() {
    let net = SimNetwork::new(63);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write], &options()).await;
    agree(&devices).await;
    let away = devices[2].key;
    let left = devices[0].now();
    net.partition(&[away]);
    pause(600).await;
    let member = of(&devices[0], away).await;
    assert!(!member.connected);
    let last = member.last_contact.expect("it was there");
    assert!(
        (left - 11_000..=left + 1000).contains(&last),
        "{last}, {left}"
    );
    // Nothing has changed since.
    assert!(member.in_sync_since < Some(left) && member.in_sync_since.is_some());
    write(&devices[1], "new", 5000).await;
    pause(5).await;
    let member = of(&devices[0], away).await;
    assert_eq!((member.they_have, member.we_have), (NOTHING, lack(1, 5000)));
    assert_eq!(
        (member.in_sync_since, member.last_contact),
        (None, Some(last))
    );
    // A device that comes back has been in sync only since then.
    own(&devices[1])
        .await
        .remove("new")
        .await
        .expect("a removal");
    net.heal();
    pause(120).await;
    agree(&devices).await;
    assert!(in_sync(&devices[0], away).await > Some(left + 600_000));
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_nothing() {
    let net = SimNetwork::new(64);
    net.set_default_link(link());
    let mut devices = world(&net, &[Write], &options()).await;
    write(&devices[0], "file", 1000).await;
    agree(&devices).await;
    let other = devices[1].key;
    let repo = own(&devices[1]).await.key();
    let since = in_sync(&devices[0], other).await.expect("in sync");
    pause(1000).await;
    let last = of(&devices[0], other)
        .await
        .last_contact
        .expect("it is there");

    // One crashes, the other shuts down in order; and one clock goes back by a day.
    devices[0].crash(&net);
    devices[1].replicator().shutdown().await;
    devices[1].running = None;
    pause(1000).await;
    devices[0].skew = -86_400_000;
    devices[0].start(&net, options()).await;
    pause(1).await;
    let member = of(&devices[0], other).await;
    assert_eq!((member.connected, member.repo), (false, Some(repo)));
    assert_eq!(member.in_sync_since, Some(since));
    let kept = member.last_contact.expect("it was there");
    assert!((last - 70_000..=last).contains(&kept), "{kept}, {last}");

    devices[1].start(&net, options()).await;
    pause(60).await;
    agree(&devices).await;
    let member = of(&devices[0], other).await;
    assert!(member.connected && member.last_contact < Some(since));
    assert_eq!(in_sync(&devices[0], other).await, Some(since));
    write(&devices[0], "more", 2000).await;
    agree(&devices).await;
    assert!(in_sync(&devices[0], other).await < Some(since));

    // The loss of a store is noticed, whatever was in it before.
    devices[1].replicator().shutdown().await;
    write(&devices[0], "more still", 3000).await;
    pause(60).await;
    assert_eq!(of(&devices[0], other).await.we_have, lack(1, 3000));

    let id = devices[0].group().id();
    let kept = |device: &Device| {
        let entries = device.stores.collections().scan_range(CONTACTS, ..);
        entries.try_collect::<Vec<_>>()
    };
    assert_eq!(kept(&devices[0]).await.expect("entries").len(), 1);
    devices[0].groups().leave(id).await.expect("it leaves");
    pause(60).await;
    assert_eq!(kept(&devices[0]).await.expect("entries"), []);
    assert!(devices[0].replicator().members(id).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_replica_counts_what_it_cannot_read() {
    let net = SimNetwork::new(65);
    net.set_default_link(link());
    let devices = world(&net, &[Replica, Write], &options()).await;
    for n in 0..100 {
        write(&devices[0], &format!("{n}"), 1000 + n).await;
    }
    agree(&devices).await;
    let [one, replica, away] = [0, 1, 2].map(|n| devices[n].key);
    assert!(in_sync(&devices[1], one).await.is_some());
    net.partition(&[away]);
    pause(120).await;
    write(&devices[0], "new", 70_000).await;
    write(&devices[0], "newer", 10).await;
    pause(10).await;
    let about = |found: Lack, bytes: u64| {
        assert!(found.exact && found.files == 2, "{found:?}");
        assert!((bytes..bytes + 200).contains(&found.bytes), "{found:?}");
    };
    let member = of(&devices[1], away).await;
    assert_eq!(member.they_have, NOTHING);
    about(member.we_have, 70_010);
    assert_eq!(of(&devices[0], replica).await.we_have, NOTHING);
    assert_eq!(of(&devices[0], away).await.we_have, lack(2, 70_010));

    // Data in transit to it counts as far as it has arrived.
    net.set_links(
        one,
        replica,
        Link {
            bandwidth: Some(50_000),
            ..link()
        },
    );
    write(&devices[0], "slow", 700_000).await;
    pause(5).await;
    let member = of(&devices[1], one).await;
    assert_eq!((member.we_have, member.they_have.files), (NOTHING, 1));
    assert!(member.they_have.bytes > 0 && member.in_sync_since.is_none());
    pause(60).await;
    assert!(in_sync(&devices[1], one).await.is_some());
}

/// Parses frames that pass by.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// The number of remaining bytes of the body, and the position of the next one.
    left: u32,
    at: u32,
    is_holds: bool,
}

impl Frames {
    /// Handles the next byte, and returns it.
    fn pass(&mut self, byte: u8) -> u8 {
        if self.left == 0 {
            self.header.push(byte);
            if let Some(len) = self.header.first_chunk() {
                (self.left, self.at) = (u32::from_be_bytes(*len), 0);
                self.header.clear();
            }
            return byte;
        }
        if self.at == 0 {
            self.is_holds = self.left == 81 && byte == 4;
        }
        (self.left, self.at) = (self.left - 1, self.at + 1);
        match self.is_holds && (34..=65).contains(&self.at) {
            true => 7,
            false => byte,
        }
    }
}

/// Announces holdings that nobody knows, in the sessions that it began.
fn holds_what_is_not() -> Tamper {
    let mut sessions: BTreeMap<(u64, u64), Frames> = BTreeMap::new();
    Box::new(move |crossing: &Crossing, bytes: Bytes| {
        let stream = (crossing.connection, crossing.stream);
        let mut bytes = BytesMut::from(bytes);
        if crossing.direction != 0 {
            return bytes.freeze();
        }
        let begins = crossing.offset == 0;
        if begins && bytes.first() == Some(&0) {
            sessions.insert(stream, Frames::default());
        }
        if let Some(frames) = sessions.get_mut(&stream) {
            let body = bytes.iter_mut().skip(usize::from(begins));
            body.for_each(|byte| *byte = frames.pass(*byte));
        }
        bytes.freeze()
    })
}

#[tokio::test(start_paused = true)]
async fn who_holds_what_nobody_knows_is_not_in_sync() {
    let net = SimNetwork::new(66);
    net.set_default_link(link());
    // A device without a repo announces no address, so that it is always the one that connects.
    net.set_tamper(PublicKey([2; 32]), Some(holds_what_is_not()));
    let devices = world(&net, &[Read], &options()).await;
    write(&devices[0], "file", 1000).await;
    devices[0].synced(Synced::Here).await;
    pause(60).await;
    let member = of(&devices[0], devices[1].key).await;
    assert!(
        member.connected && member.in_sync_since.is_none(),
        "{member:?}"
    );
    let unknown = |files, bytes| Lack {
        files,
        bytes,
        exact: false,
    };
    assert_eq!(member.they_have, unknown(0, 0));
    assert_eq!(member.we_have, unknown(1, 1000));
    let id = devices[0].group().id();
    let synced = devices[0]
        .replicator()
        .wait_synced(id, Synced::Everywhere, PATIENCE);
    assert!(synced.await.is_err());
    net.set_tamper(devices[1].key, None);
    // It announces that again only after a change.
    write(&devices[0], "other", 1000).await;
    agree(&devices).await;
    assert!(in_sync(&devices[0], devices[1].key).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_was_never_met_is_listed_too() {
    let net = SimNetwork::new(67);
    net.set_default_link(link());
    let mut devices = world(&net, &[Replica, Write], &options()).await;
    agree(&devices).await;
    let absent = devices.remove(2);
    let (key, repo) = (absent.key, own(&absent).await.key());
    absent.replicator().shutdown().await;
    let mut names = options();
    (names.policy, names.push) = (Policy::Names, Push::Never);
    let mut late = Device::new(9).await;
    let groups = late.start(&net, names).await;
    let addresses = devices[1].replicator().addresses();
    let invite = devices[0].group().invite(Read, addresses).await;
    groups
        .join(&invite.expect("an invite"))
        .await
        .expect("it joins");
    write(&devices[0], "file", 1000).await;
    pause(60).await;
    late.synced(Synced::Here).await;
    let member = of(&late, key).await;
    assert_eq!((member.repo, member.connected), (Some(repo), false));
    assert_eq!((member.last_contact, member.in_sync_since), (None, None));
    // It wants only names, and has them.
    let member = of(&late, devices[1].key).await;
    assert_eq!((member.they_have, member.we_have), (NOTHING, NOTHING));
    // Not even an address of this one is known.
    let group = devices[0].group();
    let second = group.create_repo("a second repo").await.expect("a repo");
    pause(60).await;
    let others = all(&late).await;
    let found = others.iter().filter(|m| m.repo == Some(second.key()));
    assert!(found.count() <= 1, "{others:#?}");
}
