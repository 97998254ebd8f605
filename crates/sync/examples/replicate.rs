//! Measures the cost of replication, on a simulated network: `cargo run --release -p larder-sync --example
//! replicate`.
#![allow(clippy::print_stdout)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use larder_store_api::{PublicKey, Result};
use larder_store_engine::Blobs;
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync::{
    groups::Policy,
    groups::{Changes, Groups, Repo, Stores},
    invite::{Invite, InviteKind},
    replicate::{ReplicateOptions, Replicator, Synced},
    tree::Name,
};
use larder_sync_sim::{Link, SimNetwork};

const NAMES: u64 = 1_000_000;
const TOGETHER: u64 = 50_000;
const LARGE: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(3600);

async fn member(net: &SimNetwork, n: u8, policy: Policy) -> Result<Replicator> {
    let store = Arc::new(MemoryStore::new());
    let groups = Groups::open(Stores {
        blobs: Blobs::open(store.clone(), store.clone()).await?,
        secrets: Arc::new(MemorySecrets::new()),
    });
    let options = ReplicateOptions::default().policy(policy);
    let network = net.node(key(n));
    Ok(Replicator::start(groups.await?, network, options))
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let run = |work: &dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>>| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(work())
    };
    run(&|| Box::pin(from_three()))?;
    run(&|| Box::pin(ten_of_many(count.unwrap_or(NAMES))))
}

/// A long file from one member, and from three of which one is slow.
async fn from_three() -> Result<()> {
    let net = SimNetwork::new(1);
    let link = Link {
        latency: Duration::from_millis(5),
        bandwidth: Some(50_000_000),
        ..Link::default()
    };
    net.set_default_link(link);
    let first = member(&net, 1, Policy::Everything).await?;
    let group = first.groups().create_group("the group").await?;
    let data: Vec<u8> = (0..LARGE as u64).map(|n| ((n * n) >> 7) as u8).collect();
    group.create_repo("a").await?.write("large", data).await?;
    let invite = |from: &Replicator| group.invite(InviteKind::Read, from.addresses());
    let mut all = vec![first.clone()];
    for n in 2..4 {
        let other = member(&net, n, Policy::Everything).await?;
        other.groups().join(&invite(&first).await?).await?;
        other
            .wait_synced(group.id(), Synced::Here, PATIENCE)
            .await?;
        all.push(other);
    }
    let mut took = Vec::new();
    for (n, holders) in [(8, &all[..1]), (9, &all[..])] {
        net.set_links(
            key(n),
            key(3),
            Link {
                bandwidth: Some(5_000_000),
                ..link
            },
        );
        let addresses = holders.iter().flat_map(Replicator::addresses).collect();
        let invite: Invite = group.invite(InviteKind::Read, addresses).await?;
        if holders.len() == 1 {
            // Nobody else is there.
            net.partition(&[key(n), key(1)]);
        }
        let late = member(&net, n, Policy::Everything).await?;
        let start = tokio::time::Instant::now();
        late.groups().join(&invite).await?;
        late.wait_synced(group.id(), Synced::Here, PATIENCE).await?;
        took.push(start.elapsed().as_secs_f64());
        late.shutdown().await;
        net.heal();
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    let rate = |seconds: f64| LARGE as f64 / 1e6 / seconds;
    println!(
        "256 MiB over links of 50 MB/s: from one member {:.1} MB/s; from three, one of them at 5 MB/s, \
         {:.1} MB/s: {:.2} x",
        rate(took[0]),
        rate(took[1]),
        took[0] / took[1]
    );
    Ok(())
}

async fn put(repo: &Repo, names: impl Iterator<Item = u64>, what: &str) -> Result<()> {
    let files = stream::iter(names).map(|n| {
        let (repo, text) = (repo.clone(), format!("{what} {n}"));
        async move {
            let name = Name::new(format!("photos/{:04}/IMG_{n:07}.jpeg", n / 500))?;
            Ok::<_, larder_store_api::Error>((name, repo.stage(text.into_bytes(), 0).await?))
        }
    });
    let mut changes = Changes::new();
    let mut files = files.buffer_unordered(64);
    while let Some(file) = files.next().await {
        let (name, file) = file?;
        changes.put(name, file);
    }
    repo.change(changes).await.map(drop)
}

/// Ten of many names change, and a member that is in sync sees them.
async fn ten_of_many(count: u64) -> Result<()> {
    const LATENCY: Duration = Duration::from_millis(100);
    let net = SimNetwork::new(2);
    net.set_default_link(Link {
        latency: LATENCY,
        ..Link::default()
    });
    let here = member(&net, 1, Policy::Everything).await?;
    let group = here.groups().create_group("the group").await?;
    let repo = group.create_repo("a").await?;
    let start = Instant::now();
    for from in (0..count).step_by(TOGETHER as usize) {
        put(&repo, from..(from + TOGETHER).min(count), "file").await?;
    }
    println!(
        "{count} files put in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let there = member(&net, 2, Policy::Names).await?;
    let invite = group.invite(InviteKind::Read, here.addresses()).await?;
    let start = Instant::now();
    let joined = there.groups().join(&invite).await?;
    there
        .wait_synced(group.id(), Synced::Here, PATIENCE)
        .await?;
    println!(
        "their names fetched in {:.1} s of processor, {:.1} MB",
        start.elapsed().as_secs_f64(),
        net.traffic(key(2)).received as f64 / 1e6
    );
    tokio::time::sleep(Duration::from_secs(5)).await;

    put(&repo, (0..10).map(|n| n * count / 10), "changed").await?;
    let newest = repo.root().await?;
    let theirs = joined.repos().await?.remove(0);
    let before = net.traffic(key(2));
    let (start, clock) = (Instant::now(), tokio::time::Instant::now());
    while theirs.root().await?.hash != newest.hash {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let after = net.traffic(key(2));
    println!(
        "10 of {count} names changed: seen after {:.1} round trips, {:.0} KB received and {:.0} KB sent, \
         {:.0} ms of processor for both sides",
        clock.elapsed().as_secs_f64() / (2.0 * LATENCY.as_secs_f64()),
        (after.received - before.received) as f64 / 1e3,
        (after.sent - before.sent) as f64 / 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}
