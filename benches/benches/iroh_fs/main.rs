//! Compares Larder, on redb and on Veilid, with iroh-blobs' own file store: the same loads, in turn, in
//! one run.
//!
//! `cargo bench -p benches` prints the table of the README. Each figure is the median of
//! [`ROUNDS`] rounds; each round runs each system in a process of its own, in turn. `-- --json`
//! prints every figure; `-- --rounds N` and `-- --only GROUP` make it shorter.
//!
//! Larder acknowledges data when it is durable; iroh-blobs' store acknowledges data before it commits,
//! and does not sync imported files.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

mod data;
mod figures;
mod loads;
mod net;
mod ours;
mod report;
mod system;
mod theirs;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

const ROUNDS: usize = 5;
/// The systems: ours on redb and in a Veilid node, and theirs.
const SYSTEMS: [&str; 3] = ["larder", "larder-veilid", "iroh-fs"];
/// The loads, in groups that share their preparation.
const GROUPS: [&str; 4] = ["small", "large", "open", "net"];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [flag, group, system, dir] = &args[..]
        && flag == "--one"
    {
        return loads::run(group, system, dir.as_ref());
    }
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let rounds = value("--rounds").map_or(ROUNDS, |n| n.parse().expect("--rounds N"));
    let only = value("--only");
    let mut figures: Figures = BTreeMap::new();
    for group in GROUPS {
        if only.as_ref().is_some_and(|only| only != group) {
            continue;
        }
        for round in 1..=rounds {
            for system in SYSTEMS {
                eprintln!("{group}: round {round} of {rounds}: {system}");
                for (load, figure) in child(group, system) {
                    let entry = figures.entry(load).or_default();
                    entry.entry(system.into()).or_default().push(figure);
                }
            }
        }
    }
    if args.iter().any(|arg| arg == "--json") {
        println!("{}", report::json(&figures));
    } else {
        println!("{}", report::table(&figures));
    }
}

/// The figure of every round, per load and system.
type Figures = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// Runs a group of loads of one system in a process of its own.
fn child(group: &str, system: &str) -> Vec<(String, f64)> {
    let dir = tempfile::tempdir().expect("a folder for the stores");
    let output = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--one", group, system])
        .arg(dir.path())
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts again");
    assert!(output.status.success(), "{group} {system} failed");
    let text = String::from_utf8(output.stdout).expect("figures are text");
    text.lines()
        .filter_map(|line| {
            let (load, figure) = line.rsplit_once(' ')?;
            Some((load.to_owned(), figure.parse().ok()?))
        })
        .collect()
}
