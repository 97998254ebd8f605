//! Tests of members that lie or stall, though they hold the group's read key: others detect it,
//! continue without them, and accept them again once they are honest.

use std::{collections::BTreeSet, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{PublicKey, Signed};
use larder_store_engine::Hash;
use larder_sync::{
    invite::InviteKind::{Read, Write},
    replicate::{
        Synced,
        wire::{Holding, Message, Version, Which},
    },
};
use larder_sync_sim::{Crossing, Link, SimNetwork, Tamper, garble};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    link, noise,
    world::{Device, options, own, world},
};

/// A liar must send this many bytes unchanged: with fewer, it proves nothing. Whoever answers sends 6 less.
pub const PROOF: u64 = 332;
const LIAR: usize = 1;

/// The sizes of the files; answers begin with the first file.
const LENGTHS: [usize; 3] = [70_000, 5_000, 3_000_000];

/// Changes the length at the beginning of an answer, if the file is long enough to come in parts, each
/// of which is valid.
pub fn other_length() -> Tamper {
    Box::new(|crossing: &Crossing, bytes: Bytes| {
        let is_answer = crossing.direction == 1 && crossing.offset == 0 && bytes.len() != 64;
        if !is_answer || bytes.len() < 9 || bytes[0] != 0 {
            return bytes;
        }
        let len = u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
        if len <= 16 * 1024 {
            return bytes;
        }
        let mut other = BytesMut::from(bytes);
        other[1..9].copy_from_slice(&(len - 1).to_le_bytes());
        other.freeze()
    })
}

/// Sends well-formed nonsense on the streams of groups after the proof, also about these repos. Its
/// answers to requests have the right length and wrong bytes.
pub fn nonsense(seed: u64, repos: Vec<PublicKey>) -> Tamper {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut groups = BTreeSet::new();
    Box::new(move |crossing: &Crossing, bytes: Bytes| {
        let stream = (crossing.connection, crossing.stream, crossing.direction);
        let proof = if crossing.direction == 0 {
            PROOF
        } else {
            PROOF - 6
        };
        if crossing.offset < proof {
            let says_hello = crossing.direction == 0 && bytes[0] == 0;
            if says_hello || bytes.len() == 64 {
                groups.insert(stream);
            }
            return bytes;
        }
        if !groups.contains(&stream) {
            return bytes.iter().map(|byte| !byte).collect();
        }
        let mut frames = BytesMut::new();
        for _ in 0..rng.random_range(1..10) {
            let message = any_message(&mut rng, &repos).encode().expect("a message");
            frames.put_u32(u32::try_from(message.len()).expect("it is short"));
            frames.put_slice(&message);
        }
        frames.freeze()
    })
}

fn any_message(rng: &mut ChaCha8Rng, repos: &[PublicKey]) -> Message {
    let repo = match rng.random_range(0..=repos.len()) {
        0 => PublicKey(rng.random()),
        n => repos[n - 1],
    };
    let record = match rng.random() {
        true => Which::Values(repo),
        false => Which::Repo(repo),
    };
    match rng.random_range(0..8) {
        0 => Message::Slot {
            record,
            slot: match rng.random() {
                true => rng.random_range(0..4),
                false => rng.random(),
            },
            signed: Signed {
                value: noise(rng.random(), rng.random_range(0..200)).into(),
                seq: rng.random_range(1..u64::MAX),
                writer: repo,
                signature: Bytes::copy_from_slice(&[rng.random(); 64]),
            },
        },
        1 | 2 => Message::Compared,
        3 | 4 => Message::Holds {
            repo,
            holding: Holding {
                root: Hash::from(rng.random::<[u8; 32]>()),
                lacks_files: rng.random_range(0..3),
                lacks_bytes: rng.random(),
            },
        },
        _ => Message::Have {
            record,
            slots: (0..rng.random_range(0..20))
                .map(|slot| {
                    let version = Version {
                        seq: rng.random(),
                        digest: rng.random(),
                    };
                    (slot * 3, version)
                })
                .collect(),
        },
    }
}

/// Creates two members that have everything, of which the second then lies, and one that joins and
/// knows both.
async fn with_a_liar(
    seed: u64,
    begin: impl FnOnce(&SimNetwork, PublicKey),
) -> (SimNetwork, Vec<Device>) {
    let net = SimNetwork::new(seed);
    net.set_default_link(link());
    let mut devices = world(&net, &[Read], &options()).await;
    for (n, len) in LENGTHS.into_iter().enumerate() {
        let bytes = noise(n as u32, len);
        own(&devices[0])
            .await
            .write(&format!("{n}"), bytes)
            .await
            .expect("a write");
    }
    for device in &devices {
        device.synced(Synced::Everywhere).await;
    }
    // The liar is closer, so that it is asked.
    net.set_links(
        devices[0].key,
        PublicKey([9; 32]),
        Link {
            bandwidth: Some(2_000_000),
            ..link()
        },
    );
    begin(&net, devices[LIAR].key);
    let mut late = Device::new(9).await;
    let groups = late.start(&net, options()).await;
    let mut addresses = devices[LIAR].replicator().addresses();
    addresses.extend(devices[0].replicator().addresses());
    let invite = devices[0]
        .group()
        .invite(Write, addresses)
        .await
        .expect("an invite");
    groups.join(&invite).await.expect("it joins");
    devices.push(late);
    (net, devices)
}

async fn peers(device: &Device) -> Vec<PublicKey> {
    let status = device.replicator().status(device.group().id()).await;
    status.expect("a status").peers
}

/// Returns the share of some minutes during which a device is connected to a peer, while somebody
/// writes, so that there is something to announce.
async fn share_of_time(writer: &Device, device: &Device, peer: PublicKey) -> f64 {
    const SECONDS: u32 = 200;
    let mut there = 0.0;
    for second in 0..SECONDS {
        if second % 5 == 0 {
            let repo = own(writer).await;
            let data = noise(second, 20_000);
            repo.write("changing", data).await.expect("a write");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        there += f64::from(u8::from(peers(device).await.contains(&peer)));
    }
    there / f64::from(SECONDS)
}

/// Checks that all honest members have everything, and that the liar is avoided for longer and longer,
/// and comes back.
async fn they_go_on_without_it(net: &SimNetwork, devices: &mut [Device], most: f64) {
    let left_alone = they_have_everything(net, devices, most).await;
    assert!(left_alone > 0, "nobody left it alone");
}

/// Checks that all honest members have everything. Returns the seconds for which somebody avoided the
/// liar.
async fn they_have_everything(net: &SimNetwork, devices: &mut [Device], most: f64) -> u32 {
    let liar = devices[LIAR].key;
    // Members that asked it detect the lie.
    let mut left_alone = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let by = |device: &Device| device.replicator().left_alone().contains(&liar);
        left_alone += u32::from(by(&devices[0]) || by(&devices[2]));
    }
    own(&devices[0])
        .await
        .write("late", noise(7, 200_000))
        .await
        .expect("a write");
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let by = |device: &Device| device.replicator().left_alone().contains(&liar);
        left_alone += u32::from(by(&devices[0]) || by(&devices[2]));
    }
    let all = devices[0].files().await;
    assert_eq!(all.len(), LENGTHS.len() + 1);
    assert!(devices[2].files().await == all, "they differ");
    let share = share_of_time(&devices[0], &devices[2], liar).await;
    let all = devices[0].files().await;
    assert!(
        share <= most,
        "it is connected for {share} of the time, and not {most}"
    );
    assert!(peers(&devices[2]).await.contains(&devices[0].key));

    devices[LIAR].crash(net);
    net.set_tamper(liar, None);
    net.set_stall(liar, None);
    devices[LIAR].start(net, options()).await;
    tokio::time::sleep(Duration::from_secs(320)).await;
    for device in &*devices {
        device.synced(Synced::Everywhere).await;
        assert!(device.files().await == all, "they differ");
        assert_eq!(peers(device).await.len(), 2);
    }
    left_alone
}

#[tokio::test(start_paused = true)]
async fn who_garbles_is_left_alone() {
    let garbles = |net: &SimNetwork, liar| net.set_tamper(liar, Some(garble(3, PROOF, 0.01)));
    let (net, mut devices) = with_a_liar(21, garbles).await;
    they_go_on_without_it(&net, &mut devices, 0.7).await;
}

#[tokio::test(start_paused = true)]
async fn who_talks_nonsense_is_left_alone() {
    let (net, mut devices) = with_a_liar(22, |_, _| ()).await;
    let repo = own(&devices[0]).await.key();
    net.set_tamper(devices[LIAR].key, Some(nonsense(4, vec![repo])));
    they_go_on_without_it(&net, &mut devices, 0.7).await;
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_left_alone() {
    // If it stops between two frames, that shows only once it is asked.
    for (after, most) in [(0, 0.0), (PROOF - 1, 0.6), (PROOF + 3, 0.6), (2_000, 1.0)] {
        let stalls = |net: &SimNetwork, liar| net.set_stall(liar, Some(after));
        let (net, mut devices) = with_a_liar(23 + after, stalls).await;
        they_go_on_without_it(&net, &mut devices, most).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_length_makes_no_hole() {
    let lies = |net: &SimNetwork, liar| net.set_tamper(liar, Some(other_length()));
    // It lies only when it is asked, and is not asked for long.
    let (net, mut devices) = with_a_liar(27, lies).await;
    they_go_on_without_it(&net, &mut devices, 1.0).await;
    // A peer that stalls after the proof delays nobody; faster peers may have sent everything before
    // the stall is noticed.
    let lies = |net: &SimNetwork, liar| {
        net.set_tamper(liar, Some(other_length()));
        net.set_stall(liar, Some(40_000));
    };
    let (net, mut devices) = with_a_liar(28, lies).await;
    they_have_everything(&net, &mut devices, 1.0).await;
}
