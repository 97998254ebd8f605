//! `larder put`: files into a group.

use std::path::PathBuf;

use anyhow::Result;
use larder::groups::{Group, Repo};
use serde::Serialize;

use crate::{
    app::App,
    groups::{self, PutOptions, label, pick},
    output::{Bytes, Count, Shown},
    problem::{Exit, Problem},
};

/// Put files and folders into a group
///
/// Each path comes into your repo under its last component, sealed. A file that is there is
/// replaced; one of the same length and time is taken for the same. Others have it when they meet
/// this store: `larder sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The group; may be left out where there is one
    #[arg(long)]
    group: Option<String>,
    /// The folder in your repo to put them into
    #[arg(long, value_name = "FOLDER")]
    to: Option<String>,
    #[command(flatten)]
    how: PutOptions,
}

/// The result of putting.
#[derive(Debug, Serialize)]
struct Done {
    path: String,
    group: String,
    #[serde(flatten)]
    put: groups::Put,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, args.group.as_deref()).await?;
    let repo = own_repo(&group).await?;
    for path in &args.paths {
        let put = groups::put(app, &repo, path, args.to.as_deref(), &args.how).await?;
        say(app, &group, path, put).await?;
    }
    Ok(Exit::Done)
}

/// Says what was put.
pub(crate) async fn say(
    app: &App,
    group: &Group,
    path: &std::path::Path,
    put: groups::Put,
) -> Result<()> {
    let done = Done {
        path: path.display().to_string(),
        group: label(group).await?,
        put,
    };
    let mut text = format!(
        "put {} into {}: {} file(s), {}",
        Shown(&done.path),
        Shown(&done.group),
        Count(done.put.files),
        Bytes(done.put.bytes)
    );
    if done.put.unchanged > 0 {
        text.push_str(&format!("; {} as before", Count(done.put.unchanged)));
    }
    app.out.result(&done, text)?;
    if let Some(text) = done.put.skipped.summary() {
        app.out.note(format_args!("{}: {text}", Shown(&done.path)));
    }
    Ok(())
}

/// The repo that this store writes in a group.
pub(crate) async fn own_repo(group: &Group) -> Result<Repo> {
    let repos = group.repos().await?;
    let own = repos.into_iter().find(Repo::is_ours);
    own.ok_or_else(|| {
        Problem::new(
            "you have no repo in this group",
            "ask for an invite that lets you write, and `larder group join` it",
        )
        .into()
    })
}
