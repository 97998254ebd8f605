//! Tests that a peer is refused what it has no right to, and learns nothing.

use std::fmt::Debug;

use futures_util::TryStreamExt;
use larder::{
    ChunkRanges, Kind, Result,
    api::SeqExpect,
    engine::{generate_key, public_key},
};
use larder_sync::{
    groups::{AppContext, Group},
    invite::InviteKind::{self, Read, Replica, Write},
    network::{Address, Network},
    replicate::wire,
};
use tests::data::bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    device::agree,
    world::{World, options},
};

#[track_caller]
fn denied<T: Debug>(result: Result<T>) {
    match result {
        Ok(done) => panic!("it is allowed: {done:?}"),
        Err(error) => assert_eq!(error.kind(), Kind::Denied, "{error}"),
    }
}

async fn cannot_write(group: &Group) {
    denied(group.create_repo("mine").await);
    denied(group.record_put(0, b"mine", SeqExpect::Any).await);
    denied(group.invite(InviteKind::Write, Vec::new()).await);
    for repo in group.repos().await.expect("repos") {
        denied(repo.write("file", "changed").await);
        denied(repo.stage("new", 0).await.map(drop));
        denied(repo.remove("file").await);
        denied(repo.rename("file", "moved").await);
    }
}

pub async fn who_may_not_is_refused_and_nothing_changes(world: &World) {
    let members = world.members(&[Write, Read, Replica]).await;
    for member in &members[..2] {
        member.write("file", bytes(1, 50_000)).await;
    }
    let group = members[0].group();
    let value = group.record_put(0, b"a value", SeqExpect::Any).await;
    value.expect("a value");
    let sealed = group
        .encrypt(b"plain", AppContext::default())
        .await
        .expect("sealed");
    agree(&members).await;
    let before = members[0].files().await;
    let root = members[1].own().await.known_root().await.expect("a root");

    cannot_write(&members[2].group()).await;
    let replica = members[3].group();
    cannot_write(&replica).await;
    denied(replica.name().await);
    denied(replica.record_get(0).await);
    denied(replica.encrypt(b"plain", AppContext::default()).await);
    denied(replica.decrypt(&sealed, AppContext::default()));
    denied(replica.invite(InviteKind::Read, Vec::new()).await);
    for repo in replica.repos().await.expect("repos") {
        denied(repo.name().await);
        denied(repo.list("").await.map(drop));
        denied(repo.entry("file").await);
        denied(repo.read_to_bytes("file").await);
        denied(repo.pin("file").await);
        let read = members[3].replicator().read(&repo, "file", 0..9).await;
        denied(read.map(drop));
    }

    // A later change reaches all of them, and everything else is as before.
    members[0].write("later", "x").await;
    agree(&members).await;
    for member in &members[..3] {
        let mut files = member.files().await;
        let later = ("member 0".to_owned(), "later".to_owned());
        assert!(files.remove(&later).is_some() && files == before);
        let value = member.group().record_get(0).await.expect("a value");
        assert_eq!(value.expect("one").value, "a value");
    }
    let after = members[1].own().await.known_root().await.expect("a root");
    assert_eq!(after, root);
    assert_eq!(members[0].group().repos().await.expect("repos").len(), 2);
}

/// Asks a node for the first blob of a page, and returns its answer.
async fn ask(network: &dyn Network, at: &Address, get: &wire::Get) -> Vec<u8> {
    let connection = network.connect(at, None).await.expect("a connection");
    let mut stream = connection.open().await.expect("a stream");
    let frame = get.encode().expect("a request");
    let mut bytes = vec![1];
    bytes.extend((frame.len() as u32).to_be_bytes());
    bytes.extend(&frame);
    stream.send.write_all(&bytes).await.expect("it is sent");
    stream.send.shutdown().await.expect("it is sent");
    let mut answer = Vec::new();
    stream
        .recv
        .read_to_end(&mut answer)
        .await
        .expect("an answer");
    answer
}

pub async fn a_stranger_learns_nothing(world: &World) {
    let members = world.members(&[Write, Replica]).await;
    members[0].write("secret", bytes(1, 100_000)).await;
    agree(&members).await;
    let addresses: Vec<Address> = members
        .iter()
        .flat_map(|member| member.replicator().addresses())
        .map(|address| address.parse().expect("an address"))
        .collect();
    assert!(addresses.len() >= members.len());

    // One peer with a group of its own, and one that asks for data that it knows to exist.
    let stranger = world.device(options()).await;
    let other = stranger.groups().create_group("other").await;
    other.expect("a group");
    let (group, repo) = (members[0].group().id(), members[0].own().await);
    let root = repo.root().await.expect("a root").hash;
    let secret = generate_key().expect("randomness");
    let (network, _process) = world.node(&secret).await;
    for at in &addresses {
        let connected = stranger.replicator().connect(at).await;
        connected.expect("anybody can connect");
        let get = wire::Get {
            group,
            repo: repo.key(),
            chain: vec![root],
            ranges: vec![(0, ChunkRanges::all())],
        };
        let answer = ask(network.as_ref(), at, &get).await;
        assert_eq!(answer, [2], "it is denied, and nothing else is said");
    }
    members[0].write("more", bytes(2, 100_000)).await;
    agree(&members).await;

    let status = stranger.status().await;
    assert!(status.peers.is_empty() && status.repos.is_empty());
    let blobs = stranger.store().blobs().list().try_collect::<Vec<_>>();
    assert_eq!(blobs.await.expect("a list"), []);
    for known in [&group.0, &repo.key().0, root.as_bytes()] {
        assert!(members[0].has_bytes(known).await);
        assert!(!stranger.has_bytes(known).await);
    }
    for member in &members {
        let status = member.status().await;
        let known = member.replicator().members(group).await.expect("members");
        for key in [stranger.key(), public_key(&secret)] {
            assert!(!status.peers.contains(&key));
            assert!(known.iter().all(|member| member.device != Some(key)));
        }
    }
    network.close().await;
}
