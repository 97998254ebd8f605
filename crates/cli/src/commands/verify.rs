//! `larder verify`: reads everything and compares it with its hashes.

use std::collections::HashSet;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Blobs, Error, Kind, Repair, Scrubbed, StoreBuilder, api::GROUP_LEN,
    engine::Finding, groups::Groups,
};
use serde::Serialize;

use super::affected::{self, Also, MAX_NAMED};
use crate::{
    app::App,
    backends::backends,
    output::{Bytes, Count, Shown, Unit},
    problem::{Exit, Problem},
};

/// Check all stored bytes against their hashes
///
/// Ends with exit code 3 if something is damaged, if a repair makes something missing, or if a stored file is
/// incomplete: the latter until the file is added or fetched again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Discard damaged data, so that adding or fetching it again restores it; rebuild damaged
    /// hash trees; delete payloads that belong to no blob
    #[arg(long)]
    repair: bool,
}

/// One blob that is not what its hash says, or one payload that nothing claims.
#[derive(Debug, Serialize)]
struct Line {
    finding: &'static str,
    hash: Option<String>,
    payload: Option<String>,
    size: u64,
    damaged_bytes: u64,
    repaired: bool,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    checked: u64,
    bytes: u64,
    damaged: u64,
    /// Damaged blobs whose bytes are sound: their hash trees can be made again.
    hash_trees: u64,
    /// Blobs of which only a part is here; of `bytes` it is that part.
    incomplete: u64,
    /// Files that have a name and are not here as a whole.
    incomplete_files: u64,
    orphans: u64,
    repaired: bool,
}

/// The outcome of recovering a damaged index.
#[derive(Debug, Serialize)]
struct Recovery {
    recovered: bool,
    lost_entries: u64,
    lost_bytes: u64,
    kept: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let summary = match verify(app, args.repair, false).await {
        Err(error) if is_damaged(&error) && args.repair => {
            recover(app).await?;
            verify(app, args.repair, true).await?
        }
        Err(error) if is_damaged(&error) => {
            return Err(error.context(Problem::damaged(
                "the index of the store is damaged",
                "`larder verify --repair` keeps all that can still be read",
            )));
        }
        other => other?,
    };
    app.out.result(&summary, summary.text())?;
    let is_left = summary.damaged > 0 && !args.repair;
    // Also of a group, where no stored file shows it.
    let is_missing = summary.damaged > summary.hash_trees || summary.incomplete_files > 0;
    if is_left {
        app.out.note(
            "`larder verify --repair` makes it missing, so that adding, putting, fetching or syncing \
             it again restores it",
        );
    } else if is_missing {
        app.out
            .note("add, put, fetch or sync again what is missing");
    }
    Ok(match is_left || is_missing {
        true => Exit::Damaged,
        false => Exit::Done,
    })
}

/// Returns true if the store itself, and not just a blob in it, cannot be read.
fn is_damaged(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.any(|error: &Error| error.kind() == Kind::Corrupt)
}

async fn recover(app: &App) -> Result<()> {
    let url = app.url()?;
    // It is closed, damaged as it is; what that says is known already.
    if let Err(error) = app.close_one(&url).await {
        tracing::warn!("{error:#}");
    }
    let builder = StoreBuilder::from_url(url.clone()).backends(backends().clone());
    let found = builder
        .recover()
        .await
        .with_context(|| format!("cannot repair the store {url}"))?;
    let kept = found.kept.iter().map(|path| path.display().to_string());
    let recovery = Recovery {
        recovered: true,
        lost_entries: found.lost_entries,
        lost_bytes: found.lost_bytes,
        kept: kept.collect(),
    };
    let mut text = format!(
        "index      repaired: {} entries lost, {} unreadable",
        Count(recovery.lost_entries),
        Bytes(recovery.lost_bytes)
    );
    for path in &recovery.kept {
        text += &format!("\n           the damaged file is kept: {}", Shown(path));
    }
    Ok(app.out.result(&recovery, text)?)
}

async fn verify(app: &App, repair: bool, mut is_damaged: bool) -> Result<Summary> {
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    if is_damaged {
        Groups::forget_files(store.collections()).await?;
    }
    let total = count(blobs).await;
    let bytes = total.as_ref().map(|total| total.bytes);
    let bar = app.out.progress(Unit::Bytes, bytes, "verifying");
    let mut summary = Summary {
        repaired: repair,
        ..Summary::default()
    };
    let mut damaged = HashSet::new();
    let mut scrub = blobs.scrub(if repair { Repair::Yes } else { Repair::No });
    while let Some(scrubbed) = scrub.try_next().await? {
        bar.inc(scrubbed.size);
        if let Some(total) = &total {
            bar.set_message(total.message(summary.checked + 1, bar.position()));
        }
        let present = match scrubbed.hash {
            // One that is damaged may be gone by now.
            // A blob of one chunk group is here whole or not at all.
            Some(hash) if scrubbed.finding == Finding::Sound && scrubbed.size > GROUP_LEN => {
                blobs.status(hash).await?
            }
            _ => None,
        };
        summary.take(&scrubbed, present);
        if let Some(line) = Line::of(&scrubbed, repair) {
            if repair && !is_damaged {
                // Groups take what was here for what is here.
                Groups::forget_files(store.collections()).await?;
                is_damaged = true;
            }
            if let Some(hash) = scrubbed.hash
                && scrubbed.finding != Finding::Outboard
                && damaged.len() < MAX_NAMED
            {
                damaged.insert(hash);
            }
            let text = line.text();
            bar.suspend(|| app.out.result(&line, text))?;
        }
    }
    bar.finish_and_clear();
    summary.incomplete_files = affected::show(app.out, blobs, &damaged, Also::Incomplete).await?;
    if !damaged.is_empty() {
        affected::show_of_groups(app.out, &store, &damaged).await?;
    }
    Ok(summary)
}

/// The work that is to be done.
struct Total {
    blobs: u64,
    bytes: u64,
}

/// Counts the work; `None` if entries cannot be read: which those are, the scrub reports.
async fn count(blobs: &Blobs) -> Option<Total> {
    let mut total = Total { blobs: 0, bytes: 0 };
    let mut all = blobs.list();
    loop {
        let (BlobStatus::Complete { size } | BlobStatus::Partial { size, .. }) =
            match all.try_next().await {
                Ok(Some((_, status))) => status,
                Ok(None) => return Some(total),
                Err(error) => {
                    tracing::debug!("the blobs cannot be counted: {error:#}");
                    return None;
                }
            };
        total.blobs += 1;
        total.bytes = total.bytes.saturating_add(size);
    }
}

impl Total {
    fn message(&self, checked: u64, bytes: u64) -> String {
        let percent = bytes.saturating_mul(100) / self.bytes.max(1);
        format!(
            "verifying {} of {}, {}%",
            Count(checked.min(self.blobs)),
            Count(self.blobs),
            percent.min(100)
        )
    }
}

impl Summary {
    fn take(&mut self, scrubbed: &Scrubbed, status: Option<BlobStatus>) {
        match &scrubbed.finding {
            Finding::Orphan { .. } => self.orphans += 1,
            finding => {
                self.checked += 1;
                self.bytes += match status {
                    Some(BlobStatus::Partial { present, .. }) => {
                        self.incomplete += 1;
                        present
                    }
                    _ => scrubbed.size,
                };
                self.damaged += u64::from(*finding != Finding::Sound);
                self.hash_trees += u64::from(*finding == Finding::Outboard);
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "verified {} blob(s), {}: ",
            Count(self.checked),
            Bytes(self.bytes)
        );
        text += &match (self.damaged, self.repaired) {
            (0, _) => "all sound".to_owned(),
            (n, false) => format!("{} damaged", Count(n)),
            (n, true) if n == self.hash_trees => format!("{} damaged and repaired", Count(n)),
            (n, true) => format!(
                "{} damaged, now missing{}; fetch or add it again",
                Count(n - self.hash_trees),
                match self.hash_trees {
                    0 => String::new(),
                    trees => format!(", and {} repaired", Count(trees)),
                }
            ),
        };
        if self.incomplete > 0 {
            text += &format!("; {} incomplete", Count(self.incomplete));
        }
        if self.incomplete_files > 0 {
            text += &format!(
                "; {} stored file(s) not here as a whole",
                Count(self.incomplete_files)
            );
        }
        if self.orphans > 0 {
            let what = if self.repaired { "deleted" } else { "found" };
            text += &format!("; {what} {} payload(s) that nothing claims", self.orphans);
        }
        text
    }
}

impl Line {
    fn of(scrubbed: &Scrubbed, repaired: bool) -> Option<Self> {
        let (finding, payload, damaged_bytes) = match &scrubbed.finding {
            Finding::Sound => return None,
            Finding::Damaged { ranges } => ("damaged", None, bytes_of(ranges, scrubbed.size)),
            Finding::Lost => ("lost", None, scrubbed.size),
            Finding::Outboard => ("hash tree", None, 0),
            Finding::Orphan { payload } => ("unclaimed", Some(payload.to_string()), 0),
        };
        Some(Self {
            finding,
            hash: scrubbed.hash.map(|hash| hash.to_string()),
            payload,
            size: scrubbed.size,
            damaged_bytes,
            repaired,
        })
    }

    fn text(&self) -> String {
        let id = self.hash.as_deref().or(self.payload.as_deref());
        let mut text = format!("{:<9}  {}", self.finding, id.unwrap_or_default());
        if self.damaged_bytes > 0 {
            text += &format!("  {} of {}", Bytes(self.damaged_bytes), Bytes(self.size));
        }
        text
    }
}

/// Returns the number of bytes of a blob in these chunks.
fn bytes_of(ranges: &larder::ChunkRanges, size: u64) -> u64 {
    let bytes = |chunk: u64| chunk.saturating_mul(1024).min(size);
    let bounds: Vec<u64> = ranges.boundaries().iter().map(|chunk| chunk.0).collect();
    bounds
        .chunks(2)
        .map(|run| bytes(run.get(1).copied().unwrap_or(u64::MAX)) - bytes(run[0]))
        .sum()
}

#[cfg(test)]
mod tests {
    use larder::{ChunkNum, ChunkRanges};

    use super::*;

    #[test]
    fn damaged_bytes_end_with_the_blob() {
        let ranges = ChunkRanges::from(ChunkNum(16)..ChunkNum(32));
        assert_eq!(bytes_of(&ranges, 1 << 20), 16 * 1024);
        assert_eq!(bytes_of(&ranges, 20_000), 20_000 - 16 * 1024);
        assert_eq!(bytes_of(&ChunkRanges::all(), 5), 5);
        assert_eq!(bytes_of(&ChunkRanges::empty(), 5), 0);
    }
}
