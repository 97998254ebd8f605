//! Tests of which of others' contents devices want, and which they delete.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use larder::Kind;
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::Read,
    replicate::{Copies, Synced},
};
use tests::data::bytes;

use crate::{
    device::{Device, until},
    world::World,
};

const FILES: [(&str, usize); 5] = [
    ("note", 100),
    ("photos/small", 20_000),
    ("photos/sub/long", 9_000_000),
    ("photos2/other", 30_000),
    ("video", 2_000_000),
];

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns a writer with some files and a reader that has their names and this policy, and the writer's
/// repo as the reader sees it.
async fn members(world: &World, policy: Policy) -> (Vec<Device>, Repo) {
    let members = world.members(&[Read]).await;
    let set = members[1].group().set_policy(policy.clone()).await;
    set.expect("a policy");
    for (n, (name, len)) in (0..).zip(FILES) {
        members[0].write(name, bytes(n, len)).await;
    }
    for member in &members {
        member.synced(Synced::Everywhere).await;
    }
    let repo = members[1].repo_of(&members[0]).await;
    let listed = repo.list("").await.expect("a list");
    let listed: Vec<_> = listed.try_collect().await.expect("names");
    assert_eq!(listed.len(), FILES.len());
    (members, repo)
}

pub async fn what_is_selected_comes_and_nothing_else(world: &World) {
    let policy = Policy::Selected {
        prefixes: vec!["photos/".to_owned(), "no".to_owned()],
        up_to: 1_000_000,
    };
    let (mut members, repo) = members(world, policy.clone()).await;
    assert_eq!(
        members[1].has(&repo).await,
        names(&["note", "photos/small"])
    );
    drop(repo);
    // The policy is stored, and applies to later files, even under another name.
    members[1].end().await;
    members[1].start(world).await;
    let kept = members[1].group().policy().await.expect("a policy");
    assert_eq!(kept, Some(policy));
    let writer = members[0].own().await;
    let renamed = writer.rename("photos2/other", "photos/other").await;
    renamed.expect("a rename");
    let repo = members[1].repo_of(&members[0]).await;
    until("the other photo comes", async || {
        members[1].has(&repo).await == names(&["note", "photos/other", "photos/small"])
    })
    .await;
    members[1].group().set_policy(None).await.expect("a policy");
    members[1].synced(Synced::Here).await;
    assert_eq!(members[1].has(&repo).await.len(), FILES.len());
}

pub async fn what_is_pinned_comes_whatever_else_is_wanted(world: &World) {
    let (members, repo) = members(world, Policy::Pinned).await;
    assert_eq!(members[1].has(&repo).await, names(&[]));
    repo.pin("photos").await.expect("a pin");
    repo.pin("later").await.expect("a pin");
    members[1].synced(Synced::Here).await;
    let photos = names(&["photos/small", "photos/sub/long"]);
    assert_eq!(members[1].has(&repo).await, photos);
    members[0].write("later", "x").await;
    members[0].write("photos2/not", "y").await;
    until("what was pinned before comes", async || {
        let known = repo.known_root().await.expect("a root").expect("one").1;
        known.root.files == 7 && members[1].status().await.has_all()
    })
    .await;
    let has = names(&["later", "photos/small", "photos/sub/long"]);
    assert_eq!(members[1].has(&repo).await, has);
    repo.unpin("photos").await.expect("a pin less");
    assert_eq!(repo.pinned().await.expect("pins"), names(&["later"]));
}

async fn read(device: &Device, repo: &Repo, name: &str) -> larder::Result<Vec<u8>> {
    let bytes = device.replicator().read(repo, name, 0..u64::MAX).await?;
    let pieces: Vec<_> = bytes.try_collect().await?;
    Ok(pieces.concat())
}

pub async fn contents_come_when_they_are_read(world: &World) {
    let (mut members, repo) = members(world, Policy::Names).await;
    assert_eq!(members[1].has(&repo).await, names(&[]));
    let absent = repo.read_to_bytes("video").await.unwrap_err();
    assert_eq!(absent.kind(), Kind::NotFound);
    for n in [1, 2] {
        let (name, len) = FILES[n];
        let found = read(&members[1], &repo, name).await.expect("a file");
        assert!(found == bytes(n as u64, len), "{name}");
    }
    let none = read(&members[1], &repo, "none").await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
    // Contents that were read stay; the rest cannot be read while nobody is connected.
    members[1].collect().await;
    members[0].end().await;
    until("nobody is there", async || {
        members[1].status().await.peers.is_empty()
    })
    .await;
    let away = read(&members[1], &repo, "video").await.unwrap_err();
    assert_eq!(away.kind(), Kind::Unavailable);
    let found = read(&members[1], &repo, "photos/small").await;
    assert!(found.expect("it is here") == bytes(1, 20_000));
    assert!(members[1].replicator().requests().is_empty());
}

pub async fn what_was_freed_comes_again(world: &World) {
    let (mut members, repo) = members(world, Policy::Everything).await;
    let (group, all) = (members[1].group(), FILES.len());
    assert_eq!(members[1].has(&repo).await.len(), all);
    let full = members[1].len().await;
    group.set_policy(Policy::Pinned).await.expect("a policy");
    repo.pin("note").await.expect("a pin");
    let free = async |members: &[Device]| {
        let freed = members[1]
            .replicator()
            .free(group.id(), Copies::RequireOtherCopy);
        freed.await.expect("it is freed")
    };
    // Nobody is connected who could prove to have them.
    members[0].end().await;
    until("nobody is there", async || {
        members[1].status().await.peers.is_empty()
    })
    .await;
    let freed = free(&members).await;
    assert_eq!((freed.files, freed.stay), (0, 4));
    assert_eq!(members[1].has(&repo).await.len(), all);
    members[0].start(world).await;
    members[1].meet(&members[0]).await;
    members[1].synced(Synced::Everywhere).await;
    let freed = free(&members).await;
    assert_eq!((freed.files, freed.stay), (4, 0), "{freed:?}");
    assert!(freed.bytes > 11_050_000, "{freed:?}");
    assert_eq!(members[1].has(&repo).await, names(&["note"]));
    let left = members[1].len().await;
    assert!(left < full - 11_000_000, "{left} of {full}");
    // Nobody counts them as still here.
    group.set_policy(None).await.expect("a policy");
    members[1].synced(Synced::Here).await;
    assert_eq!(members[1].has(&repo).await.len(), all);
    assert!(members[1].files().await == members[0].files().await);
}

pub async fn all_of_a_repo_comes_and_says_how_far_it_is(world: &World) {
    let (mut members, repo) = members(world, Policy::Names).await;
    let mut seen = Vec::new();
    let root = members[1]
        .replicator()
        .sync_all(&repo, |now| seen.push(now));
    assert_eq!(root.await.expect("it comes").files, 5);
    assert_eq!(members[1].has(&repo).await.len(), FILES.len());
    assert!(seen.is_sorted_by_key(|now| now.bytes_here), "{seen:?}");
    assert!(
        seen.iter().all(|now| now.bytes_here <= now.bytes),
        "{seen:?}"
    );
    let last = seen.last().expect("it was said");
    assert_eq!((last.files, last.files_here), (5, 5), "{last:?}");
    assert!(
        last.bytes == last.bytes_here && last.bytes > 11_050_100,
        "{last:?}"
    );
    // A member that knows of more, and finds nobody who could provide it, reports that.
    members[0].write("new", bytes(8, 90_000)).await;
    members[0].synced(Synced::Everywhere).await;
    members[0].end().await;
    until("nobody is there", async || {
        members[1].status().await.peers.is_empty()
    })
    .await;
    let failed = members[1].replicator().sync_all(&repo, |_| {}).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Unavailable);
}
