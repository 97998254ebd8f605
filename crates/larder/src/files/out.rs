//! Writes stored files to disk: each name is checked first, no file appears half-written, and none is replaced unless
//! that was asked for.

mod place;
mod write;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Bytes, Error, Kind, Listing, Result, is_out_of_descriptors};
use larder_store_engine::{BlobStatus, Blobs, Hash};
#[cfg(feature = "groups")]
use larder_sync::{
    groups::Repo,
    tree::{FileEntry, Named},
};
use serde::{Deserialize, Serialize};

use self::{
    place::{Place, place_of},
    write::{folds_case, make_folder, sync_folder, write_one},
};
use super::{
    LeftOut, LeftOutItem, OPERATION, Observer, Reason, Rules, blocking, cannot_write, failed,
    to_paths,
};

pub use self::place::is_same;

/// The number of files that are looked at or written at once.
const FILES_AT_ONCE: usize = 8;

/// A request to write files into a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetRequest {
    /// The folder, which is made if it is missing.
    pub to: PathBuf,
    /// Replace files that are there with another content.
    pub overwrite: bool,
    /// The names that are accepted.
    pub rules: Rules,
}

impl GetRequest {
    /// A request to write into this folder, with portable names only, and to replace nothing.
    pub fn new(to: impl Into<PathBuf>) -> Self {
        Self {
            to: to.into(),
            overwrite: false,
            rules: Rules::Portable,
        }
    }
}

/// The result of writing files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Got {
    /// The folder.
    pub folder: String,
    /// The number of files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of files that were there before, with the same content.
    pub already_there: u64,
    /// The files that were not written, under their names.
    pub left_out: LeftOut,
}

/// The place of a file's bytes in a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Stored {
    /// A blob, as it is.
    Plain(Hash),
    /// A file of a group, sealed.
    #[cfg(feature = "groups")]
    Sealed(Repo, Box<FileEntry>),
}

impl From<Hash> for Stored {
    fn from(hash: Hash) -> Self {
        Self::Plain(hash)
    }
}

impl Stored {
    /// Returns the length of the file; `None` if it is not here completely.
    async fn size(&self, blobs: &Blobs) -> Result<Option<u64>> {
        let (blob, size) = match self {
            Self::Plain(hash) => (*hash, None),
            #[cfg(feature = "groups")]
            Self::Sealed(_, entry) => (entry.blob, Some(entry.size)),
        };
        Ok(match blobs.status(blob).await? {
            Some(BlobStatus::Complete { size: stored }) => Some(size.unwrap_or(stored)),
            Some(BlobStatus::Partial { .. }) | None => None,
        })
    }

    fn read(&self, blobs: &Blobs) -> Listing<Bytes> {
        match self {
            Self::Plain(hash) => blobs.read(*hash, 0..u64::MAX),
            #[cfg(feature = "groups")]
            Self::Sealed(repo, entry) => repo.read_entry(entry, 0..u64::MAX),
        }
    }
}

/// Returns the names and places of the files of a repo that a path stands for: one file under its last name, or all
/// files below a folder. Without a path, all files of the repo. It is empty if there is none.
#[cfg(feature = "groups")]
pub async fn files_in(repo: &Repo, path: Option<&str>) -> Result<Vec<(String, Stored)>> {
    let stored = |entry| Stored::Sealed(repo.clone(), Box::new(entry));
    let path = path.map(|path| path.trim_end_matches('/'));
    let path = path.filter(|path| !path.is_empty());
    if let Some(path) = path
        && let Some(entry) = repo.entry(path).await?
    {
        let last = path.rsplit('/').next().unwrap_or(path);
        return Ok(vec![(last.to_owned(), stored(entry))]);
    }
    let prefix = path.map_or(String::new(), |path| format!("{path}/"));
    let listed: Vec<_> = repo.list(&prefix).await?.try_collect().await?;
    let named = |Named { name, entry }| (name.as_str()[prefix.len()..].to_owned(), stored(entry));
    Ok(listed.into_iter().map(named).collect())
}

/// A file to write.
struct Planned {
    name: String,
    path: PathBuf,
    stored: Stored,
    size: u64,
}

/// Writes files, each with its name, below a folder. Durable when it returns. A file that cannot be written is left
/// out, and the others are written; files that are there with the same content are left alone, so that an interrupted
/// call can be repeated. Holes of sparse files are holes again, as far as they are long.
///
/// # Errors
/// [`Kind::Full`] if the disk is full; those of the store and of the whole folder.
pub async fn write_out(
    blobs: &Blobs,
    files: Vec<(String, Stored)>,
    request: &GetRequest,
    observer: &Observer,
) -> Result<Got> {
    let dir = request.to.as_path();
    let mut got = Got {
        folder: dir.display().to_string(),
        ..Got::default()
    };
    let mut named = Vec::with_capacity(files.len());
    for ((name, stored), path) in paths_of(files, request).await? {
        match path {
            Ok(path) => named.push((name, stored, dir.join(path))),
            Err(reason) => observer.leave_out(&mut got.left_out, LeftOutItem::new(name, reason)),
        }
    }
    let mut looked = stream::iter(named)
        .map(|(name, stored, path)| async move {
            let Some(size) = stored.size(blobs).await? else {
                let item = LeftOutItem::new(name, Reason::NotHere);
                return Ok(Err(item));
            };
            let file = Planned {
                name,
                path,
                stored,
                size,
            };
            Ok::<_, Error>(match place_of(blobs, &file, dir).await {
                Ok(place) => Ok((file, place)),
                Err(error) => Err(left_out(file.name, error)?),
            })
        })
        .buffered(FILES_AT_ONCE);
    let mut planned = Vec::new();
    while let Some(looked) = looked.try_next().await? {
        let item = match looked {
            Ok((_, Place::Same)) => {
                got.already_there += 1;
                continue;
            }
            Ok((file, Place::Taken)) if !request.overwrite => {
                LeftOutItem::new(file.name, Reason::InTheWay)
            }
            Ok((file, Place::Free | Place::Taken)) => {
                planned.push(file);
                continue;
            }
            Ok((file, Place::Blocked)) => LeftOutItem::new(file.name, Reason::Blocked),
            Err(item) => item,
        };
        observer.leave_out(&mut got.left_out, item);
    }
    drop(looked);
    let is_failure = got.left_out.count() > 0 && got.already_there == 0;
    if planned.is_empty() && is_failure {
        return Ok(got);
    }
    let sizes = planned.iter().map(|file| file.size);
    let bytes = sizes.fold(0, u64::saturating_add);
    observer.planned(planned.len() as u64, Some(bytes));
    let (folders, broken) = make_folders(dir, &planned).await?;
    let broken = &broken;
    let mut writes = stream::iter(planned)
        .map(|file| async move {
            let folder = file.path.parent().expect("it was joined to a folder");
            let written = match broken.get(folder) {
                Some(error) => Err(error.clone()),
                None => write_one(blobs, &file, request.overwrite, observer).await,
            };
            match written {
                Ok(()) => Ok(Ok(file.size)),
                Err(error) => match left_out(file.name, error) {
                    Ok(item) => Ok(Err(item)),
                    Err(error) => Err(failed("write", &file.path, error)),
                },
            }
        })
        .buffer_unordered(FILES_AT_ONCE);
    while let Some(written) = writes.try_next().await? {
        match written {
            Ok(size) => {
                got.files += 1;
                got.bytes = got.bytes.saturating_add(size);
            }
            Err(item) => observer.leave_out(&mut got.left_out, item),
        }
    }
    let target = dir.to_owned();
    blocking(move || {
        for folder in folders.iter().chain([&target]) {
            sync_folder(folder).map_err(|error| cannot_write(folder, error))?;
        }
        Ok(())
    })
    .await?;
    Ok(got)
}

type Paths = Vec<((String, Stored), Result<PathBuf, Reason>)>;

/// Returns the path of each file within the folder. Case distinguishes names if the folder's file system says so:
/// that is tried only if it matters.
async fn paths_of(files: Vec<(String, Stored)>, request: &GetRequest) -> Result<Paths> {
    let names = || files.iter().map(|(name, _)| name.as_str());
    let mut paths = to_paths(names(), request.rules, true);
    if paths.contains(&Err(Reason::CaseClash)) {
        let dir = request.to.clone();
        let folds = blocking(move || folds_case(&dir)).await?;
        if !folds {
            paths = to_paths(names(), request.rules, false);
        }
    }
    Ok(files.into_iter().zip(paths).collect())
}

/// Makes the folders of the files. Returns them, and the error of each that cannot be made.
async fn make_folders(
    dir: &Path,
    files: &[Planned],
) -> Result<(BTreeSet<PathBuf>, HashMap<PathBuf, Error>)> {
    // A folder comes before those in it.
    let inside = |folder: &&Path| folder.starts_with(dir) && *folder != dir;
    let folders: BTreeSet<PathBuf> = files
        .iter()
        .flat_map(|file| file.path.ancestors().skip(1).take_while(inside))
        .map(Path::to_owned)
        .collect();
    let target = dir.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&target).map_err(|error| cannot_write(&target, error))?;
        let mut made = BTreeSet::new();
        let mut broken = HashMap::new();
        for folder in folders {
            // What is below a link that cannot be a folder lies elsewhere.
            let above = folder.parent().and_then(|above| broken.get(above).cloned());
            let result: Result<()> = match above {
                Some(error) => Err(error),
                None => make_folder(&folder).map_err(|error| cannot_write(&folder, error)),
            };
            match result {
                Ok(()) => drop(made.insert(folder)),
                Err(error) => drop(broken.insert(folder, error)),
            }
        }
        Ok((made, broken))
    })
    .await
}

/// Returns the item that an error leaves out, or the error if it concerns all files.
fn left_out(name: String, error: Error) -> Result<LeftOutItem> {
    if is_out_of_descriptors(&error) {
        return Err(error);
    }
    let is_of_disk = error.operation() == OPERATION;
    let reason = match error.kind() {
        Kind::Full | Kind::Closed => return Err(error),
        _ if is_of_disk => Reason::Unwritable,
        Kind::NotFound => return Ok(LeftOutItem::new(name, Reason::NotHere)),
        Kind::Corrupt => Reason::Damaged,
        _ => return Err(error),
    };
    Ok(LeftOutItem::new(name, reason).because(&error))
}
