//! Measures small changes on redb and iroh, over loopback: how long a write takes, how soon it is
//! readable at the other member, and what a member uses while nothing happens.
//!
//! `cargo bench -p benches --bench changes` prints all; `-- writes`, `-- latency` or `-- idle` one of them.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use larder::{
    Store, StoreBuilder, StoreUrl, Unlock,
    groups::{Invite, InviteKind, ReplicateOptions, Replicator, Synced},
    iroh::{EndpointOptions, Reach},
};

/// The number of changes that are measured.
const CHANGES: usize = 100;
/// The number of writes that are measured.
const WRITES: usize = 1000;
const LEN: usize = 1024;
/// The number of groups of the idle member.
const GROUPS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(600);
/// The time for which an idle member is watched, and the time that it has to come to rest.
const IDLE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(20);

async fn open(dir: &Path) -> Store {
    let builder = StoreBuilder::from_url(StoreUrl::redb(dir.join("store")));
    let key = dir.join("key");
    let builder = builder.unlock_with(move || Unlock::key_file(&key));
    builder.open().await.unwrap()
}

async fn member(dir: &Path) -> (Store, Replicator) {
    std::fs::create_dir_all(dir).unwrap();
    let store = open(dir).await;
    let network = EndpointOptions::new(Reach::Loopback);
    let replicator = store.replicate(network, ReplicateOptions::default());
    let replicator = replicator.await.unwrap();
    (store, replicator)
}

/// Prints the time of durable writes into a repo, one after the other.
async fn writes(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let store = open(dir).await;
    let groups = store.groups().await.unwrap();
    let group = groups.create_group("the group").await.unwrap();
    let repo = group.create_repo("a member").await.unwrap();
    let mut took = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let mut data = vec![0; LEN];
        data[..8].copy_from_slice(&n.to_le_bytes());
        let start = Instant::now();
        repo.write(&format!("file {n}"), data).await.unwrap();
        took.push(start.elapsed());
    }
    println!(
        "a write of 1 KiB, one at a time: durable after {}, median of {WRITES}",
        shown(&mut took)
    );
    store.close().await.unwrap();
}

/// Formats the median, and the times of the fastest and the slowest tenth.
fn shown(all: &mut [Duration]) -> String {
    all.sort_unstable();
    let at = |share: usize| all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!(
        "{:.2} ms (10 %: {:.2}, 90 %: {:.2})",
        at(50),
        at(10),
        at(90)
    )
}

/// Prints the time from a write until the other member can read it.
async fn latency(dir: &Path) {
    let (from_store, from) = member(&dir.join("from")).await;
    let group = from.groups().create_group("the group").await.unwrap();
    let repo = group.create_repo("a member").await.unwrap();
    repo.write("first", "first").await.unwrap();
    let invite = group.invite(InviteKind::Read, from.addresses());
    let invite = invite.await.unwrap();
    let (to_store, to) = member(&dir.join("to")).await;
    let joined = to.groups().join(&invite).await.unwrap();
    let synced = to.wait_synced(joined.id(), Synced::Here, PATIENCE).await;
    synced.unwrap();
    let theirs = joined.repos().await.unwrap().remove(0);
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (mut written, mut read) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let mut data = vec![0; LEN];
        data[..8].copy_from_slice(&n.to_le_bytes());
        let mut events = to.groups().events();
        let start = Instant::now();
        repo.write("changed", data.clone()).await.unwrap();
        written.push(start.elapsed());
        loop {
            let found = theirs.read_to_bytes("changed").await;
            if found.is_ok_and(|found| found == data) {
                break;
            }
            // A missed event must not cause a long wait.
            drop(tokio::time::timeout(Duration::from_millis(20), events.next()).await);
        }
        read.push(start.elapsed());
        // Varies the phase relative to periodic work.
        tokio::time::sleep(Duration::from_millis(5 + (n as u64 * 37) % 50)).await;
    }
    println!(
        "a change of 1 KiB: durable after {}, read at the other member after {}, medians of {CHANGES}",
        shown(&mut written),
        shown(&mut read)
    );
    to.shutdown().await;
    from.shutdown().await;
    to_store.close().await.unwrap();
    from_store.close().await.unwrap();
}

/// Makes groups, prints their invites, and waits for the end of the input.
async fn peer(dir: &Path) {
    let (store, peer) = member(dir).await;
    for n in 0..GROUPS {
        let group = peer
            .groups()
            .create_group(&format!("group {n}"))
            .await
            .unwrap();
        let repo = group.create_repo("the peer").await.unwrap();
        repo.write("file", format!("file {n}").into_bytes())
            .await
            .unwrap();
        let invite = group.invite(InviteKind::Write, peer.addresses()).await;
        println!("{}", invite.unwrap());
    }
    println!("done");
    let ended = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(ended).await.unwrap().unwrap();
    peer.shutdown().await;
    store.close().await.unwrap();
}

/// Returns the processor time of this process.
fn process_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists them");
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Prints the share of a core that a member uses while it is in sync with its peer.
async fn idle(dir: &Path) {
    let mut other = Command::new(std::env::current_exe().unwrap())
        .arg("peer")
        .arg(dir.join("peer"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (store, here) = member(&dir.join("here")).await;
    let mut groups = Vec::new();
    for line in BufReader::new(other.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "done" {
            break;
        }
        let invite: Invite = line.parse().unwrap();
        let group = here.groups().join(&invite).await.unwrap();
        group.wait_for_standing().await.unwrap();
        group.create_repo("here").await.unwrap();
        groups.push(group);
    }
    for group in &groups {
        let synced = here.wait_synced(group.id(), Synced::Here, PATIENCE).await;
        synced.unwrap();
    }
    tokio::time::sleep(REST).await;
    let (start, before) = (Instant::now(), process_time());
    tokio::time::sleep(IDLE).await;
    let share = (process_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!(
        "a member of {} groups with one peer, nothing to do for {} s: {:.2} % of a core",
        groups.len(),
        IDLE.as_secs(),
        share * 100.0
    );
    drop(other.stdin.take());
    other.wait().unwrap();
    here.shutdown().await;
    store.close().await.unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a folder for the stores");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["peer", dir] => runtime.block_on(peer(dir.as_ref())),
        ["writes"] => runtime.block_on(writes(dir.path())),
        ["latency"] => runtime.block_on(latency(dir.path())),
        ["idle"] => runtime.block_on(idle(dir.path())),
        _ => {
            runtime.block_on(writes(&dir.path().join("writes")));
            runtime.block_on(latency(&dir.path().join("latency")));
            runtime.block_on(idle(&dir.path().join("idle")));
        }
    }
}
