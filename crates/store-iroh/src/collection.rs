//! iroh's collections: a hash sequence whose first child lists the names of the others.

use std::io::Write;

use bytes::Bytes;
use iroh_blobs::format::collection::{Collection, CollectionMeta};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{AddOptions, BlobStatus, Blobs, Format, Hash, Pin, TagName};

/// The most entries of a collection that can be stored or loaded.
pub const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes of its list of names.
pub const MAX_NAMES_LEN: u64 = 64 * 1024 * 1024;

const HASH_LEN: usize = size_of::<Hash>();

/// Stores the names and hashes as a collection that any iroh client reads, and returns its pin: its
/// root is the collection. The blobs need not be here yet. With `tag`, the tag is set in the same
/// commit.
///
/// Durable when it returns. The order is kept; names are any text, and may repeat.
/// [`Kind::TooLarge`] beyond [`MAX_ENTRIES`] or [`MAX_NAMES_LEN`].
pub async fn store_collection(
    blobs: &Blobs,
    entries: Vec<(String, Hash)>,
    tag: Option<TagName>,
) -> Result<Pin> {
    check_entries("collection.store", entries.len())?;
    let (names, hashes): (Vec<String>, Vec<Hash>) = entries.into_iter().unzip();
    let mut meta = CollectionMeta::default();
    *meta.names_mut() = names;
    let meta = postcard::to_stdvec(&meta).map_err(|error| {
        Error::new(
            Kind::Internal,
            "collection.store",
            "the names have no bytes",
        )
        .because(error)
    })?;
    check_names("collection.store", meta.len() as u64)?;
    let meta = blobs.add(meta).await?;
    let mut links = Vec::with_capacity((hashes.len() + 1) * HASH_LEN);
    for hash in std::iter::once(&meta.hash()).chain(&hashes) {
        links
            .write_all(hash.as_bytes())
            .expect("memory takes all bytes");
    }
    let options = AddOptions::default().format(Format::HashSeq).tag(tag);
    // The names' pin lasts until the root's keeps them.
    blobs.add_with(Bytes::from(links), options).await
}

/// The names and hashes of a collection, in its order.
///
/// The names are as the collection's maker chose them: check them before they become paths.
/// [`Kind::NotFound`] if the root or its list of names is not here, [`Kind::Invalid`] if it is
/// not a collection, [`Kind::TooLarge`] beyond [`MAX_ENTRIES`] or [`MAX_NAMES_LEN`].
pub async fn load_collection(blobs: &Blobs, root: Hash) -> Result<Vec<(String, Hash)>> {
    let invalid = |message: &'static str| {
        Error::new(Kind::Invalid, "collection.load", message).with("hash", root)
    };
    let size = complete_size(blobs, root).await?;
    check_entries(
        "collection.load",
        (size as usize / HASH_LEN).saturating_sub(1),
    )?;
    let links = blobs.read_to_bytes(root, 0..size).await?;
    let (links, rest) = links.as_chunks::<HASH_LEN>();
    let Some((meta, hashes)) = links.split_first().filter(|_| rest.is_empty()) else {
        return Err(invalid("this is not a hash sequence"));
    };
    let meta = Hash::from(*meta);
    let size = complete_size(blobs, meta).await?;
    check_names("collection.load", size)?;
    let names = blobs.read_to_bytes(meta, 0..size).await?;
    let names = read_names(&names, hashes.len()).map_err(invalid)?;
    let hashes = hashes.iter().map(|hash| Hash::from(*hash));
    Ok(names.into_iter().zip(hashes).collect())
}

/// The names, which must be so many: an empty one is one byte here and many in memory, so that they
/// are counted before they are read.
pub(crate) fn read_names(bytes: &[u8], count: usize) -> Result<Vec<String>, &'static str> {
    const NO_NAMES: &str = "this hash sequence has no list of names";
    let names = bytes.strip_prefix(Collection::HEADER).ok_or(NO_NAMES)?;
    let (said, _): (u64, _) = postcard::take_from_bytes(names).map_err(|_| NO_NAMES)?;
    if said != count as u64 {
        return Err("there are not as many names as hashes");
    }
    postcard::from_bytes(names).map_err(|_| NO_NAMES)
}

/// Stores a folder as iroh's programs do: a collection in which the folder's name stands before each file's, so
/// that `sendme receive` makes a folder of it. Of `name` that is what follows the last slash.
///
/// # Errors
/// The errors of [`store_collection`].
pub async fn store_folder(
    blobs: &Blobs,
    name: &str,
    files: Vec<(String, Hash)>,
    tag: Option<TagName>,
) -> Result<Pin> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let folder = match last {
        "" | "." | ".." => "folder",
        last => last,
    };
    let named = files
        .into_iter()
        .map(|(file, hash)| (format!("{folder}/{file}"), hash));
    store_collection(blobs, named.collect(), tag).await
}

/// The files of a collection that is a folder, without the folder's name if one stands before each; otherwise
/// what [`load_collection`] returns.
///
/// # Errors
/// The errors of [`load_collection`].
pub async fn load_folder(blobs: &Blobs, root: Hash) -> Result<Vec<(String, Hash)>> {
    let mut files = load_collection(blobs, root).await?;
    if let Some(len) = common_folder(&files).map(str::len) {
        for (name, _) in &mut files {
            name.drain(..=len);
        }
    }
    Ok(files)
}

/// Returns the name of the folder that a collection is, if one stands before each of its files.
///
/// # Errors
/// The errors of [`load_collection`].
pub async fn folder_name(blobs: &Blobs, root: Hash) -> Result<Option<String>> {
    let files = load_collection(blobs, root).await?;
    Ok(common_folder(&files).map(str::to_owned))
}

/// The folder that all names begin with, and are longer than.
fn common_folder(files: &[(String, Hash)]) -> Option<&str> {
    let (first, _) = files.first()?;
    let (folder, _) = first.split_once('/')?;
    let is_in = |name: &str| {
        let rest = name
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    let all = files.iter().all(|(name, _)| is_in(name));
    // A folder name that is not valid is left in the names, for the caller that checks them.
    let is_name = !matches!(folder, "" | "." | "..")
        && !folder.contains(|c: char| c.is_control() || matches!(c, ':' | '\\'));
    (all && is_name).then_some(folder)
}

async fn complete_size(blobs: &Blobs, hash: Hash) -> Result<u64> {
    match blobs.status(hash).await? {
        Some(BlobStatus::Complete { size }) => Ok(size),
        _ => Err(Error::new(
            Kind::NotFound,
            "collection.load",
            "the collection is not here, or not as a whole",
        )
        .with("hash", hash)),
    }
}

fn check_entries(operation: &'static str, entries: usize) -> Result<()> {
    if entries <= MAX_ENTRIES {
        return Ok(());
    }
    let message = format!("a collection has at most {MAX_ENTRIES} entries");
    Err(Error::new(Kind::TooLarge, operation, message).with("entries", entries))
}

fn check_names(operation: &'static str, len: u64) -> Result<()> {
    if len <= MAX_NAMES_LEN {
        return Ok(());
    }
    let message = format!("a collection's names have at most {MAX_NAMES_LEN} bytes");
    Err(Error::new(Kind::TooLarge, operation, message).with("len", len))
}
