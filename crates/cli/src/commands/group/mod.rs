//! `larder group`: private groups, and who is in them.

mod free;
mod invite;
pub(crate) mod join;
mod wants;

use anyhow::Result;
use clap::Subcommand;
use larder::groups::Group;
use serde::Serialize;

use crate::{
    app::App,
    groups::{known, label, of_group, of_repo, pick},
    item::Columns,
    output::Shown,
    problem::{Exit, Problem},
};

/// Make, join and list private groups
///
/// The members of a group see all files that any of them puts into it, and nobody else sees any. Each
/// member writes a repo of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// The commands of `larder group`. The doc comment of a command's own arguments, if it has any, is its help.
#[derive(Debug, Subcommand)]
enum Command {
    Create(join::Create),
    Invite(invite::Args),
    Join(join::Join),
    Rename(join::Rename),
    /// List the groups of this store
    Ls,
    /// List the members of a group, with the files that they have put into it
    Members {
        /// The group; may be left out if there is only one
        group: Option<String>,
    },
    Policy(wants::Set),
    /// Keep files of other members here, whatever the policy is
    Pin(wants::Paths),
    /// Remove a pin
    Unpin(wants::Paths),
    Free(free::Args),
    /// Leave a group; the next `larder gc` deletes its files here
    Leave {
        /// The group
        group: String,
        /// Leave even if your repo has files, which others may not have
        #[arg(long)]
        force: bool,
    },
}

/// A group that was made, joined or left.
#[derive(Debug, Serialize)]
struct Done {
    group: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    match args.command {
        Command::Create(args) => join::create(app, args).await?,
        Command::Invite(args) => invite::run(app, args).await?,
        Command::Join(args) => join::join(app, args).await?,
        Command::Rename(args) => join::rename(app, args).await?,
        Command::Ls => {
            let store = app.store_of_groups().await?;
            let columns = Columns::new(true);
            app.out.heading(columns.heading())?;
            if let Some(groups) = known(&store).await? {
                for group in groups.groups() {
                    let item = of_group(store.blobs(), &group).await?;
                    app.out.result(&item, columns.line(&item))?;
                }
            }
        }
        Command::Members { group } => {
            let store = app.store_of_groups().await?;
            let group = pick(&store.groups().await?, group.as_deref()).await?;
            let columns = Columns::new(true);
            app.out.heading(columns.heading())?;
            for member in group.members().await? {
                let item = of_repo(store.blobs(), &member).await?;
                app.out.result(&item, columns.line(&item))?;
            }
        }
        Command::Policy(args) => wants::policy(app, args).await?,
        Command::Pin(paths) => wants::pin(app, paths, true).await?,
        Command::Unpin(paths) => wants::pin(app, paths, false).await?,
        Command::Free(args) => return free::run(app, args).await,
        Command::Leave { group, force } => {
            let store = app.store_of_groups().await?;
            let groups = store.groups().await?;
            let group = pick(&groups, Some(&group)).await?;
            if !force {
                check_left(&group).await?;
            }
            let done = Done {
                group: label(&group).await?,
                id: group.id().to_string(),
                member: None,
            };
            groups.leave(group.id()).await?;
            app.out
                .result(&done, format_args!("left {}", Shown(&done.group)))?;
            app.out.note("`larder gc` frees the space");
        }
    }
    Ok(Exit::Done)
}

/// Whoever leaves can never write that repo again, and the files may be nowhere else.
async fn check_left(group: &Group) -> Result<()> {
    let mut files = 0;
    for repo in group.repos().await?.iter().filter(|repo| repo.is_ours()) {
        files = u64::saturating_add(files, repo.root().await?.files);
    }
    if files > 0 {
        return Err(Problem::new(
            format!("your repo has {files} file(s), which may be nowhere else"),
            "`larder sync` gives them to others, `larder get` writes them out; then --force",
        )
        .into());
    }
    Ok(())
}
