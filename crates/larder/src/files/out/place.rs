//! Looks at what is in a file's place.

use std::{io, path::Path};

use futures_util::TryStreamExt;
use larder_descriptors::Descriptors;
use larder_store_api::Result;
use larder_store_engine::Blobs;
use tokio::io::AsyncReadExt;

use super::{Planned, Stored};
use crate::files::{cannot_read, cannot_write};

/// The number of bytes of a file that are compared at once.
const PIECE: usize = 256 * 1024;

/// The object in a file's place.
pub(super) enum Place {
    Free,
    /// A file with the same content.
    Same,
    /// Another file.
    Taken,
    /// A folder or a link, which is never replaced; or a link or file where a folder must be.
    Blocked,
}

pub(super) async fn place_of(blobs: &Blobs, file: &Planned, dir: &Path) -> Result<Place> {
    // Through a link, also one further up, a file could come to lie outside.
    let inside = file.path.ancestors().skip(1);
    for folder in inside.take_while(|path| path.starts_with(dir) && *path != dir) {
        match tokio::fs::symlink_metadata(folder).await {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(Place::Blocked),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(cannot_write(folder, error)),
        }
    }
    match tokio::fs::symlink_metadata(&file.path).await {
        Err(error) if is_absent(&error) => Ok(Place::Free),
        Err(error) => Err(cannot_write(&file.path, error)),
        Ok(found) if !found.is_file() => Ok(Place::Blocked),
        Ok(found) if found.len() != file.size => Ok(Place::Taken),
        Ok(_) => Ok(match is_same(blobs, &file.stored, &file.path).await? {
            true => Place::Same,
            false => Place::Taken,
        }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns true if the file at `path` has the very bytes that are stored.
pub async fn is_same(blobs: &Blobs, stored: &Stored, path: &Path) -> Result<bool> {
    let fail = |error| cannot_read(path, error);
    // Held until both are read, while only calls into the store are waited for.
    let _permit = Descriptors::of_process().file().await;
    let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
    let mut buffer = vec![0; PIECE];
    let mut pieces = stored.read(blobs);
    while let Some(piece) = pieces.try_next().await? {
        for part in piece.chunks(PIECE) {
            let found = &mut buffer[..part.len()];
            match file.read_exact(found).await {
                Ok(_) if found == part => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(fail(error)),
            }
        }
    }
    let rest = file.read(&mut buffer).await.map_err(fail)?;
    Ok(rest == 0)
}
