//! `larder share`: a folder, for a group of its own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use larder::{
    Store, files,
    groups::{Group, InviteOptions, Repo},
};

use super::{group::join, put, sync::go_on};
use crate::{
    app::App,
    args,
    groups::{self, As, MemberName, Network, PutOptions},
    observed::name_of,
    output::Shown,
    problem::{Exit, Problem},
};

/// Share a folder with a new group, and serve it
///
/// Makes a group with the folder's name, puts the folder into it, prints an invite and a QR
/// code, and serves until ctrl-c. Run it again to put changed files and to serve again: files that were
/// deleted from the folder are then removed from the group too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder
    folder: PathBuf,
    /// Use this name for the group, and for the folder in it
    #[arg(long, value_parser = args::label)]
    name: Option<String>,
    #[command(flatten)]
    invite: As,
    #[command(flatten)]
    member: MemberName,
    /// Keep files in the group that the folder no longer has. An empty folder never removes files: its disk may
    /// not be mounted
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
        None => {
            let name = name_of(&args.folder)?;
            args::label(&name).map_err(|error| Problem::usage(error, "give it one with --name"))?
        }
    };
    if !args.folder.is_dir() {
        return Err(Problem::usage(
            format!("{} is not a folder", args.folder.display()),
            "name a folder",
        )
        .into());
    }
    let store = app.store().await?;
    let (group, repo) = made(app, &store, &args.folder, &name, &args.member).await?;
    let id = group.id();
    let mut request = args.how.request(&args.folder);
    request.name = Some(name);
    request.mirror = !args.no_mirror;
    let done = groups::put(app, &repo, &request).await?;
    let is_whole = put::say(app, &group, &args.folder, done, args.how.skip_unreadable).await?;
    drop((group, repo));

    let replicator = groups::start(app, &store, args.network).await?;
    let shared = async {
        let group = replicator.groups().group(id);
        let group = group.ok_or_else(|| Problem::new("the group is gone", "share it again"))?;
        let at = replicator.addresses();
        app.ends_itself();
        let kind = args.invite.kind();
        let options = InviteOptions::new(kind.into());
        groups::print_invite(app, &group, kind, options, at, true).await?;
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

/// Returns the group that was made for this folder before, or a new one.
async fn made(
    app: &App,
    store: &Store,
    folder: &Path,
    name: &str,
    member: &MemberName,
) -> Result<(Group, Repo)> {
    if let Some((group, repo)) = files::shared_group(store, folder).await? {
        if let Some(name) = member.asked()
            && repo.name().await?.as_deref() != Some(name)
        {
            repo.set_name(name).await?;
        }
        return Ok((group, repo));
    }
    let groups = store.groups().await?;
    let own = groups::free_name(name, &join::names(&groups).await?);
    if own != name {
        app.out.note(format_args!(
            "another group is called {} already: this one is {}",
            Shown(name),
            Shown(&own)
        ));
    }
    let (group, repo) = join::made(&groups, &own, &member.get()).await?;
    join::say_backup(app)?;
    files::set_shared_group(store, folder, &group).await?;
    Ok((group, repo))
}
