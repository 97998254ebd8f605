//! Finding a file in a tree by its hash.

use store_api::Result;
use store_engine::{Blobs, Hash};

use super::{
    FileEntry, Root, Tree,
    walk::{Part, children},
};

/// Where a file is in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The pages from the root down to the one that names it.
    pub chain: Vec<Hash>,
    /// Its place in the sequence of that page, counted from 1.
    pub offset: u64,
    /// The blob that it is sealed in.
    pub blob: Hash,
}

/// The first file with this hash: that of its bytes before sealing, which takes a `tree` that can read
/// the pages, or that of its blob. There is no index: all pages may be looked at.
pub async fn find(
    blobs: &Blobs,
    tree: Option<&Tree>,
    root: Root,
    hash: Hash,
) -> Result<Option<Located>> {
    if root.is_empty() {
        return Ok(None);
    }
    let mut left = vec![(vec![root.hash], root.level)];
    while let Some((chain, level)) = left.pop() {
        let page = *chain.last().expect("a chain has a page");
        let mut below = Vec::new();
        let mut found = None;
        match tree.filter(|_| level == 0) {
            Some(tree) => {
                let leaf = tree.peek::<FileEntry>(page, level).await?;
                let is_it = |entry: &FileEntry| entry.hash == hash || entry.blob == hash;
                // The sealed page is the first.
                let mut files = (2..).zip(&leaf.items);
                found = files
                    .find(|(_, (_, entry))| is_it(entry))
                    .map(|(offset, (_, entry))| (offset, entry.blob));
            }
            None => {
                for (offset, child) in (1..).zip(children(blobs, page, level).await?) {
                    match child.part {
                        Part::Sequence { level } => below.push((child.hash, level)),
                        Part::File if child.hash == hash => found = Some((offset, hash)),
                        Part::File | Part::Page => {}
                    }
                }
            }
        }
        if let Some((offset, blob)) = found {
            return Ok(Some(Located {
                chain,
                offset,
                blob,
            }));
        }
        left.extend(below.into_iter().rev().map(|(page, level)| {
            let chain = chain.iter().copied().chain([page]);
            (chain.collect(), level)
        }));
    }
    Ok(None)
}
