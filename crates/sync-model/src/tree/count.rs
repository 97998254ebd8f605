//! Counts the files of one tree that are not in another, as far as its pages are here.

use std::collections::{HashMap, HashSet};

use larder_store_api::Result;
use larder_store_engine::{BlobStatus, Blobs, Hash};

use super::{
    FileEntry, Name, Root, Tree, is_unreadable,
    page::{Child, Item, Page},
    walk::{Part, Walk, children},
    wants::Wants,
};

/// The most pages that are opened to count; the files below the others are estimated.
const MAX_OPENED: usize = 1024;

/// A number of files, and of the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// The number of files.
    pub files: u64,
    /// The sum of their bytes.
    pub bytes: u64,
    /// True if something was estimated.
    pub is_guess: bool,
}

impl Count {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.is_guess |= other.is_guess;
    }
}

/// Selects the files to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Wanted files that are incomplete here, with their missing bytes.
    Missing(Wants),
    /// Files that are here.
    Here,
    /// All files, without their bytes.
    Names,
}

/// The number of files and bytes, if known.
type Totals = Option<(u64, u64)>;

/// A page that is not in the other tree, with its totals.
type Named = (Hash, Totals);

/// The items of a page.
enum Items {
    Pages(Vec<Named>),
    /// Blobs, with the sizes of their files if known, and whether they count.
    Files(Vec<(Hash, Option<u64>, bool)>),
}

/// Counts the files of `new` that are not in `old`. Files are compared by blob: a file that only has
/// another name is in both. Pages that both have are not opened, so the cost depends on the difference,
/// up to a bound.
///
/// Without a `tree` that can read the pages, sizes are those of the sealed files; files that are
/// completely missing are assumed to have the average size.
pub async fn count(
    blobs: &Blobs,
    tree: Option<&Tree>,
    new: Root,
    old: Root,
    which: &Which,
) -> Result<Count> {
    let mut counter = Counter {
        blobs,
        tree,
        opened: 0,
        which,
        average: new.bytes.checked_div(new.files).unwrap_or_default(),
        count: Count::default(),
    };
    let Ok(mut walk) = Walk::between(old, new) else {
        counter.count.is_guess = true;
        return Ok(counter.count);
    };
    // The totals of pages, as the pages above them state.
    let mut known = HashMap::from([(new.hash, Some((new.files, new.bytes)))]);
    let mut known_old = HashMap::from([(old.hash, Some((old.files, old.bytes)))]);
    while let Some(level) = walk.next_level() {
        let totals_of =
            |known: &mut HashMap<Hash, Totals>, page: &Hash| known.remove(page).flatten();
        let old = level.old.iter();
        let before = total(old.map(|page| totals_of(&mut known_old, page)));
        let mut files = HashSet::new();
        for page in level.old {
            match counter.open(page, level.number).await? {
                Some(Items::Pages(pages)) => {
                    walk.old_below(pages.iter().map(|(page, _)| *page));
                    known_old.extend(pages);
                }
                Some(Items::Files(named)) => files.extend(named.into_iter().map(|(blob, ..)| blob)),
                None => counter.count.is_guess = true,
            }
        }
        let mut left = Vec::new();
        for chain in level.pages {
            let page = *chain.last().expect("a chain has a page");
            let totals = totals_of(&mut known, &page);
            match counter.open(page, level.number).await? {
                Some(Items::Pages(pages)) => {
                    walk.below(&chain, pages.iter().map(|(page, _)| *page));
                    known.extend(pages);
                }
                Some(Items::Files(named)) => {
                    for (blob, size, counts) in named {
                        if counts && !files.contains(&blob) {
                            counter.file(blob, size).await?;
                        }
                    }
                }
                None => left.push(totals),
            }
        }
        if !left.is_empty() {
            counter.guess(total(left), before);
        }
    }
    Ok(counter.count)
}

fn total(pages: impl IntoIterator<Item = Totals>) -> (u64, u64) {
    let known = pages.into_iter().flatten();
    known.fold((0, 0), |(files, bytes), page| {
        (files.saturating_add(page.0), bytes.saturating_add(page.1))
    })
}

struct Counter<'a> {
    blobs: &'a Blobs,
    tree: Option<&'a Tree>,
    opened: usize,
    which: &'a Which,
    /// The assumed length of a file about which nothing is known.
    average: u64,
    count: Count,
}

impl Counter<'_> {
    /// Returns the items of a page; `None` if the page is missing or invalid.
    async fn open(&mut self, page: Hash, level: u8) -> Result<Option<Items>> {
        self.opened += 1;
        if self.opened > MAX_OPENED {
            return Ok(None);
        }
        let opened = match self.tree {
            Some(tree) if level == 0 => tree.peek(page, level).await.map(|page| {
                let counts = |name: &Name, size| match self.which {
                    Which::Missing(wants) => wants.wants(name, size),
                    Which::Here | Which::Names => true,
                };
                page.files(counts)
            }),
            Some(tree) => tree.peek(page, level).await.map(|page| page.pages()),
            None => children(self.blobs, page, level).await.map(unread),
        };
        match opened {
            Ok(items) => Ok(Some(items)),
            Err(error) if is_unreadable(&error) => {
                tracing::debug!(%page, %error, "a page cannot be counted");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn file(&mut self, blob: Hash, size: Option<u64>) -> Result<()> {
        let mut one = Count {
            files: 1,
            ..Count::default()
        };
        if *self.which != Which::Names {
            let status = match blob {
                Hash::EMPTY => Some(BlobStatus::Complete { size: 0 }),
                _ => self.blobs.status(blob).await?,
            };
            match (self.which, status) {
                (Which::Here, Some(BlobStatus::Complete { size: sealed })) => {
                    one.bytes = size.unwrap_or(sealed);
                }
                (Which::Missing(_), None) => {
                    one.bytes = size.unwrap_or(self.average);
                    one.is_guess = size.is_none();
                }
                (
                    Which::Missing(wants),
                    Some(BlobStatus::Partial {
                        size: sealed,
                        proven,
                        present,
                    }),
                ) => {
                    let is_too_long = size.is_none() && proven && sealed > wants.longest_sealed();
                    if is_too_long {
                        return Ok(());
                    }
                    // An unproven length is only a claim.
                    one.is_guess = size.is_none() && !proven;
                    let all = size.unwrap_or(sealed);
                    one.bytes = all.saturating_sub(present);
                }
                _ => return Ok(()),
            }
        }
        self.count.add(one);
        Ok(())
    }

    /// Estimates the result for pages that could not be opened, with `left` files and bytes; the pages
    /// that they are compared with have `before`.
    fn guess(&mut self, left: (u64, u64), before: (u64, u64)) {
        let bytes = match self.which {
            Which::Names => 0,
            Which::Missing(_) | Which::Here => left.1.saturating_sub(before.1),
        };
        self.count.add(Count {
            files: left.0.saturating_sub(before.0),
            bytes,
            is_guess: true,
        });
    }
}

impl Page<FileEntry> {
    fn files(&self, counts: impl Fn(&Name, u64) -> bool) -> Items {
        let files = self.items.iter();
        let files = files.map(|(name, e)| (e.blob, Some(e.size), counts(name, e.size)));
        Items::Files(files.collect())
    }
}

impl Page<Child> {
    fn pages(&self) -> Items {
        let pages = self.items.iter();
        Items::Pages(
            pages
                .map(|(_, child)| (child.hash, Some((child.files(), child.bytes()))))
                .collect(),
        )
    }
}

/// Returns the items of a sequence as far as they are visible without the read key.
fn unread(named: Vec<super::walk::Reached>) -> Items {
    let (mut pages, mut files) = (Vec::new(), Vec::new());
    let mut is_leaf = false;
    for child in named {
        match child.part {
            Part::Sequence { .. } => pages.push((child.hash, None)),
            Part::File => files.push((child.hash, None, true)),
            Part::Page => {}
        }
        is_leaf |= child.part == Part::File;
    }
    match is_leaf {
        true => Items::Files(files),
        false => Items::Pages(pages),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use larder_store_testkit::MemoryStore;

    use super::*;
    use crate::{keyring::Keyring, keys::ReadKey, seal::file::FileKey};

    const MISSING: Which = Which::Missing(Wants::EVERYTHING);

    /// Builds a tree of files with these numbers, each of `size` bytes; only the blobs of those with
    /// even numbers are here.
    async fn root(tree: &Tree, numbers: impl IntoIterator<Item = u64>, size: u64) -> Root {
        let mut files = BTreeMap::new();
        for n in numbers {
            let content = n.to_be_bytes();
            let blob = match n % 2 {
                0 => tree.blobs().add(content.to_vec()).await.unwrap().hash(),
                _ => Hash::of(content),
            };
            let entry = FileEntry {
                size,
                modified: 0,
                hash: blob,
                blob,
                key: FileKey::from_bytes([1; 32]),
            };
            files.insert(Name::new(format!("{n:05}")).unwrap(), Some(entry));
        }
        tree.edit(Root::EMPTY, files).await.unwrap().root
    }

    async fn blobs() -> Blobs {
        let store = Arc::new(MemoryStore::new());
        Blobs::open(store.clone(), store).await.unwrap()
    }

    async fn tree() -> Tree {
        Tree::new(
            blobs().await,
            Keyring::of_read(ReadKey::from_bytes([7; 32], 0)),
        )
    }

    fn exactly(files: u64, bytes: u64) -> Count {
        Count {
            files,
            bytes,
            is_guess: false,
        }
    }

    #[tokio::test]
    async fn what_differs_is_counted() {
        let tree = tree().await;
        let old = root(&tree, 0..3000, 10).await;
        let new = root(&tree, 100..3100, 10).await;
        let of = async |new, old, which| {
            count(tree.blobs(), Some(&tree), new, old, &which)
                .await
                .unwrap()
        };
        assert_eq!(of(new, old, MISSING).await, exactly(50, 500));
        assert_eq!(of(new, old, Which::Here).await, exactly(50, 500));
        assert_eq!(of(new, old, Which::Names).await, exactly(100, 0));
        assert_eq!(of(new, new, Which::Names).await, exactly(0, 0));
        assert_eq!(of(Root::EMPTY, old, Which::Names).await, exactly(0, 0));
        let all = of(new, Root::EMPTY, Which::Names).await;
        // Many pages are left closed, but their parents' totals give the same result.
        assert_eq!((all.files, all.bytes), (3000, 0));

        // Without the read key, only the lengths of the blobs are known.
        let unread = async |which| count(tree.blobs(), None, new, old, &which).await.unwrap();
        assert_eq!(unread(Which::Here).await, exactly(50, 400));
        let missing = unread(MISSING).await;
        assert_eq!((missing.files, missing.bytes), (50, 500));
        assert!(missing.is_guess);
    }

    #[tokio::test]
    async fn what_is_not_here_is_guessed() {
        let (tree, other) = (tree().await, tree().await);
        let old = root(&tree, 0..1000, 10).await;
        let new = root(&other, 0..1100, 10).await;
        let found = count(tree.blobs(), Some(&tree), new, old, &MISSING).await;
        let expected = Count {
            is_guess: true,
            ..exactly(100, 1000)
        };
        assert_eq!(found.unwrap(), expected);
        let found = count(tree.blobs(), None, new, old, &MISSING).await;
        assert_eq!(found.unwrap(), expected);
        // The tree to compare with is missing: nothing is known to be in both.
        let found = count(tree.blobs(), Some(&tree), old, new, &Which::Here).await;
        let expected = Count {
            is_guess: true,
            ..exactly(500, 5000)
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[tokio::test]
    async fn absurd_sizes_are_only_large() {
        let tree = tree().await;
        let files = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let huge = root(&tree, files, u64::MAX / 10).await;
        let of = async |new: Root, tree: Option<&Tree>, which| {
            let blobs = tree.map_or(blobs().await, |tree| tree.blobs().clone());
            count(&blobs, tree, new, Root::EMPTY, &which).await.unwrap()
        };
        assert_eq!(of(huge, Some(&tree), MISSING).await.files, 5);
        let lie = Root {
            hash: Hash::of("nothing"),
            level: u8::MAX,
            files: 1,
            bytes: u64::MAX,
        };
        let whole = of(lie, Some(&tree), MISSING).await;
        assert!(whole.is_guess || whole == exactly(0, 0), "{whole:?}");
        let mut all = of(Root { level: 3, ..lie }, None, MISSING).await;
        assert_eq!((all.files, all.bytes, all.is_guess), (1, u64::MAX, true));
        all.add(all);
        assert_eq!((all.files, all.bytes), (2, u64::MAX));
    }
}
