//! Iterates over the pages of one level, from left to right.

use std::sync::Arc;

use larder_store_api::Result;
use larder_store_engine::Hash;

use super::{
    Root, Tree,
    page::{Child, Item, Page},
};

/// A page above another one, and the index of the item that leads down.
pub(super) type Step = (Arc<Page<Child>>, usize);

/// A position among the pages of one level of a tree.
pub(super) struct Cursor {
    tree: Tree,
    root: Root,
    level: u8,
    /// The pages above, from the root down, each with the index of the item that leads down.
    path: Vec<Step>,
}

impl Cursor {
    pub(super) fn new(tree: &Tree, root: Root, level: u8) -> Self {
        Self {
            tree: tree.clone(),
            root,
            level,
            path: Vec::new(),
        }
    }

    /// Moves to the page that `name` belongs to: the first that ends with it or after it, or the last
    /// page. `None` if the tree has no page on this level.
    pub(super) async fn seek<T: Item>(&mut self, name: &str) -> Result<Option<Arc<Page<T>>>> {
        self.path.clear();
        if self.root.is_empty() || self.root.level < self.level {
            return Ok(None);
        }
        if self.root.level == self.level {
            return self.tree.load_root(self.root).await.map(Some);
        }
        let mut page = self.tree.load_root::<Child>(self.root).await?;
        loop {
            // Only in the root can the name be after all items: below, pages end as their parents
            // state.
            let at = page.position(name).min(page.items.len() - 1);
            let level = page.level;
            self.path.push((page, at));
            if level == self.level + 1 {
                return self.tree.load_below(&self.path).await.map(Some);
            }
            page = self.tree.load_below(&self.path).await?;
        }
    }

    /// Moves to the next page; `None` after the last.
    pub(super) async fn next<T: Item>(&mut self) -> Result<Option<Arc<Page<T>>>> {
        while let Some((page, at)) = self.path.last_mut() {
            if *at + 1 < page.items.len() {
                *at += 1;
                break;
            }
            self.path.pop();
        }
        loop {
            let Some((page, _)) = self.path.last() else {
                return Ok(None);
            };
            if page.level == self.level + 1 {
                return self.tree.load_below(&self.path).await.map(Some);
            }
            let page = self.tree.load_below::<Child>(&self.path).await?;
            self.path.push((page, 0));
        }
    }

    /// Returns the hash of the current page.
    pub(super) fn hash(&self) -> Hash {
        match self.path.last() {
            Some((page, at)) => page.items[*at].1.hash,
            None => self.root.hash,
        }
    }

    /// Returns true if the current page is the last.
    pub(super) fn is_last(&self) -> bool {
        self.path
            .iter()
            .all(|(page, at)| *at + 1 == page.items.len())
    }
}
