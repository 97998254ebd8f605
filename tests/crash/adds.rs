//! Tests that kill processes that add blobs: acknowledged blobs are there, and nothing else stays.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use larder::{
    AddOptions, BlobStatus, Blobs, DeviceKey, Hash, Root, StoreUrl, Tag, TagName, engine::Source,
};
use rand::Rng as _;
use tests::{
    child::{self, Child},
    data::{MIB, Rng, Seed, bytes, rng, some_len, stream},
    store::{claimed_payloads, open_url, read, stored_payloads, unsound},
};

/// The number of times that a child is killed.
struct Rounds {
    least: u64,
    /// The number of acknowledged blobs that makes the test meaningful; a slow machine needs more
    /// rounds.
    acknowledged: usize,
}

const FEW: Rounds = Rounds {
    least: 4,
    acknowledged: 80,
};
const MANY: Rounds = Rounds {
    least: 24,
    acknowledged: 500,
};
/// The most rounds on a slow machine, as a multiple of the minimum.
const MOST_TIMES: u64 = 20;
const WORKERS: u64 = 8;
const LONGEST: usize = 3 * MIB;
/// A child that has written this much waits to be killed, so that the test does not depend on the disk.
const ENOUGH: u64 = 96 * MIB as u64;
/// The longest life of a child, in milliseconds.
const LIFE: u64 = 500;

/// A blob that was acknowledged.
struct Added {
    hash: Hash,
    len: u64,
    tag: Option<TagName>,
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    const TEST: &str = "adds::what_was_acknowledged_survives_a_kill";
    killed(TEST, StoreUrl::redb, &FEW);
}

#[test]
fn what_a_veilid_node_keeps_survives_a_kill() {
    const TEST: &str = "adds::what_a_veilid_node_keeps_survives_a_kill";
    killed(TEST, veilid, &FEW);
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: many rounds"]
    fn what_was_acknowledged_survives_many_kills() {
        const TEST: &str = "adds::slow::what_was_acknowledged_survives_many_kills";
        killed(TEST, StoreUrl::redb, &MANY);
    }

    #[test]
    #[ignore = "slow: many rounds"]
    fn what_a_veilid_node_keeps_survives_many_kills() {
        const TEST: &str = "adds::slow::what_a_veilid_node_keeps_survives_many_kills";
        killed(TEST, veilid, &MANY);
    }
}

fn veilid(dir: std::path::PathBuf) -> StoreUrl {
    StoreUrl::veilid(dir, DeviceKey::InsecureFile)
}

fn killed(test: &str, url: impl Fn(std::path::PathBuf) -> StoreUrl, rounds: &Rounds) {
    if let Some(job) = child::job() {
        let url = child::argument("URL").parse().unwrap();
        return child::run(add_until_killed(&url, &job));
    }
    let seed = Seed::or(11);
    let mut rng = rng(seed.number());
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path().join("store"));
    let argument = url.to_string();
    let arguments: [(&str, &dyn AsRef<std::ffi::OsStr>); 1] = [("URL", &argument)];
    let (mut known, mut total) = (Vec::new(), 0);
    for round in 0..MOST_TIMES * rounds.least {
        if round >= rounds.least && total > rounds.acknowledged {
            break;
        }
        // Every second child also collects: then only tagged blobs are sure to stay.
        let collects = round % 2 == 1;
        if collects {
            known.retain(|added: &Added| added.tag.is_some());
        }
        let job = format!("{} {collects}", seed.number() ^ (round << 32));
        let child = Child::start(test, &job, &arguments);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..LIFE)));
        let added: Vec<Added> = child.kill().iter().filter_map(|line| parse(line)).collect();
        total += added.len();
        // A process that cleans up after a crash may be killed too.
        for _ in 0..rng.random_range(0..3) {
            let child = Child::start(test, "open", &arguments);
            std::thread::sleep(Duration::from_millis(rng.random_range(0..30)));
            child.kill();
        }
        let before = known.len();
        known.extend(added);
        child::run(async {
            let store = open_url(&url).await;
            check(store.blobs(), &known, before, round).await;
            untag_some(store.blobs(), &mut known, &mut rng).await;
            // A store that was merely dropped must open as well; in that case a node continues for a
            // while.
            if url.scheme() == "veilid+insecure" || rng.random() {
                store.close().await.unwrap();
            }
        });
    }
    assert!(
        total > rounds.acknowledged,
        "only {total} blobs were acknowledged: too few to show anything"
    );
}

fn parse(line: &str) -> Option<Added> {
    let mut words = line.strip_prefix("added ")?.split(' ');
    let mut word = || words.next().unwrap();
    Some(Added {
        hash: word().parse().unwrap(),
        len: word().parse().unwrap(),
        tag: Some(word())
            .filter(|tag| *tag != "-")
            .map(|tag| tag.try_into().unwrap()),
    })
}

/// Checks that every acknowledged blob is there, that every claim is true, and that nothing else is on
/// the disk. The entries of `known` from `new` on are new.
async fn check(blobs: &Blobs, known: &[Added], new: usize, round: u64) {
    for added in known {
        let status = blobs.status(added.hash).await.unwrap();
        let expected = Some(BlobStatus::Complete { size: added.len });
        assert_eq!(status, expected, "round {round}: {} is lost", added.hash);
        if let Some(tag) = &added.tag {
            let root = blobs.tags().get(tag).await.unwrap();
            assert_eq!(root, Some(Root::raw(added.hash)), "round {round}: {tag}");
        }
    }
    for added in &known[new..] {
        let read = read(blobs, added.hash).await;
        assert!(Hash::of(read) == added.hash, "round {round}");
    }
    assert_eq!(unsound(blobs).await, [], "round {round}");
    let (claimed, stored) = (claimed_payloads(blobs).await, stored_payloads(blobs).await);
    assert_eq!(
        stored, claimed,
        "round {round}: there are payloads that nothing claims"
    );
}

/// Removes tags, so that the store does not grow for ever.
async fn untag_some(blobs: &Blobs, known: &mut Vec<Added>, rng: &mut Rng) {
    let tags: Vec<Tag> = blobs.tags().list(..).try_collect().await.unwrap();
    for tag in tags {
        if rng.random() {
            blobs.tags().delete_one(&tag.name).await.unwrap();
            known.retain(|added| added.tag.as_ref() != Some(&tag.name));
        }
    }
}

async fn add_until_killed(url: &StoreUrl, job: &str) {
    let store = open_url(url).await;
    let blobs = store.blobs();
    child::say("open");
    if let Some((seed, collects)) = job.split_once(' ') {
        let seed: u64 = seed.parse().unwrap();
        let workers = (0..WORKERS).map(|worker| add(blobs.clone(), seed, worker));
        let workers: Vec<_> = workers.map(tokio::spawn).collect();
        if collects == "true" {
            loop {
                blobs.collect(SystemTime::now()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for worker in workers {
            worker.await.unwrap();
        }
    }
    std::future::pending().await
}

async fn add(blobs: Blobs, seed: u64, worker: u64) {
    let seed = seed ^ (worker << 56);
    let mut rng = rng(seed);
    let (mut pins, mut written) = (Vec::new(), 0);
    while written < ENOUGH / WORKERS {
        let (data, len) = (rng.random(), some_len(&mut rng, LONGEST));
        let source = if rng.random() {
            Source::from(bytes(data, len))
        } else {
            Source::Stream(stream(data, len))
        };
        let tag = rng
            .random_bool(0.3)
            .then(|| format!("{seed:x}-{}", pins.len()));
        let options = AddOptions::default().tag(tag.as_deref().map(|tag| tag.try_into().unwrap()));
        let pin = blobs.add_with(source, options).await.unwrap();
        let tag = tag.as_deref().unwrap_or("-");
        child::say(format!("added {} {len} {tag}", pin.hash()));
        written += len as u64;
        pins.push(pin);
    }
    // The pins keep the added blobs until the kill.
    std::future::pending::<()>().await;
    drop(pins);
}
