//! `larder get`: a stored file or folder, written to disk.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Blobs, Format, Store,
    groups::{Policy, Repo},
    iroh::load_collection,
};

use crate::{
    app::App,
    args,
    export::{Stored, write_out},
    find::{Named, find, is_absence},
    groups::{Place, known, member_name, place},
    output::Shown,
    problem::{Exit, Problem},
};

/// The number of files that are looked at at once.
const IN_FLIGHT: usize = 8;
/// The number of files that a message names.
const MAX_SHOWN: usize = 10;

/// The files of a folder come directly into DIR, a file under its name. Every name is checked
/// before anything is written: none can leave DIR. Files that are there with the same content are
/// left alone, so that an interrupted run can be repeated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name, NAME/path of a file in a folder, a hash, or GROUP/REPO with or without a /path
    #[arg(value_parser = args::name())]
    name: String,
    #[command(flatten)]
    to: args::Output,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let mut absent = Vec::new();
    let files = match in_group(&store, &args.name).await? {
        Some(place) => {
            let (here, not_here) = split(files_in(&place).await?).await?;
            absent = not_here;
            here
        }
        None => files_of(blobs, find(blobs, &args.name).await?).await?,
    };
    if files.is_empty() && !absent.is_empty() {
        return Err(not_here(&absent).into());
    }
    let written = write_out(app, blobs, files, &args.to.output, args.to.how).await?;
    app.out.result(&written, &written)?;
    match absent.is_empty() {
        true => Ok(Exit::Done),
        // What is here is written: one that is lost must not keep the others back.
        false => Err(not_here(&absent).into()),
    }
}

/// The files of a repo whose bytes are here, and the names of the others.
async fn split(files: Vec<(String, Stored)>) -> Result<(Vec<(String, Stored)>, Vec<String>)> {
    let mut looked = stream::iter(files)
        .map(|(name, stored)| async move {
            let is_here = match &stored {
                Stored::Sealed(repo, entry) => repo.has(entry).await?,
                Stored::Plain(_) => true,
            };
            Ok::<_, larder::Error>((name, stored, is_here))
        })
        .buffered(IN_FLIGHT);
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    while let Some((name, stored, is_here)) = looked.try_next().await? {
        match is_here {
            true => here.push((name, stored)),
            false => absent.push(name),
        }
    }
    Ok((here, absent))
}

/// Says which files could not be written.
pub(super) fn not_here(absent: &[String]) -> Problem {
    let mut what = format!("{} file(s) are not here and were not written", absent.len());
    for name in absent.iter().take(MAX_SHOWN) {
        what += &format!("\n  {name}");
    }
    if absent.len() > MAX_SHOWN {
        what += "\n  …";
    }
    Problem::new(
        what,
        "`larder sync` fetches them from whoever has them; `larder status` says whether anybody has. What the \
         policy of the group leaves out comes too after `larder group pin GROUP/REPO/PATH`",
    )
}

/// Returns the place that `text` names if it begins with a group. An item that the store itself has
/// under this name comes first, and needs no keys.
pub(crate) async fn in_group(store: &Store, text: &str) -> Result<Option<Place>> {
    match find(store.blobs(), text).await {
        Ok(_) => return Ok(None),
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error),
    }
    match known(store).await? {
        Some(groups) => place(&groups, text).await,
        None => Ok(None),
    }
}

/// A file of a repo under its last name, or all below a folder of it.
async fn files_in(place: &Place) -> Result<Vec<(String, Stored)>> {
    let Some(member) = &place.member else {
        return Err(Problem::usage(
            "a group is meant",
            "write GROUP/REPO; `larder ls GROUP` shows the repos",
        )
        .into());
    };
    let repo = &member.repo;
    let stored = |entry| Stored::Sealed(repo.clone(), Box::new(entry));
    let path = place.path.as_deref().map(|path| path.trim_end_matches('/'));
    if let Some(path) = path
        && let Some(entry) = repo.entry(path).await?
    {
        let last = path.rsplit('/').next().unwrap_or(path);
        return Ok(vec![(last.to_owned(), stored(entry))]);
    }
    let prefix = path.map_or(String::new(), |path| format!("{path}/"));
    let listed: Vec<_> = repo.list(&prefix).await?.try_collect().await?;
    if listed.is_empty() && path.is_none() {
        return Err(nothing_in(place, repo).await?.into());
    }
    if listed.is_empty() {
        return Err(no_file(path.unwrap_or_default()).into());
    }
    let named = |larder::groups::Named { name, entry }| {
        (name.as_str()[prefix.len()..].to_owned(), stored(entry))
    };
    Ok(listed.into_iter().map(named).collect())
}

/// Says that a repo has no such file.
pub(super) fn no_file(path: &str) -> Problem {
    Problem::new(
        format!("there is no file {path:?} in that repo"),
        "`larder ls GROUP/REPO` shows its files",
    )
}

/// Returns the problem that says why there is nothing to write of a whole repo.
async fn nothing_in(place: &Place, repo: &Repo) -> Result<Problem> {
    let member = member_name(&place.group, repo.key()).await?;
    let state = repo.state(&Policy::Everything).await?;
    Ok(match state.announced.is_empty() {
        true => Problem::new(
            format!("no file of {} is known here", Shown(&member)),
            "`larder sync` fetches what there is",
        ),
        false => Problem::new(
            format!("the files of {} have not come here yet", Shown(&member)),
            "`larder sync` fetches them",
        ),
    })
}

/// The names and hashes that a stored file or folder is written as.
pub(crate) async fn files_of(blobs: &Blobs, named: Named) -> larder::Result<Vec<(String, Stored)>> {
    let entries = match named.root.format {
        Format::HashSeq | Format::Tree { .. } => load_collection(blobs, named.root.hash).await?,
        Format::Raw => {
            let last = named.name.rsplit('/').next().unwrap_or(&named.name);
            vec![(last.to_owned(), named.root.hash)]
        }
    };
    let files = entries.into_iter().map(|(name, hash)| (name, hash.into()));
    Ok(files.collect())
}
