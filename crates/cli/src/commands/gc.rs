//! `larder gc`: deletes blobs that no name reaches.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use larder::Kind;
use serde::Serialize;

use crate::{
    app::App,
    args,
    output::{Bytes, Count},
    problem::{Exit, Problem},
};

/// Delete blobs that no name or group reaches
///
/// `rm` and `group leave` only remove names and groups. This command deletes their bytes, unless another name or group
/// reaches them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep blobs that were stored within this time, even if no name reaches them: 30s, 5m, 12h, 7d
    #[arg(long, default_value = "0s", value_parser = args::duration, value_name = "TIME")]
    grace: Duration,
}

#[derive(Debug, Serialize)]
struct Freed {
    kept: u64,
    deleted: u64,
    freed: u64,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let keep_newer = SystemTime::now()
        .checked_sub(args.grace)
        .ok_or_else(|| Problem::usage("that time is too long", "give a shorter --grace"))?;
    let done = store.blobs().collect(keep_newer).await?;
    match store.reclaim_space().await {
        Err(error) if error.kind() == Kind::Full => {
            // The blobs are deleted; the rest of their space is given back once there is room to do it.
            tracing::info!(%error, "space is given back later");
        }
        other => other?,
    }
    let freed = Freed {
        kept: done.kept,
        deleted: done.deleted,
        freed: done.freed,
    };
    let text = format!(
        "deleted {} blob(s), freed {}, kept {}",
        Count(freed.deleted),
        Bytes(freed.freed),
        Count(freed.kept)
    );
    app.out.result(&freed, text)?;
    Ok(Exit::Done)
}
