//! Tests of devices that come and go.

use futures_util::TryStreamExt;
use larder_sync::{
    invite::InviteKind::{self, Read, Replica, Write},
    replicate::Synced,
};
use tests::data::bytes;

use crate::{
    device::{agree, until},
    world::{World, options},
};

pub async fn what_two_devices_write_at_once_is_merged(world: &World) {
    let mut members = world.members(&[Write, Replica]).await;
    for path in ["both", "gone", "changed"] {
        members[0].write(path, "first").await;
    }
    let phone = world.device(options()).await;
    phone.join(&members[0], InviteKind::Device, &members).await;
    members.push(phone);
    agree(&members).await;

    members[3].disconnect().await;
    let (computer, phone) = (&members[0], &members[3]);
    computer.write("both", "of the computer").await;
    phone.write("both", "of the phone").await;
    computer.write("changed", "later").await;
    phone.own().await.remove("gone").await.expect("a removal");
    phone.write("only here", bytes(1, 50_000)).await;
    computer.write("only there", bytes(2, 50_000)).await;
    members[3].connect(world).await;
    agree(&members).await;

    // Both write while they are connected.
    for n in 0..5 {
        let (here, there) = (format!("here {n}"), format!("there {n}"));
        tokio::join!(
            members[3].write(&here, here.clone()),
            members[0].write(&there, there.clone())
        );
    }
    agree(&members).await;
    let files = members[1].files().await;
    for member in [&members[0], &members[3]] {
        assert!(member.files().await == files);
    }
    let found = |name: &str| files.get(&("member 0".to_owned(), name.to_owned()));
    assert_eq!(found("changed").expect("a file"), b"later");
    assert_eq!(found("gone"), None);
    assert!(found("only here").is_some() && found("only there").is_some());
    // Nothing that the two wrote is lost.
    let is_both = |path: &str| path == "both" || path.starts_with("both (conflict ");
    let both = files.iter().filter(|((_, path), _)| is_both(path));
    let mut both: Vec<_> = both.map(|(_, bytes)| &bytes[..]).collect();
    both.sort_unstable();
    assert_eq!(both, [&b"of the computer"[..], b"of the phone"]);
    assert_eq!(files.len(), 5 + 10);
}

pub async fn who_leaves_keeps_nothing(world: &World) {
    let mut members = world.members(&[Write, Read]).await;
    members[0].write("file", bytes(1, 100_000)).await;
    members[1].write("of who leaves", bytes(2, 100_000)).await;
    agree(&members).await;
    let leaves = members.remove(1);
    let id = leaves.group().id();
    assert!(leaves.has_bytes(&id.0).await);
    leaves.groups().leave(id).await.expect("it leaves");
    leaves.groups().leave(id).await.expect("leaving again");
    assert!(leaves.groups().groups().is_empty());
    until("nothing is left", async || {
        leaves.collect().await;
        let blobs = leaves.store().blobs().list().try_collect::<Vec<_>>();
        blobs.await.expect("a list").is_empty()
    })
    .await;

    // The others continue, with the files that it wrote.
    members[0].write("later", "x").await;
    members[0].synced(Synced::Everywhere).await;
    assert_eq!(members[1].files().await.len(), 3);
    assert!(leaves.groups().groups().is_empty());
    // A device that comes back gets everything again.
    leaves.join(&members[0], Read, &members).await;
    leaves.synced(Synced::Here).await;
    assert!(leaves.files().await == members[0].files().await);
}
