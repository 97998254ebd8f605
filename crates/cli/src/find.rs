//! The meaning of a word on the command line: a name, a path inside a stored folder, or a hash.

use anyhow::Result;
pub(crate) use larder::files::Named;
use larder::{Blobs, Error, Kind, files};

use crate::problem::Problem;

/// Finds the item that `text` stands for, or returns an error that says what to do.
pub(crate) async fn find(blobs: &Blobs, text: &str) -> Result<Named> {
    let error = match files::find(blobs, text).await {
        Err(error) if error.operation() == files::OPERATION => error,
        found => return Ok(found?),
    };
    let folder = error.context().find(|(key, _)| *key == "folder");
    Err(match folder {
        Some((_, folder)) if looks_escaped(text) => Problem::new(
            error.message(),
            format!(
                "a name that is shown with \\u{{…}} cannot be typed so: its hash works, which `larder ls -v {folder:?}` \
                 shows"
            ),
        ),
        Some((_, folder)) => Problem::new(
            error.message(),
            format!("`larder ls {folder:?}` shows its files"),
        ),
        None => Problem::no_such_name(text),
    }
    .into())
}

/// Returns true if a name seems to be copied from a list, where it is [escaped](crate::output::Shown).
pub(crate) fn looks_escaped(name: &str) -> bool {
    name.contains("\\u{")
}

/// Returns true if [`find`] found nothing, or nothing that it could look into, and the store did
/// not fail.
pub(crate) fn is_absence(error: &anyhow::Error) -> bool {
    let of_store = error.downcast_ref::<Error>().map(Error::kind);
    match of_store {
        Some(kind) => matches!(kind, Kind::NotFound | Kind::Invalid | Kind::TooLarge),
        None => error.is::<Problem>(),
    }
}
