//! `larder get`: a stored file or folder, written to disk.

use anyhow::Result;
use larder::{Blobs, Format, iroh::load_collection};

use crate::{
    app::App,
    args,
    export::write_out,
    find::{Named, find},
    problem::Exit,
};

/// The files of a folder come directly into DIR, a file under its name. Every name is checked
/// before anything is written: none can leave DIR. Files that are there with the same content are
/// left alone, so that an interrupted run can be repeated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name, NAME/path of a file in a folder, or a hash
    #[arg(value_parser = args::name())]
    name: String,
    #[command(flatten)]
    to: args::Output,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let named = find(blobs, &args.name).await?;
    let files = files_of(blobs, named).await?;
    let written = write_out(app, blobs, files, &args.to.output, args.to.how).await?;
    app.out.result(&written, &written)?;
    Ok(Exit::Done)
}

/// The names and hashes that a stored file or folder is written as.
pub(crate) async fn files_of(
    blobs: &Blobs,
    named: Named,
) -> larder::Result<Vec<(String, larder::Hash)>> {
    match named.root.format {
        Format::HashSeq | Format::Tree { .. } => load_collection(blobs, named.root.hash).await,
        Format::Raw => {
            let last = named.name.rsplit('/').next().unwrap_or(&named.name);
            Ok(vec![(last.to_owned(), named.root.hash)])
        }
    }
}
