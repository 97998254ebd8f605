//! `larder share`: a folder, for a group of its own.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use larder::groups::{Group, Groups, Repo};

use super::{put, sync::go_on};
use crate::{
    app::{App, unlock},
    groups::{self, Kind, Network, Puts, label},
    ingest::default_name,
    problem::{Exit, Problem},
};

/// Makes a group that is called like the folder, puts the folder into it, prints an invite and a QR
/// code, and serves until ctrl-c. Run it again to put what has changed and to serve again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder
    folder: PathBuf,
    /// What those who are invited may do
    #[arg(long, value_name = "KIND", default_value = "read")]
    invite: Kind,
    /// What you are called in the group
    #[arg(long = "as", value_name = "NAME", default_value = "me", value_parser = NonEmptyStringValueParser::new())]
    member: String,
    #[command(flatten)]
    how: Puts,
    #[command(flatten)]
    network: Network,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let name = default_name(&args.folder)?;
    if !args.folder.is_dir() {
        return Err(Problem::usage(
            format!("{} is not a folder", args.folder.display()),
            "name a folder",
        )
        .into());
    }
    let store = app.store().await?;
    let (group, repo) = made(&store.groups(unlock).await?, &name, &args.member).await?;
    let id = group.id();
    let done = groups::put(app, &repo, &args.folder, None, &args.how).await?;
    put::say(app, &group, &args.folder, done).await?;
    drop((group, repo));

    let replicator = groups::start(&store, args.network).await?;
    let shared = async {
        let group = replicator.groups().group(id);
        let group = group.ok_or_else(|| Problem::new("the group is gone", "share it again"))?;
        let at = replicator.addresses();
        groups::print_invite(app, &group, args.invite, at, true).await?;
        app.out.note("serving until ctrl-c");
        go_on(app, &replicator, &[group], false).await
    };
    let ended = shared.await;
    replicator.shutdown().await;
    ended
}

/// The group of that name that we write; a new one where there is none.
async fn made(groups: &Groups, name: &str, member: &str) -> Result<(Group, Repo)> {
    for group in groups.groups() {
        if group.keys().secret().is_some() && label(&group).await? == name {
            let repos = group.repos().await?;
            if let Some(repo) = repos.into_iter().find(Repo::is_ours) {
                return Ok((group, repo));
            }
        }
    }
    let group = groups.create_group(name).await?;
    let repo = group.create_repo(member).await?;
    Ok((group, repo))
}
