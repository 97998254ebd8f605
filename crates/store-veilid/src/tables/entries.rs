//! Entries in a table: reads, and group commits.
//!
//! One task commits. It takes all waiting batches, checks each against the existing entries and the
//! changes of the batches before it, and writes them in one transaction together with the head. Its
//! callers then share one sync.

use std::{
    collections::{HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use async_stream::try_stream;
use futures_util::StreamExt;
use larder_store_api::{
    Bytes, Durability, Entry, Error, Kind, Listing, Order as Direction, Result, Revision,
};
use larder_veilid_node::Node;
use tokio::sync::{RwLock, mpsc, oneshot};

use super::{
    order::{Order, Presence},
    row::{self, ENTRIES, HEAD_KEY, HEADS, Head},
    table::Table,
};

/// The most batches in the queue; further callers wait.
const MAX_WAITING: usize = 1024;
/// The most batches that are committed together.
const MAX_GROUP: usize = 256;
/// A group that has this many bytes takes no more batches.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// The number of entries that one task of a scan reads, one after the other.
const PAGE: usize = 16;
/// The number of such tasks of a scan.
const PAGES_AHEAD: usize = 4;

/// The expected state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    At(u64),
}

/// Changes that are applied atomically. Keys are those of rows.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) expect: Vec<(Bytes, Expected)>,
    /// In order; a later edit of the same key wins.
    pub(crate) edits: Vec<(Bytes, Option<Bytes>)>,
}

impl Change {
    fn len(&self) -> usize {
        let edit = |(key, value): &(Bytes, Option<Bytes>)| {
            key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        self.edits.iter().map(edit).sum()
    }
}

#[derive(Debug)]
enum Request {
    Commit(Change, oneshot::Sender<Result<u64>>),
    Close(oneshot::Sender<()>),
}

/// All entries of a store.
#[derive(Debug)]
pub(crate) struct Entries {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    table: Arc<Table>,
    order: Order,
    /// Locked for writing while a commit changes the table and the order, which readers may briefly see
    /// apart.
    changing: RwLock<()>,
}

impl Entries {
    /// Opens the table and reads the keys of its entries.
    pub(crate) async fn open(node: Node, table: Arc<Table>) -> Result<Self> {
        let (order, head) = load(&table).await?;
        let shared = Arc::new(Shared {
            node,
            table,
            order,
            changing: RwLock::default(),
        });
        let (queue, requests) = mpsc::channel(MAX_WAITING);
        let committer = Committer {
            shared: Arc::clone(&shared),
            head,
            poisoned: None,
        };
        tokio::spawn(committer.run(requests));
        Ok(Self { shared, queue })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.shared.table
    }

    /// Allows others to open the table.
    pub(crate) fn release(&self) {
        self.shared.table.release();
    }

    pub(crate) fn order(&self) -> &Order {
        &self.shared.order
    }

    /// Returns the entry's revision and value.
    pub(crate) async fn get(
        &self,
        operation: &'static str,
        collection: &[u8],
        key: &[u8],
    ) -> Result<Option<(u64, Bytes)>> {
        self.check_open(operation)?;
        let shared = &self.shared;
        shared
            .node
            .call(operation, shared.get(operation, collection, key))
            .await
    }

    /// Commits, and returns the revision.
    pub(crate) async fn commit(
        &self,
        operation: &'static str,
        change: Change,
        durability: Durability,
    ) -> Result<u64> {
        self.shared.table.check()?;
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.send(Request::Commit(change, reply)).await;
        sent.map_err(|_| closed(operation))?;
        let revision = answer.await.map_err(|_| closed(operation))??;
        if durability == Durability::OnWrite {
            self.sync(operation).await?;
        }
        Ok(revision)
    }

    pub(crate) async fn sync(&self, operation: &'static str) -> Result<()> {
        self.check_open(operation)?;
        let table = Arc::clone(&self.shared.table);
        let sync = async move { table.sync(operation).await };
        self.shared.node.finish(operation, sync).await
    }

    /// Lists the keys of `collection` within `bounds`.
    pub(crate) fn keys(
        &self,
        operation: &'static str,
        collection: Bytes,
        mut bounds: (Bound<Bytes>, Bound<Bytes>),
        direction: Direction,
    ) -> Listing<Bytes> {
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        Box::pin(try_stream! {
            loop {
                check_open(&queue, operation)?;
                let keys = shared.order.chunk(&collection, &bounds, direction);
                let is_last = Order::is_last(keys.len());
                if let Some(last) = keys.last().cloned() {
                    match direction {
                        Direction::Ascending => bounds.0 = Bound::Excluded(last),
                        Direction::Descending => bounds.1 = Bound::Excluded(last),
                    }
                }
                for key in keys {
                    yield key;
                }
                if is_last {
                    break;
                }
            }
        })
    }

    /// Lists the entries of `collection` within `bounds`.
    pub(crate) fn scan(
        &self,
        operation: &'static str,
        collection: Bytes,
        bounds: (Bound<Bytes>, Bound<Bytes>),
        direction: Direction,
    ) -> Listing<Entry> {
        let shared = Arc::clone(&self.shared);
        let keys = self.keys(operation, collection.clone(), bounds, direction);
        let mut pages = keys
            .chunks(PAGE)
            .map(move |keys| {
                let (shared, collection) = (Arc::clone(&shared), collection.clone());
                // A load blocks its thread, so reading ahead takes separate tasks.
                let page =
                    tokio::spawn(async move { shared.page(operation, &collection, keys).await });
                async move {
                    page.await.unwrap_or_else(|error| {
                        let message = "a read of a table panicked";
                        Err(Error::new(Kind::Internal, operation, message).because(error))
                    })
                }
            })
            .buffered(PAGES_AHEAD);
        Box::pin(try_stream! {
            while let Some(page) = pages.next().await {
                for entry in page? {
                    yield entry;
                }
            }
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        check_open(&self.queue, operation)
    }

    /// Commits all waiting batches, and accepts no more.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request::Close(reply)).await.is_ok() {
            // If there is no answer, the task has ended already.
            drop(answer.await);
        }
    }
}

fn check_open(queue: &mpsc::Sender<Request>, operation: &'static str) -> Result<()> {
    match queue.is_closed() {
        true => Err(closed(operation)),
        false => Ok(()),
    }
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Closed, operation, "the store was closed")
}

async fn load(table: &Table) -> Result<(Order, Head)> {
    const OPERATION: &str = "store.open";
    let head = table.load(OPERATION, HEADS, HEAD_KEY.into()).await?;
    let rows = table.db().get_keys(ENTRIES).await;
    let rows = rows.map_err(|error| table.error(OPERATION, error))?;
    let (order, counted) = Order::read(rows);
    let head = match head {
        Some(head) => {
            Head::decode(&head).map_err(|error| error.with("path", table.path().display()))?
        }
        None if counted.entries == 0 && !table.replaced().exists() => counted,
        None => return Err(missing(table)),
    };
    match (head.entries, head.fold) == (counted.entries, counted.fold) {
        true => Ok((order, head)),
        false => Err(missing(table)
            .with("entries", counted.entries)
            .with("expected", head.entries)),
    }
}

fn missing(table: &Table) -> Error {
    let message = "entries are missing that were written: the table was damaged; \
                   `verify --repair` goes on with what is left";
    let error =
        Error::new(Kind::Corrupt, "store.open", message).with("path", table.path().display());
    match table.replaced() {
        replaced if replaced.exists() => error.with("damaged", replaced.display()),
        _ => error,
    }
}

impl Shared {
    /// Returns the existing entries with these keys.
    async fn page(
        &self,
        operation: &'static str,
        collection: &[u8],
        keys: Vec<Result<Bytes>>,
    ) -> Result<Vec<Entry>> {
        let mut page = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key?;
            let get = self.get(operation, collection, &key);
            if let Some((revision, value)) = self.node.call(operation, get).await? {
                page.push(Entry {
                    key,
                    value,
                    revision: Revision(revision),
                });
            }
        }
        Ok(page)
    }

    async fn get(
        &self,
        operation: &'static str,
        collection: &[u8],
        key: &[u8],
    ) -> Result<Option<(u64, Bytes)>> {
        if !self.order.contains(collection, key) {
            return Ok(None);
        }
        let row_key = row::entry_key(collection, key);
        let mut found = self.table.load(operation, ENTRIES, row_key.clone()).await?;
        if found.is_none() {
            // A commit may be deleting it: then the order reflects that in a moment.
            let _settled = self.changing.read().await;
            if !self.order.contains(collection, key) {
                return Ok(None);
            }
            found = self.table.load(operation, ENTRIES, row_key.clone()).await?;
        }
        let decoded = found.and_then(|found| row::decode_entry(&row_key, &found));
        match decoded {
            Some(entry) => Ok(Some(entry)),
            None => Err(Error::new(Kind::Corrupt, operation, "an entry is damaged")
                .with("collection", collection.escape_ascii())
                .with("key", key.escape_ascii())
                .with("path", self.table.path().display())),
        }
    }
}

/// The task that commits.
struct Committer {
    shared: Arc<Shared>,
    head: Head,
    /// The reason why the table's content is unknown.
    poisoned: Option<Error>,
}

/// The future state of a row: its revision and value, or nothing.
type Staged = HashMap<Bytes, Option<(u64, Bytes)>>;

impl Committer {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = VecDeque::new();
        while let Some(request) = requests.recv().await {
            waiting.push_back(request);
            // Callers that were answered together come back together, a moment apart.
            let mut before = 0;
            while before < waiting.len() {
                before = waiting.len();
                tokio::task::yield_now().await;
                while waiting.len() < MAX_GROUP
                    && let Ok(request) = requests.try_recv()
                {
                    waiting.push_back(request);
                }
            }
            while !waiting.is_empty() {
                if let Some(closing) = self.take_group(&mut waiting).await {
                    requests.close();
                    let mut waiting_to_close = vec![closing];
                    while let Some(request) = requests.recv().await {
                        match request {
                            Request::Commit(_, reply) => {
                                drop(reply.send(Err(closed("collection.commit"))));
                            }
                            Request::Close(reply) => waiting_to_close.push(reply),
                        }
                    }
                    // A caller that no longer waits need not be told.
                    waiting_to_close
                        .into_iter()
                        .for_each(|reply| reply.send(()).unwrap_or(()));
                    return;
                }
            }
        }
    }

    /// Commits the next group of waiting batches, unless one of them asks to close.
    async fn take_group(&mut self, waiting: &mut VecDeque<Request>) -> Option<oneshot::Sender<()>> {
        const OPERATION: &str = "collection.commit";
        let entered = self.shared.node.enter(OPERATION);
        let refusal = entered.as_ref().err().or(self.poisoned.as_ref()).cloned();
        let mut head = self.head;
        let mut staged = Staged::new();
        let mut replies = Vec::new();
        let mut bytes = 0;
        let mut closing = None;
        while bytes < MAX_GROUP_BYTES
            && let Some(request) = waiting.pop_front()
        {
            let (change, reply) = match request {
                Request::Commit(change, reply) => (change, reply),
                Request::Close(reply) => {
                    closing = Some(reply);
                    break;
                }
            };
            if let Some(error) = &refusal {
                drop(reply.send(Err(error.clone())));
                continue;
            }
            bytes += change.len();
            let answer = self.stage(OPERATION, change, &mut head, &mut staged).await;
            replies.push((reply, answer));
        }
        let written = match staged.is_empty() && head == self.head {
            true => Ok(()),
            false => self.write(OPERATION, head, staged).await,
        };
        // Conflicts are answered late too: the batch that caused one may only be staged, and must be
        // visible by then.
        for (reply, answer) in replies {
            drop(reply.send(written.clone().and(answer)));
        }
        closing
    }

    /// Checks a change, and adds it to the group.
    async fn stage(
        &self,
        operation: &'static str,
        change: Change,
        head: &mut Head,
        staged: &mut Staged,
    ) -> Result<u64> {
        for (key, expected) in &change.expect {
            let found = self.revision(operation, key, staged).await?;
            let holds = match expected {
                Expected::Absent => found.is_none(),
                Expected::At(revision) => found == Some(*revision),
            };
            if !holds {
                let key = row::split_key(key).map_or(&key[..], |(_, key)| key);
                return Err(Error::new(
                    Kind::Conflict,
                    operation,
                    "the entry changed; read it again",
                )
                .with("key", key.escape_ascii()));
            }
        }
        head.revision += 1;
        for (key, value) in change.edits {
            let was_here = self.is_here(&key, staged);
            match (was_here, value.is_some()) {
                (false, true) => head.add(&key),
                (true, false) => head.remove(&key),
                (true, true) | (false, false) => {}
            }
            staged.insert(key, value.map(|value| (head.revision, value)));
        }
        Ok(head.revision)
    }

    fn is_here(&self, key: &Bytes, staged: &Staged) -> bool {
        match staged.get(key) {
            Some(staged) => staged.is_some(),
            None => {
                row::split_key(key).is_some_and(|(name, key)| self.shared.order.contains(name, key))
            }
        }
    }

    async fn revision(
        &self,
        operation: &'static str,
        key: &Bytes,
        staged: &Staged,
    ) -> Result<Option<u64>> {
        if let Some(staged) = staged.get(key) {
            return Ok(staged.as_ref().map(|(revision, _)| *revision));
        }
        let Some((name, key)) = row::split_key(key) else {
            return Ok(None);
        };
        let found = self.shared.get(operation, name, key).await?;
        Ok(found.map(|(revision, _)| revision))
    }

    /// Writes the staged changes atomically.
    async fn write(&mut self, operation: &'static str, head: Head, staged: Staged) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let table = &shared.table;
        let transaction = table.db().transact();
        let fail = |error| table.error(operation, error);
        let mut filled = Ok(());
        for (key, row) in &staged {
            filled = match row {
                Some((revision, value)) => {
                    let value = row::encode_entry(key, *revision, value);
                    transaction.store(ENTRIES, key.clone(), value).await
                }
                // Deleting an absent entry writes nothing.
                None if !self.is_here(key, &Staged::new()) => Ok(()),
                None => transaction.delete(ENTRIES, key.clone()).await,
            };
            if filled.is_err() {
                break;
            }
        }
        if filled.is_ok() {
            let head = head.encode();
            filled = transaction.store(HEADS, HEAD_KEY.into(), head).await;
        }
        if let Err(error) = filled {
            transaction.rollback();
            return Err(fail(error));
        }
        let _changing = shared.changing.write().await;
        if let Err(error) = transaction.commit().await {
            self.after_failure(fail(error), head).await?;
        }
        self.head = head;
        shared.order.change(staged.iter().map(|(key, row)| {
            let presence = match row {
                Some(_) => Presence::Here,
                None => Presence::Gone,
            };
            (key, presence)
        }));
        Ok(())
    }

    /// Finds out whether a failed commit took effect nevertheless.
    async fn after_failure(&mut self, error: Error, head: Head) -> Result<()> {
        const OPERATION: &str = "collection.commit";
        let found = self
            .shared
            .table
            .load(OPERATION, HEADS, HEAD_KEY.into())
            .await;
        let found = found.and_then(|found| found.map(|found| Head::decode(&found)).transpose());
        match found {
            Ok(Some(found)) if found == head => Ok(()),
            Ok(found) if found.unwrap_or_default() == self.head => Err(error),
            Ok(_) | Err(_) => {
                tracing::error!(
                    ?error,
                    "the outcome of a commit is unknown; no more commits are accepted"
                );
                self.poisoned = Some(error.clone());
                Err(error)
            }
        }
    }
}
