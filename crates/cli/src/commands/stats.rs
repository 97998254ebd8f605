//! `larder stats`: the number of items in a store, and their space.

use std::fmt;

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::BlobStatus;
use serde::Serialize;

use crate::{
    app::App,
    output::{Bytes, Count, Shown},
    problem::Exit,
};

/// Show the number of items in a store and the space that they take
///
/// Counts blobs, names and entries, and asks the backend for the space that they take on disk.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Debug, Default, Serialize)]
struct Stats {
    store: String,
    backend: String,
    names: u64,
    blobs: u64,
    bytes: u64,
    incomplete: u64,
    incomplete_bytes: u64,
    disk: Option<Disk>,
}

#[derive(Debug, Serialize)]
struct Disk {
    total: u64,
    index: u64,
    payloads: u64,
}

pub(crate) async fn run(app: &App, _: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let mut stats = Stats {
        store: app.url()?.to_string(),
        backend: store.name().to_owned(),
        ..Stats::default()
    };
    let mut all = blobs.list();
    while let Some((_, status)) = all.try_next().await? {
        match status {
            BlobStatus::Complete { size } => {
                stats.blobs += 1;
                stats.bytes += size;
            }
            BlobStatus::Partial { present, .. } => {
                stats.incomplete += 1;
                stats.incomplete_bytes += present;
            }
        }
    }
    let mut tags = blobs.tags().list(..);
    while tags.try_next().await?.is_some() {
        stats.names += 1;
    }
    stats.disk = store.disk_usage().await?.map(|disk| Disk {
        total: disk.total(),
        index: disk.index,
        payloads: disk.payloads,
    });
    app.out.result(&stats, &stats)?;
    Ok(Exit::Done)
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store       {} ({})", Shown(&self.store), self.backend)?;
        writeln!(f, "names       {}", Count(self.names))?;
        write!(
            f,
            "blobs       {}, {}",
            Count(self.blobs),
            Bytes(self.bytes)
        )?;
        if self.incomplete > 0 {
            write!(
                f,
                "\nincomplete  {}, {} here",
                Count(self.incomplete),
                Bytes(self.incomplete_bytes)
            )?;
        }
        if let Some(disk) = &self.disk {
            write!(
                f,
                "\ndisk        {}: {} log and index, {} payloads",
                Bytes(disk.total),
                Bytes(disk.index),
                Bytes(disk.payloads)
            )?;
        }
        Ok(())
    }
}
