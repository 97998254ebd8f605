//! One file for each command.

pub(crate) mod add;
#[cfg(test)]
mod advice;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod copy;
pub(crate) mod demo;
pub(crate) mod fetch;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod group;
pub(crate) mod ls;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod share;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{app::App, args::Global, problem::Exit};

/// Keeps folders, serves and fetches them, verified; and keeps the files of private groups on all of
/// their members' devices.
///
/// A store is a URL: redb:DIR (a folder on this machine), veilid:DIR (a Veilid node's folder, encrypted
/// under a key in the system's keychain; with veilid+insecure:DIR the key lies in the same folder) or
/// mem: (in memory, gone at the end).
#[derive(Debug, Parser)]
#[command(name = "larder", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Shown below the help.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 verify found damage that is not repaired; \
130 interrupted (ctrl-c); 143 terminated.
LARDER_LOG=debug shows what happens inside, on stderr.
A redb store keeps its keys encrypted; LARDER_SECRETS_KEY names the file of the key that opens them \
(without it, one in your configuration folder), LARDER_PASSWORD is a password instead.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store files and folders, each under its name
    Add(add::Args),
    /// Make, join and list private groups
    Group(group::Args),
    /// Put files and folders into a group
    Put(put::Args),
    /// Meet the other members of your groups, until all have everything
    Sync(sync::Args),
    /// Show how far this store is with its groups
    Status(status::Args),
    /// Share a folder with a new group, and serve it
    Share(share::Args),
    /// List what is stored: names and groups, or the files of one
    Ls(ls::Args),
    /// Write a stored file or folder into a folder on disk
    Get(get::Args),
    /// Write a blob, or a range of it, to standard output
    Cat(cat::Args),
    /// Remove names, or files of your repo; `gc` then frees what nothing names any more
    Rm(rm::Args),
    /// Delete what no name reaches
    Gc(gc::Args),
    /// Read everything and compare it with its hashes
    Verify(verify::Args),
    /// Show what a store holds and how much space it takes
    Stats(stats::Args),
    /// Copy everything from one store to another; run it again to go on
    Copy(copy::Args),
    /// Let others fetch stored files and folders, or be a replica of groups
    Serve(serve::Args),
    /// Fetch what a ticket names; run it again to go on
    Fetch(fetch::Args),
    /// Measure stores side by side
    Bench(bench::Args),
    /// Three members and a replica share a folder, one is killed and comes back, and all is compared
    Demo(demo::Args),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

pub(crate) async fn run(app: &App, command: Command) -> Result<Exit> {
    match command {
        Command::Add(args) => add::run(app, args).await,
        Command::Group(args) => group::run(app, args).await,
        Command::Put(args) => put::run(app, args).await,
        Command::Sync(args) => sync::run(app, args).await,
        Command::Status(args) => status::run(app, args).await,
        Command::Share(args) => share::run(app, args).await,
        Command::Ls(args) => ls::run(app, args).await,
        Command::Get(args) => get::run(app, args).await,
        Command::Cat(args) => cat::run(app, args).await,
        Command::Rm(args) => rm::run(app, args).await,
        Command::Gc(args) => gc::run(app, args).await,
        Command::Verify(args) => verify::run(app, args).await,
        Command::Stats(args) => stats::run(app, args).await,
        Command::Copy(args) => copy::run(app, args).await,
        Command::Serve(args) => serve::run(app, args).await,
        Command::Fetch(args) => fetch::run(app, args).await,
        Command::Bench(args) => bench::run(app, args).await,
        Command::Demo(args) => demo::run(app, args).await,
        Command::Completions { .. } => unreachable!("printed before anything was started"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
