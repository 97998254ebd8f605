//! `larder status`: how far this store is with its groups. Asks nobody.

use anyhow::Result;
use larder::groups::Group;
use serde::Serialize;

use crate::{
    app::{App, unlock},
    groups::{label, of_repo, pick},
    output::{Bytes, Count, Shown},
    problem::Exit,
};

/// What this store knows of and has, without asking anybody; `larder sync` asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A group; without it, all of this store
    group: Option<String>,
}

/// How far a repo is.
#[derive(Debug, Serialize)]
struct Line {
    group: String,
    member: String,
    is_ours: bool,
    files: u64,
    bytes: u64,
    /// Whether the newest that is known of it is here.
    here: bool,
    /// Earlier states that are still named.
    earlier: usize,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let groups = store.groups(unlock).await?;
    let chosen = match &args.group {
        None if !groups.groups().is_empty() => groups.groups(),
        text => vec![pick(&groups, text.as_deref()).await?],
    };
    for group in chosen {
        show(app, &group).await?;
    }
    Ok(Exit::Done)
}

async fn show(app: &App, group: &Group) -> Result<()> {
    let name = label(group).await?;
    let may = match (
        group.keys().secret().is_some(),
        group.keys().read().is_some(),
    ) {
        (true, _) => "you may write",
        (_, true) => "you may read",
        _ => "a replica: nothing of it can be read here",
    };
    let members = group.members().await?;
    app.out.heading(format_args!(
        "{}: {} member(s); {may}",
        Shown(&name),
        members.len()
    ))?;
    for member in members {
        let item = of_repo(&member).await?;
        let line = Line {
            group: name.clone(),
            member: item.name.clone(),
            is_ours: member.repo.is_ours(),
            files: item.files.unwrap_or(0),
            bytes: item.size,
            here: item.complete,
            earlier: member.repo.history().await?.len(),
        };
        let state = match (line.is_ours, line.here) {
            (true, _) => "yours",
            (_, true) => "here",
            (_, false) => "a newer state is known and not here yet: `larder sync`",
        };
        let text = format!(
            "  {:<20} {:>9} file(s) {:>10}  {state}",
            Shown(&line.member).to_string(),
            Count(line.files),
            Bytes(line.bytes)
        );
        app.out.result(&line, text)?;
    }
    Ok(())
}
