//! `larder secrets`: the key that opens the keys of a store.

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::{
    app::{App, SecretsKey, secrets_key},
    output::Shown,
    problem::{Exit, Problem},
};

/// Show the path of the key file that opens the keys of your stores
///
/// A redb store keeps the keys of its groups in an encrypted file. A key file opens it, or a password
/// (LARDER_PASSWORD).
/// Back the key file up, away from the store: without it the groups in a store cannot be opened again. To restore,
/// put the store's folder and the key file back, or name the file with LARDER_SECRETS_KEY.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the path of the file
    Path,
}

#[derive(Debug, Serialize)]
struct Line {
    path: String,
    /// True if the file is there: the first store that needs one makes it.
    exists: bool,
}

pub(crate) fn run(app: &App, args: Args) -> Result<Exit> {
    let Command::Path = args.command;
    match secrets_key()? {
        SecretsKey::File(path) => {
            let line = Line {
                path: path.display().to_string(),
                exists: path.exists(),
            };
            app.out.result(&line, Shown(&line.path))?;
            if !line.exists {
                app.out
                    .note("it is not there yet: the first store that has keys makes it");
            }
            Ok(Exit::Done)
        }
        SecretsKey::Password(_) => Err(Problem::new(
            "LARDER_PASSWORD is set: the password opens the keys, and no file",
            "remember the password, or unset LARDER_PASSWORD for the path",
        )
        .into()),
    }
}
