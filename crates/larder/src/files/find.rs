//! The meaning of a text among the names of a store.

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Blobs, Format, Hash, Root, TagName};
use larder_store_iroh::load_folder;

use super::{OPERATION, Stored};

/// Something stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name; a hash if it has no name.
    pub name: String,
    /// The root of its bytes.
    pub root: Root,
}

impl Named {
    /// An item with this name.
    pub fn new(name: impl Into<String>, root: Root) -> Self {
        let name = name.into();
        Self { name, root }
    }
}

/// Finds the item that `text` stands for: a name, then a file within a folder (`NAME/path`), then a hash.
///
/// # Errors
/// [`Kind::NotFound`] if it stands for nothing: with the folder in the context if that lacks a file.
pub async fn find(blobs: &Blobs, text: &str) -> Result<Named> {
    let tags = blobs.tags();
    if let Some(root) = tags.get(&TagName::try_from(text)?).await? {
        return Ok(Named::new(text, root));
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
            Some((_, hash)) => Ok(Named::new(path, Root::raw(hash))),
            None => {
                let message = format!("the folder {folder:?} has no file {path:?}");
                Err(Error::new(Kind::NotFound, OPERATION, message).with("folder", folder))
            }
        };
    }
    match text.parse::<Hash>() {
        Ok(hash) => Ok(Named::new(text, Root::raw(hash))),
        Err(_) => {
            let message = format!("nothing is stored under the name {text:?}");
            Err(Error::new(Kind::NotFound, OPERATION, message))
        }
    }
}

/// Returns the names and places of the files that a stored file or folder is written as.
///
/// # Errors
/// The errors of [`load_folder`].
pub async fn files_of(blobs: &Blobs, named: &Named) -> Result<Vec<(String, Stored)>> {
    let entries = match named.root.format {
        Format::HashSeq | Format::Tree { .. } => load_folder(blobs, named.root.hash).await?,
        Format::Raw => {
            let last = named.name.rsplit('/').next().unwrap_or(&named.name);
            vec![(last.to_owned(), named.root.hash)]
        }
    };
    let files = entries.into_iter().map(|(name, hash)| (name, hash.into()));
    Ok(files.collect())
}
