//! Collections: named, ordered maps from key to small value.

use std::{fmt, ops::Bound};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Durability, Error, IntoBytes, Kind, Listing, Result};

/// The longest name of a collection, in bytes.
pub const MAX_COLLECTION_ID_LEN: usize = 64;

/// The name of a collection: 1 to [`MAX_COLLECTION_ID_LEN`] bytes. Ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(Bytes);

impl CollectionId {
    /// Makes a name. [`Kind::Invalid`] if it is empty or too long.
    pub fn new(name: impl IntoBytes) -> Result<Self> {
        let name = name.into_bytes();
        if name.is_empty() || name.len() > MAX_COLLECTION_ID_LEN {
            return Err(Error::new(
                Kind::Invalid,
                "collection.name",
                format!("a collection's name has 1 to {MAX_COLLECTION_ID_LEN} bytes"),
            )
            .with("len", name.len()));
        }
        Ok(Self(name))
    }

    /// Makes a name that is known at compile time.
    ///
    /// # Panics
    /// If the name is empty or too long; in a constant, that is a compile error.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(!name.is_empty() && name.len() <= MAX_COLLECTION_ID_LEN);
        Self(Bytes::from_static(name.as_bytes()))
    }

    /// Returns the name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectionId({self})")
    }
}

/// A conversion into the name of a collection: a [`CollectionId`], or text or bytes that are checked.
pub trait IntoCollectionId {
    /// Returns the name.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it is empty or too long.
    fn into_collection_id(self) -> Result<CollectionId>;
}

impl IntoCollectionId for CollectionId {
    fn into_collection_id(self) -> Result<CollectionId> {
        Ok(self)
    }
}

impl IntoCollectionId for &CollectionId {
    fn into_collection_id(self) -> Result<CollectionId> {
        Ok(self.clone())
    }
}

macro_rules! checked {
    ($($name:ty),*) => {$(
        impl IntoCollectionId for $name {
            fn into_collection_id(self) -> Result<CollectionId> {
                CollectionId::new(self)
            }
        }
    )*};
}

checked!(&str, String, &String, &[u8], Vec<u8>, Bytes);

/// The number of a commit of a store. Every commit has a greater one than all before it; an entry's is
/// that of the commit that last put it. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// One entry of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The commit that put it.
    pub revision: Revision,
}

/// The entries to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The collection.
    pub collection: CollectionId,
    /// The keys, by their bytes.
    pub keys: (Bound<Bytes>, Bound<Bytes>),
    /// Ascending or descending.
    pub order: Order,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Greatest key first.
    Descending,
}

impl Scan {
    /// Selects every entry of `collection`, ascending.
    pub fn all(collection: CollectionId) -> Self {
        Self {
            collection,
            keys: (Bound::Unbounded, Bound::Unbounded),
            order: Order::Ascending,
        }
    }

    /// Selects every entry of `collection` whose key begins with `prefix`, ascending.
    pub fn prefix(collection: CollectionId, prefix: impl IntoBytes) -> Self {
        let prefix = prefix.into_bytes();
        // The first key after all that begin with the prefix: cut trailing 0xff, add one.
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(Bytes::from(end))
            }
            None => Bound::Unbounded,
        };
        Self {
            collection,
            keys: (Bound::Included(prefix), end),
            order: Order::Ascending,
        }
    }
}

/// A condition that must hold for a [`Batch`] to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The key has no entry.
    Absent {
        /// The collection.
        collection: CollectionId,
        /// The key.
        key: Bytes,
    },
    /// The key's entry was last put by this commit.
    At {
        /// The collection.
        collection: CollectionId,
        /// The key.
        key: Bytes,
        /// The commit.
        revision: Revision,
    },
}

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Sets the key's value.
    Put {
        /// The collection.
        collection: CollectionId,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes the key's entry; an absent entry is not an error.
    Delete {
        /// The collection.
        collection: CollectionId,
        /// The key.
        key: Bytes,
    },
}

impl Edit {
    /// Sets the key's value.
    pub fn put(collection: CollectionId, key: impl IntoBytes, value: impl IntoBytes) -> Self {
        Self::Put {
            collection,
            key: key.into_bytes(),
            value: value.into_bytes(),
        }
    }

    /// Removes the key's entry.
    pub fn delete(collection: CollectionId, key: impl IntoBytes) -> Self {
        Self::Delete {
            collection,
            key: key.into_bytes(),
        }
    }
}

/// Expectations and edits, all or nothing: the only way to change anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Checked against the state before the batch.
    pub expect: Vec<Expect>,
    /// Applied in order: of two edits of one key, the later wins.
    pub edits: Vec<Edit>,
    /// The durability that the caller wants before the commit returns. A store may always do
    /// better.
    pub durability: Durability,
}

impl Batch {
    /// Makes a batch of edits without expectations, durable when the commit returns.
    pub fn of(edits: Vec<Edit>) -> Self {
        Self {
            expect: Vec::new(),
            edits,
            durability: Durability::OnWrite,
        }
    }

    /// Sets the durability that the caller wants before the commit returns.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds one expectation to the batch.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expect.push(expect);
        self
    }
}

/// A change that a watcher is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// These keys were put or deleted by one commit.
    Keys {
        /// The collection.
        collection: CollectionId,
        /// The keys; each once.
        keys: Vec<Bytes>,
        /// The commit.
        revision: Revision,
    },
    /// The watcher fell behind and missed changes: read again the entries that matter.
    Resync,
}

/// Says if several processes may work on one store at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One opener at a time: the store is locked, or lives within its process. Nobody owns the data that
    /// earlier openers left behind.
    Exclusive,
    /// Others may have it open too, elsewhere, and work on it.
    Shared,
}

/// Facts about a [`CollectionStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionCapabilities {
    /// The longest key, in bytes; at least 256.
    pub max_key_len: u32,
    /// The longest value, in bytes; at least 64 KiB.
    pub max_value_len: u32,
    /// The most expectations and edits in one batch, together; at least 128.
    pub max_batch_len: u32,
    /// The strongest durability that a commit can have.
    pub durability: Durability,
    /// Says if other processes may work on it at the same time.
    pub sharing: Sharing,
}

impl CollectionCapabilities {
    /// Returns the minimum that every store promises: keys of 256 bytes, values of 64 KiB, batches of 128
    /// expectations and edits, in memory, for one opener. A backend changes the fields in
    /// which it differs.
    pub const fn least() -> Self {
        Self {
            max_key_len: 256,
            max_value_len: 64 * 1024,
            max_batch_len: 128,
            durability: Durability::Memory,
            sharing: Sharing::Exclusive,
        }
    }

    /// Checks that `batch` is within the limits: for backends.
    ///
    /// # Errors
    /// [`Kind::TooLarge`], with the limit.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        let within = |message, len: usize, most: u32| match len > most as usize {
            true => Err(Error::new(Kind::TooLarge, "collection.commit", message)
                .with("len", len)
                .with("most", most)),
            false => Ok(()),
        };
        let len = batch.expect.len() + batch.edits.len();
        let message = "the batch has too many expectations and edits";
        within(message, len, self.max_batch_len)?;
        let expected = batch.expect.iter().map(|expect| match expect {
            Expect::Absent { key, .. } | Expect::At { key, .. } => (key, 0),
        });
        let edited = batch.edits.iter().map(|edit| match edit {
            Edit::Put { key, value, .. } => (key, value.len()),
            Edit::Delete { key, .. } => (key, 0),
        });
        for (key, value_len) in expected.chain(edited) {
            within("a key is too long", key.len(), self.max_key_len)?;
            within("a value is too long", value_len, self.max_value_len)?;
        }
        Ok(())
    }
}

/// Keeps named, ordered maps from key to small value, changed by atomic batches.
///
/// A collection exists while it has entries. Keys may be empty, values too.
#[async_trait]
pub trait CollectionStore: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name for people, as in an error or a table.
    fn name(&self) -> &str;

    /// Returns facts about this store; they are constant while it is open.
    fn capabilities(&self) -> CollectionCapabilities;

    /// Returns the key's entry, or `None` if there is none, also for a key over the longest that can
    /// be kept. Sees every commit that returned before the call.
    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>>;

    /// Lists the entries that `scan` asks for, each key at most once, in its order.
    ///
    /// An entry that is not changed while the scan runs appears; one that is changed meanwhile may
    /// appear as it was or as it is, or, if it is put or deleted, not at all. Bounds whose start
    /// is beyond their end give no entry. Memory stays bounded, however many entries there are.
    fn scan(&self, scan: Scan) -> Listing<Entry>;

    /// Lists the collections that have entries, in ascending order.
    fn collections(&self) -> Listing<CollectionId>;

    /// Applies `batch`, all or nothing, and returns its revision.
    ///
    /// Every expectation is checked against the state before the batch, together with the edits in
    /// one atomic step: if one does not hold, the result is
    /// [`Kind::Conflict`](crate::Kind::Conflict) and nothing changes. A batch over a limit is
    /// [`Kind::TooLarge`](crate::Kind::TooLarge) and nothing changes. When the call returns, the
    /// batch is visible to every later read, and as durable as it asked for, up to the store's
    /// capability; a batch that is durable on write also makes durable all commits that returned before it
    /// began. After any other error the batch is not applied; if a store cannot know that
    /// (the device failed while syncing), it refuses all further commits and syncs until it is opened
    /// again. When the call is cancelled, the batch is applied whole or not at all, perhaps later, but
    /// before every batch whose commit begins after that.
    async fn commit(&self, batch: Batch) -> Result<Revision>;

    /// Watches changes from now on, as a hint; `None` if the store cannot, and the engine then
    /// announces its own commits. A watcher that lags gets [`Change::Resync`], never silence.
    fn watch(&self) -> Option<Listing<Change>>;

    /// Makes every commit that returned before this call survive the loss of power.
    async fn sync(&self) -> Result<()>;
}
