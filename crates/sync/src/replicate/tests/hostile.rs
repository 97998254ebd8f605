//! Tests of a member that announces without end, and of damage that is found while a tree arrives.

use std::{io, time::Duration};

use futures_util::TryStreamExt;
use larder_store_api::{BlobStore, PublicKey};
use larder_store_engine::Hash;
use larder_store_testkit::{MemoryStore, stores::LateStore};
use larder_sync_sim::{Link, SimNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Device, PATIENCE};
use crate::{
    groups::{Group, Holding, Removal, Standing, local_trees::Place},
    invite::InviteKind,
    network::{Connection, Stream},
    replicate::{
        Synced,
        index::Change,
        proof::{self, ANSWER_LEN, Ends, Role},
        session::MAX_SESSIONS,
        wire::{HELLO, Message, read_frame, write_frame},
    },
};

const STRANGER: PublicKey = PublicKey([77; 32]);

async fn join(with: &Device, device: &Device, kind: InviteKind) {
    let invite = with.group().invite(kind, with.running.addresses()).await;
    let joined = device.running.groups().join(&invite.unwrap()).await;
    let joined = joined.unwrap();
    let standing = joined.wait_for_standing();
    let standing = tokio::time::timeout(PATIENCE, standing).await.unwrap();
    assert_eq!(standing.unwrap(), Standing::Member);
}

/// Damage that shows at the moment when a fetch takes its turn to report the result.
#[tokio::test(start_paused = true)]
async fn damage_that_is_found_while_a_tree_comes_stops_nothing() {
    for seed in 0..5 {
        let net = SimNetwork::new(seed);
        let first = Device::start(&net, 1).await;
        let group = first.running.groups().create_group("g").await.unwrap();
        let repo = group.create_repo("member").await.unwrap();
        repo.write("0", "0").await.unwrap();
        let late = LateStore::new(MemoryStore::new(), seed);
        let second = Device::start_over(&net, 2, late).await;
        join(&first, &second, InviteKind::Replica).await;
        let shared = &second.running.0;
        let wait = || {
            second
                .running
                .wait_synced(group.id(), Synced::Here, PATIENCE)
        };
        wait().await.unwrap();
        for n in 1..5 {
            repo.write(&format!("{n}"), "text").await.unwrap();
            let root = repo.root().await.unwrap().hash;
            let place = Place {
                chain: vec![root],
                offset: 2,
            };
            let damaged = &second.running.groups().0.damaged;
            for turn in 0..3_000 {
                damaged.note((group.id(), repo.key()), place.clone(), Hash::of("damaged"));
                shared.tell(Change::Session { group: group.id() });
                tokio::task::yield_now().await;
                if turn % 200 == 0 {
                    tokio::time::sleep(Duration::from_micros(10)).await;
                }
            }
            damaged.forget(Hash::of("damaged"));
        }
        repo.write("last", "last").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        wait().await.unwrap();
    }
}

/// A connection of a stranger.
async fn dial(net: &SimNetwork, to: &Device) -> Connection {
    let node = net.node(STRANGER);
    let address = to.running.addresses().remove(0).parse().unwrap();
    node.connect(&address, None).await.unwrap()
}

/// A stream on which a group was proven, as a device of a member.
async fn prove(connection: &Connection, to: &Device, group: &Group) -> io::Result<Stream> {
    let who = |ends: &Ends| proof::say_who(ends, Role::Asker, group, None);
    prove_as(connection, to, group, who).await
}

/// A stream on which somebody says who it is.
async fn prove_as(
    connection: &Connection,
    to: &Device,
    group: &Group,
    who: impl Fn(&Ends) -> Vec<u8>,
) -> io::Result<Stream> {
    let ends = Ends {
        binding: connection.binding(),
        asker: STRANGER,
        answerer: to.key,
    };
    let mut stream = connection.open().await.unwrap();
    let (hello, _) = proof::hello(&ends, group.id()).unwrap();
    stream.send.write_all(&[HELLO]).await.unwrap();
    write_frame(&mut stream.send, &hello).await.unwrap();
    let mut answer = [0; ANSWER_LEN];
    stream.recv.read_exact(&mut answer).await?;
    let heard = read_frame(&mut stream.recv).await;
    heard.map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let said = write_frame(&mut stream.send, &who(&ends)).await;
    said.map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(stream)
}

/// The keys of epochs of before a removal make nobody a member again, whatever new device shows them.
#[tokio::test(start_paused = true)]
async fn who_was_removed_is_a_stranger_under_another_key() {
    let net = SimNetwork::new(8);
    let first = Device::start(&net, 1).await;
    let group = first.running.groups().create_group("g").await.unwrap();
    let second = Device::start(&net, 2).await;
    join(&first, &second, InviteKind::Write).await;
    let removed = second.group();
    let connection = dial(&net, &first).await;
    let new = larder_store_api::SecretKey::from_bytes([42; 32]);
    let heads = removed.with_log(|log| log.head_epochs()).unwrap();
    let (id, ring) = (removed.id(), removed.keyring());
    let who = |ends: &Ends| proof::say_who_with(ends, Role::Asker, id, &new, &[], ring, &heads);
    // Before, it may be somebody who was let in elsewhere.
    let mut stream = prove_as(&connection, &first, &group, who).await.unwrap();
    assert!(matches!(stream.recv.read(&mut [0; 1]).await, Ok(1)));
    let gone = group.remove(removed.device(), Removal::new()).await;
    gone.unwrap();
    let mut stream = prove_as(&connection, &first, &group, who).await.unwrap();
    let heard = stream.recv.read(&mut [0; 1]).await;
    assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
}

/// Says again and again that it has another part of a tree, and gives nothing.
async fn talks(net: &SimNetwork, to: &Device, from: &Device, repo: PublicKey, root: Hash) {
    let connection = dial(net, to).await;
    let mut stream = prove(&connection, to, &from.group()).await.unwrap();
    let mut recv = stream.recv;
    tokio::spawn(async move { tokio::io::copy(&mut recv, &mut tokio::io::sink()).await });
    let answers = connection.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = answers.accept().await {
            tokio::spawn(async move {
                // The answer says that nothing is here.
                stream.send.write_all(&[1]).await.ok();
                stream.send.shutdown().await.ok();
                tokio::io::copy(&mut stream.recv, &mut tokio::io::sink())
                    .await
                    .ok();
            });
        }
    });
    for n in 0_u64.. {
        let holding = Holding {
            root,
            lacks_files: 1,
            lacks_bytes: 1 + n,
        };
        let holds = Message::Holds { repo, holding };
        let sent = write_frame(&mut stream.send, &holds.encode().unwrap()).await;
        if sent.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_talks_without_end_keeps_no_fetch_from_ending() {
    let net = SimNetwork::new(5);
    // The delay makes sure that something new is announced before an answer arrives.
    net.set_default_link(Link {
        latency: Duration::from_millis(20),
        ..Link::default()
    });
    let store = MemoryStore::new();
    let first = Device::start_over(&net, 1, store.clone()).await;
    let group = first.running.groups().create_group("g").await.unwrap();
    let repo = group.create_repo("member").await.unwrap();
    repo.write("lost", vec![7; 40_000]).await.unwrap();
    let payloads: Vec<_> = BlobStore::list(&store, None).try_collect().await.unwrap();
    BlobStore::delete(&store, payloads).await.unwrap();
    let second = Device::start(&net, 2).await;
    let root = repo.root().await.unwrap().hash;
    join(&first, &second, InviteKind::Read).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    // The talking member knows of the group what an invite contains.
    let talking = talks(&net, &second, &first, repo.key(), root);
    let others = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        repo.write("new", "new").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let theirs = second.group().repo(repo.key()).await.unwrap().unwrap();
        assert_eq!(theirs.read_to_bytes("new").await.unwrap(), "new");
    };
    tokio::select! {
        () = talking => panic!("it was to talk without end"),
        () = others => {}
    }
}

/// One who proves a group again and again on one connection gets a few sessions, and no more.
#[tokio::test(start_paused = true)]
async fn one_connection_has_few_sessions_of_a_group() {
    let net = SimNetwork::new(6);
    let device = Device::start(&net, 1).await;
    let group = device.running.groups().create_group("g").await.unwrap();
    let connection = dial(&net, &device).await;
    let shared = &device.running.0;
    let mut streams = Vec::new();
    for n in 1..=2 * MAX_SESSIONS {
        // Of one that is refused nothing comes but its end, perhaps before the answer.
        let heard = match prove(&connection, &device, &group).await {
            Ok(mut stream) => {
                let heard = stream.recv.read(&mut [0; 1]).await;
                streams.push(stream);
                heard
            }
            Err(error) => Err(error),
        };
        let is_refused = matches!(heard, Ok(0) | Err(_));
        assert_eq!(is_refused, n > MAX_SESSIONS, "{n}: {heard:?}");
        let sessions = shared.sessions.of(group.id());
        assert_eq!(sessions.len(), n.min(MAX_SESSIONS));
    }
    // Those who go make room.
    drop(streams);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut stream = prove(&connection, &device, &group).await.unwrap();
    assert!(matches!(stream.recv.read(&mut [0; 1]).await, Ok(1)));
}
