//! One file for each command.

pub(crate) mod add;
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

use crate::{app::App, args::Command, problem::Exit};

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
