//! `larder put`: files into a group.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use larder::{
    files::{self, PutDone},
    groups::{Group, Repo},
};
use serde::Serialize;

use crate::{
    app::App,
    args,
    groups::{self, PutOptions, label, pick},
    observed::{advice, failures, list, name_of, observe, summary},
    output::{Bytes, Count, Shown},
    problem::{Exit, Problem, Report, is_about_one},
};

/// Put files and folders into a group
///
/// Each path goes into your repo under its last component, encrypted. An existing file is
/// replaced; a file of equal length and time counts as unchanged. A link given as a path is followed; links
/// inside a folder are left out. Other members get the files when they meet this store: `larder sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files and folders; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The group; may be left out if there is only one
    #[arg(long)]
    group: Option<String>,
    /// Put under this name instead; for one path
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// The folder in your repo to put them into
    #[arg(long, value_name = "FOLDER")]
    to: Option<String>,
    /// Remove files from the repo's folder that the folder on disk does not have
    #[arg(long)]
    mirror: bool,
    #[command(flatten)]
    how: PutOptions,
}

/// The result of putting.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    group: String,
    #[serde(flatten)]
    done: PutDone,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.store_of_groups().await?;
    check_names(&args)?;
    let groups = store.groups().await?;
    if args.group.is_none() && groups.groups().len() > 1 {
        return Err(Problem::usage(
            "this store is in several groups",
            "name one with --group GROUP; `larder group ls` shows them",
        )
        .into());
    }
    let group = pick(&groups, args.group.as_deref()).await?;
    drop(groups);
    let repo = own_repo(&group).await?;
    let mut exit = Exit::Done;
    for path in &args.paths {
        match put(app, &repo, path, &args).await {
            Ok(done) => {
                if !say(app, &group, path, done, args.how.skip_unreadable).await? {
                    exit = Exit::Failed;
                }
            }
            // The next one may be better.
            Err(error) if args.paths.len() > 1 && is_about_one(&error) => {
                Report::of(&error).say(app.out);
                exit = Exit::Failed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Checks that each path has a name, before anything is put.
fn check_names(args: &Args) -> Result<()> {
    let mut names = BTreeSet::new();
    match &args.name {
        Some(_) if args.paths.len() > 1 => Err(Problem::usage(
            "--name is for one path",
            "put the others with a command of their own",
        )
        .into()),
        Some(_) => Ok(()),
        None => args.paths.iter().try_for_each(|path| {
            if is_stdin(path) {
                let problem =
                    Problem::usage("standard input has no name", "give it one with --name");
                return Err(problem.into());
            }
            match name_of(path) {
                // It is named in its turn, and the others are put.
                Err(error) if args.paths.len() > 1 && is_about_one(&error) => Ok(()),
                Err(error) => Err(error),
                Ok(name) if !names.insert(name.clone()) => Err(Problem::usage(
                    format!("two paths would be put under the name {name:?}"),
                    "put one of them with a command of its own, with --name",
                )
                .into()),
                Ok(_) => Ok(()),
            }
        }),
    }
}

async fn put(app: &App, repo: &Repo, path: &Path, args: &Args) -> Result<PutDone> {
    if let Some(name) = args.name.as_deref().filter(|_| is_stdin(path)) {
        let (_bar, observer) = observe(&app.out, "sealing");
        let to = args.to.as_deref();
        let put = files::put_stream(repo, name, to, tokio::io::stdin(), &observer);
        return put.await.context("cannot put standard input");
    }
    let mut request = args.how.request(path);
    request.name = args.name.clone();
    request.to = args.to.clone();
    request.mirror = args.mirror;
    groups::put(app, repo, &request).await
}

/// Says what was put, what was removed, and what was left out. Returns false if something is left out that should have
/// been put, unless that is `accepted`.
pub(crate) async fn say(
    app: &App,
    group: &Group,
    path: &Path,
    done: PutDone,
    accepted: bool,
) -> Result<bool> {
    let line = Line {
        path: path.display().to_string(),
        group: label(group).await?,
        done,
    };
    let done = &line.done;
    let mut text = format!(
        "put {} into {}: {} file(s), {}",
        Shown(&line.path),
        Shown(&line.group),
        Count(done.files),
        Bytes(done.bytes)
    );
    if done.unchanged > 0 {
        text.push_str(&format!("; {} as before", Count(done.unchanged)));
    }
    if done.removed.count > 0 {
        text.push_str(&format!("; {} removed", Count(done.removed.count)));
    }
    app.out.done(&line, text);
    let name = Shown(&line.path);
    if done.removed.count > 0 {
        let text = format!("{name}: removed from the repo:");
        app.out.note(list(&app.out, text, &done.removed));
    }
    if done.kept.count > 0 {
        let count = Count(done.kept.count);
        let text = format!(
            "{name}: {count} file(s) are in the repo and not in the folder; they stay there: `larder rm` removes them, and \
             `larder put --mirror` those whose folder is not empty:"
        );
        app.out.note(list(&app.out, text, &done.kept));
    }
    if let Some(text) = summary(&done.left_out) {
        app.out.note(format_args!("{name}: {text}"));
    }
    let Some(what) = failures(&app.out, &done.left_out, "were left out") else {
        return Ok(true);
    };
    if accepted {
        app.out.note(format_args!("{name}: {what}"));
        return Ok(true);
    }
    let advice = advice(&done.left_out, "put") + "; the repo keeps what it has of that";
    Report::of(&Problem::new(what, advice).into()).say(app.out);
    Ok(false)
}

/// The repo that this store writes in a group.
pub(crate) async fn own_repo(group: &Group) -> Result<Repo> {
    group.own_repo().await?.ok_or_else(|| {
        Problem::new(
            "you have no repo in this group",
            "ask for an invite that lets you write, and `larder group join` it",
        )
        .into()
    })
}
