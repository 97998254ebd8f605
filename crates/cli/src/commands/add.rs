//! `larder add`: stores files and folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use larder::{
    Store,
    files::{self, AddRequest, Added, LeftOut},
};
use serde::Serialize;

use crate::{
    app::App,
    args,
    item::{Columns, Item, ItemKind},
    observed::{advice, failures, name_of, observe, summary},
    output::Shown,
    problem::{Exit, Problem, Report, is_about_one},
};

/// Store files and folders, each under its name
///
/// Each path is stored under its last component. An existing name gets the new content, and
/// `gc` then frees the old content. A link given as a path is followed; links inside a folder are left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files and folders; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Store under this name instead; for one path
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// Succeed even if files cannot be read or have names that cannot be stored; they are left out either way
    #[arg(long)]
    skip_unreadable: bool,
    /// Include folders that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    include_caches: bool,
}

/// The result of adding.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    item: &'a Item,
    replaced: &'a Option<String>,
    left_out: &'a LeftOut,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let names = names(&args)?;
    let store = app.store().await?;
    // Over the first line, if there is one.
    let columns = Columns::new(true);
    let mut heading = Some(columns.heading());
    let mut exit = Exit::Done;
    for (path, name) in args.paths.iter().zip(names) {
        let added = match name {
            Ok(name) => add(app, &store, path, name, &args).await,
            Err(error) => Err(error),
        };
        let added = match added {
            Ok(added) => added,
            // The next one may be better.
            Err(error) if args.paths.len() > 1 && is_about_one(&error) => {
                Report::of(&error).say(app.out);
                exit = Exit::Failed;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(heading) = heading.take() {
            app.out.done_heading(heading);
        }
        say(app, path, &added, columns);
        let Some(what) = failures(&app.out, &added.left_out, "were left out") else {
            continue;
        };
        if args.skip_unreadable {
            let path = path.to_string_lossy();
            app.out.note(format_args!("{}: {what}", Shown(&path)));
            continue;
        }
        let advice = advice(&added.left_out, "add") + "; --skip-unreadable accepts that";
        Report::of(&Problem::new(what, advice).into()).say(app.out);
        exit = Exit::Failed;
    }
    Ok(exit)
}

async fn add(app: &App, store: &Store, path: &Path, name: String, args: &Args) -> Result<Added> {
    let (_bar, observer) = observe(&app.out, "storing");
    if is_stdin(path) {
        let added = files::add_stream(store, &name, tokio::io::stdin(), &observer).await;
        return added.context("cannot store standard input");
    }
    let mut request = AddRequest::new(path);
    request.name = Some(name);
    request.include_caches = args.include_caches;
    Ok(files::add(store, &request, &observer).await?)
}

fn say(app: &App, path: &Path, added: &Added, columns: Columns) {
    let kind = match added.files {
        Some(_) => ItemKind::Folder,
        None => ItemKind::File,
    };
    let item = Item {
        name: added.name.clone(),
        kind,
        hash: added.hash,
        size: added.size,
        files: added.files,
        present: added.size,
        complete: true,
    };
    let line = Line {
        item: &item,
        replaced: &added.replaced,
        left_out: &added.left_out,
    };
    app.out.done(&line, columns.line(&item));
    let name = path.to_string_lossy();
    if let Some(text) = summary(&added.left_out) {
        app.out.note(format_args!("{}: {text}", Shown(&name)));
    }
    if let Some(before) = &added.replaced {
        app.out.note(format_args!(
            "{}: was {before} before; `larder gc` frees what only that needed",
            Shown(&added.name)
        ));
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Returns the name for each path, or the error of one that is not there, if the others can be stored. All are known
/// before anything is stored.
fn names(args: &Args) -> Result<Vec<Result<String>>> {
    if let Some(name) = &args.name {
        if args.paths.len() > 1 {
            return Err(Problem::usage(
                "--name is for one path",
                "add the others with a command of their own",
            )
            .into());
        }
        return Ok(vec![Ok(name.clone())]);
    }
    let mut names: Vec<Result<String>> = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        if is_stdin(path) {
            return Err(
                Problem::usage("standard input has no name", "give it one with --name").into(),
            );
        }
        let name = match name_of(path) {
            Ok(name) => name,
            Err(error) if args.paths.len() > 1 && is_about_one(&error) => {
                names.push(Err(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        if names.iter().flatten().any(|other| *other == name) {
            return Err(Problem::usage(
                format!("two paths would be stored under the name {name:?}"),
                "add one of them with a command of its own, with --name",
            )
            .into());
        }
        names.push(Ok(name));
    }
    Ok(names)
}
