//! Real processes: killed at any moment, or out of disk space. The child is this test binary again.

#![cfg(unix)]
#![allow(
    clippy::print_stdout,
    reason = "the child tells its parent what was acknowledged"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{Batch, CollectionId, CollectionStore, Durability, Edit, Kind, Scan};
use larder_store_redb::{Options, RedbStore};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const C: CollectionId = CollectionId::from_static("c");
const DIR: &str = "LARDER_TEST_DIR";
const KEYS: &str = "LARDER_TEST_KEYS";
/// The number of entries that each task of the child keeps.
const KEPT: u64 = 40;
const TASKS: u64 = 8;

fn key(task: u64, n: u64) -> Bytes {
    format!("{task}/{n:08}").into()
}

fn value(task: u64, n: u64) -> Bytes {
    let mut rng = ChaCha8Rng::seed_from_u64(task << 32 | n);
    let len = rng.random_range(0..20_000);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    bytes.into()
}

fn put(task: u64, n: u64) -> Batch {
    let put = Edit::Put {
        collection: C,
        key: key(task, n),
        value: value(task, n),
    };
    let mut edits = vec![put];
    if let Some(old) = n.checked_sub(KEPT) {
        edits.push(Edit::Delete {
            collection: C,
            key: key(task, old),
        });
    }
    Batch::of(edits)
}

async fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir, Options::default())
        .await
        .expect("it opens")
}

async fn all(store: &RedbStore) -> BTreeMap<Bytes, Bytes> {
    let entries: Vec<_> = store
        .scan(Scan::all(C))
        .try_collect()
        .await
        .expect("it scans");
    entries
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect()
}

/// Starts one of the ignored tests below as a process of its own, after `before`.
fn child(test: &str, dir: &Path, before: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let binary = std::env::current_exe().expect("this test is a file");
    let mut words: Vec<_> = before.iter().map(Into::into).collect();
    words.push(binary.into_os_string());
    words.extend(["--ignored", "--exact", "--nocapture", test].map(Into::into));
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    (child, lines)
}

fn dir_of_parent() -> std::path::PathBuf {
    std::env::var_os(DIR).expect("run by another test").into()
}

/// Returns the numbers of a line of the child after `what`.
fn told<T: std::str::FromStr>(line: &str, what: &str) -> Option<Vec<T>> {
    let rest = line.strip_prefix(what)?.strip_prefix(' ')?;
    rest.split(' ').map(|word| word.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of another test"]
async fn child_that_commits_until_it_is_killed() {
    let store = open(&dir_of_parent()).await;
    let last = last_of_each(&all(&store).await);
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        let first = last[task as usize].map_or(0, |last| last + 1);
        tokio::spawn(async move {
            for n in first.. {
                store.commit(put(task, n)).await.expect("it commits");
                println!("done {task} {n}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

fn last_of_each(found: &BTreeMap<Bytes, Bytes>) -> Vec<Option<u64>> {
    let last = |task: u64| {
        let range = found.range(key(task, 0)..key(task, 99_999_999));
        let text = std::str::from_utf8(range.last()?.0).expect("keys are text");
        text.split_once('/')?.1.parse().ok()
    };
    (0..TASKS).map(last).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill() {
    const ROUNDS: usize = 10;
    let dir = tempfile::tempdir().expect("a folder");
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut acknowledged = vec![None; TASKS as usize];
    for round in 0..ROUNDS {
        let (mut child, lines) = child("child_that_commits_until_it_is_killed", dir.path(), &[]);
        let patience = rng.random_range(1..400);
        let mut seen = 0;
        for line in lines {
            let line = line.expect("the child's words can be read");
            // The words of a killed child end anywhere.
            let Some(&[task, n]) = told::<u64>(&line, "done").as_deref() else {
                continue;
            };
            acknowledged[task as usize] = Some(n);
            seen += 1;
            if seen == patience {
                child.kill().expect("it can be killed");
            }
        }
        child.wait().expect("it ends");
        assert!(seen >= patience, "the child ended by itself");

        let store = open(dir.path()).await;
        let found = all(&store).await;
        let last = last_of_each(&found);
        let mut expected = BTreeMap::new();
        for task in 0..TASKS {
            let (last, acknowledged) = (last[task as usize], acknowledged[task as usize]);
            assert!(
                last >= acknowledged,
                "round {round}: {acknowledged:?} is lost of task {task}"
            );
            let Some(last) = last else { continue };
            for n in (last + 1).saturating_sub(KEPT)..=last {
                expected.insert(key(task, n), value(task, n));
            }
        }
        assert!(
            found == expected,
            "round {round}: a commit is there in part"
        );
        // Every other round the next child replays what this one did not apply either.
        if round % 2 == 0 {
            store.close().await.expect("it closes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of another test"]
async fn child_that_fills_the_disk() {
    let store = open(&dir_of_parent()).await;
    // With many keys in a commit, the index grows faster than the log.
    let per_commit: u64 = std::env::var(KEYS)
        .expect("run by another test")
        .parse()
        .expect("a number");
    let keys =
        |n: u64| (n * per_commit..(n + 1) * per_commit).map(|k| Bytes::from(format!("{k:08}")));
    let batch = |n: u64| {
        let put = |key| Edit::Put {
            collection: C,
            key,
            value: Bytes::new(),
        };
        Batch::of(keys(n).map(put).collect()).durability(Durability::OnSync)
    };
    let mut n = 0;
    let error = loop {
        match store.commit(batch(n)).await {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Full, "{error:?}");
    // Nothing of what failed is there, and what was acknowledged can be read.
    assert!(all(&store).await.into_keys().eq((0..n).flat_map(keys)));
    println!("full {n} {}", u8::from(error.to_string().contains("index")));
    for n in n..n + 50 {
        while let Err(error) = store.commit(batch(n)).await {
            assert_eq!(error.kind(), Kind::Full, "{error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    store.close().await.expect("it closes");
    println!("went on {}", n + 50);
}

/// A limit on the length of files stands for a full disk: it needs no rights, and can be lifted.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_commits_until_there_is_space() {
    // First the log has no room, then the index.
    for (keys, of_index) in [(1, 0), (500, 1)] {
        let dir = tempfile::tempdir().expect("a folder");
        drop(open(dir.path()).await);
        let before = [
            "sh",
            "-c",
            "trap '' XFSZ; export LARDER_TEST_KEYS=$1; shift; exec prlimit --fsize=1900000:unlimited \"$@\"",
            "sh",
            &keys.to_string(),
        ];
        let (mut child, lines) = child("child_that_fills_the_disk", dir.path(), &before);
        let mut full = None;
        let mut went_on = None;
        for line in lines {
            let line = line.expect("the child's words can be read");
            if let Some(&[n, index]) = told::<usize>(&line, "full").as_deref() {
                assert_eq!(index, of_index);
                full = Some(n);
                // The index has had time to try, too.
                std::thread::sleep(Duration::from_millis(600));
                let lifted = Command::new("prlimit")
                    .args(["--pid", &child.id().to_string(), "--fsize=unlimited"])
                    .status();
                assert!(lifted.expect("prlimit is there").success());
            }
            if let Some(&[n]) = told::<usize>(&line, "went on").as_deref() {
                went_on = Some(n);
            }
        }
        assert!(child.wait().expect("it ends").success());
        let went_on = went_on.expect("it went on");
        assert!(full.is_some_and(|full| full + 50 == went_on));
        let store = open(dir.path()).await;
        assert_eq!(all(&store).await.len(), went_on * keys);
    }
}
