//! `larder copy`: everything, from one store to another.

mod blobs;
mod rest;

use std::path::{Path, PathBuf};

use anyhow::Result;
use larder::{StoreUrl, groups::Groups};
use serde::Serialize;

use super::affected::{self, Also};
use crate::{
    app::App,
    args,
    backends::backends,
    output::{Bytes, Count},
    problem::{Exit, Problem},
};

/// Copy everything from one store to another; run it again to continue
///
/// Copies blobs, complete or not, names, collections and records. TO keeps everything that it has, and that is
/// not copied again, so that an interrupted copy continues where it stopped. What is damaged or missing in FROM is
/// named, and all else is copied.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store to read
    #[arg(value_parser = args::url)]
    from: StoreUrl,
    /// The store to write; it is created if it is missing
    #[arg(value_parser = args::url)]
    to: StoreUrl,
    /// Take the name or entry of FROM if both stores have one and they differ
    #[arg(long)]
    overwrite: bool,
}

/// The result of copying.
#[derive(Debug, Default, Serialize)]
struct Copied {
    blobs: u64,
    bytes: u64,
    /// Blobs that TO had already.
    already_there: u64,
    /// Blobs that are damaged or missing in FROM.
    unreadable: u64,
    names: u64,
    entries: u64,
    records: u64,
    /// Keys of groups.
    keys: u64,
}

/// Refuses a store within the other's folder, and the same store by another path.
fn check_places(args: &Args) -> Result<()> {
    let folder = |url| backends().folder(url).and_then(|folder| real_path(&folder));
    let (Some(from), Some(to)) = (folder(&args.from), folder(&args.to)) else {
        return Ok(());
    };
    if from == to {
        return Err(Problem::usage("FROM and TO are the same store", "name two stores").into());
    }
    let inside = match (to.starts_with(&from), from.starts_with(&to)) {
        (true, _) => "TO lies in the folder of FROM",
        (_, true) => "FROM lies in the folder of TO",
        _ => return Ok(()),
    };
    Err(Problem::usage(inside, "name a store in a folder of its own").into())
}

/// The path without links; of what is not there yet, that of the folder that it would be made in.
fn real_path(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let (there, rest) = path
        .ancestors()
        .find_map(|folder| Some((folder.canonicalize().ok()?, path.strip_prefix(folder).ok()?)))?;
    Some(there.join(rest))
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    if args.from == args.to {
        return Err(Problem::usage("FROM and TO are the same store", "name two stores").into());
    }
    check_places(&args)?;
    let from = app.open_existing(&args.from).await?;
    let to = app.open(&args.to).await?;
    // Names that cannot be merged are reported before anything is copied.
    if !args.overwrite {
        rest::check_names(from.blobs(), to.blobs()).await?;
    }
    let ours = rest::own_repos(&to).await?;
    let mut copied = Copied::default();
    let unreadable = blobs::copy(app, from.blobs(), to.blobs(), &mut copied).await?;
    if Groups::exist_in(from.collections()).await? {
        // Before the entries that say that they are there.
        copied.keys = rest::copy_keys(&from, &to).await?;
    }
    rest::copy_entries(&from, &to, args.overwrite, &mut copied).await?;
    rest::copy_records(&from, &to, &ours, &mut copied).await?;
    // Names come last: whatever has one is there, as far as it can be read.
    rest::copy_names(from.blobs(), to.blobs(), &mut copied).await?;
    if !unreadable.is_empty() {
        // Groups of TO would take what was in FROM for what is here.
        Groups::forget_files(to.collections()).await?;
        affected::show(app.out, from.blobs(), &unreadable, Also::Nothing).await?;
        affected::show_of_groups(app.out, &from, &unreadable).await?;
    }
    let text = format!(
        "copied {} blob(s), {}; {} already there; {} name(s), {} entries, {} record(s)",
        Count(copied.blobs),
        Bytes(copied.bytes),
        Count(copied.already_there),
        Count(copied.names),
        Count(copied.entries),
        Count(copied.records)
    );
    app.out.result(&copied, text)?;
    if copied.keys > 0 {
        app.out
            .note("both stores are in its groups now, as two devices of yours");
    }
    if copied.unreadable > 0 {
        return Err(Problem::new(
            format!(
                "{} blob(s) are damaged or missing in FROM, and were not copied; all else was",
                Count(copied.unreadable)
            ),
            format!(
                "`larder verify --repair --store {}` marks them as missing; add, put, fetch or sync them there again, \
                 then run this again: it goes on",
                args.from
            ),
        )
        .into());
    }
    Ok(Exit::Done)
}
