//! The root of a tree, which identifies all of it.

use larder_store_engine::{Hash, MAX_TREE_DEPTH};

/// The highest level of a page.
pub const MAX_LEVEL: u8 = MAX_TREE_DEPTH - 1;

/// The root of a tree. Its hash determines the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    /// The hash of the topmost page's sequence; [`Hash::EMPTY`] if there is no file.
    pub hash: Hash,
    /// The level of that page.
    pub level: u8,
    /// The number of files.
    pub files: u64,
    /// The sum of their sizes, before sealing.
    pub bytes: u64,
}

impl Root {
    /// The tree without files.
    pub const EMPTY: Root = Root {
        hash: Hash::EMPTY,
        level: 0,
        files: 0,
        bytes: 0,
    };

    /// Returns true if there is no file.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Returns the root to tag or pin to keep the whole tree, and its files, alive.
    pub fn keep(&self) -> larder_store_engine::Root {
        larder_store_engine::Root::tree(self.hash, self.level.saturating_add(1))
    }
}
