//! Three to eight members write, remove, crash, restart and are cut off at random, with wrong clocks;
//! some want only some of others' files and free the rest; and one who can only read lies or stalls now
//! and then. In the end all agree, and nothing that was acknowledged is lost.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use larder_store_api::PublicKey;
use larder_sync::{
    groups::{Policy, Repo},
    invite::InviteKind::{Read, Replica, Write},
    replicate::{Copies, Push, Synced},
};
use larder_sync_sim::{Link, SimNetwork, garble};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    liars::{PROOF, nonsense, other_length},
    seeds,
    world::{Device, contents, options, own, world_with},
};

const STEPS: usize = 30;
/// Longer than the longest back-off.
const TO_CONVERGE: Duration = Duration::from_secs(400);
const CANARY: &[u8] = b"the canary in every file";

type Files = BTreeMap<String, Vec<u8>>;

/// Counts what happened in all seeds: a scenario in which nothing happens shows nothing.
static FREED: AtomicU64 = AtomicU64::new(0);
static LIES: AtomicU64 = AtomicU64::new(0);
static LEFT_ALONE: AtomicU64 = AtomicU64::new(0);
static CRASHES: AtomicU64 = AtomicU64::new(0);

#[test]
fn honest_members_agree() {
    if seeds::run(scenario) >= 16 {
        for (what, count) in [
            ("freed files", &FREED),
            ("lies", &LIES),
            ("members left alone", &LEFT_ALONE),
            ("crashes", &CRASHES),
        ] {
            assert!(count.load(Ordering::Relaxed) > 0, "there were no {what}");
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    seeds::run_again(0..4, scenario);
}

async fn scenario(seed: u64, net: &SimNetwork) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    net.set_default_link(Link {
        latency: Duration::from_millis(rng.random_range(1..100)),
        jitter: Duration::from_millis(rng.random_range(0..50)),
        bandwidth: Some(rng.random_range(200_000..20_000_000)),
        breaks_per_second: [0.0, 0.002][rng.random_range(0..2)],
        connect_failure: [0.0, 0.1][rng.random_range(0..2)],
        ..Link::default()
    });
    net.search_for(&[CANARY]).expect("a pattern");
    let mut options = options();
    if rng.random_bool(0.3) {
        options.push = Push::Never;
    }
    // Three to eight members in all.
    let mut kinds = vec![Write; rng.random_range(2..5)];
    if rng.random() {
        kinds.push(Read);
    }
    if rng.random() {
        kinds.push(Replica);
    }
    let writers = 1 + kinds.iter().filter(|kind| **kind == Write).count();
    // Those who do not want everything, and change their policy.
    let choosy: Vec<usize> = (1..=kinds.len()).filter(|_| rng.random_bool(0.4)).collect();
    // The last one, which may be dishonest.
    let liar = rng.random_bool(0.7).then(|| {
        kinds.push(Read);
        kinds.len()
    });
    let mut skew = || {
        const HOUR: i64 = 3_600_000;
        [0, 0, 700, -700, HOUR, -HOUR][rng.random_range(0..6)]
    };
    let mut devices = world_with(net, &kinds, &options, &mut skew).await;
    let mut model: BTreeMap<PublicKey, Files> = BTreeMap::new();
    for _ in 0..STEPS {
        let n = rng.random_range(0..devices.len());
        if liar == Some(n) && rng.random_bool(0.7) {
            let repos = repos_known_to(&devices[n]).await;
            lie(net, devices[n].key, repos, &mut rng);
            LIES.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if choosy.contains(&n) && devices[n].running.is_some() && rng.random_bool(0.5) {
            match rng.random_range(0..3) {
                0 => {
                    let all = match rng.random() {
                        true => choosy.clone(),
                        false => vec![n],
                    };
                    free(&devices, &all).await;
                }
                _ => choose(&devices[n], &mut rng).await,
            }
            continue;
        }
        match rng.random_range(0..10) {
            0 => net.partition(&[devices[n].key]),
            1 => net.heal(),
            2 => {
                CRASHES.fetch_add(u64::from(devices[n].running.is_some()), Ordering::Relaxed);
                devices[n].crash(net);
            }
            3 if devices[n].running.is_none() => drop(devices[n].start(net, options.clone()).await),
            4 | 5 => {
                let pause = rng.random_range(1..40);
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            _ if n < writers && devices[n].running.is_some() => {
                let repo = own(&devices[n]).await;
                let files = model.entry(repo.key()).or_default();
                let name = format!("{}/{}", rng.random_range(0..3), rng.random_range(0..8));
                if rng.random_bool(0.2) {
                    repo.remove(&name).await.expect("a removal");
                    files.remove(&name);
                } else {
                    let len = [10, 5_000, 60_000, 400_000][rng.random_range(0..4)];
                    let mut bytes = CANARY.to_vec();
                    bytes.resize(CANARY.len() + rng.random_range(0..len), rng.random());
                    repo.write(&name, bytes.clone()).await.expect("a write");
                    files.insert(name, bytes);
                }
            }
            _ => {}
        }
    }
    net.heal();
    if let Some(liar) = liar {
        // All others agree without it.
        for device in &mut devices[..liar] {
            if device.running.is_none() {
                device.start(net, options.clone()).await;
            }
        }
        for device in &devices[..liar] {
            let left_alone = device.replicator().left_alone().len() as u64;
            LEFT_ALONE.fetch_add(left_alone, Ordering::Relaxed);
        }
        tokio::time::sleep(TO_CONVERGE).await;
        for (n, device) in devices[..liar].iter().enumerate() {
            match choosy.contains(&n) {
                true => check_own(device, &model).await,
                false => check(device, &model, writers).await,
            }
        }
        // They agree with it too, once it is honest.
        net.set_tamper(devices[liar].key, None);
        net.set_stall(devices[liar].key, None);
        devices[liar].crash(net);
    }
    for device in &mut devices {
        if device.running.is_none() {
            device.start(net, options.clone()).await;
        }
    }
    free(&devices, &choosy).await;
    tokio::time::sleep(TO_CONVERGE).await;
    for device in &devices {
        device.synced(Synced::Here).await;
    }
    for (n, device) in devices.iter().enumerate() {
        if choosy.contains(&n) {
            check_own(device, &model).await;
            // A device that wants everything in the end gets everything.
            want(device, None, None).await;
        }
    }
    for device in &devices {
        device.synced(Synced::Here).await;
        check(device, &model, writers).await;
    }
    assert!(net.findings().is_empty(), "{:?}", net.findings());
    for device in &devices {
        drop(device.replicator().abort());
    }
}

/// Makes some of the devices free what they do not want, all at once.
async fn free(devices: &[Device], who: &[usize]) {
    let running = who.iter().map(|n| &devices[*n]);
    let running = running.filter(|device| device.running.is_some());
    let freeing = running.map(|device| {
        let group = device.group().id();
        device.replicator().free(group, Copies::RequireOtherCopy)
    });
    for freed in futures_util::future::join_all(freeing.collect::<Vec<_>>()).await {
        let freed = freed.expect("it is freed");
        FREED.fetch_add(freed.files, Ordering::Relaxed);
    }
}

/// Changes a device's policy for all repos or for one, and pins something perhaps.
async fn choose(device: &Device, rng: &mut ChaCha8Rng) {
    let can_read = device.group().can_read();
    let policy = match rng.random_range(0..5) {
        0 => None,
        1 => Some(Policy::Names),
        2 => Some(Policy::Pinned),
        _ => Some(Policy::Selected {
            prefixes: match can_read && rng.random() {
                true => vec![format!("{}/", rng.random_range(0..3))],
                false => Vec::new(),
            },
            up_to: [100, 5_000, 100_000, u64::MAX][rng.random_range(0..4)],
        }),
    };
    let repos = device.group().repos().await.expect("repos");
    let one = rng
        .random_bool(0.3)
        .then(|| rng.random_range(0..repos.len().max(1)));
    let one = one.and_then(|n| repos.get(n));
    want(device, one, policy).await;
    if can_read && let Some(repo) = one {
        let path = format!("{}", rng.random_range(0..3));
        match rng.random() {
            true => repo.pin(&path).await.expect("a pin"),
            false => repo.unpin(&path).await.expect("no pin"),
        }
    }
}

/// Sets the policy of a repo, or of all.
async fn want(device: &Device, one: Option<&Repo>, policy: Option<Policy>) {
    let group = device.group();
    if let Some(repo) = one {
        let set = repo.set_policy(policy.clone()).await;
        return set.expect("a policy");
    }
    for repo in group.repos().await.expect("repos") {
        repo.set_policy(None).await.expect("a policy");
    }
    let set = group.set_policy(policy.clone()).await;
    set.expect("a policy");
}

/// Checks that everything is there that a device wrote itself.
async fn check_own(device: &Device, model: &BTreeMap<PublicKey, Files>) {
    for repo in device.group().repos().await.expect("repos") {
        if repo.is_ours() {
            let files: Files = contents(&repo).await.expect("ours").into_iter().collect();
            let expected = model.get(&repo.key()).cloned().unwrap_or_default();
            assert!(files == expected, "{} lost something", device.key);
        }
    }
}

async fn repos_known_to(device: &Device) -> Vec<PublicKey> {
    match device.running {
        Some(_) => {
            let repos = device.group().repos().await.expect("repos");
            repos.iter().map(|repo| repo.key()).collect()
        }
        None => Vec::new(),
    }
}

/// Makes a node lie in one way, or stall, or neither.
fn lie(net: &SimNetwork, liar: PublicKey, repos: Vec<PublicKey>, rng: &mut ChaCha8Rng) {
    net.set_tamper(liar, None);
    net.set_stall(liar, None);
    match rng.random_range(0..5) {
        0 => net.set_tamper(liar, Some(garble(rng.random(), PROOF, 0.003))),
        1 => net.set_tamper(liar, Some(nonsense(rng.random(), repos))),
        2 => net.set_tamper(liar, Some(other_length())),
        3 => net.set_stall(
            liar,
            Some([0, PROOF, 1000, 100_000][rng.random_range(0..4)]),
        ),
        _ => {}
    }
}

async fn check(device: &Device, model: &BTreeMap<PublicKey, Files>, writers: usize) {
    let group = device.group();
    let repos = group.repos().await.expect("repos");
    assert_eq!(repos.len(), writers, "repos that {} knows of", device.key);
    if !group.can_read() {
        assert!(!device.has_bytes(CANARY).await, "a replica has a canary");
        return;
    }
    for repo in repos {
        let files: Files = contents(&repo).await.expect("files").into_iter().collect();
        let expected = model.get(&repo.key()).cloned().unwrap_or_default();
        assert!(
            files == expected,
            "{} has other files of {}",
            device.key,
            repo.key()
        );
    }
}
