//! Puts files of this machine into a repo, and makes the repo's folder equal to that of the machine.

mod old;

use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::Source;
use larder_sync::{
    groups::{Changes, Repo, Staged, WriteOptions, Written},
    tree::Name,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use self::old::{Names, Old};
use super::{
    Found, IN_FLIGHT, LeftOut, LeftOutItem, Listed, OPERATION, Observer, Reason, Walk, WalkOptions,
    add::{check_outside, is_about, is_changing, moves, open_stores},
    cannot_read, default_name, failed,
    names::check_len,
    walk,
};
use crate::Store;

/// The number of files that become visible together. Files that were put before an interruption stay.
const TOGETHER: usize = 4096;

/// A request to put a file or a folder into a repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PutRequest {
    /// The file or folder. A link that is named is followed, unlike those in a folder.
    pub path: PathBuf,
    /// Its name in the repo; without one, the [last component](default_name) of the path.
    pub name: Option<String>,
    /// The folder of the repo to put it into; without one, the repo's root.
    pub to: Option<String>,
    /// Remove the files of the repo's folder that the folder on this machine does not have. A folder without any entry
    /// removes none of those below it: its disk may not be mounted.
    pub mirror: bool,
    /// Take folders that a CACHEDIR.TAG marks as caches too.
    pub include_caches: bool,
    /// Read files too whose length and time are those of the file in the repo.
    pub read_all: bool,
    /// End with an error at the first file that cannot be read, instead of leaving it out.
    pub fail_fast: bool,
    /// The folders of other open stores, which are left out as that of this store is.
    pub open_stores: Vec<PathBuf>,
}

impl PutRequest {
    /// A request to put this path into the repo's root, under its own name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            name: None,
            to: None,
            mirror: false,
            include_caches: false,
            read_all: false,
            fail_fast: false,
            open_stores: Vec::new(),
        }
    }

    /// Returns the name in the repo, which may be that of a folder.
    fn top(&self) -> Result<String> {
        let own = match &self.name {
            Some(name) => name.clone(),
            None => default_name(&self.path)?,
        };
        top(&own, self.to.as_deref())
    }
}

fn top(own: &str, to: Option<&str>) -> Result<String> {
    let top = match to.map(|folder| folder.trim_end_matches('/')) {
        None | Some("") => own.to_owned(),
        Some(folder) => format!("{folder}/{own}"),
    };
    Name::new(&top)?;
    Ok(top)
}

/// The result of putting files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PutDone {
    /// The number of files that are new or changed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of files that were in the repo already.
    pub unchanged: u64,
    /// The names that were removed from the repo: those that stood in the way of a new file, had its name in another
    /// case, or, with [`mirror`](PutRequest::mirror), are not in the folder.
    pub removed: Listed,
    /// The names that are in the repo and not in the folder, and stay.
    pub kept: Listed,
    /// The items that were left out. Whatever the repo has of them stays.
    pub left_out: LeftOut,
}

/// Puts a file or folder into a repo. Durable when it returns.
///
/// The tree never holds a name that is also a folder: a file that became a folder is replaced by it, and the other
/// way round. So is a name by one that differs from it only in case, if the folder has just that one.
///
/// ```
/// use larder::{
///     Store,
///     files::{self, Observer, PutRequest},
/// };
///
/// # async fn example() -> larder::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// # let photos = dir.path().join("photos");
/// # std::fs::create_dir(&photos).expect("a folder");
/// # std::fs::write(photos.join("lake.jpg"), "cold").expect("a file");
/// # std::fs::write(photos.join("oops.jpg"), "private").expect("a file");
/// let store = Store::open("mem:").await?;
/// let group = store.groups().await?.create_group("photos").await?;
/// let repo = group.create_repo("ann").await?;
/// let mut request = PutRequest::new(&photos);
/// let put = files::put(&store, &repo, &request, &Observer::none()).await?;
/// assert_eq!(put.files, 2);
///
/// # std::fs::remove_file(photos.join("oops.jpg")).expect("it is removed");
/// request.mirror = true; // a deleted file goes from the repo too
/// let put = files::put(&store, &repo, &request, &Observer::none()).await?;
/// assert_eq!(put.removed.names, ["photos/oops.jpg"]);
/// store.close().await
/// # }
/// # tokio::runtime::Runtime::new().expect("a runtime").block_on(example())?;
/// # larder::Result::<()>::Ok(())
/// ```
///
/// # Errors
/// [`Kind::NotFound`] if there is no such path; [`Kind::Denied`] if the repo is not ours; [`Kind::Invalid`]
/// if the path is neither a file nor a folder or has no name, or if a single file would take the place of a
/// folder with files in it; any error of reading with [`fail_fast`](PutRequest::fail_fast).
pub async fn put(
    store: &Store,
    repo: &Repo,
    request: &PutRequest,
    observer: &Observer,
) -> Result<PutDone> {
    let top = request.top()?;
    let (walked, is_folder) = find(store, request, &top, observer).await?;
    let Walk {
        files,
        left_out,
        unknown,
        empty,
    } = walked;
    let mut unknown = Names::new(unknown);
    // A folder without any file, or one in it, is more often a disk that is not mounted than a wish.
    let (removes, empty) = (request.mirror && !files.is_empty(), Names::new(empty));
    let mut done = PutDone {
        left_out,
        ..PutDone::default()
    };
    let bytes = files.iter().map(|file| file.size).sum();
    observer.planned(files.len() as u64, Some(bytes));
    let mut old = match is_folder {
        true => Old::list(repo, &top, &files, &unknown).await?,
        false => Old::in_the_way(repo, &top).await?,
    };
    let mut first_error = None;
    for some in files.chunks(TOGETHER) {
        let mut staged = stream::iter(some)
            .map(|file| async move { (file, stage(repo, file, request.read_all, observer).await) })
            .buffer_unordered(IN_FLIGHT);
        let mut changes = Changes::new();
        while let Some((file, staged)) = staged.next().await {
            let staged = match staged {
                Ok(staged) => staged,
                Err(error) if request.fail_fast || !is_about(&error, &file.path) => {
                    return Err(failed("put", &file.path, error));
                }
                Err(error) => {
                    let reason = match is_changing(&error) {
                        true => Reason::Changing,
                        false => Reason::Unreadable,
                    };
                    let item = LeftOutItem::new(file.path.to_string_lossy(), reason);
                    observer.leave_out(&mut done.left_out, item.because(&error));
                    unknown.insert(&file.name);
                    first_error.get_or_insert_with(|| failed("put", &file.path, error));
                    continue;
                }
            };
            for name in old.replaced_by(&file.name) {
                done.removed.add(name.as_str());
                changes.remove(name);
            }
            match staged {
                Some((name, staged)) => {
                    done.files += 1;
                    done.bytes = done.bytes.saturating_add(staged.entry.size);
                    changes.put(name, staged);
                }
                None => done.unchanged += 1,
            }
        }
        if !changes.is_empty() {
            let changed = repo.change(changes).await;
            changed.map_err(|error| failed("put", &request.path, error))?;
        }
    }
    // A single file is all that was asked for.
    if let Some(error) = first_error.filter(|_| !is_folder) {
        return Err(error);
    }
    let mut changes = Changes::new();
    for name in old.rest(&unknown) {
        match removes && !empty.cover(name.as_str()) {
            true => {
                done.removed.add(name.as_str());
                changes.remove(name);
            }
            false => done.kept.add(name.as_str()),
        }
    }
    if !changes.is_empty() {
        repo.change(changes).await?;
    }
    Ok(done)
}

/// Puts the bytes of a stream into a repo under a name, below the folder `to`. They are stored again each time, as
/// they are read once.
///
/// # Errors
/// The errors of [`put`], and those of the stream.
pub async fn put_stream(
    repo: &Repo,
    name: &str,
    to: Option<&str>,
    reader: impl AsyncRead + Send + Unpin + 'static,
    observer: &Observer,
) -> Result<PutDone> {
    let name = Name::new(top(name, to)?)?;
    let mut removed = Listed::default();
    for name in Old::in_the_way(repo, name.as_str())
        .await?
        .replaced_by(name.as_str())
    {
        removed.add(name.as_str());
    }
    observer.planned(1, None);
    let content = Source::reader(reader);
    let write = repo.write_with(name.as_str(), content, options(observer));
    let entry = write.await?;
    Ok(PutDone {
        files: 1,
        bytes: entry.size,
        removed,
        ..PutDone::default()
    })
}

/// Tells of the bytes of a file that are stored.
fn options(observer: &Observer) -> WriteOptions {
    let moved = moves(observer);
    WriteOptions::new().progress(move |written| {
        if let Written::Stored(bytes) = written {
            moved(bytes);
        }
    })
}

/// Finds the files of a path, under their names in the repo. The second value is true for a folder.
async fn find(
    store: &Store,
    request: &PutRequest,
    top: &str,
    observer: &Observer,
) -> Result<(Walk, bool)> {
    let path = request.path.as_path();
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|error| cannot_read(path, error))?;
    if metadata.is_file() {
        check_outside(store, path, &request.open_stores).await?;
        let file = Found::new(path.to_owned(), top.to_owned(), &metadata);
        let walk = Walk {
            files: vec![file],
            ..Walk::default()
        };
        return Ok((walk, false));
    }
    if !metadata.is_dir() {
        let message = format!("{} is neither a file nor a folder", path.display());
        return Err(Error::new(Kind::Invalid, OPERATION, message));
    }
    let options = WalkOptions {
        include_caches: request.include_caches,
        fail_fast: request.fail_fast,
        open_stores: open_stores(store, &request.open_stores),
    };
    let mut found = walk(path, &options, observer).await?;
    for name in found.unknown.iter_mut().chain(&mut found.empty) {
        *name = format!("{top}/{name}");
    }
    let mut files = Vec::with_capacity(found.files.len());
    for mut file in std::mem::take(&mut found.files) {
        file.name = format!("{top}/{}", file.name);
        match check_len(&file.name) {
            Ok(()) => files.push(file),
            Err(reason) if request.fail_fast => {
                let message = format!("{}: {reason}: shorten it", file.path.display());
                return Err(Error::new(Kind::Invalid, OPERATION, message));
            }
            Err(reason) => {
                let item = LeftOutItem::new(file.path.to_string_lossy(), reason);
                observer.leave_out(&mut found.left_out, item);
            }
        }
    }
    found.files = files;
    Ok((found, true))
}

/// Seals a file, unless it is in the repo as it is, and its bytes are here.
async fn stage(
    repo: &Repo,
    file: &Found,
    read_all: bool,
    observer: &Observer,
) -> Result<Option<(Name, Staged)>> {
    let name = Name::new(&file.name)?;
    let known = repo.entry(name.as_str()).await?;
    let is_here = match &known {
        Some(known) => repo.has(known).await?,
        None => false,
    };
    let is_same = known
        .as_ref()
        .is_some_and(|known| (known.size, known.modified) == (file.size, file.modified));
    if is_here && is_same && !read_all {
        observer.moved(file.size);
        return Ok(None);
    }
    let options = options(observer).modified(file.modified);
    let staged = repo.stage_with(&file.path, options).await?;
    let is_equal = known.is_some_and(|known| known == staged.entry);
    // A file that was lost is put again, though the tree has named it all along.
    Ok((!is_equal || !is_here).then_some((name, staged)))
}
