//! `larder ls`: what is stored.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{BlobStatus, Blobs, Format, Hash, Root, Store, groups::TAG_PREFIX, iroh::load_folder};
use serde::Serialize;

use super::get::{in_group, no_file};
use crate::{
    app::App,
    args,
    find::find,
    groups::{Place, known, of_file, of_group, of_repo},
    item::{Columns, Item, as_text},
    output::Bytes,
    problem::Exit,
};

/// The number of files that are looked at in advance.
const IN_FLIGHT: usize = 64;

/// List names and groups, or the files of one
///
/// Without a name, lists the names and groups of the store; with one, the files of a folder, the members of a
/// group, or the files in a member's repo. Shows how much of an incomplete item is here. With -v,
/// lines end with hashes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A stored folder, or GROUP, GROUP/REPO or GROUP/REPO/FOLDER; without it, the names and groups of
    /// the store
    #[arg(value_parser = args::name(), conflicts_with = "blobs")]
    name: Option<String>,
    /// List every blob, even those that no name reaches
    #[arg(long)]
    blobs: bool,
}

/// A blob, by its hash alone.
#[derive(Debug, Serialize)]
struct Blob {
    #[serde(serialize_with = "as_text")]
    hash: Hash,
    size: u64,
    present: u64,
    complete: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let columns = Columns::new(app.out.verbose);
    match args.name {
        None if args.blobs => list_blobs(app, blobs).await?,
        None => {
            app.out.heading(columns.heading())?;
            let mut tags = blobs.tags().list(..);
            while let Some(tag) = tags.try_next().await? {
                if tag.name.as_bytes().starts_with(TAG_PREFIX.as_bytes()) {
                    continue;
                }
                let item = Item::of(blobs, tag.name.to_string(), tag.root).await?;
                app.out.result(&item, columns.line(&item))?;
            }
            list_groups(app, &store, columns).await?;
        }
        Some(name) => match in_group(&store, &name).await? {
            Some(place) => list_place(app, blobs, &place, columns).await?,
            None => list_folder(app, blobs, &name, columns).await?,
        },
    }
    Ok(Exit::Done)
}

async fn list_groups(app: &App, store: &Store, columns: Columns) -> Result<()> {
    if let Some(groups) = known(store).await? {
        for group in groups.groups() {
            let item = of_group(store.blobs(), &group).await?;
            app.out.result(&item, columns.line(&item))?;
        }
    }
    Ok(())
}

async fn list_place(app: &App, blobs: &Blobs, place: &Place, columns: Columns) -> Result<()> {
    let Some(member) = &place.member else {
        app.out.heading(columns.heading())?;
        for member in place.group.members().await? {
            let item = of_repo(blobs, &member).await?;
            app.out.result(&item, columns.line(&item))?;
        }
        return Ok(());
    };
    let path = place.path.as_deref().unwrap_or_default();
    // Over the first line; of nothing there is none.
    let mut heading = Some(columns.heading());
    let mut files = member.repo.list(path).await?;
    while let Some(larder::groups::Named { name, entry }) = files.try_next().await? {
        // The file itself, or what is in the folder; not what only begins alike.
        let rest = &name.as_str()[path.len()..];
        if path.is_empty() || path.ends_with('/') || rest.is_empty() || rest.starts_with('/') {
            let item = of_file(blobs, &name, &entry).await?;
            if let Some(heading) = heading.take() {
                app.out.heading(heading)?;
            }
            app.out.result(&item, columns.line(&item))?;
        }
    }
    match heading {
        Some(_) if !path.is_empty() => Err(no_file(path).into()),
        Some(heading) => Ok(app.out.heading(heading)?),
        None => Ok(()),
    }
}

async fn list_folder(app: &App, blobs: &Blobs, name: &str, columns: Columns) -> Result<()> {
    let named = find(blobs, name).await?;
    app.out.heading(columns.heading())?;
    if named.root.format == Format::Raw {
        let item = Item::of(blobs, named.name, named.root).await?;
        return Ok(app.out.result(&item, columns.line(&item))?);
    }
    let entries = load_folder(blobs, named.root.hash).await?;
    let mut items = stream::iter(entries)
        .map(|(name, hash)| Item::of(blobs, name, Root::raw(hash)))
        .buffered(IN_FLIGHT);
    while let Some(item) = items.try_next().await? {
        app.out.result(&item, columns.line(&item))?;
    }
    Ok(())
}

async fn list_blobs(app: &App, blobs: &Blobs) -> Result<()> {
    app.out.heading(
        "HASH                                                                    SIZE  STATE",
    )?;
    let mut all = blobs.list();
    while let Some((hash, status)) = all.try_next().await? {
        let (size, present, complete) = match status {
            BlobStatus::Complete { size } => (size, size, true),
            BlobStatus::Partial { size, present, .. } => (size, present, false),
        };
        let state = if complete {
            "complete".to_owned()
        } else {
            format!("incomplete: {} here", Bytes(present))
        };
        let text = format!("{hash}  {:>10}  {state}", Bytes(size));
        let blob = Blob {
            hash,
            size,
            present,
            complete,
        };
        app.out.result(&blob, text)?;
    }
    Ok(())
}
