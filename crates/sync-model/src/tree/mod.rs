//! A repo's tree: maps names to sealed files, in pages, so that the cost of a change depends on its
//! size.
//!
//! The files of a repo, ordered by name, are cut into pages; the pages, identified by their last names,
//! are cut into pages of the next level; and so on, until one page is left, the root. All files are on
//! level 0.
//!
//! **The end of a page** depends only on the names in it: a page ends after its 32nd item or a later
//! one if a keyed hash of level and name says so (one time in 32), or if it has 512 items, or if their
//! length reaches 256 KiB. So the items from the page's start up to an item determine whether the page
//! ends there. Since the first page of a level starts at the first name, the names alone determine all
//! pages: the same files make the same tree, whatever the order in which they were added. Since pages
//! far from a change start where they did before, they stay the same. On average a page has 64 items.
//!
//! **A page consists of two blobs** ([`page`]): the page itself, sealed under the group's read key, and
//! an unsealed sequence of hashes that names the page and everything below it. So a device without the
//! read key can still copy a tree, keep it alive as a
//! [`Format::Tree`](larder_store_engine::Format::Tree), and find the differences between two trees
//! ([`walk`]).

mod clash;
pub mod count;
mod cursor;
mod diff;
mod edit;
pub mod find;
mod merge;
mod name;
pub mod page;
mod read;
pub mod walk;
pub mod wants;
mod write;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock},
};

use larder_store_api::{Error, Kind, Listing, Result};
use larder_store_engine::{Blobs, Hash};
use lru::LruCache;
use zeroize::Zeroizing;

use self::page::Node;
pub use self::{
    diff::Difference,
    edit::Edited,
    name::{MAX_NAME_LEN, MAX_PART_LEN, Name},
};
pub use crate::root::{MAX_LEVEL, Root};
use crate::{
    keyring::{EpochKeys, Keyring},
    keys::derive,
    seal::file::FileKey,
};

/// The operation of errors about malformed pages: their author is at fault, not the store.
pub const MALFORMED: &str = "sync.tree.read";

/// Returns true if an error says that a page cannot be read: it is missing, damaged or malformed, or its keys are not
/// held. Its author or the disk is the cause, and other trees can still be read.
pub fn is_unreadable(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::NotFound | Kind::Corrupt | Kind::Denied | Kind::Invalid
    )
}

/// The number of opened pages of level 0 in the cache; each is at most 260 KiB.
const CACHED_LEAVES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// The number of other pages in the cache: enough for all of a million files.
const CACHED_INNER: NonZeroUsize = NonZeroUsize::new(384).expect("384 is not zero");

const BOUNDARY_CONTEXT: &str = "larder 2026 tree boundary key v1";

/// A file of a repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The length in bytes, before sealing.
    pub size: u64,
    /// The time of the last change, in milliseconds since 1970.
    pub modified: i64,
    /// The hash of the bytes, before sealing.
    pub hash: Hash,
    /// The blob that contains the sealed file.
    pub blob: Hash,
    /// The key of the sealed file.
    pub key: FileKey,
}

/// A file with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its path.
    pub name: Name,
    /// The description of its bytes.
    pub entry: FileEntry,
}

/// Reads and writes trees in a store, with the keys of a group. A cheap handle.
///
/// It has a cache of opened pages, so use one for many calls. A page that contradicts its place in the
/// tree is [`Kind::Corrupt`], a missing one
/// [`Kind::NotFound`], one of another epoch
/// [`Kind::Denied`].
#[derive(Clone)]
pub struct Tree(Arc<Inner>, Option<Arc<EpochKeys>>);

struct Inner {
    blobs: Blobs,
    keys: Keyring,
    /// Follows from the first epoch of the group: names then make the same pages in all epochs.
    boundary: OnceLock<Zeroizing<[u8; 32]>>,
    pages: Mutex<Pages>,
}

/// A cache of opened pages, by their sequences.
struct Pages {
    leaves: LruCache<Hash, Node>,
    inner: LruCache<Hash, Node>,
}

impl Pages {
    fn get(&mut self, hash: &Hash) -> Option<&Node> {
        self.inner.get(hash).or_else(|| self.leaves.get(hash))
    }

    fn put(&mut self, hash: Hash, node: Node) {
        match node {
            Node::Leaf(_) => self.leaves.put(hash, node),
            Node::Inner(_) => self.inner.put(hash, node),
        };
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("blobs", &self.0.blobs)
            .finish_non_exhaustive()
    }
}

impl Tree {
    /// Returns a handle for the trees in `blobs` that these keys open. It seals under the epoch that they seal under
    /// now, if there is one.
    pub fn new(blobs: Blobs, keys: Keyring) -> Self {
        let seals = keys.sealing().ok();
        let inner = Inner {
            blobs,
            keys,
            boundary: OnceLock::new(),
            pages: Mutex::new(Pages {
                leaves: LruCache::new(CACHED_LEAVES),
                inner: LruCache::new(CACHED_INNER),
            }),
        };
        Self(Arc::new(inner), seals)
    }

    /// Returns a handle to the same trees that seals under this epoch.
    #[must_use]
    pub fn sealing(&self, epoch: Arc<EpochKeys>) -> Self {
        Self(Arc::clone(&self.0), Some(epoch))
    }

    /// Returns the store of the trees.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Lists files, ascending by name: those whose names begin with `prefix` and come after `after`.
    pub fn list(&self, root: Root, prefix: &str, after: Option<&Name>) -> Listing<Named> {
        self.clone()
            .list_from(root, prefix.to_owned(), after.cloned())
    }

    /// Returns the key that says where pages end.
    fn boundary(&self) -> Result<&[u8; 32]> {
        if let Some(known) = self.0.boundary.get() {
            return Ok(known);
        }
        let first = self.0.keys.first().ok_or_else(|| {
            let message = "the keys of the group's first epoch are not here yet";
            Error::new(Kind::Unavailable, "sync.tree.edit", message)
        })?;
        let boundary = derive(first.read()?, BOUNDARY_CONTEXT);
        Ok(self.0.boundary.get_or_init(|| boundary))
    }

    fn seals(&self) -> Result<&EpochKeys> {
        self.1.as_deref().ok_or_else(|| {
            let message = "there is no key under which pages may be sealed";
            Error::new(Kind::Unavailable, "sync.tree.edit", message)
        })
    }
}
