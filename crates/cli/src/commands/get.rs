//! `larder get`: a stored file or folder, written to disk.

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{Blobs, Format, Store, iroh::load_collection};

use crate::{
    app::App,
    args,
    export::{Stored, write_out},
    find::{Named, find, is_absence},
    groups::{Place, known, place},
    problem::{Exit, Problem},
};

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
    let files = match in_group(&store, &args.name).await? {
        Some(place) => files_in(&place).await?,
        None => files_of(blobs, find(blobs, &args.name).await?).await?,
    };
    let written = write_out(app, blobs, files, &args.to.output, args.to.how).await?;
    app.out.result(&written, &written)?;
    Ok(Exit::Done)
}

/// What `text` stands for where it begins with a group. What the store has under this name itself comes
/// first, and needs no keys.
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
    if listed.is_empty() && !prefix.is_empty() {
        return Err(Problem::new(
            format!(
                "there is no file {:?} in that repo",
                path.unwrap_or_default()
            ),
            "`larder ls GROUP/REPO` shows its files",
        )
        .into());
    }
    let named = |(name, entry): (larder::groups::Name, _)| {
        (name.as_str()[prefix.len()..].to_owned(), stored(entry))
    };
    Ok(listed.into_iter().map(named).collect())
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
