//! `larder copy`: everything, from one store to another.

mod blobs;
mod rest;

use anyhow::Result;
use larder::{StoreUrl, groups::Groups};
use serde::Serialize;

use crate::{
    app::App,
    args,
    output::{Bytes, Count},
    problem::{Exit, Problem},
};

/// Copy everything from one store to another; run it again to go on
///
/// Blobs, complete or not, names, collections and records. TO keeps all that it has, and that is
/// not copied again, so that an interrupted copy goes on where it stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store to read
    #[arg(value_parser = args::url)]
    from: StoreUrl,
    /// The store to write; it is made where there is none
    #[arg(value_parser = args::url)]
    to: StoreUrl,
    /// Take the name or the entry of FROM if both have one and they differ
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
    names: u64,
    entries: u64,
    records: u64,
    /// Keys of groups.
    keys: u64,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    if args.from == args.to {
        return Err(Problem::usage("FROM and TO are the same store", "name two stores").into());
    }
    let from = app.open_existing(&args.from).await?;
    let to = app.open(&args.to).await?;
    // What cannot be merged is known before anything is copied.
    if !args.overwrite {
        rest::check_names(from.blobs(), to.blobs()).await?;
    }
    let ours = rest::own_repos(&to).await?;
    let mut copied = Copied::default();
    blobs::copy(app, from.blobs(), to.blobs(), &mut copied).await?;
    if Groups::exist_in(from.collections()).await? {
        // Before the entries that say that they are there.
        copied.keys = rest::copy_keys(&from, &to).await?;
    }
    rest::copy_entries(&from, &to, args.overwrite, &mut copied).await?;
    rest::copy_records(&from, &to, &ours, &mut copied).await?;
    // Names come last: whatever has one is there.
    rest::copy_names(from.blobs(), to.blobs(), &mut copied).await?;
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
    Ok(Exit::Done)
}
