//! Compares a new member of a group that catches up with iroh-blobs fetching the same data from one
//! file store into another: over loopback, both ends in one process, each round in a process of its
//! own, in turn.
//!
//! `cargo bench -p benches --bench groups` prints the medians of [`ROUNDS`] rounds; `-- --rounds N`
//! makes it shorter. A member's files are sealed, and durable when it is in sync; those of iroh-blobs
//! are plain and acknowledged before they are durable.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

mod iroh_fs;
mod members;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 5;
const SYSTEMS: [&str; 2] = ["larder", "iroh-fs"];
const LOADS: [Load; 2] = [
    Load {
        name: "10,000 × 1 KiB (files/s)",
        files: 10_000,
        len: 1024,
        unit: 1.0,
        wanted: 2.0,
    },
    Load {
        name: "1 GiB (MB/s)",
        files: 1,
        len: 1 << 30,
        unit: 1e6 / (1_u64 << 30) as f64,
        wanted: 1.0,
    },
];

/// The number of names in the repo of which a member wants only the names.
const NAMES: usize = 1_000_000;

/// Files that one side has and the other gets.
pub struct Load {
    name: &'static str,
    files: usize,
    len: usize,
    /// The part of a file that the figure counts.
    unit: f64,
    /// The target ratio.
    wanted: f64,
}

/// The piece that large files repeat, each time with its number.
const PIECE: usize = 1 << 20;

impl Load {
    /// Returns the files, each different from the others.
    fn files(&self) -> impl Iterator<Item = Bytes> {
        let mut data = vec![0; self.len.min(PIECE)];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut data);
        (0..self.files as u64).map(move |n| {
            data[..8].copy_from_slice(&n.to_le_bytes());
            Bytes::copy_from_slice(&data)
        })
    }

    /// Writes the one long file.
    fn write_long(&self, path: &Path) {
        let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
        let mut piece = vec![0; PIECE];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut piece);
        for n in 0..(self.len / PIECE) as u64 {
            piece[..8].copy_from_slice(&n.to_le_bytes());
            std::io::Write::write_all(&mut out, &piece).unwrap();
        }
    }

    fn is_long(&self) -> bool {
        self.len > PIECE
    }
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [flag, load, system, dir] = &args[..]
        && flag == "--one"
    {
        let load = load.parse::<usize>().expect("the number of a load");
        return run(LOADS.get(load), system, dir.as_ref());
    }
    let at = args.iter().position(|arg| arg == "--rounds");
    let rounds = at.map_or(ROUNDS, |at| args[at + 1].parse().expect("--rounds N"));
    println!(
        "| a new member gets | larder, sealed and durable | iroh-blobs FsStore | ratio | wanted | memory of both members |"
    );
    println!("|---|---|---|---|---|---|");
    for (n, load) in LOADS.iter().enumerate() {
        let mut figures: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
        for round in 1..=rounds {
            for system in SYSTEMS {
                eprintln!("{}: round {round} of {rounds}: {system}", load.name);
                figures.entry(system).or_default().push(child(n, system));
            }
        }
        let [ours, memory] = median(&figures["larder"]);
        let [theirs, _] = median(&figures["iroh-fs"]);
        println!(
            "| {} | {ours:.0} | {theirs:.0} | {:.2} × | ≥ {} × | {memory:.0} MiB |",
            load.name,
            ours / theirs,
            load.wanted
        );
    }
    let mut figures = Vec::new();
    for round in 1..=rounds {
        eprintln!("{NAMES} names: round {round} of {rounds}");
        figures.push(child(LOADS.len(), "larder"));
    }
    let [first, seen, alone, memory] = median(&figures);
    println!(
        "\nThe names of {NAMES} files: a new member has them after {first:.1} s, and sees that 10 of them \
         changed after {seen:.3} s; memory of who puts them {alone:.0} MiB, of both {memory:.0} MiB"
    );
}

/// Returns the median of each figure.
fn median<const N: usize>(figures: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|n| {
        let mut all: Vec<f64> = figures.iter().map(|figures| figures[n]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    })
}

/// Runs a load in a process of its own, which returns its speed, and its peak memory in MiB. The load
/// after the last one is that of names alone.
fn child<const N: usize>(load: usize, system: &str) -> [f64; N] {
    let dir = tempfile::tempdir().expect("a folder for the stores");
    let output = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--one", &load.to_string(), system])
        .arg(dir.path())
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts again");
    assert!(output.status.success(), "{system} failed");
    let text = String::from_utf8(output.stdout).expect("figures are text");
    let figures: Vec<f64> = text
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    figures.try_into().expect("as many figures as are wanted")
}

fn run(load: Option<&Load>, system: &str, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let Some(load) = load else {
        let ([first, seen], memory) = runtime.block_on(members::names(NAMES, dir));
        let [first, seen] = [first, seen].map(|took| took.as_secs_f64());
        return println!("{first} {seen} {memory} {}", peak_memory());
    };
    let took: Duration = match system {
        "larder" => runtime.block_on(members::catch_up(load, dir)),
        "iroh-fs" => runtime.block_on(iroh_fs::fetch(load, dir)),
        _ => panic!("no such system: {system}"),
    };
    let rate = load.files as f64 / load.unit / took.as_secs_f64();
    println!("{rate} {}", peak_memory());
}

/// Returns the peak memory of this process, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
