//! Tests that the errors and oddities of one member or peer do not stop any other.

use std::time::Duration;

use bytes::Bytes;
use larder_store_api::{
    Freshness, PublicKey, PutRecord, RecordStore, SecretKey, SecretName, SeqExpect,
};
use larder_store_engine::ChunkRanges;
use larder_store_engine::{Hash, Records};
use larder_sync::{
    groups::Repo,
    invite::InviteKind::{Read, Replica, Write},
    network::Stream,
    records::REPO_ROOT,
    replicate::{Synced, wire},
};
use larder_sync_sim::SimNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    link,
    world::{Device, options, own, world},
};

/// Replaces a repo's root with an invalid value.
async fn spoil(device: &Device, repo: &Repo) {
    let name = SecretName::new(format!("repo/{}", repo.id())).expect("a name");
    let secret = device.stores.secrets.get(name).await.expect("secrets");
    let secret = secret.expect("the repo's secret");
    let key: [u8; 32] = secret.expose().try_into().expect("a key");
    let write = PutRecord::Write {
        value: Bytes::from_static(b"this is no root"),
        writer: SecretKey::from_bytes(key),
        expect: SeqExpect::Any,
    };
    let records = Records::new(device.stores.collections().clone());
    let put = records.put(repo.id(), REPO_ROOT, write).await;
    put.expect("a value");
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_garbage_stops_no_other_repo() {
    let net = SimNetwork::new(31);
    net.set_default_link(link());
    let devices = world(&net, &[Write, Write, Replica], &options()).await;
    for device in &devices[..3] {
        let written = own(device).await.write("file", "1").await;
        written.expect("a write");
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    let bad = own(&devices[1]).await;
    spoil(&devices[1], &bad).await;
    // Everybody has the bad value before the good ones change.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for device in &devices {
        let records = Records::new(device.stores.collections().clone());
        let value = records.get(bad.id(), REPO_ROOT, Freshness::Local).await;
        assert_eq!(
            value.expect("a read").expect("a value").value,
            "this is no root"
        );
    }
    for device in [&devices[0], &devices[2]] {
        let written = own(device).await.write("file", "2").await;
        written.expect("a write");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for device in [&devices[0], &devices[2], &devices[3]] {
        device.synced(Synced::Here).await;
    }
    for ((repo, _), bytes) in devices[0].files().await {
        // The content of the bad repo from before is still there.
        let expected = if repo == bad.key() { "1" } else { "2" };
        assert_eq!(bytes, expected.as_bytes());
    }
    assert_eq!(devices[0].files().await.len(), 3);
}

/// Sends the correct bytes of a request that no peer here may make; returns the answer.
async fn ask(stream: &mut Stream, group: larder_store_api::RecordId) -> u8 {
    let get = wire::Get {
        group,
        repo: PublicKey([3; 32]),
        chain: vec![Hash::of("page")],
        ranges: vec![(0, ChunkRanges::all())],
    };
    let frame = get.encode().expect("a request");
    let mut bytes = vec![1];
    bytes.extend((frame.len() as u32).to_be_bytes());
    bytes.extend(&frame);
    stream.send.write_all(&bytes).await.expect("it is sent");
    stream.recv.read_u8().await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_are_answered_at_once_are_answered_later() {
    let net = SimNetwork::new(32);
    net.set_default_link(link());
    let devices = world(&net, &[], &options()).await;
    let address = devices[0].replicator().addresses().remove(0);
    let address = address.parse().expect("an address");
    let node = net.node(PublicKey([8; 32]));
    let connection = node.connect(&address, None).await.expect("a connection");
    // Streams that send so little that the server waits for more.
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut stream = connection.open().await.expect("a stream");
        stream.send.write_all(&[1, 0]).await.expect("it is sent");
        silent.push(stream);
    }
    let group = devices[0].group().id();
    let start = tokio::time::Instant::now();
    let mut stream = connection.open().await.expect("a stream");
    let (answer, ()) = tokio::join!(ask(&mut stream, group), async {
        // Before they count as stalled.
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(silent);
    });
    assert_eq!(answer, 2, "it is denied");
    assert!(start.elapsed() > Duration::from_secs(9), "it had to wait");
    for _ in 0..200 {
        let mut stream = connection.open().await.expect("a stream");
        assert_eq!(ask(&mut stream, group).await, 2, "it is denied");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn better_keys_share_what_the_old_handles_have() {
    let net = SimNetwork::new(33);
    net.set_default_link(link());
    let devices = world(&net, &[Read], &options()).await;
    devices[1].synced(Synced::Here).await;
    let old = devices[1].group();
    assert_eq!(old.repos().await.expect("repos").len(), 1);
    let invite = devices[0].group().invite(Write, Vec::new()).await;
    let invite = invite.expect("an invite");
    let joined = devices[1].groups().join(&invite).await;
    let new = joined.expect("it joins");
    while !new.can_write() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let repo = new.create_repo("reader").await.expect("a repo");
    repo.write("a", "1").await.expect("a write");
    // The old handle knows the repo, and that it is ours.
    let same = old.repo(repo.key()).await.expect("a repo").expect("a repo");
    assert!(same.is_ours());
    let writes = (0..20).map(|n| {
        let repo = if n % 2 == 0 { &repo } else { &same };
        let name = format!("{n}");
        async move { repo.write(&name, name.clone().into_bytes()).await }
    });
    for written in futures_util::future::join_all(writes).await {
        written.expect("a write");
    }
    // Both handles see changes over the session that the old keys began.
    own(&devices[0])
        .await
        .write("b", "2")
        .await
        .expect("a write");
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    for group in [&old, &new] {
        let repos = group.repos().await.expect("repos");
        assert_eq!(repos.len(), 2);
    }
    assert_eq!(devices[0].files().await.len(), 22);
    assert!(devices[0].files().await == devices[1].files().await);
}
