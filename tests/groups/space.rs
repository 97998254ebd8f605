//! Tests that data that is no longer needed uses no space.

use larder_sync::invite::InviteKind::{Read, Write};
use tests::data::{MIB, bytes};

use crate::{
    device::{agree, until},
    world::World,
};

/// The number of bytes by which the stores may grow.
const MORE: u64 = 1_000_000;

pub async fn what_was_removed_frees_the_disk(world: &World) {
    let members = world.members(&[Write, Read]).await;
    members[0].write("stays", bytes(1, 200_000)).await;
    agree(&members).await;
    let mut before = Vec::new();
    for member in &members {
        member.collect().await;
        before.push(member.len().await);
    }
    let len = 20 * MIB;
    members[0].write("large", bytes(2, len)).await;
    agree(&members).await;
    for (member, before) in members.iter().zip(&before) {
        assert!(member.len().await > before + len as u64);
    }
    let removed = members[0].own().await.remove("large").await;
    removed.expect("a removal");
    agree(&members).await;
    for (member, before) in members.iter().zip(&before) {
        // Data that was just released may still be in use.
        until("the space is free", async || {
            member.collect().await;
            member.len().await < before + MORE
        })
        .await;
    }
    for member in &members {
        assert_eq!(member.files().await.len(), 1);
    }
}
