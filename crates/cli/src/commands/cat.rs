//! `larder cat`: a blob, or a file of a group, on standard output.

use std::ops::Range;

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{BlobStatus, Blobs, Bytes, Format, Listing};
use tokio::io::AsyncWriteExt;

use super::get::{From, in_group, no_file, not_here};
use crate::{
    app::App,
    args::{self, ByteRange},
    find::find,
    groups::{Absent, Place},
    problem::{Exit, Problem},
};

/// Write a blob, or a range of it, to standard output
///
/// Every byte is verified before it is written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A hash, the name of a stored file, NAME/path of a file in a stored folder, or GROUP/REPO/PATH
    #[arg(value_name = "NAME", value_parser = args::name())]
    what: String,
    /// Write only these bytes: A..B, A.. or ..B, counted from 0, without B itself; B may be beyond the end, A may not
    #[arg(long, value_name = "A..B")]
    range: Option<ByteRange>,
    #[command(flatten)]
    from: From,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let range = args.range.clone().map_or(0..u64::MAX, |range| range.0);
    let mut pieces = match in_group(&store, &args.what).await? {
        Some(place) => {
            if let Some(absent) = absent(&place).await? {
                args.from.fetch(app, &store, &[absent]).await?;
            }
            of_group(&place, &args, range).await?
        }
        None => of_store(store.blobs(), &args.what, range).await?,
    };
    let mut out = tokio::io::stdout();
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece).await?;
    }
    out.flush().await?;
    Ok(Exit::Done)
}

/// The bytes of a file that the store itself has.
async fn of_store(blobs: &Blobs, what: &str, range: Range<u64>) -> Result<Listing<Bytes>> {
    let named = find(blobs, what).await?;
    if named.root.format != Format::Raw {
        return Err(is_folder(what).into());
    }
    if let Some(BlobStatus::Complete { size }) = blobs.status(named.root.hash).await? {
        check_start(&range, size)?;
    }
    Ok(blobs.read(named.root.hash, range))
}

/// Checks that a range does not begin beyond the end: there is nothing to write, and its offsets are wrong.
fn check_start(range: &Range<u64>, size: u64) -> Result<(), Problem> {
    match range.start > size {
        false => Ok(()),
        true => Err(Problem::new(
            format!(
                "the range begins at byte {}, and the file has {size} byte(s)",
                range.start
            ),
            "write a range that begins within the file",
        )),
    }
}

/// Returns the file of a group that is meant, if its bytes are not here.
async fn absent(place: &Place) -> Result<Option<Absent>> {
    let (Some(member), Some(path)) = (&place.member, &place.path) else {
        return Ok(None);
    };
    let path = path.trim_end_matches('/');
    Ok(match member.repo.entry(path).await? {
        Some(entry) if !member.repo.has(&entry).await? => Some(Absent::new(&member.repo, path)),
        _ => None,
    })
}

/// The bytes of a file of a group.
async fn of_group(place: &Place, args: &Args, range: Range<u64>) -> Result<Listing<Bytes>> {
    let what = &args.what;
    let (Some(member), Some(path)) = (&place.member, &place.path) else {
        return Err(is_folder(what).into());
    };
    let repo = &member.repo;
    let path = path.trim_end_matches('/');
    let Some(entry) = repo.entry(path).await? else {
        let mut below = repo.list(&format!("{path}/")).await?;
        return Err(match below.try_next().await? {
            Some(_) => is_folder(what),
            None => no_file(path),
        }
        .into());
    };
    if !repo.has(&entry).await? {
        return Err(not_here(path, args.from).into());
    }
    check_start(&range, entry.size)?;
    Ok(repo.read_entry(&entry, range))
}

fn is_folder(what: &str) -> Problem {
    let what = what.trim_end_matches('/');
    Problem::usage(
        format!("{what:?} is a folder"),
        format!("write a file of it: `larder cat {what}/FILE`, or all: `larder get {what} -o DIR`"),
    )
}
