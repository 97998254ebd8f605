//! `larder cat`: a blob on standard output.

use anyhow::{Result, bail};
use futures_util::TryStreamExt;
use larder::Format;
use tokio::io::AsyncWriteExt;

use crate::{
    app::App,
    args::{self, ByteRange},
    find::find,
    problem::{Exit, Problem},
};

/// Every byte is verified before it is written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A hash, the name of a stored file, or NAME/path of a file in a stored folder
    #[arg(value_name = "HASH", value_parser = args::name())]
    what: String,
    /// Only these bytes: A..B, A.. or ..B, counted from 0, without B itself
    #[arg(long, value_name = "A..B")]
    range: Option<ByteRange>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let named = find(store.blobs(), &args.what).await?;
    if named.root.format != Format::Raw {
        bail!(Problem::usage(
            format!("{:?} is a folder", args.what),
            format!(
                "write a file of it: `larder cat {}/FILE`, or all: `larder get {} -o DIR`",
                args.what, args.what
            ),
        ));
    }
    let range = args.range.map_or(0..u64::MAX, |range| range.0);
    let mut pieces = store.blobs().read(named.root.hash, range);
    let mut out = tokio::io::stdout();
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece).await?;
    }
    out.flush().await?;
    Ok(Exit::Done)
}
