//! `larder share`: a folder, for a group of its own.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use larder::files;

use super::{put, sync::go_on};
use crate::{
    app::App,
    args,
    groups::{self, Kind, Network, PutOptions},
    observed::name_of,
    problem::{Exit, Problem},
};

/// Makes a group for this folder that is called like it, puts the folder into it, prints an invite and a QR
/// code, and serves until ctrl-c. Run it again to put what has changed and to serve again: files that were
/// deleted from the folder are then removed from the group too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder
    folder: PathBuf,
    /// Another name for the group, and for the folder in it
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// Access that the invited people get
    #[arg(long, value_name = "KIND", default_value = "read")]
    invite: Kind,
    /// Your name in the group
    #[arg(long = "as", value_name = "NAME", default_value = "me", value_parser = NonEmptyStringValueParser::new())]
    member: String,
    /// Keep files in the group that the folder no longer has. An empty folder removes none: its disk may not be mounted
    #[arg(long)]
    no_mirror: bool,
    #[command(flatten)]
    how: PutOptions,
    #[command(flatten)]
    network: Network,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let name = match args.name {
        Some(name) => name,
        None => name_of(&args.folder)?,
    };
    if !args.folder.is_dir() {
        return Err(Problem::usage(
            format!("{} is not a folder", args.folder.display()),
            "name a folder",
        )
        .into());
    }
    let store = app.store().await?;
    let (group, repo) = files::shared_group(&store, &args.folder, &name, &args.member).await?;
    let id = group.id();
    let mut request = args.how.request(&args.folder);
    request.name = Some(name);
    // An empty folder is more often a disk that is not mounted than a wish to give nothing any more.
    let is_empty = std::fs::read_dir(&args.folder).is_ok_and(|mut all| all.next().is_none());
    request.mirror = !args.no_mirror && !is_empty;
    let done = groups::put(app, &repo, &request).await?;
    let is_whole = put::say(app, &group, &args.folder, done, args.how.skip_unreadable).await?;
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
    match ended {
        Ok(Exit::Done) if !is_whole => Ok(Exit::Failed),
        ended => ended,
    }
}
