//! The index: a redb table from composite key to where its record is in the log. It lags behind the
//! log, and can be made from it again.

use std::{
    any::Any,
    fs,
    ops::{Bound, Range},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use larder_store_api::{Error, Kind, Order, Result};
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, TableDefinition, TableError,
};

use crate::{
    error::closed,
    item::{Account, Accounts, Applied, Generation, Item, Value},
    log::{Pointer, Position},
    silence,
};

/// The memory that redb may use for its cache.
const CACHE_LEN: usize = 12 << 20;
/// An index of this length in bytes is compacted when it is closed.
const COMPACT_LEN: Range<u64> = 2 << 20..64 << 20;
/// The approximate size of a row with a key of 32 bytes, if few pages are free.
const ROW_COST: u64 = 150;
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// Segment to its account: puts, live, deletes.
const ACCOUNTS: TableDefinition<u32, (u64, u64, u64)> = TableDefinition::new("accounts");
/// One entry: how far the log was applied, as segment, offset, sequence, revision.
const APPLIED: TableDefinition<(), (u32, u64, u64, u64)> = TableDefinition::new("applied");

const HERE: &str = "the database is there until the index is dropped";

/// The index, open for writing.
#[derive(Debug)]
pub(crate) struct Index {
    /// `None` while this is dropped.
    database: Option<Database>,
    path: PathBuf,
    in_memory: bool,
}

/// The index as it was after one apply.
pub(crate) struct Snapshot {
    /// `None` once the store is closed.
    rows: Option<Rows>,
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Index {
    /// Opens or creates the index at `path`, whose pages are these.
    pub(crate) fn open(path: &Path, pages: impl StorageBackend) -> Result<Self> {
        guard("index.open", || {
            let database = Builder::new()
                .set_cache_size(CACHE_LEN)
                .create_with_backend(pages)
                .map_err(|error| failed("index.open", error))?;
            Ok(Self {
                database: Some(database),
                path: path.to_owned(),
                in_memory: false,
            })
        })
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect(HERE)
    }

    /// Says that what is written to it stays in memory: it is not worth compacting.
    pub(crate) fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Returns the place up to which the log was applied, and the accounts; `None` in a new index.
    pub(crate) fn applied(&self) -> Result<Option<(Applied, Accounts)>> {
        const OPERATION: &str = "index.open";
        guard(OPERATION, || {
            let read = self
                .database()
                .begin_read()
                .map_err(|error| failed(OPERATION, error))?;
            let applied = match read.open_table(APPLIED) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(failed(OPERATION, error)),
            };
            let Some(row) = applied.get(()).map_err(|error| failed(OPERATION, error))? else {
                return Ok(None);
            };
            let (segment, offset, sequence, revision) = row.value();
            let applied = Applied {
                position: Position { segment, offset },
                sequence,
                revision,
            };
            let table = read
                .open_table(ACCOUNTS)
                .map_err(|error| failed(OPERATION, error))?;
            let mut accounts = Accounts::new();
            for row in table.iter().map_err(|error| failed(OPERATION, error))? {
                let (segment, account) = row.map_err(|error| failed(OPERATION, error))?;
                let (puts, live, deletes) = account.value();
                let account = Account {
                    puts,
                    live,
                    deletes,
                };
                accounts.insert(segment.value(), account);
            }
            Ok(Some((applied, accounts)))
        })
    }

    /// Makes the tables of a new index.
    pub(crate) fn create_tables(&self) -> Result<()> {
        const OPERATION: &str = "index.open";
        guard(OPERATION, || {
            let write = self
                .database()
                .begin_write()
                .map_err(|error| failed(OPERATION, error))?;
            write
                .open_table(ROWS)
                .map_err(|error| failed(OPERATION, error))?;
            write
                .open_table(ACCOUNTS)
                .map_err(|error| failed(OPERATION, error))?;
            write
                .open_table(APPLIED)
                .map_err(|error| failed(OPERATION, error))?;
            write.commit().map_err(|error| failed(OPERATION, error))
        })
    }

    /// The index as it is now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        const OPERATION: &str = "index.read";
        guard(OPERATION, || {
            let read = self
                .database()
                .begin_read()
                .map_err(|error| failed(OPERATION, error))?;
            let rows = read
                .open_table(ROWS)
                .map_err(|error| failed(OPERATION, error))?;
            Ok(Snapshot { rows: Some(rows) })
        })
    }

    /// Applies a generation in one durable transaction. `accounts` are brought up to date; those of
    /// segments that `keep` does not know are forgotten.
    pub(crate) fn apply(
        &self,
        generation: &Generation,
        accounts: &mut Accounts,
        keep: impl Fn(u32) -> bool,
    ) -> Result<()> {
        const OPERATION: &str = "index.apply";
        let Some(end) = generation.end() else {
            return Ok(());
        };
        guard(OPERATION, || {
            let mut write = self
                .database()
                .begin_write()
                .map_err(|error| failed(OPERATION, error))?;
            // Reopening after a crash then needs no walk over the whole index.
            write.set_quick_repair(true);
            let mut next = accounts.clone();
            for (segment, added) in generation.added() {
                let account = next.entry(*segment).or_default();
                account.puts += added.puts;
                account.live += added.live;
                account.deletes += added.deletes;
            }
            {
                let mut rows = write
                    .open_table(ROWS)
                    .map_err(|error| failed(OPERATION, error))?;
                let mut row = Vec::new();
                for (key, item) in generation.items() {
                    let old = match encode(item, &mut row) {
                        Some(row) => rows.insert(&key[..], row),
                        None => rows.remove(&key[..]),
                    };
                    let old = old.map_err(|error| failed(OPERATION, error))?;
                    if let Some(old) = old {
                        let old = decode(old.value()).ok_or_else(|| damaged(OPERATION))?;
                        if let Some(account) = next.get_mut(&old.at.segment) {
                            account.live = account.live.saturating_sub(u64::from(old.at.len));
                        }
                    }
                }
                next.retain(|segment, _| keep(*segment));
                let mut table = write
                    .open_table(ACCOUNTS)
                    .map_err(|error| failed(OPERATION, error))?;
                table
                    .retain(|segment, _| next.contains_key(&segment))
                    .map_err(|error| failed(OPERATION, error))?;
                for (segment, account) in &next {
                    if accounts.get(segment) != Some(account) {
                        let row = (account.puts, account.live, account.deletes);
                        table
                            .insert(segment, row)
                            .map_err(|error| failed(OPERATION, error))?;
                    }
                }
                let mut applied = write
                    .open_table(APPLIED)
                    .map_err(|error| failed(OPERATION, error))?;
                let Position { segment, offset } = end.position;
                applied
                    .insert((), (segment, offset, end.sequence, end.revision))
                    .map_err(|error| failed(OPERATION, error))?;
            }
            write.commit().map_err(|error| failed(OPERATION, error))?;
            *accounts = next;
            Ok(())
        })
    }

    /// Gives back the pages that commits left free, where they are many and the index is not so large
    /// that this takes long. Nothing may be reading.
    pub(crate) fn compact(mut self) -> Result<()> {
        const OPERATION: &str = "index.compact";
        if self.in_memory {
            return Ok(());
        }
        let data = fs::metadata(&self.path);
        let len = data
            .map_err(|error| Error::io(OPERATION, &self.path, error))?
            .len();
        guard(OPERATION, || {
            let rows = {
                let read = self
                    .database()
                    .begin_read()
                    .map_err(|error| failed(OPERATION, error))?;
                let rows = read
                    .open_table(ROWS)
                    .map_err(|error| failed(OPERATION, error))?;
                rows.len().map_err(|error| failed(OPERATION, error))?
            };
            if COMPACT_LEN.contains(&len) && len > rows.saturating_mul(ROW_COST) {
                self.database
                    .as_mut()
                    .expect(HERE)
                    .compact()
                    .map_err(|error| failed(OPERATION, error))?;
            }
            Ok(())
        })
    }

    /// Returns the path of the index.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // redb writes when it closes, and may find a damaged page then.
        let database = self.database.take();
        if let Err(error) = guard("index.close", || {
            drop(database);
            Ok(())
        }) {
            tracing::warn!(?error, "the index was not closed cleanly");
        }
    }
}

impl Snapshot {
    /// Makes the snapshot of a closed index.
    pub(crate) fn closed() -> Self {
        Self { rows: None }
    }

    fn rows(&self, operation: &'static str) -> Result<&Rows> {
        self.rows.as_ref().ok_or_else(|| closed(operation))
    }

    /// Returns the item that the index has under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Item>> {
        const OPERATION: &str = "index.read";
        guard(OPERATION, || {
            let row = self
                .rows(OPERATION)?
                .get(key)
                .map_err(|error| failed(OPERATION, error))?;
            row.map(|row| decode(row.value()).ok_or_else(|| damaged(OPERATION)))
                .transpose()
        })
    }

    /// Gives each key within `bounds`, and `None` after the last, until `visit` says false.
    pub(crate) fn range(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        mut visit: impl FnMut(Option<(Bytes, Item)>) -> bool,
    ) -> Result<()> {
        const OPERATION: &str = "index.scan";
        guard(OPERATION, || {
            let mut rows = self
                .rows(OPERATION)?
                .range::<&[u8]>(bounds)
                .map_err(|error| failed(OPERATION, error))?;
            loop {
                let row = match order {
                    Order::Ascending => rows.next(),
                    Order::Descending => rows.next_back(),
                };
                let next = match row.transpose().map_err(|error| failed(OPERATION, error))? {
                    Some((key, row)) => {
                        let item = decode(row.value()).ok_or_else(|| damaged(OPERATION))?;
                        Some((Bytes::copy_from_slice(key.value()), item))
                    }
                    None => None,
                };
                let last = next.is_none();
                if !visit(next) || last {
                    return Ok(());
                }
            }
        })
    }
}

/// The length of a row without an inline value.
const ROW_LEN: usize = 20;

/// A row: revision, segment, offset, length, and where the value is inline, a one and the value.
fn encode<'a>(item: &Item, row: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    row.clear();
    row.extend_from_slice(&item.revision.to_le_bytes());
    row.extend_from_slice(&item.at.segment.to_le_bytes());
    row.extend_from_slice(&item.at.offset.to_le_bytes());
    row.extend_from_slice(&item.at.len.to_le_bytes());
    match &item.value {
        Value::Deleted => return None,
        Value::Stored => {}
        Value::Inline(value) => {
            row.push(1);
            row.extend_from_slice(value);
        }
    }
    Some(row)
}

fn decode(row: &[u8]) -> Option<Item> {
    let (head, rest) = row.split_at_checked(ROW_LEN)?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let value = match rest {
        [] => Value::Stored,
        [1, value @ ..] => Value::Inline(Bytes::copy_from_slice(value)),
        _ => return None,
    };
    Some(Item {
        revision: u64::from_le_bytes(head[..8].try_into().expect("eight bytes")),
        at: Pointer {
            segment: u32_at(8),
            offset: u32_at(12),
            len: u32_at(16),
        },
        value,
    })
}

/// Runs a call of redb, which may panic on a damaged page.
fn guard<T>(operation: &'static str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    silence::catch(call).unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        Err(damaged(operation).with("panic", text))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}

fn damaged(operation: &'static str) -> Error {
    let message = "the index is damaged; close the store and open it again to rebuild it";
    Error::new(Kind::Corrupt, operation, message)
}

fn failed(operation: &'static str, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io(operation, Path::new("index.redb"), error),
        error @ redb::Error::Corrupted(_) => damaged(operation).because(error),
        error => Error::new(
            Kind::Internal,
            operation,
            "the index failed; open the store again",
        )
        .because(error),
    }
}
