//! Stores files and folders: a file as a blob, a folder as an iroh collection.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{AddOptions, Blobs, Hash, Pin, Root, Source, TagName};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use super::{
    LeftOut, OPERATION, Observer, as_text, blocking, cannot_read, default_name, failed,
    stores::OpenStores, tag_of,
};
use crate::Store;

/// A request to store a file or a folder under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AddRequest {
    /// The file or folder. A link that is named is followed, unlike those in a folder.
    pub path: PathBuf,
    /// The name; without one, the [last component](default_name) of the path.
    pub name: Option<String>,
    /// Take folders that a CACHEDIR.TAG marks as caches too.
    pub include_caches: bool,
    /// End with an error at the first file that cannot be read, instead of leaving it out.
    pub fail_fast: bool,
    /// The folders of other open stores, which are left out as that of this store is.
    pub open_stores: Vec<PathBuf>,
}

impl AddRequest {
    /// A request to store this path under its own name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            name: None,
            include_caches: false,
            fail_fast: false,
            open_stores: Vec::new(),
        }
    }
}

/// A file or folder that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Its hash: that of a file's bytes, or of a folder's collection.
    #[serde(with = "as_text")]
    pub hash: Hash,
    /// The length of all its files, in bytes.
    pub size: u64,
    /// The number of its files; `None` if it is a file itself.
    pub files: Option<u64>,
    /// The hash that had the name before, if that was another one.
    pub replaced: Option<String>,
    /// The items of the folder that were left out.
    pub left_out: LeftOut,
}

impl Added {
    fn new(pin: &Pin, name: &str, before: Option<Root>) -> Self {
        let replaced = before.filter(|root| root.hash != pin.hash());
        Self {
            name: name.to_owned(),
            hash: pin.hash(),
            size: pin.size().unwrap_or(0),
            files: None,
            replaced: replaced.map(|root| root.hash.to_string()),
            left_out: LeftOut::default(),
        }
    }
}

/// Stores a file or a folder under a name. Name and content become visible together, at the end; a name that is
/// taken gets the new content.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such path; [`Kind::Invalid`] if it is neither a file nor a folder, or has
/// no name; the first error of reading if not one file of a folder can be read, or with
/// [`fail_fast`](AddRequest::fail_fast); [`Kind::TooLarge`] for a folder of more files than a collection can have;
/// [`Kind::Unsupported`] for a folder without the feature `iroh`.
pub async fn add(store: &Store, request: &AddRequest, observer: &Observer) -> Result<Added> {
    let path = request.path.as_path();
    let name = match &request.name {
        Some(name) => name.clone(),
        None => default_name(path)?,
    };
    let tag = tag_of(&name)?;
    let blobs = store.blobs();
    let before = blobs.tags().get(&tag).await?;
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|error| cannot_read(path, error))?;
    if metadata.is_dir() {
        #[cfg(feature = "iroh")]
        return folder::add(store, request, &name, tag, before, observer).await;
        #[cfg(not(feature = "iroh"))]
        return Err(Error::new(
            Kind::Unsupported,
            OPERATION,
            "folders are stored as iroh collections, which this build has not: enable the feature iroh",
        ));
    }
    if !metadata.is_file() {
        let message = format!("{} is neither a file nor a folder", path.display());
        return Err(Error::new(Kind::Invalid, OPERATION, message));
    }
    check_outside(store, path, &request.open_stores).await?;
    observer.planned(1, Some(metadata.len()));
    let pin = add_file(blobs, path, Some(tag), observer)
        .await
        .map_err(|error| failed("store", path, error))?;
    Ok(Added::new(&pin, &name, before))
}

/// Stores the bytes of a stream under a name, as [`add`] stores those of a file.
///
/// # Errors
/// [`Kind::Unavailable`] if the stream fails.
pub async fn add_stream(
    store: &Store,
    name: &str,
    reader: impl AsyncRead + Send + Unpin + 'static,
    observer: &Observer,
) -> Result<Added> {
    let blobs = store.blobs();
    let tag = tag_of(name)?;
    let before = blobs.tags().get(&tag).await?;
    observer.planned(1, None);
    let options = options(Some(tag), observer);
    let source = Source::reader(reader);
    let pin = blobs.add_with(source, options).await?;
    Ok(Added::new(&pin, name, before))
}

/// Checks that a path lies in no open store.
pub(super) async fn check_outside(store: &Store, path: &Path, others: &[PathBuf]) -> Result<()> {
    let stores = open_stores(store, others);
    let path = path.to_owned();
    blocking(move || OpenStores::new(&stores).check_outside(&path)).await
}

/// The folders of this store and of others.
pub(super) fn open_stores(store: &Store, others: &[PathBuf]) -> Vec<PathBuf> {
    let own = store.folder().map(Path::to_owned);
    own.into_iter().chain(others.iter().cloned()).collect()
}

async fn add_file(
    blobs: &Blobs,
    path: &Path,
    tag: Option<TagName>,
    observer: &Observer,
) -> Result<Pin> {
    blobs.add_with(path, options(tag, observer)).await
}

fn options(tag: Option<TagName>, observer: &Observer) -> AddOptions {
    let options = AddOptions::default().progress(moves(observer));
    match tag {
        Some(tag) => options.tag(tag),
        None => options,
    }
}

/// Tells of bytes that are counted from the start of a file.
pub(super) fn moves(observer: &Observer) -> impl Fn(u64) + Send + Sync + use<> {
    let (observer, last) = (observer.clone(), AtomicU64::new(0));
    move |bytes| observer.moved(bytes.saturating_sub(last.swap(bytes, Ordering::Relaxed)))
}

/// Returns true if it was the file that failed, and not the store or the whole process.
#[cfg(any(feature = "iroh", feature = "groups"))]
pub(super) fn is_about(error: &Error, path: &Path) -> bool {
    if larder_store_api::is_out_of_descriptors(error) {
        return false;
    }
    let path = path.display().to_string();
    error
        .context()
        .any(|(key, value)| key == "path" && value == path)
}

/// Returns true if the file changed while it was read.
#[cfg(feature = "groups")]
pub(super) fn is_changing(error: &Error) -> bool {
    error.kind() == Kind::Conflict
}

/// Folders, as collections.
#[cfg(feature = "iroh")]
mod folder {
    use futures_util::{StreamExt, TryStreamExt, stream};
    use larder_store_api::{Error, Kind, Result};
    use larder_store_engine::{Pin, Root, TagName};
    use larder_store_iroh::{MAX_ENTRIES, store_folder};
    use tokio::sync::Semaphore;

    use super::{AddRequest, Added, add_file, failed, is_about, open_stores};
    use crate::{
        Store,
        files::{
            Found, IN_FLIGHT, LeftOutItem, OPERATION, Observer, Reason, Walk, WalkOptions, walk,
        },
    };

    /// The number of small files for which a large one counts, as it needs more memory.
    const LARGE_COUNTS: u32 = 8;
    /// From this length on, in bytes, a file is large.
    const LARGE: u64 = 1024 * 1024;

    pub(super) async fn add(
        store: &Store,
        request: &AddRequest,
        name: &str,
        tag: TagName,
        before: Option<Root>,
        observer: &Observer,
    ) -> Result<Added> {
        let options = WalkOptions {
            include_caches: request.include_caches,
            fail_fast: request.fail_fast,
            open_stores: open_stores(store, &request.open_stores),
        };
        let walked = walk(&request.path, &options, observer).await?;
        if walked.files.len() > MAX_ENTRIES {
            let message =
                "the folder has more files than one name can have; store its folders one by one";
            let error = Error::new(Kind::TooLarge, OPERATION, message);
            return Err(error.with("most", MAX_ENTRIES));
        }
        observer.planned(walked.files.len() as u64, Some(walked.size()));
        let Walk {
            files,
            mut left_out,
            ..
        } = walked;
        let blobs = store.blobs();
        let places = Semaphore::new(IN_FLIGHT);
        let stored: Vec<(Found, Result<Pin>)> = stream::iter(files)
            .map(|file| {
                let places = &places;
                async move {
                    let weight = if file.size < LARGE { 1 } else { LARGE_COUNTS };
                    let _place = places
                        .acquire_many(weight)
                        .await
                        .expect("the semaphore is never closed");
                    match add_file(blobs, &file.path, None, observer).await {
                        Err(error) if request.fail_fast || !is_about(&error, &file.path) => {
                            Err(failed("store", &file.path, error))
                        }
                        result => Ok((file, result)),
                    }
                }
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        let mut entries = Vec::with_capacity(stored.len());
        let mut size = 0_u64;
        let mut first_error = None;
        for (file, result) in &stored {
            match result {
                Ok(pin) => {
                    size = size.saturating_add(pin.size().unwrap_or(0));
                    entries.push((file.name.clone(), pin.hash()));
                }
                Err(error) => {
                    let path = file.path.to_string_lossy();
                    let item = LeftOutItem::new(path, Reason::Unreadable).because(error);
                    observer.leave_out(&mut left_out, item);
                    first_error.get_or_insert_with(|| failed("store", &file.path, error.clone()));
                }
            }
        }
        // A name must not come to stand for nothing because nothing could be read.
        if let Some(error) = first_error.filter(|_| entries.is_empty()) {
            return Err(error);
        }
        let files = entries.len() as u64;
        // The pins keep the files until the tag does.
        let pin = store_folder(blobs, name, entries, Some(tag)).await?;
        drop(stored);
        Ok(Added {
            size,
            files: Some(files),
            left_out,
            ..Added::new(&pin, name, before)
        })
    }
}
