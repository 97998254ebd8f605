//! `larder group`: private groups, and who is in them.

mod free;
mod history;
mod invite;
pub(crate) mod join;
mod people;
mod wants;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::{
    app::App,
    groups::{known, of_group},
    item::Columns,
    problem::Exit,
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
    Invites(invite::Invites),
    Join(join::Join),
    Rename(join::Rename),
    /// List the groups of this store
    Ls,
    /// List who is in a group: rights, devices, files, and who invited whom
    Members {
        /// The group; may be left out if there is only one
        group: Option<String>,
    },
    Remove(people::Remove),
    Allow(people::Allow),
    /// Make a new key for all that is added from now on
    ///
    /// For a key that may have come to others. Members that are removed are cut off without this.
    Rotate {
        /// The group; may be left out if there is only one
        group: Option<String>,
    },
    /// List what members have said of each other, the oldest first
    Log {
        /// The group; may be left out if there is only one
        group: Option<String>,
    },
    Recovery(invite::Recovery),
    Policy(wants::Set),
    /// Keep files of other members here, whatever the policy is
    Pin(wants::Paths),
    /// Remove a pin
    Unpin(wants::Paths),
    Free(free::Args),
    Leave(history::Leave),
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
        Command::Members { group } => people::members(app, group.as_deref()).await?,
        Command::Remove(args) => people::remove(app, args).await?,
        Command::Allow(args) => people::allow(app, args).await?,
        Command::Invites(args) => invite::invites(app, args).await?,
        Command::Rotate { group } => history::rotate(app, group.as_deref()).await?,
        Command::Log { group } => history::log(app, group.as_deref()).await?,
        Command::Recovery(args) => invite::recovery(app, args).await?,
        Command::Policy(args) => wants::policy(app, args).await?,
        Command::Pin(paths) => wants::pin(app, paths, true).await?,
        Command::Unpin(paths) => wants::pin(app, paths, false).await?,
        Command::Free(args) => return free::run(app, args).await,
        Command::Leave(args) => history::leave(app, args).await?,
    }
    Ok(Exit::Done)
}
