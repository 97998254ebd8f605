//! Finds a file in a tree by its hash.

use larder_store_api::Result;
use larder_store_engine::{Blobs, Hash};

use super::{
    FileEntry, Root, Tree,
    walk::{Part, Reached, Walk, children, sequences},
};

/// The location of a file in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The pages from the root down to the one that names the file.
    pub chain: Vec<Hash>,
    /// The file's position in the sequence of that page, counted from 1.
    pub offset: u64,
    /// The blob that contains the sealed file.
    pub blob: Hash,
}

/// Finds the first file with this hash, either of its bytes before sealing, which requires a `tree`
/// that can read the pages, or of its blob. There is no index: this may read all pages.
pub async fn find(
    blobs: &Blobs,
    tree: Option<&Tree>,
    root: Root,
    hash: Hash,
) -> Result<Option<Located>> {
    let mut walk = Walk::down(root)?;
    while let Some(level) = walk.next_level() {
        for chain in level.pages {
            let page = *chain.last().expect("a chain has a page");
            let found = match tree.filter(|_| level.number == 0) {
                Some(tree) => {
                    let leaf = tree.peek::<FileEntry>(page, 0).await?;
                    let is_it = |entry: &FileEntry| entry.hash == hash || entry.blob == hash;
                    // The sealed page is the first.
                    let mut files = (2..).zip(&leaf.items);
                    let found = files.find(|(_, (_, entry))| is_it(entry));
                    found.map(|(offset, (_, entry))| (offset, entry.blob))
                }
                None => {
                    let named = children(blobs, page, level.number).await?;
                    walk.below(&chain, sequences(&named));
                    let is_it = |child: &Reached| child.part == Part::File && child.hash == hash;
                    let mut files = (1..).zip(&named);
                    let found = files.find(|(_, child)| is_it(child));
                    found.map(|(offset, child)| (offset, child.hash))
                }
            };
            if let Some((offset, blob)) = found {
                return Ok(Some(Located {
                    chain,
                    offset,
                    blob,
                }));
            }
        }
    }
    Ok(None)
}
