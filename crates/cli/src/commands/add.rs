//! `larder add`: stores files and folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::BytesMut;
use futures_util::stream;
use larder::{AddOptions, Blobs, Source, TagName};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use crate::{
    app::App,
    args,
    ingest::{default_name, ingest, report_to},
    item::{Item, ItemKind},
    output::Unit,
    problem::{Exit, Problem},
    walk::{Skipped, WalkOptions},
};

/// The number of bytes of standard input that are read at once.
const PIECE: usize = 256 * 1024;

/// Each path is stored under its last component. A name that is taken gets the new content, and
/// `gc` then frees the old. Links inside a folder are not followed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files and folders; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Another name, for one path
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// Leave out files that cannot be read or whose names are not Unicode, and say how many
    #[arg(long)]
    skip_unreadable: bool,
    /// Take folders too that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    include_caches: bool,
}

/// The result of adding.
#[derive(Debug, Serialize)]
struct Added {
    #[serde(flatten)]
    item: Item,
    skipped: Skipped,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let names = names(&args)?;
    let store = app.store().await?;
    let blobs = store.blobs();
    app.out.heading(Item::HEADING)?;
    for (path, name) in args.paths.iter().zip(names) {
        let tag = TagName::try_from(name.as_str())?;
        let before = blobs.tags().get(&tag).await?;
        let (item, skipped) = if is_stdin(path) {
            (add_stdin(app, blobs, &name, tag).await?, Skipped::default())
        } else {
            let options = WalkOptions {
                include_caches: args.include_caches,
                skip_unreadable: args.skip_unreadable,
                never: Vec::new(),
            };
            let added = ingest(app, blobs, path, &name, options).await?;
            (added.item, added.skipped)
        };
        let added = Added { item, skipped };
        app.out.result(&added, &added.item)?;
        if let Some(text) = added.skipped.summary() {
            app.out.note(format_args!("{}: {text}", path.display()));
        }
        if let Some(before) = before.filter(|root| root.hash != added.item.hash) {
            app.out.note(format_args!(
                "{}: was {} before; `larder gc` frees what only that needed",
                added.item.name, before.hash
            ));
        }
    }
    Ok(Exit::Done)
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The name for each path; all are known before anything is stored.
fn names(args: &Args) -> Result<Vec<String>> {
    if let Some(name) = &args.name {
        if args.paths.len() > 1 {
            return Err(Problem::usage(
                "--name is for one path",
                "add the others with a command of their own",
            )
            .into());
        }
        return Ok(vec![name.clone()]);
    }
    let mut names: Vec<String> = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        if is_stdin(path) {
            return Err(
                Problem::usage("standard input has no name", "give it one with --name").into(),
            );
        }
        let name = default_name(path)?;
        if names.contains(&name) {
            return Err(Problem::usage(
                format!("two paths would be stored under the name {name:?}"),
                "add one of them with a command of its own, with --name",
            )
            .into());
        }
        names.push(name);
    }
    Ok(names)
}

async fn add_stdin(app: &App, blobs: &Blobs, name: &str, tag: TagName) -> Result<Item> {
    let bar = app.out.progress(Unit::Bytes, None, "storing");
    let pieces = stream::try_unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = stdin.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), stdin)))
    });
    let options = AddOptions::default().tag(tag).progress(report_to(&bar));
    let pin = blobs
        .add_with(Source::Stream(Box::pin(pieces)), options)
        .await
        .context("cannot store standard input")?;
    bar.finish_and_clear();
    let size = pin.size().unwrap_or(0);
    Ok(Item {
        name: name.to_owned(),
        kind: ItemKind::File,
        hash: pin.hash(),
        size,
        files: None,
        present: size,
        complete: true,
    })
}
