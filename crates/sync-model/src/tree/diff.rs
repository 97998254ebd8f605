//! The differences between two trees.

use std::{cmp::Ordering, sync::Arc};

use larder_store_api::{Listing, Result};

use super::{
    FileEntry, Name, Root, Tree,
    cursor::Step,
    page::{Child, Page},
};

/// A name whose file differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name.
    pub name: Name,
    /// The file in the first tree.
    pub old: Option<FileEntry>,
    /// The file in the second tree.
    pub new: Option<FileEntry>,
}

impl Tree {
    /// Lists the differences of `new` from `old`, ascending by name. Pages that both have are not read,
    /// so the cost depends on the difference.
    pub fn diff(&self, old: Root, new: Root) -> Listing<Difference> {
        let tree = self.clone();
        Box::pin(async_stream::try_stream! {
            let (mut old, mut new) = (Side::new(&tree, old), Side::new(&tree, new));
            loop {
                match (old.top(), new.top()) {
                    (None, None) => break,
                    (Some(a), Some(b)) if a.is_same_page(&b) => {
                        old.take();
                        new.take();
                    }
                    // The higher page is opened first: a page below it may be the one that the other
                    // tree has.
                    (a, b) => match (height(a), height(b)) {
                        (0, 0) => {
                            let order = match (a.map(Top::name), b.map(Top::name)) {
                                (Some(a), Some(b)) => a.cmp(b),
                                (Some(_), None) => Ordering::Less,
                                _ => Ordering::Greater,
                            };
                            let a = if order.is_le() { old.file() } else { None };
                            let b = if order.is_ge() { new.file() } else { None };
                            if let Some(difference) = difference(a, b) {
                                yield difference;
                            }
                        }
                        (a, b) => {
                            if a >= b {
                                old.open().await?;
                            }
                            if b >= a {
                                new.open().await?;
                            }
                        }
                    },
                }
            }
        })
    }
}

fn difference(
    old: Option<(Name, FileEntry)>,
    new: Option<(Name, FileEntry)>,
) -> Option<Difference> {
    let name = old.as_ref().or(new.as_ref())?.0.clone();
    let (old, new) = (old.map(|(_, e)| e), new.map(|(_, e)| e));
    (old != new).then_some(Difference { name, old, new })
}

/// The next item on one side.
#[derive(Clone, Copy)]
enum Top<'a> {
    File(&'a Name),
    /// A page, and its height: its level plus one.
    Page(&'a Child, u8),
}

impl<'a> Top<'a> {
    fn name(self) -> &'a str {
        match self {
            Top::File(name) => name.as_str(),
            Top::Page(..) => "",
        }
    }

    fn is_same_page(&self, other: &Top<'_>) -> bool {
        match (self, other) {
            (Top::Page(a, level), Top::Page(b, other)) => a.hash == b.hash && level == other,
            _ => false,
        }
    }
}

fn height(top: Option<Top<'_>>) -> u8 {
    match top {
        Some(Top::Page(_, height)) => height,
        _ => 0,
    }
}

/// The rest of one tree: the remaining items of each opened page, from the root down.
struct Side<'a> {
    tree: &'a Tree,
    root: Option<(Root, Child)>,
    inner: Vec<Step>,
    leaf: Option<(Arc<Page<FileEntry>>, usize)>,
}

impl<'a> Side<'a> {
    fn new(tree: &'a Tree, root: Root) -> Self {
        let child = Child {
            hash: root.hash,
            files: root.files,
            bytes: root.bytes,
        };
        Self {
            tree,
            root: (!root.is_empty()).then_some((root, child)),
            inner: Vec::new(),
            leaf: None,
        }
    }

    fn top(&self) -> Option<Top<'_>> {
        if let Some((page, at)) = &self.leaf {
            return Some(Top::File(&page.items[*at].0));
        }
        if let Some((page, at)) = self.inner.last() {
            return Some(Top::Page(&page.items[*at].1, page.level));
        }
        let (root, child) = self.root.as_ref()?;
        Some(Top::Page(child, root.level.saturating_add(1)))
    }

    /// Skips the item on top.
    fn take(&mut self) {
        if let Some((page, at)) = &mut self.leaf {
            *at += 1;
            if *at == page.items.len() {
                self.leaf = None;
                self.end_page();
            }
        } else if self.inner.is_empty() {
            self.root = None;
        } else {
            self.end_page();
        }
    }

    /// Leaves the innermost opened page, and those that end with it.
    fn end_page(&mut self) {
        while let Some((page, at)) = self.inner.last_mut() {
            *at += 1;
            if *at < page.items.len() {
                return;
            }
            self.inner.pop();
        }
        self.root = None;
    }

    fn file(&mut self) -> Option<(Name, FileEntry)> {
        let (page, at) = self.leaf.as_ref()?;
        let file = page.items[*at].clone();
        self.take();
        Some(file)
    }

    /// Opens the page on top.
    async fn open(&mut self) -> Result<()> {
        let tree = self.tree;
        match (self.inner.last(), self.root) {
            (Some((page, _)), _) if page.level == 1 => {
                self.leaf = Some((tree.load_below(&self.inner).await?, 0));
            }
            (Some(_), _) => {
                let inner = tree.load_below(&self.inner).await?;
                self.inner.push((inner, 0));
            }
            (None, Some((root, _))) if root.level == 0 => {
                self.leaf = Some((tree.load_root(root).await?, 0));
            }
            (None, Some((root, _))) => self.inner.push((tree.load_root(root).await?, 0)),
            (None, None) => {}
        }
        Ok(())
    }
}
