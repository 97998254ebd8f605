//! Following a tree without the read key: what a replica can do.
//!
//! The sequences of a tree are not sealed. They tell how many blobs there are, which are pages and
//! which are files, and nothing of names or contents.

use std::collections::HashSet;

use store_api::{Kind, Listing, Result};
use store_engine::{Blobs, Hash, Status};

use super::{
    MAX_LEVEL, Root,
    read::{corrupt, sequence},
};

/// What a hash in a tree is of.
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
    /// Its hash.
    pub hash: Hash,
    /// What it is.
    pub part: Part,
}

/// What the sequence `hash` of a page of `level` names: the sealed page first, then files where the
/// level is 0, else sequences of the level below.
///
/// A blob that is no such sequence is [`Kind::Corrupt`], one that is not here [`Kind::NotFound`].
/// That the pages are what the sequences say shows only to readers.
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

/// All blobs of a tree, from the root down; but not what is below pages that the tree `than` has
/// too. The cost follows the difference. A file with the same content under two names, or moved to
/// another page, may come although `than` has it.
///
/// A sequence that is not here ends it with [`Kind::NotFound`]; see [`missing`].
pub fn walk(blobs: &Blobs, root: Root, than: Option<Root>) -> Listing<Reached> {
    follow(blobs.clone(), root, than, Want::All)
}

/// Those blobs of a tree that are not all here, as [`walk`] finds them.
///
/// What a sequence names is not known before it is here: fetch what comes, and ask again, until
/// nothing comes. With `than`, all of that tree must be here.
pub fn missing(blobs: &Blobs, root: Root, than: Option<Root>) -> Listing<Reached> {
    follow(blobs.clone(), root, than, Want::Missing)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    All,
    Missing,
}

/// Level by level: what both trees have on a level is left out, so each level's work is that of the
/// pages that differ.
fn follow(blobs: Blobs, root: Root, than: Option<Root>, want: Want) -> Listing<Reached> {
    Box::pin(async_stream::try_stream! {
        let than = than.filter(|than| !than.is_empty());
        let mut new: Vec<Hash> = Vec::new();
        let mut old: HashSet<Hash> = HashSet::new();
        let highest = root.level.max(than.map_or(0, |than| than.level));
        if highest > MAX_LEVEL {
            Err(corrupt(root.hash, "a tree is not that deep"))?;
        }
        for level in (0..=highest).rev() {
            if root.level == level && !root.is_empty() {
                new.push(root.hash);
            }
            if let Some(than) = than.filter(|than| than.level == level) {
                old.insert(than.hash);
            }
            let shared: HashSet<Hash> = new.iter().filter(|hash| old.contains(hash)).copied().collect();
            new.retain(|hash| !shared.contains(hash));
            old.retain(|hash| !shared.contains(hash));
            // A file of the old tree never stands for a sequence of the new one.
            let (mut old_below, mut old_parts) = (HashSet::new(), HashSet::new());
            for hash in std::mem::take(&mut old) {
                let known = match children(&blobs, hash, level).await {
                    Ok(known) => known,
                    // What is not here cannot be compared with.
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) => Err(error)?,
                };
                for child in known {
                    match child.part {
                        Part::Sequence { .. } => old_below.insert(child.hash),
                        _ => old_parts.insert(child.hash),
                    };
                }
            }
            let mut new_below = Vec::new();
            // An author may name a page again and again, and that level by level.
            let mut seen = HashSet::new();
            for hash in std::mem::take(&mut new) {
                let reached = Reached { hash, part: Part::Sequence { level } };
                if want == Want::All {
                    yield reached;
                } else if !is_here(&blobs, hash).await? {
                    yield reached;
                    continue;
                }
                for child in children(&blobs, hash, level).await? {
                    match child.part {
                        Part::Sequence { .. } => if seen.insert(child.hash) {
                            new_below.push(child.hash);
                        },
                        _ if old_parts.contains(&child.hash) => {}
                        _ if want == Want::All => yield child,
                        _ => if !is_here(&blobs, child.hash).await? {
                            yield child;
                        },
                    }
                }
            }
            (new, old) = (new_below, old_below);
        }
    })
}

async fn is_here(blobs: &Blobs, hash: Hash) -> Result<bool> {
    let status = blobs.status(hash).await?;
    Ok(hash == Hash::EMPTY || matches!(status, Some(Status::Complete { .. })))
}
