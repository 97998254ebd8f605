//! Follows a tree without the read key, as a replica does.
//!
//! The sequences of a tree are not sealed. They reveal how many blobs there are and which are pages or
//! files, but nothing about names or contents.

use std::collections::HashSet;

use larder_store_api::Result;
use larder_store_engine::{Blobs, Hash};

use super::{
    MAX_LEVEL, Root,
    read::{corrupt, sequence},
};

/// The role of a blob in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The sequence of a page of this level.
    Sequence {
        /// The page's level.
        level: u8,
    },
    /// A sealed page.
    Page,
    /// A sealed file.
    File,
}

/// A blob of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reached {
    /// The hash of the blob.
    pub hash: Hash,
    /// The role of the blob in the tree.
    pub part: Part,
}

/// Returns what the sequence `hash` of a page of `level` names: the sealed page first, then files if
/// the level is 0, else sequences of the level below.
///
/// A blob that is not such a sequence is [`Kind::Corrupt`](larder_store_api::Kind::Corrupt), a missing
/// one [`Kind::NotFound`](larder_store_api::Kind::NotFound).
/// Only a reader can check whether the pages match the sequences.
pub async fn children(blobs: &Blobs, hash: Hash, level: u8) -> Result<Vec<Reached>> {
    if level > MAX_LEVEL {
        return Err(corrupt(hash, "a tree is not that deep"));
    }
    let below = match level.checked_sub(1) {
        Some(level) => Part::Sequence { level },
        None => Part::File,
    };
    let hashes = sequence(blobs, hash).await?.into_iter().enumerate();
    let part = |i| if i == 0 { Part::Page } else { below };
    let reached = hashes.map(|(i, hash)| Reached {
        hash,
        part: part(i),
    });
    Ok(reached.collect())
}

/// A walk down a tree, level by level: the one traversal of trees by their hashes.
///
/// The caller opens the pages, and passes in what is [below](Self::below) each: it may fetch them
/// first, read more than their sequences, or stop. If an older tree is given, pages that both have on
/// one level are reported separately and not descended into, so that the cost depends on the
/// difference.
///
/// ```text
/// while let Some(level) = walk.next_level() {
///     for page in level.old   { walk.old_below(…) }
///     for chain in level.pages { walk.below(&chain, …) }
/// }
/// ```
#[derive(Debug)]
pub struct Walk {
    new: Root,
    old: Root,
    /// The next level.
    next: Option<u8>,
    pages: Vec<Vec<Hash>>,
    /// The pages of the next level that were named so far: an author may name one repeatedly.
    seen: HashSet<Hash>,
    old_pages: HashSet<Hash>,
}

/// The pages of one level.
#[derive(Debug)]
pub struct Level {
    /// The number of the level; the leaves have 0.
    pub number: u8,
    /// The pages that only the newer tree has, in its order. Each is preceded by the pages above it,
    /// from the root down.
    pub pages: Vec<Vec<Hash>>,
    /// The pages that both trees have.
    pub shared: Vec<Vec<Hash>>,
    /// The pages that only the older tree has.
    pub old: HashSet<Hash>,
}

impl Walk {
    /// Starts a walk down all of a tree.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](larder_store_api::Kind::Corrupt) if the root's level is greater than that of
    /// any valid tree.
    pub fn down(root: Root) -> Result<Self> {
        Self::between(Root::EMPTY, root)
    }

    /// Starts a walk down the parts of `new` that are not in `old`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](larder_store_api::Kind::Corrupt) if a root's level is greater than that of any
    /// valid tree.
    pub fn between(old: Root, new: Root) -> Result<Self> {
        let highest = new.level.max(old.level);
        if highest > MAX_LEVEL {
            return Err(corrupt(new.hash, "a tree is not that deep"));
        }
        Ok(Self {
            new,
            old,
            next: Some(highest),
            pages: Vec::new(),
            seen: HashSet::new(),
            old_pages: HashSet::new(),
        })
    }

    /// Returns the next level, from the top down; `None` if the newer tree has no more pages of its
    /// own.
    pub fn next_level(&mut self) -> Option<Level> {
        let number = self.next.filter(|_| self.new.hash != Hash::EMPTY)?;
        self.next = number.checked_sub(1);
        self.seen.clear();
        let mut pages = std::mem::take(&mut self.pages);
        let mut old = std::mem::take(&mut self.old_pages);
        if number == self.new.level {
            pages.push(vec![self.new.hash]);
        }
        if number == self.old.level && self.old.hash != Hash::EMPTY {
            old.insert(self.old.hash);
        }
        let is_shared = |chain: &Vec<Hash>| chain.last().is_some_and(|page| old.contains(page));
        let (shared, pages): (Vec<_>, Vec<_>) = pages.into_iter().partition(is_shared);
        for page in shared.iter().filter_map(|chain| chain.last()) {
            old.remove(page);
        }
        if pages.is_empty() && shared.is_empty() && number <= self.new.level {
            self.next = None;
            return None;
        }
        Some(Level {
            number,
            pages,
            shared,
            old,
        })
    }

    /// Adds the pages below a page of the newer tree.
    pub fn below(&mut self, chain: &[Hash], pages: impl IntoIterator<Item = Hash>) {
        for page in pages {
            if self.seen.insert(page) {
                self.pages.push([chain, &[page]].concat());
            }
        }
    }

    /// Adds the pages below a page of the older tree.
    pub fn old_below(&mut self, pages: impl IntoIterator<Item = Hash>) {
        self.old_pages.extend(pages);
    }
}

/// Returns the sequences of pages among the blobs that a page names.
pub fn sequences(named: &[Reached]) -> impl Iterator<Item = Hash> {
    let sequences = named
        .iter()
        .filter(|child| matches!(child.part, Part::Sequence { .. }));
    sequences.map(|child| child.hash)
}
