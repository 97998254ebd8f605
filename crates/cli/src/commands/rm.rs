//! `larder rm`: removes names.

use anyhow::Result;
use larder::{
    Kind, files,
    groups::{Changes, Repo},
};
use serde::Serialize;

use super::get::in_group;
use crate::{
    app::App,
    args,
    item::as_text,
    output::{Count, Shown},
    problem::{Exit, Problem},
};

/// Remove names, or files of your repo; `gc` then frees their space
///
/// The blobs of a removed name stay until `gc`, as another name may reach them too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names, as `larder ls` shows them, or GROUP/REPO/PATH of files in a repo of yours
    #[arg(required = true, value_name = "NAME", value_parser = args::name())]
    names: Vec<String>,
    /// Remove folders of a repo with everything in them
    #[arg(short, long)]
    recursive: bool,
}

/// Files that left a repo.
#[derive(Debug, Serialize)]
struct RemovedFiles {
    removed: String,
    files: usize,
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: String,
    #[serde(serialize_with = "as_text")]
    hash: larder::Hash,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let tags = store.blobs().tags();
    // All are looked up first, so that a typing error removes nothing.
    let mut found = Vec::with_capacity(args.names.len());
    let mut in_repos = Vec::new();
    for name in args.names {
        if let Some(place) = in_group(&store, &name).await? {
            if place.member.is_none() {
                return Err(Problem::usage(
                    format!("{name:?} is a group"),
                    "write GROUP/REPO/PATH to remove files of your repo; `larder group leave` leaves the group",
                )
                .into());
            }
            let repo = place.own()?.clone();
            let path = place.path.as_deref().unwrap_or_default();
            let changes = removal(&repo, path, args.recursive).await?;
            in_repos.push((name, repo, changes));
            continue;
        }
        let tag = files::tag_of(&name)?;
        match tags.get(&tag).await? {
            Some(root) => found.push((name, tag, root)),
            None => return Err(Problem::no_such_name(&name).into()),
        }
    }
    for (name, tag, root) in found {
        tags.delete_one(&tag).await?;
        let removed = Removed {
            removed: name,
            hash: root.hash,
        };
        let text = format!("removed {}", Shown(&removed.removed));
        app.out.done(&removed, text);
    }
    for (name, repo, changes) in in_repos {
        let removed = RemovedFiles {
            removed: name,
            files: changes.len(),
        };
        repo.change(changes).await?;
        let text = format!(
            "removed {} file(s): {}",
            Count(removed.files as u64),
            Shown(&removed.removed)
        );
        app.out.done(&removed, text);
    }
    app.out.note("`larder gc` frees the space");
    Ok(Exit::Done)
}

/// The change that removes a file, or a folder with all that is in it.
async fn removal(repo: &Repo, path: &str, recursive: bool) -> Result<Changes> {
    let error = match files::removal(repo, path, recursive).await {
        Err(error) if error.operation() == files::OPERATION => error,
        found => return Ok(found?),
    };
    let count = error.context().find(|(key, _)| *key == "files");
    let count = count.and_then(|(_, count)| count.parse().ok());
    Err(match (error.kind(), count) {
        (Kind::Invalid, Some(count)) => Problem::usage(
            format!("{} with {} file(s)", error.message(), Count(count)),
            "--recursive removes them all",
        ),
        _ => Problem::new(
            error.message(),
            "`larder ls GROUP/REPO` shows the files of a repo",
        ),
    }
    .into())
}
