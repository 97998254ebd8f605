//! Runs scenarios from seeds, which determine all randomness and keys. `LARDER_SEEDS=10000` runs more
//! of them, `LARDER_SEED=7` only one.

#![allow(clippy::print_stderr, reason = "a seed that fails prints its trace")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use larder_store_engine::simulation;
use larder_sync_sim::SimNetwork;

const SEEDS: u64 = 16;
const THREADS: usize = 2;
/// The number of lines of the trace that are printed.
const LINES: usize = 60;

/// Runs a scenario with many seeds; returns their number.
pub fn run(scenario: impl AsyncFn(u64, &SimNetwork) + Sync) -> u64 {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|n| n.parse().expect("a number"))
    };
    let seeds = match number("LARDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LARDER_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if simulate(seed, &scenario).is_none() {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(!failed.into_inner(), "a seed failed, as it said above");
    seeds.end - seeds.start
}

/// Runs a scenario twice with each of some seeds: both runs must be identical.
pub fn run_again(seeds: std::ops::Range<u64>, scenario: impl AsyncFn(u64, &SimNetwork)) {
    for seed in seeds {
        let [first, again] = [0, 1].map(|_| simulate(seed, &scenario).expect("it ends well"));
        let differs = first.trace.iter().zip(&again.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
    }
}

/// The events of a run on the network.
struct Run {
    trace: Vec<String>,
    fingerprint: u64,
}

/// Runs a scenario once; returns `None` and prints the reason if it failed.
fn simulate(seed: u64, scenario: &impl AsyncFn(u64, &SimNetwork)) -> Option<Run> {
    let _simulating = simulation::begin(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let net = runtime.block_on(async { SimNetwork::new(seed) });
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(scenario(seed, &net))));
    // This must happen before the runtime drops its tasks, in any order.
    let run = Run {
        trace: net.trace(),
        fingerprint: net.fingerprint(),
    };
    if ended.is_err() {
        eprintln!("seed {seed} failed: LARDER_SEED={seed} runs it alone; the network's last:");
        for line in run.trace.iter().skip(run.trace.len().saturating_sub(LINES)) {
            eprintln!("  {line}");
        }
        return None;
    }
    Some(run)
}
