//! `larder group free`: lets go of what of others is not wanted here.

use std::time::Duration;

use anyhow::Result;
use larder::groups::{Copies, Group, Policy, Replicator};
use serde::Serialize;

use super::wants::STAYS;
use crate::{
    app::App,
    args,
    groups::{self, Network, Watch, label, pick},
    output::{Bytes, Count, Shown},
    problem::{Exit, Problem},
};

/// Delete files of other members that the policy does not want
///
/// Meets other members first, and deletes only files that one of them proves to have.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The group; may be left out if there is only one
    group: Option<String>,
    /// Also delete files that no other member has proven to have: they may be lost for ever
    #[arg(long)]
    last_copies: bool,
    /// Time to wait for other members
    #[arg(long, default_value = "30s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    network: Network,
}

#[derive(Debug, Serialize)]
struct Line {
    group: String,
    files: u64,
    bytes: u64,
    /// The number of files that are not wanted either, and stay.
    files_that_stay: u64,
    bytes_that_stay: u64,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.store_of_groups().await?;
    let known = store.groups().await?;
    let group = pick(&known, args.group.as_deref()).await?.id();
    drop(known);
    let replicator = groups::start(app, &store, args.network).await?;
    let freeing = async {
        if !args.last_copies {
            meet(app, &replicator, group, args.timeout).await?;
        }
        free(app, &replicator, group, args.last_copies).await
    };
    let ended = freeing.await;
    replicator.shutdown().await;
    ended.map(|()| Exit::Done)
}

/// Waits until this store is in sync with those who are there, so that all of them can be asked.
async fn meet(
    app: &App,
    replicator: &Replicator,
    group: larder::api::RecordId,
    timeout: Duration,
) -> Result<()> {
    let chosen: Vec<_> = replicator.groups().group(group).into_iter().collect();
    let mut watch = Watch::new(app, replicator);
    while !watch.look(&chosen).await? {
        if watch.quiet_for() > timeout {
            if chosen.iter().any(|group| watch.was_met(group)) {
                return Ok(());
            }
            return Err(Problem::new(
                format!("no other member could be reached in {timeout:?}, to show what it has"),
                "run `larder sync --watch` at another member; --last-copies asks nobody",
            )
            .into());
        }
        groups::until_next_look().await;
    }
    Ok(())
}

/// Returns true if only the names are wanted of some members.
async fn wants_names(group: &Group) -> Result<bool> {
    let mut policies = vec![group.policy().await?];
    for repo in group.repos().await? {
        policies.push(repo.policy().await?);
    }
    Ok(policies.contains(&Some(Policy::Names)))
}

async fn free(
    app: &App,
    replicator: &Replicator,
    group: larder::api::RecordId,
    last_copies: bool,
) -> Result<()> {
    let copies = match last_copies {
        true => Copies::AllowLastCopy,
        false => Copies::RequireOtherCopy,
    };
    let freed = replicator.free(group, copies).await?;
    let (name, by_names) = match replicator.groups().group(group) {
        Some(group) => (label(&group).await?, wants_names(&group).await?),
        None => (group.to_string(), false),
    };
    let line = Line {
        group: name,
        files: freed.files,
        bytes: freed.bytes,
        files_that_stay: freed.stay,
        bytes_that_stay: freed.stay_bytes,
    };
    let gone = format!(
        "{} file(s), {}, are no longer here",
        Count(line.files),
        Bytes(line.bytes)
    );
    let gone = match (line.files, last_copies) {
        (0, _) => "nothing was let go".to_owned(),
        (_, true) => gone,
        (_, false) => gone + "; others have them",
    };
    app.out
        .result(&line, format!("{}: {gone}", Shown(&line.group)))?;
    if by_names {
        app.out.note(STAYS);
    }
    if line.files_that_stay > 0 {
        app.out.note(format_args!(
            "{} file(s), {}, stay: no member has shown that it has them, or they are in use",
            Count(line.files_that_stay),
            Bytes(line.bytes_that_stay)
        ));
    }
    Ok(())
}
