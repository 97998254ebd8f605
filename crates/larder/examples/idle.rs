//! Measures what a group costs in which nothing happens: `cargo run --release -p larder --example idle -- 20 60` starts
//! 20 devices over the loopback in one process, waits until all are in sync, and prints the processor time and the
//! bytes of one device during 60 seconds. Bytes are those of the loopback interface, so nothing else may use it. At
//! first it measures how long the last one took from its link until it had the first file.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::{Duration, Instant};

use larder::{
    Result, Store,
    groups::{EndpointOptions, InviteKind, Reach, ReplicateOptions, Replicator, Synced},
};

const PATIENCE: Duration = Duration::from_secs(120);

async fn device() -> Result<(Store, Replicator)> {
    let store = Store::open("mem:").await?;
    let network = EndpointOptions::new(Reach::Loopback);
    let replicator = store.replicate(network, ReplicateOptions::default());
    Ok((store.clone(), replicator.await?))
}

/// The processor time of this process, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let rest = stat.rsplit_once(')').expect("a name").1;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|n| n.parse::<f64>().expect("a number")).sum();
    // Linux counts them in hundredths for programs, whatever its own tick is.
    ticks / 100.0
}

/// The bytes that went over the loopback.
fn loopback() -> f64 {
    let all = std::fs::read_to_string("/proc/net/dev").expect("Linux has it");
    let line = all.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next());
    bytes.and_then(|n| n.parse().ok()).expect("a number")
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| {
        args.next()
            .map_or(default, |n| n.parse().expect("a number"))
    };
    let (devices, seconds) = (number(20), number(60));

    let (first, replicator) = device().await?;
    let group = replicator.groups().create_group("idle").await?;
    group
        .create_repo("first")
        .await?
        .write("a", "hello")
        .await?;
    let mut all = vec![(first, replicator)];
    for n in 1..devices {
        let invite = group
            .invite(InviteKind::Write, all[0].1.addresses())
            .await?;
        let (store, replicator) = device().await?;
        let start = Instant::now();
        let joined = replicator.groups().join(&invite).await?;
        let synced = replicator.wait_synced(joined.id(), Synced::Here, PATIENCE);
        synced.await?;
        if n + 1 == devices {
            println!(
                "the last of {devices} has the first file after {:.3} s",
                start.elapsed().as_secs_f64()
            );
        }
        joined
            .create_repo(&format!("member {n}"))
            .await?
            .write("a", format!("{n}"))
            .await?;
        all.push((store, replicator));
    }
    for (_, replicator) in &all {
        replicator
            .wait_synced(group.id(), Synced::Here, PATIENCE)
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;

    let (processor_before, bytes_before) = (processor(), loopback());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let each = devices as f64 * seconds as f64;
    println!(
        "idle for {seconds} s, each of {devices} devices: {:.3} % of a core, {:.0} bytes/s",
        100.0 * (processor() - processor_before) / each,
        (loopback() - bytes_before) / each
    );
    for (store, replicator) in all {
        replicator.shutdown().await;
        store.close().await?;
    }
    Ok(())
}
