//! `larder bench`: the same loads over stores, side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use larder::StoreUrl;

use crate::{
    app::{App, data_dir},
    args,
    backends::backends,
    bench::{IrohFs, LarderStore, Plan, Target, html, run as measure},
    output::Unit,
    problem::{Exit, Problem},
};

/// The largest scale: a large blob of 64 GiB.
const MAX_SCALE: f64 = 64.0;

/// Compare the speed of stores
///
/// Stores are made in folders below the given ones, and deleted again; an existing store is
/// not touched. At scale 1 a run stores 10,000 blobs of 1 KiB, as many of 16 KiB, and one of 1 GiB.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The stores to measure: redb:DIR or veilid:DIR with a new or empty folder, mem:; without
    /// any, redb in your data folder
    #[arg(value_name = "STORE", value_parser = args::url)]
    stores: Vec<StoreUrl>,
    /// Compare with this other kind of store too
    #[arg(long)]
    against: Option<Against>,
    /// Size of the loads
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// Number of runs of each load; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    /// iroh-blobs' own store in a folder
    IrohFs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    if !(0.0..=MAX_SCALE).contains(&args.scale) {
        bail!(Problem::usage(
            format!("the scale {} is not between 0 and {MAX_SCALE}", args.scale),
            "try --scale 0.1",
        ));
    }
    let urls = if args.stores.is_empty() {
        vec![StoreUrl::redb(data_dir()?.join("bench"))]
    } else {
        args.stores
    };
    let folders: Vec<PathBuf> = urls
        .iter()
        .filter_map(|url| backends().folder(url))
        .collect();
    for folder in &folders {
        check_empty(folder)?;
    }
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for url in &urls {
        targets.push(Box::new(LarderStore::new(url)));
    }
    let mut baseline = None;
    if let Some(Against::IrohFs) = args.against {
        // On the same disk as the first store of ours.
        let folder = folders.first().cloned().unwrap_or_else(std::env::temp_dir);
        baseline = Some(targets.len());
        targets.push(Box::new(IrohFs::new(folder)));
    }
    let plan = Plan {
        scale: args.scale,
        runs: args.runs,
    };
    let bar = app.out.progress(Unit::Items, None, "measuring");
    let report = measure(plan, &targets, baseline, &|run, store, load| {
        bar.set_message(format!("run {}: {store}, {load}:", run + 1));
        bar.inc(1);
    })
    .await?;
    bar.finish_and_clear();
    if let Some(file) = &args.html {
        tokio::fs::write(file, html(&report))
            .await
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    app.out.result(&report, &report)?;
    Ok(Exit::Done)
}

/// Refuses a folder that has something in it, so that nobody's store is mistaken for a place.
fn check_empty(folder: &Path) -> Result<()> {
    let cannot_read = || format!("cannot read {}", folder.display());
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        entries => match entries.with_context(cannot_read)?.next() {
            None => Ok(()),
            Some(_) => Err(Problem::usage(
                format!("the folder {} is not empty", folder.display()),
                "bench makes stores of its own: name a new or empty folder on the disk to measure",
            )
            .into()),
        },
    }
}
