//! Cuts items into pages, and writes pages to the store.

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Blobs, Hashed, Pin, Transaction};
use tokio::task::JoinSet;

use super::{
    Name, Tree,
    page::{Child, FULL_LEN, Item, MAX_ITEMS, Page},
};

/// The fewest items that a page has, unless it is the last of its level.
pub const MIN_ITEMS: usize = 32;

/// After its first [`MIN_ITEMS`], a page ends at each further item with a probability of one in this
/// number.
const ONE_IN: u32 = 32;

/// The number of blobs that are added at a time.
const TOGETHER: usize = 64;

/// Cuts items into pages.
pub(super) struct Builder<'a, T> {
    tree: &'a Tree,
    level: u8,
    items: Vec<(Name, T)>,
    len: usize,
}

impl<'a, T: Item> Builder<'a, T> {
    pub(super) fn new(tree: &'a Tree, level: u8) -> Self {
        Self {
            tree,
            level,
            items: Vec::new(),
            len: 0,
        }
    }

    /// Returns true if a page begins here.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds the next item, and returns the page that it ends, if any.
    pub(super) fn push(&mut self, name: Name, item: T) -> Result<Option<Page<T>>> {
        self.len += name.as_str().len() + 4 + T::LEN;
        let count = self.items.len() + 1;
        let ends = count >= MIN_ITEMS
            && (count >= MAX_ITEMS
                || self.len >= FULL_LEN
                || self.tree.says_end(self.level, &name)?);
        if self.items.is_empty() {
            self.items.reserve(2 * MIN_ITEMS);
        }
        self.items.push((name, item));
        if ends {
            return self.finish();
        }
        Ok(None)
    }

    /// Returns the last page, if one has begun.
    pub(super) fn finish(&mut self) -> Result<Option<Page<T>>> {
        self.len = 0;
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return Ok(None);
        }
        Page::new(self.level, items).map(Some)
    }
}

impl Tree {
    /// Returns true if the hash of a name says that a page may end after it. The hash is keyed, so that
    /// choosing the names of files does not allow anyone to make pages long.
    fn says_end(&self, level: u8, name: &Name) -> Result<bool> {
        let text = [&[level], name.as_str().as_bytes()].concat();
        let hash = blake3::keyed_hash(self.boundary()?, &text);
        let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        Ok(u32::from_be_bytes(*first) % ONE_IN == 0)
    }

    /// Returns the two blobs of a page, and the item that represents it in the page above.
    pub(super) fn seal<T: Item>(&self, page: &Page<T>) -> Result<(Child, [Hashed; 2])> {
        let sealed = Hashed::new(self.seals()?.pages()?.seal(&page.encode()));
        let sequence = Hashed::new(page.sequence(sealed.hash()));
        let child = Child {
            hash: sequence.hash(),
            files: page.files,
            bytes: page.bytes,
        };
        Ok((child, [sealed, sequence]))
    }
}

/// The destination of the blobs of pages.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    /// The store: the blobs are durable before the edit ends.
    Store(Blobs),
    /// A transaction: the blobs become durable together with its other changes.
    Transaction(Transaction),
}

impl Sink {
    async fn add_all(&self, blobs: Vec<Hashed>) -> Result<Vec<Pin>> {
        match self {
            Self::Store(store) => store.add_all(blobs).await,
            Self::Transaction(transaction) => transaction.add_all(blobs).await,
        }
    }
}

/// Adds blobs, many at a time.
pub(super) struct Writer {
    sink: Sink,
    waiting: Vec<Hashed>,
    /// The running batch; at most one, so that the next can be prepared meanwhile.
    adding: JoinSet<Result<Vec<Pin>>>,
    /// The pins of the added blobs, which stay until all are added.
    pins: Vec<Pin>,
    pub(super) bytes: u64,
}

impl Writer {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            waiting: Vec::new(),
            adding: JoinSet::new(),
            pins: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) async fn add(&mut self, blob: Hashed) -> Result<()> {
        self.bytes += blob.bytes().len() as u64;
        self.waiting.push(blob);
        if self.waiting.len() >= TOGETHER {
            self.wait().await?;
            let batch = self.batch();
            self.adding.spawn(batch);
        }
        Ok(())
    }

    fn batch(&mut self) -> impl Future<Output = Result<Vec<Pin>>> + Send + 'static {
        let (sink, batch) = (self.sink.clone(), std::mem::take(&mut self.waiting));
        async move { sink.add_all(batch).await }
    }

    async fn wait(&mut self) -> Result<()> {
        while let Some(added) = self.adding.join_next().await {
            let pins = added.map_err(|error| {
                Error::new(
                    Kind::Internal,
                    "sync.tree.edit",
                    "the task that adds pages failed",
                )
                .because(error)
            })?;
            self.pins.extend(pins?);
        }
        Ok(())
    }

    /// Waits until all blobs are written. Added blobs are pinned until the writer is dropped.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.wait().await?;
        let pins = self.batch().await?;
        self.pins.extend(pins);
        Ok(())
    }
}
