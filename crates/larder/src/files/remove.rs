//! Removes files from a repo.

use futures_util::TryStreamExt;
use larder_store_api::{Error, Kind, Result};
use larder_sync::{
    groups::{Changes, Repo},
    tree::Named,
};

use super::OPERATION;

/// Returns the change that removes a file of a repo, or a folder with all that is in it; the whole repo, where the
/// path is empty.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such file; [`Kind::Invalid`], with the number of files, where it is a folder
/// and `recursive` is not set.
pub async fn removal(repo: &Repo, path: &str, recursive: bool) -> Result<Changes> {
    let mut changes = Changes::new();
    let path = path.trim_end_matches('/');
    if !path.is_empty() && repo.entry(path).await?.is_some() {
        changes.remove(path.try_into()?);
        return Ok(changes);
    }
    let prefix = match path {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let mut files = repo.list(&prefix).await?;
    while let Some(Named { name, .. }) = files.try_next().await? {
        changes.remove(name);
    }
    if changes.is_empty() {
        let message = match path {
            "" => "that repo has no files".to_owned(),
            path => format!("there is no file {path:?} in that repo"),
        };
        return Err(Error::new(Kind::NotFound, OPERATION, message));
    }
    if !recursive {
        let message = match path {
            "" => "this is a whole repo".to_owned(),
            path => format!("{path:?} is a folder"),
        };
        let error = Error::new(Kind::Invalid, OPERATION, message);
        return Err(error.with("files", changes.len()));
    }
    Ok(changes)
}
