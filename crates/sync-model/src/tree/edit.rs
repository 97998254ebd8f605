//! Edits a tree. Around each change, pages are cut again, from the page that contains it to the next
//! place where an old page begins; the resulting changes are then applied to the level above in the
//! same way.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use larder_store_api::{Error, Kind, Listing, Result};
use larder_store_engine::{Hash, Pin, Transaction};

use super::{
    FileEntry, MAX_LEVEL, Name, Root, Tree,
    cursor::Cursor,
    page::{Child, Item, Node, Page},
    write::{Builder, Sink, Writer},
};

const EDIT: &str = "sync.tree.edit";

/// The most written pages of level 0 that an edit keeps in memory.
const MAX_WRITTEN: usize = 32;

/// A new tree.
#[derive(Debug, Clone)]
pub struct Edited {
    /// Its root.
    pub root: Root,
    /// Keeps the tree and its files alive until this is dropped: tag [`Root::keep`] before that.
    pub pin: Pin,
    /// The number of pages that were written.
    pub pages: u64,
    /// The number of bytes of those pages after sealing, with their sequences.
    pub bytes: u64,
}

/// The changes on a level: for the last name of each page, the page that now ends there, or `None` if
/// no page ends there any more.
type Changes = BTreeMap<Name, Option<Child>>;

impl Tree {
    /// Returns the tree with these files set, or removed where the entry is `None`. Removing a missing
    /// file is not an error. The tree is durable when this returns.
    ///
    /// The sealed files themselves must be in the store already, or be added later; a caller that has
    /// just added them must keep their pins until this returns. The cost depends on the changes: each
    /// takes a page or two of every level. Equal files give equal roots, whatever the tree was before.
    pub async fn edit(
        &self,
        root: Root,
        changes: BTreeMap<Name, Option<FileEntry>>,
    ) -> Result<Edited> {
        self.edit_sorted(root, stream::iter(changes.into_iter().map(Ok)))
            .await
    }

    /// Edits a tree, as [`edit`](Self::edit) does, with pages that become durable with the transaction.
    /// All of the old tree must be durable already.
    pub async fn edit_in(
        &self,
        transaction: &Transaction,
        root: Root,
        changes: BTreeMap<Name, Option<FileEntry>>,
    ) -> Result<Edited> {
        let changes = stream::iter(changes.into_iter().map(Ok)).boxed();
        let sink = Sink::Transaction(transaction.clone());
        self.edit_into(sink, root, changes).await
    }

    /// Edits a tree, as [`edit`](Self::edit) does, with changes from a stream, ascending by name, for
    /// more changes than fit in memory. If the stream fails, nothing is changed; names that do not
    /// ascend are [`Kind::Invalid`].
    ///
    /// Uses memory for some 200 pages, and for a pin of each blob written, about 10 bytes per file.
    pub async fn edit_sorted(
        &self,
        root: Root,
        changes: impl Stream<Item = Result<(Name, Option<FileEntry>)>> + Send,
    ) -> Result<Edited> {
        let sink = Sink::Store(self.0.blobs.clone());
        self.edit_into(sink, root, Box::pin(changes)).await
    }

    async fn edit_into(
        &self,
        sink: Sink,
        root: Root,
        changes: stream::BoxStream<'_, Result<(Name, Option<FileEntry>)>>,
    ) -> Result<Edited> {
        // Pages reused from the old tree stay, even if others replace and collect the tree meanwhile.
        let _old = self.0.blobs.pin(root.keep()).await;
        let mut edit = Edit {
            tree: self,
            old: root,
            writer: Writer::new(sink),
            pages: 0,
            written: Vec::new(),
            leaves: 0,
        };
        let new = edit.run(changes).await?;
        edit.writer.finish().await?;
        // Pages that are not durable yet can be read only from here.
        for (hash, node) in edit.written.drain(..) {
            self.pages().put(hash, node);
        }
        let new = self.lower(new).await?;
        let pin = self.0.blobs.pin(new.keep()).await;
        Ok(Edited {
            root: new,
            pin,
            pages: edit.pages,
            bytes: edit.writer.bytes,
        })
    }

    /// Returns the tree without top pages that have a single page below: its topmost page has several
    /// pages, or files.
    async fn lower(&self, mut root: Root) -> Result<Root> {
        while root.level > 0 {
            let page = self.load_root::<Child>(root).await?;
            let [(_, only)] = page.items.as_slice() else {
                break;
            };
            root = only.as_root(root.level - 1);
        }
        Ok(root)
    }
}

impl Child {
    fn as_root(self, level: u8) -> Root {
        Root {
            hash: self.hash,
            level,
            files: self.files,
            bytes: self.bytes,
        }
    }
}

struct Edit<'a> {
    tree: &'a Tree,
    old: Root,
    writer: Writer,
    pages: u64,
    /// The latest pages of level 0 and all other pages, for the cache once they are in the store.
    written: Vec<(Hash, Node)>,
    /// The number of pages of level 0 among them.
    leaves: usize,
}

/// The ascending changes of one level, with a look-ahead of one.
struct Pending<'a, T> {
    next: Option<(Name, Option<T>)>,
    rest: stream::BoxStream<'a, Result<(Name, Option<T>)>>,
}

impl<T: Item> Pending<'_, T> {
    /// Returns the current change, and reads the next.
    async fn take(&mut self) -> Result<Option<(Name, Option<T>)>> {
        if self.next.is_none() {
            return Ok(None);
        }
        let next = self.rest.try_next().await?;
        if let (Some((before, _)), Some((name, _))) = (&self.next, &next)
            && name <= before
        {
            let error = Error::new(Kind::Invalid, EDIT, "the names do not ascend");
            return Err(error.with("name", name).with("before", before));
        }
        Ok(std::mem::replace(&mut self.next, next))
    }
}

impl Edit<'_> {
    async fn run(
        &mut self,
        changes: stream::BoxStream<'_, Result<(Name, Option<FileEntry>)>>,
    ) -> Result<Root> {
        let mut changes = self.level(0, changes).await?;
        for level in 0..=MAX_LEVEL {
            if changes.is_empty() {
                return Ok(self.old);
            }
            if level >= self.old.level {
                // All pages that this level now has are among the changes.
                let mut pages = changes.values().flatten();
                match (pages.next(), pages.next()) {
                    (None, _) => return Ok(Root::EMPTY),
                    (Some(page), None) => return Ok(page.as_root(level)),
                    _ => {}
                }
            }
            let above = stream::iter(changes.into_iter().map(Ok)).boxed();
            changes = self.level::<Child>(level + 1, above).await?;
        }
        Err(Error::new(Kind::TooLarge, EDIT, "there are too many files"))
    }

    /// Applies changes to one level, and returns the resulting changes of the level above.
    async fn level<T: Item>(
        &mut self,
        level: u8,
        mut changes: stream::BoxStream<'_, Result<(Name, Option<T>)>>,
    ) -> Result<Changes> {
        let mut cursor = Cursor::new(self.tree, self.old, level);
        let mut pending = Pending {
            next: changes.try_next().await?,
            rest: changes,
        };
        let builder = Builder::new(self.tree, level);
        let mut out = Output {
            edit: self,
            builder,
            replaced: BTreeMap::new(),
            changes: Changes::new(),
        };
        // At this point a page begins both in the old tree and in the new one.
        while let Some((name, _)) = &pending.next {
            let mut page = cursor.seek::<T>(name.as_str()).await?;
            loop {
                let Some(old) = page else {
                    // The end of the level.
                    while let Some((name, item)) = pending.take().await? {
                        out.push(name, item).await?;
                    }
                    out.finish().await?;
                    break;
                };
                out.replaces(&old, cursor.hash());
                let mut kept = 0;
                loop {
                    let change = pending.next.as_ref();
                    let at =
                        change.map_or(old.items.len(), |(name, _)| old.position(name.as_str()));
                    for (name, item) in &old.items[kept..at] {
                        out.push(name.clone(), Some(item.clone())).await?;
                    }
                    kept = at;
                    let Some((before, _)) = old.items.get(at) else {
                        break;
                    };
                    if let Some((name, item)) = pending.take().await? {
                        kept += usize::from(name == *before);
                        out.push(name, item).await?;
                    }
                }
                let last = cursor.is_last();
                if out.builder.is_empty() && !(last && pending.next.is_some()) {
                    break;
                }
                page = if last { None } else { cursor.next().await? };
            }
        }
        Ok(out.changes)
    }
}

/// The new pages of a level.
struct Output<'a, 'b, T> {
    edit: &'a mut Edit<'b>,
    builder: Builder<'b, T>,
    /// The old pages that were passed, by their last names.
    replaced: BTreeMap<Name, Hash>,
    changes: Changes,
}

impl<T: Item> Output<'_, '_, T> {
    fn replaces(&mut self, page: &Page<T>, hash: Hash) {
        self.replaced.insert(page.last().clone(), hash);
        self.changes.insert(page.last().clone(), None);
    }

    async fn push(&mut self, name: Name, item: Option<T>) -> Result<()> {
        if let Some(item) = item
            && let Some(page) = self.builder.push(name, item)?
        {
            self.write(page).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        match self.builder.finish()? {
            Some(page) => self.write(page).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, page: Page<T>) -> Result<()> {
        let (child, blobs) = self.edit.tree.seal(&page)?;
        if self.replaced.get(page.last()) == Some(&child.hash) {
            if page.level < self.edit.old.level {
                self.changes.remove(page.last());
            } else {
                // The old root: on its level, the changes contain all pages.
                self.changes.insert(page.last().clone(), Some(child));
            }
            return Ok(());
        }
        self.changes.insert(page.last().clone(), Some(child));
        self.edit.pages += 1;
        for blob in blobs {
            self.edit.writer.add(blob).await?;
        }
        // Pages above level 0 are few, and the topmost ones are read at the end.
        if self.edit.leaves >= MAX_WRITTEN {
            self.edit.leaves = 0;
            let is_inner = |(_, node): &(Hash, Node)| matches!(node, Node::Inner(_));
            self.edit.written.retain(is_inner);
        }
        self.edit.leaves += usize::from(page.level == 0);
        self.edit
            .written
            .push((child.hash, T::node(Arc::new(page))));
        Ok(())
    }
}

/// A stream for callers who build a tree from scratch.
impl Tree {
    /// Builds the tree of these files, which come ascending by name, as
    /// [`edit_sorted`](Self::edit_sorted) does.
    pub async fn build(&self, files: Listing<(Name, FileEntry)>) -> Result<Edited> {
        let changes = files.map_ok(|(name, entry)| (name, Some(entry)));
        self.edit_sorted(Root::EMPTY, changes).await
    }
}
