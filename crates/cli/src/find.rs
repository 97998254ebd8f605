//! The meaning of a word on the command line: a name, a path inside a stored folder, or a hash.

use anyhow::Result;
use larder::{Blobs, Error, Format, Hash, Kind, Root, TagName, iroh::load_folder};

use crate::problem::Problem;

/// Something stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The name; a hash if it has no name.
    pub(crate) name: String,
    pub(crate) root: Root,
}

/// Finds what `text` stands for: a name, then a file within a folder (`NAME/path`), then a hash.
pub(crate) async fn find(blobs: &Blobs, text: &str) -> Result<Named> {
    let tags = blobs.tags();
    if let Some(root) = tags.get(&TagName::try_from(text)?).await? {
        return Ok(Named {
            name: text.to_owned(),
            root,
        });
    }
    for (at, _) in text.rmatch_indices('/') {
        let (folder, path) = (&text[..at], &text[at + 1..]);
        if folder.is_empty() {
            continue;
        }
        let Some(root) = tags.get(&TagName::try_from(folder)?).await? else {
            continue;
        };
        if root.format != Format::HashSeq {
            continue;
        }
        let entries = load_folder(blobs, root.hash).await?;
        return match entries.into_iter().find(|(name, _)| name == path) {
            Some((_, hash)) => Ok(Named {
                name: path.to_owned(),
                root: Root::raw(hash),
            }),
            None => Err(Problem::new(
                format!("the folder {folder:?} has no file {path:?}"),
                format!("`larder ls {folder:?}` shows its files"),
            )
            .into()),
        };
    }
    match text.parse::<Hash>() {
        Ok(hash) => Ok(Named {
            name: text.to_owned(),
            root: Root::raw(hash),
        }),
        Err(_) => Err(Problem::no_such_name(text).into()),
    }
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
