//! The processor time of one change, by the size of the group and the number of its sessions:
//! `cargo run --release -p larder-sync --example changes [REPOS SESSIONS]`.
//!
//! The writer runs on a thread of its own, whose time is counted; all others run on another.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use larder_store_api::{PublicKey, Result};
use larder_store_engine::{Blobs, Hash};
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync::{
    groups::{Groups, Policy, Repo, Stores},
    invite::{Invite, InviteKind},
    replicate::{ReplicateOptions, Replicator, Synced},
};
use larder_sync_sim::SimNetwork;
use tokio::sync::{mpsc, oneshot};

/// The number of changes that are measured.
const CHANGES: usize = 100;
const LEN: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(600);

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

async fn member(net: &SimNetwork, n: u8) -> Result<Replicator> {
    let store = Arc::new(MemoryStore::new());
    let groups = Groups::open(Stores {
        blobs: Blobs::open(store.clone(), store).await?,

        secrets: Arc::new(MemorySecrets::new()),
    });
    let options = ReplicateOptions::default()
        .policy(Policy::Everything)
        .compare_every(Duration::from_secs(3600));
    let network = net.node(key(n));
    Ok(Replicator::start(groups.await?, network, options))
}

/// The time that this thread has been on a processor.
fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// The time that all threads of this process have been on a processor.
fn process_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists them");
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// A tree that all others must get to have, and whom to tell.
type Awaited = (PublicKey, Hash, oneshot::Sender<()>);

fn on_a_thread<F: Future<Output = Result<()>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime")
            .block_on(work())
            .expect("it works");
    })
}

async fn writer(
    net: SimNetwork,
    (repos, sessions): (usize, usize),
    invites: std::sync::mpsc::Sender<Invite>,
    awaited: mpsc::Sender<Awaited>,
) -> Result<()> {
    let here = member(&net, 1).await?;
    let group = here.groups().create_group("the group").await?;
    let mut all = Vec::new();
    for n in 0..repos {
        let repo = group.create_repo(&format!("repo {n}")).await?;
        repo.write("first", "first").await?;
        all.push(repo);
    }
    let invite = group.invite(InviteKind::Read, here.addresses()).await?;
    invites.send(invite).expect("the others wait for it");
    // Not counted: the others catch up, and a first change.
    change(&all[0], 0, &awaited).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (mine, whole, start) = (thread_time(), process_time(), Instant::now());
    for n in 0..CHANGES {
        change(&all[n * 7 % repos], n + 1, &awaited).await?;
    }
    let (mine, whole) = (thread_time() - mine, process_time() - whole);
    let per_change = |time: Duration| time.as_secs_f64() * 1e3 / CHANGES as f64;
    println!(
        "{repos} repos, {sessions} sessions: {:.3} ms of processor per change for the writer, {:.3} ms for \
         each session of its; {:.3} ms for all, {:.3} ms for each session; seen by all after {:.1} ms",
        per_change(mine),
        per_change(mine) / sessions as f64,
        per_change(whole),
        per_change(whole) / sessions as f64,
        per_change(start.elapsed()),
    );
    here.shutdown().await;
    Ok(())
}

async fn change(repo: &Repo, n: usize, awaited: &mpsc::Sender<Awaited>) -> Result<()> {
    let mut data = vec![0; LEN];
    data[..8].copy_from_slice(&n.to_le_bytes());
    repo.write("changed", data).await?;
    let (tell, told) = oneshot::channel();
    let root = repo.root().await?.hash;
    awaited
        .send((repo.key(), root, tell))
        .await
        .expect("the others wait");
    told.await.expect("the others tell");
    Ok(())
}

async fn others(
    net: SimNetwork,
    sessions: usize,
    invites: std::sync::mpsc::Receiver<Invite>,
    mut awaited: mpsc::Receiver<Awaited>,
) -> Result<()> {
    let invite = tokio::task::spawn_blocking(move || invites.recv().expect("an invite"));
    let invite = invite.await.expect("it waits");
    let mut all = Vec::new();
    for n in 0..sessions {
        let there = member(&net, 2 + n as u8).await?;
        let group = there.groups().join(&invite).await?;
        group.wait_for_standing().await?;
        there
            .wait_synced(group.id(), Synced::Here, PATIENCE)
            .await?;
        let repos = group
            .repos()
            .await?
            .into_iter()
            .map(|repo| (repo.key(), repo));
        let repos: BTreeMap<PublicKey, Repo> = repos.collect();
        all.push((there, repos));
    }
    while let Some((repo, root, tell)) = awaited.recv().await {
        for (there, repos) in &all {
            let mut events = there.groups().events();
            while repos[&repo].root().await?.hash != root {
                // The wait is short, in case an event was missed.
                let next = tokio::time::timeout(Duration::from_millis(20), events.next());
                drop(next.await);
            }
        }
        tell.send(()).expect("the writer waits");
    }
    for (there, _) in all {
        there.shutdown().await;
    }
    Ok(())
}

fn measure(repos: usize, sessions: usize) {
    let net = SimNetwork::new(1);
    let (tell_invite, invites) = std::sync::mpsc::channel();
    let (tell, awaited) = mpsc::channel(1);
    let theirs = on_a_thread({
        let net = net.clone();
        move || others(net, sessions, invites, awaited)
    });
    let ours = on_a_thread(move || writer(net, (repos, sessions), tell_invite, tell));
    ours.join().expect("the writer ends well");
    theirs.join().expect("the others end well");
}

fn main() {
    let args: Vec<usize> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    match args[..] {
        [repos, sessions] => measure(repos, sessions),
        _ => {
            for (repos, sessions) in [(2, 1), (900, 1), (2, 10), (900, 10)] {
                measure(repos, sessions);
            }
        }
    }
}
