//! Reads pages, and looks up files.

use std::sync::Arc;

use bytes::Bytes;
use larder_store_api::{Error, Kind, Listing, Result};
use larder_store_engine::{Blobs, Hash};

use super::{
    FileEntry, MALFORMED, MAX_LEVEL, Name, Named, Root, Tree,
    cursor::{Cursor, Step},
    page::{Child, Item, MAX_ITEMS, MAX_PAGE_LEN, Page},
};
use crate::seal::page::OVERHEAD;

/// The longest sequence, in hashes: the page and its items.
const MAX_SEQUENCE: usize = 1 + MAX_ITEMS;

impl Tree {
    /// Returns the file with this name; `None` if there is none.
    pub async fn get(&self, root: Root, name: &Name) -> Result<Option<FileEntry>> {
        if root.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self, root, 0);
        let Some(leaf) = cursor.seek::<FileEntry>(name.as_str()).await? else {
            return Ok(None);
        };
        let found = leaf.items.get(leaf.position(name.as_str()));
        Ok(found.filter(|(n, _)| n == name).map(|(_, e)| e.clone()))
    }

    /// Finds the file with this name: returns the pages from the root down to the one that names it,
    /// and its position in the sequence of that page, counted from 1.
    pub async fn locate(
        &self,
        root: Root,
        name: &Name,
    ) -> Result<Option<(Vec<Hash>, u64, FileEntry)>> {
        if root.is_empty() {
            return Ok(None);
        }
        let mut chain = vec![root.hash];
        let mut page = root.hash;
        for level in (1..=root.level).rev() {
            let inner = self.open::<Child>(page, level).await?;
            let Some((_, child)) = inner.items.get(inner.position(name.as_str())) else {
                return Ok(None);
            };
            page = child.hash;
            chain.push(page);
        }
        let leaf = self.open::<FileEntry>(page, 0).await?;
        let at = leaf.position(name.as_str());
        let found = leaf.items.get(at).filter(|(found, _)| found == name);
        // The sealed page is the first.
        Ok(found.map(|(_, entry)| (chain, at as u64 + 2, entry.clone())))
    }

    /// Returns the files that a page of level 0 names, in the order of its sequence.
    pub async fn files_of(&self, page: Hash) -> Result<Vec<Named>> {
        let items = self.open::<FileEntry>(page, 0).await?.items.into_iter();
        Ok(items.map(|(name, entry)| Named { name, entry }).collect())
    }

    pub(super) fn list_from(
        self,
        root: Root,
        prefix: String,
        after: Option<Name>,
    ) -> Listing<Named> {
        Box::pin(async_stream::try_stream! {
            let after = after.as_ref().map_or("", Name::as_str);
            let first = prefix.as_str().max(after);
            let mut cursor = Cursor::new(&self, root, 0);
            let mut page = cursor.seek::<FileEntry>(first).await?;
            while let Some(leaf) = page {
                for (name, entry) in &leaf.items[leaf.position(first)..] {
                    if name.as_str() > after && name.as_str().starts_with(&prefix) {
                        yield Named {
                            name: name.clone(),
                            entry: entry.clone(),
                        };
                    } else if name.as_str() > prefix.as_str() && !name.as_str().starts_with(&prefix) {
                        return;
                    }
                }
                page = cursor.next().await?;
            }
        })
    }

    /// Returns the tree whose topmost page has this sequence.
    pub async fn find_root(&self, hash: Hash, level: u8) -> Result<Root> {
        if hash == Hash::EMPTY {
            return Ok(Root::EMPTY);
        }
        let (files, bytes) = if level == 0 {
            let page = self.open::<FileEntry>(hash, level).await?;
            (page.files, page.bytes)
        } else {
            let page = self.open::<Child>(hash, level).await?;
            (page.files, page.bytes)
        };
        Ok(Root {
            hash,
            level,
            files,
            bytes,
        })
    }

    /// Loads the page whose sequence is `hash`, and checks it against what is known of it.
    pub(super) async fn load<T: Item>(
        &self,
        hash: Hash,
        level: u8,
        expect: Expect<'_>,
    ) -> Result<Arc<Page<T>>> {
        let known = self.pages().get(&hash).map(T::of);
        let page = match known {
            Some(Some(page)) => page,
            Some(None) => return Err(corrupt(hash, "the page does not have the expected level")),
            None => {
                let page = Arc::new(self.open::<T>(hash, level).await?);
                self.pages().put(hash, T::node(page.clone()));
                page
            }
        };
        if page.level != level {
            return Err(corrupt(hash, "the page does not have the expected level"));
        }
        if page.files != expect.files || page.bytes != expect.bytes {
            return Err(corrupt(
                hash,
                "the page does not have the expected number of files",
            ));
        }
        if expect.after.is_some_and(|after| page.items[0].0 <= *after) {
            return Err(corrupt(
                hash,
                "the page begins before the one before it ends",
            ));
        }
        if expect.last.is_some_and(|last| last != page.last()) {
            return Err(corrupt(
                hash,
                "the page does not end with the expected name",
            ));
        }
        Ok(page)
    }

    /// Loads a page about which nothing else is known; it is not cached.
    pub(super) async fn peek<T: Item>(&self, hash: Hash, level: u8) -> Result<Arc<Page<T>>> {
        let known = self.pages().get(&hash).and_then(T::of);
        match known.filter(|page| page.level == level) {
            Some(page) => Ok(page),
            None => self.open(hash, level).await.map(Arc::new),
        }
    }

    async fn open<T: Item>(&self, hash: Hash, level: u8) -> Result<Page<T>> {
        if level > MAX_LEVEL {
            return Err(corrupt(hash, "a tree is not that deep"));
        }
        let links = sequence(&self.0.blobs, hash).await?;
        let Some((first, links)) = links.split_first() else {
            return Err(corrupt(hash, "the page is empty"));
        };
        let sealed = limited(&self.0.blobs, *first, MAX_PAGE_LEN + OVERHEAD).await?;
        let opened = self.0.keys.open_page(&sealed);
        let page = opened.and_then(|plain| Page::decode(&plain, level, links));
        page.map_err(|error| match error.kind() {
            Kind::Invalid | Kind::Corrupt | Kind::TooLarge => {
                corrupt(hash, "the page cannot be read").because(error)
            }
            _ => error.with("page", hash),
        })
    }

    /// Loads the page at the end of `path`, which leads there from the root.
    pub(super) async fn load_below<T: Item>(&self, path: &[Step]) -> Result<Arc<Page<T>>> {
        let (page, at) = path.last().expect("a path leads somewhere");
        let (last, child) = &page.items[*at];
        // The end of the previous page, which may be below another page.
        let before = path.iter().rev().find(|(_, at)| *at > 0);
        let expect = Expect {
            after: before.map(|(page, at)| &page.items[at - 1].0),
            files: child.files,
            bytes: child.bytes,
            last: Some(last),
        };
        self.load(child.hash, page.level - 1, expect).await
    }

    /// Loads the topmost page, if it has items of this type.
    pub(super) async fn load_root<T: Item>(&self, root: Root) -> Result<Arc<Page<T>>> {
        let expect = Expect {
            files: root.files,
            bytes: root.bytes,
            after: None,
            last: None,
        };
        self.load(root.hash, root.level, expect).await
    }

    pub(super) fn pages(&self) -> std::sync::MutexGuard<'_, super::Pages> {
        let pages = self.0.pages.lock();
        pages.expect("no code panics while it holds the pages")
    }
}

/// The known facts about a page before it is read.
pub(super) struct Expect<'a> {
    pub files: u64,
    pub bytes: u64,
    /// The page begins after this name.
    pub after: Option<&'a Name>,
    /// The page ends with this name.
    pub last: Option<&'a Name>,
}

pub(super) fn corrupt(hash: Hash, message: &'static str) -> Error {
    Error::new(Kind::Corrupt, MALFORMED, message).with("page", hash)
}

/// Returns the hashes in a sequence; the empty sequence has none.
pub(super) async fn sequence(blobs: &Blobs, hash: Hash) -> Result<Vec<Hash>> {
    if hash == Hash::EMPTY {
        return Ok(Vec::new());
    }
    let bytes = limited(blobs, hash, MAX_SEQUENCE * 32).await?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() < 2 {
        return Err(corrupt(hash, "the blob is not the sequence of a page"));
    }
    Ok(hashes.iter().map(|hash| Hash::from(*hash)).collect())
}

/// Returns a whole blob, which must not be longer than `max`.
async fn limited(blobs: &Blobs, hash: Hash, max: usize) -> Result<Bytes> {
    let bytes = blobs.read_to_bytes(hash, 0..max as u64 + 1).await?;
    if bytes.len() > max {
        return Err(corrupt(hash, "the blob is longer than any valid one").with("limit", max));
    }
    Ok(bytes)
}
