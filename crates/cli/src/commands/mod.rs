//! One file for each command.

pub(crate) mod add;
#[cfg(test)]
mod advice;
pub(crate) mod affected;
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
pub(crate) mod secrets;
pub(crate) mod serve;
pub(crate) mod share;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{app::App, args::Global, problem::Exit};

/// Stores folders, and serves and fetches them verified. Replicates the files of private groups to all
/// devices of their members.
///
/// A store is a URL: redb:DIR (a folder on this machine), veilid:DIR (a Veilid node's folder, encrypted
/// under a key in the system's keychain; with veilid+insecure:DIR the key lies in the same folder) or
/// mem: (in memory, lost when the command ends).
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
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 verify found something missing, or damage that is not repaired; \
130 interrupted (ctrl-c; `larder serve`, `larder share` and `larder sync --watch` end so, with 0); 143 terminated. A second \
ctrl-c ends at once.
LARDER_LOG=debug shows what happens inside, on stderr.
A redb store keeps its keys encrypted; LARDER_SECRETS_KEY names the file of the key that opens them \
(without it, one in your configuration folder), LARDER_PASSWORD is a password instead.";

/// The commands. The doc comment of a command's arguments is its help: one here would hide all but its own line.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Add(add::Args),
    Group(group::Args),
    Put(put::Args),
    Sync(sync::Args),
    Status(status::Args),
    Share(share::Args),
    Ls(ls::Args),
    Get(get::Args),
    Cat(cat::Args),
    Rm(rm::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Stats(stats::Args),
    Secrets(secrets::Args),
    Copy(copy::Args),
    Serve(serve::Args),
    Fetch(fetch::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    /// Print the completion script for a shell
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
        Command::Secrets(args) => secrets::run(app, args),
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

    #[test]
    fn the_whole_help_of_each_command_shows() {
        let squash = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut args = Args::command();
        args.build();
        for command in args.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            if ["completions", "help"].contains(&name.as_str()) {
                continue;
            }
            let about = command.get_about().map(ToString::to_string);
            let long = command.get_long_about().map(ToString::to_string);
            let (Some(about), Some(long)) = (about, long) else {
                panic!("{name} has no long help: is there a doc comment at its variant?");
            };
            let help = squash(&command.render_long_help().to_string());
            assert!(long.len() > about.len() + 20, "{name}: {long}");
            assert!(help.contains(&squash(&long)), "{name}: {help}");
        }
    }
}
