//! A repo's tree: names to sealed files, in pages, so that cost follows the change.
//!
//! The files of a repo, ordered by name, are cut into pages; the pages, called by their last names,
//! are cut into pages above; and so on, until one page is left, the root. All files are on level 0.
//!
//! **Where a page ends** depends only on the names in it: after its 32nd item or a later one, where
//! a keyed hash of level and name says so (one time in 32), or it has 512 items, or their length
//! reaches 256 KiB. So the items from the page's start to an item tell if the page ends after it,
//! both for the hash's word and for the two limits. Since the first page of a level starts at the
//! first name, the names alone determine all pages: the same files make the same tree, whatever the
//! order in which they came. And since pages far from a change start where they did, they are the
//! same pages. On average a page has 64 items.
//!
//! **A page is two blobs** ([`page`]): itself, sealed under the group's read key, and a sequence of
//! hashes, not sealed, that names it and what is below it. So whoever has no read key can still
//! copy a tree, keep it alive as a [`Format::Tree`](larder_store_engine::Format::Tree), and find what
//! differs between two ([`walk`]).

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
    sync::{Arc, Mutex},
};

use larder_store_api::Listing;
use larder_store_engine::{Blobs, Hash};
use lru::LruCache;
use zeroize::Zeroizing;

use self::page::Node;
pub use self::{
    diff::Difference,
    edit::Edited,
    name::{MAX_NAME_LEN, Name},
};
pub use crate::root::{MAX_LEVEL, Root};
use crate::{
    keys::{ReadKey, derive},
    seal::{file::FileKey, page::PageKeys},
};

/// The operation of errors about pages that are here and are not what they must be: whoever made them is at
/// fault, and not the store.
pub const MALFORMED: &str = "sync.tree.read";

/// The number of opened pages of level 0 that are kept in memory; each is at most 260 KiB.
const CACHED_LEAVES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// The number of other pages that are kept in memory: all that a million files have.
const CACHED_INNER: NonZeroUsize = NonZeroUsize::new(384).expect("384 is not zero");

const BOUNDARY_CONTEXT: &str = "larder 2026 tree boundary key v1";

/// A file of a repo, under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its length in bytes, before sealing.
    pub size: u64,
    /// The time at which the file was last changed, in milliseconds since 1970.
    pub modified: i64,
    /// The hash of its bytes, before sealing.
    pub hash: Hash,
    /// The blob that it is sealed in.
    pub blob: Hash,
    /// The key that the file is sealed with.
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

/// Reads and writes trees in a store, with a group's read key. A cheap handle.
///
/// It keeps opened pages at hand, so use one for many calls. A page that is not what its place in
/// the tree says is [`Kind::Corrupt`](larder_store_api::Kind::Corrupt), one that is not here
/// [`Kind::NotFound`](larder_store_api::Kind::NotFound), one of another epoch
/// [`Kind::Denied`](larder_store_api::Kind::Denied).
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    blobs: Blobs,
    keys: PageKeys,
    boundary: Zeroizing<[u8; 32]>,
    pages: Mutex<Pages>,
}

/// Opened pages, by their sequences.
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
    /// The trees in `blobs` that this key opens.
    pub fn new(blobs: Blobs, read: &ReadKey) -> Self {
        Self(Arc::new(Inner {
            blobs,
            keys: PageKeys::new(read),
            boundary: derive(read, BOUNDARY_CONTEXT),
            pages: Mutex::new(Pages {
                leaves: LruCache::new(CACHED_LEAVES),
                inner: LruCache::new(CACHED_INNER),
            }),
        }))
    }

    /// The store that the trees are in.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Files, ascending by name: those whose names begin with `prefix` and come after `after`.
    pub fn list(&self, root: Root, prefix: &str, after: Option<&Name>) -> Listing<Named> {
        self.clone()
            .list_from(root, prefix.to_owned(), after.cloned())
    }
}
