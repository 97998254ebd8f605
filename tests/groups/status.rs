//! Tests of the status of the other members, and of finding who has a file.

use larder::{Hash, Kind, api::PublicKey};
use larder_sync::{
    groups::Policy,
    invite::InviteKind::{Read, Write},
    replicate::{Lack, MemberStatus, Synced},
};
use tests::data::bytes;

use crate::{
    device::{Device, agree, until},
    world::World,
};

const fn lack(files: u64, bytes: u64) -> Lack {
    Lack {
        files,
        bytes,
        exact: true,
    }
}

const NOTHING: Lack = lack(0, 0);

async fn all(device: &Device) -> Vec<MemberStatus> {
    let id = device.group().id();
    let members = device.replicator().members(id).await;
    members.expect("the members")
}

/// Returns one device's status of another.
async fn of(device: &Device, other: &Device) -> Option<MemberStatus> {
    let mut all = all(device).await.into_iter();
    all.find(|member| member.device == Some(other.key()))
}

async fn are_in_sync(devices: &[Device]) {
    until("everybody says that all are in sync", async || {
        let is_level = |member: &MemberStatus| {
            member.connected
                && member.in_sync_since.is_some()
                && (member.they_have, member.we_have) == (NOTHING, NOTHING)
        };
        for device in devices {
            let all = all(device).await;
            if all.len() + 1 != devices.len() || !all.iter().all(is_level) {
                return false;
            }
        }
        true
    })
    .await;
}

pub async fn members_say_what_either_side_lacks(world: &World) {
    let mut members = world.members(&[Write, Read]).await;
    for n in 0..40 {
        members[0].write(&format!("{n}"), bytes(n, 300)).await;
    }
    agree(&members).await;
    are_in_sync(&members).await;
    let repo = of(&members[2], &members[1]).await.expect("it was met").repo;
    assert_eq!(repo, Some(members[1].own().await.key()));

    // One disconnects, and both sides write.
    members[1].disconnect().await;
    members[0].write("new", bytes(50, 5000)).await;
    members[1].write("theirs", bytes(51, 70)).await;
    until("it is known to be behind", async || {
        let member = of(&members[0], &members[1]).await.expect("it was met");
        !member.connected && member.in_sync_since.is_none()
    })
    .await;
    let member = of(&members[0], &members[1]).await.expect("it was met");
    assert_eq!((member.they_have, member.we_have), (NOTHING, lack(1, 5000)));
    assert!(member.last_contact.is_some());
    // The one that stays is in sync all the time, or again.
    until("the reader has it", async || {
        let reader = of(&members[0], &members[2]).await.expect("it was met");
        reader.in_sync_since.is_some() && reader.we_have == NOTHING
    })
    .await;

    members[1].connect(world).await;
    agree(&members).await;
    are_in_sync(&members).await;
}

async fn who_has(device: &Device, hash: Hash) -> Vec<PublicKey> {
    let id = device.group().id();
    let found = device.replicator().who_has(id, hash).await;
    found.expect("it is known")
}

pub async fn who_has_a_file_shows_it(world: &World) {
    let mut members = world.members(&[Write, Read]).await;
    let set = members[2].group().set_policy(Policy::Names).await;
    set.expect("a policy");
    let repo = members[0].own().await;
    let written = repo.write("file", bytes(1, 3_000_000).to_vec()).await;
    let file = written.expect("a write");
    drop(repo);
    agree(&members).await;
    let [first, second] = [members[0].key(), members[1].key()];
    let mut both = [first, second];
    both.sort_unstable();
    for hash in [file.hash, file.blob] {
        // The reader has only the name, and announces nothing else.
        until("all have met", async || {
            who_has(&members[2], hash).await == both
        })
        .await;
        assert_eq!(who_has(&members[0], hash).await, [second]);
        assert_eq!(who_has(&members[1], hash).await, [first]);
    }
    let id = members[2].group().id();
    let none = members[2].replicator().who_has(id, Hash::of("none")).await;
    assert_eq!(none.unwrap_err().kind(), Kind::NotFound);
    members[0].end().await;
    until("the first has gone", async || {
        who_has(&members[2], file.hash).await == [second]
    })
    .await;
    members[0].start(world).await;
    members[2].synced(Synced::Everywhere).await;
    until("the first is back", async || {
        who_has(&members[2], file.hash).await == both
    })
    .await;
}
