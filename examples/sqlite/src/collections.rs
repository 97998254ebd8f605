//! Collections: a row for each entry.

use std::ops::Bound;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Bytes, Error, Kind, Listing, Result,
    api::{
        Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Durability, Edit,
        Entry, Expect, Order, Revision, Scan,
    },
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use crate::{SqliteStore, database::error_of};

/// The number of entries that a scan reads at a time.
const PAGE: usize = 256;

fn facts() -> CollectionCapabilities {
    let mut facts = CollectionCapabilities::least();
    facts.max_key_len = 1024;
    facts.max_value_len = 1024 * 1024;
    facts.max_batch_len = 1024;
    facts.durability = Durability::OnWrite;
    facts
}

#[async_trait]
impl CollectionStore for SqliteStore {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        facts()
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        let work = move |connection: &mut Connection| {
            let sql = "SELECT key, value, revision FROM entries WHERE collection = ?1 AND key = ?2";
            let row = params![collection.as_bytes(), &key[..]];
            let found = connection
                .prepare_cached(sql)
                .and_then(|mut select| select.query_row(row, entry).optional());
            found.map_err(|error| error_of("collection.get", error))
        };
        self.database.run("collection.get", work).await
    }

    fn scan(&self, scan: Scan) -> Listing<Entry> {
        let database = self.database.clone();
        let pages = stream::try_unfold(Some(scan), move |scan| {
            let database = database.clone();
            async move {
                let Some(mut scan) = scan else {
                    return Ok(None);
                };
                let from = scan.clone();
                let work = move |connection: &mut Connection| {
                    page(connection, &from).map_err(|error| error_of("collection.scan", error))
                };
                let page = database.run("collection.scan", work).await?;
                let next = match page.last() {
                    Some(last) if page.len() == PAGE => {
                        let after = Bound::Excluded(last.key.clone());
                        match scan.order {
                            Order::Ascending => scan.keys.0 = after,
                            Order::Descending => scan.keys.1 = after,
                        }
                        Some(scan)
                    }
                    _ => None,
                };
                Ok(Some((page, next)))
            }
        });
        let entries = pages.map_ok(|page| stream::iter(page.into_iter().map(Ok)));
        entries.try_flatten().boxed()
    }

    fn collections(&self) -> Listing<CollectionId> {
        let database = self.database.clone();
        let names = stream::once(async move {
            let work = |connection: &mut Connection| names(connection);
            database.run("collection.list", work).await
        });
        let ids = names.map_ok(|names| stream::iter(names.into_iter().map(Ok)));
        ids.try_flatten().boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        facts().check(&batch)?;
        let work = move |connection: &mut Connection| {
            let revision =
                commit(connection, &batch).map_err(|error| error_of("collection.commit", error))?;
            revision.ok_or_else(|| {
                let message = "an expectation of the batch does not hold";
                Error::new(Kind::Conflict, "collection.commit", message)
            })
        };
        self.database.run("collection.commit", work).await
    }

    fn watch(&self) -> Option<Listing<Change>> {
        None // The engine announces its own commits.
    }

    async fn sync(&self) -> Result<()> {
        // A commit is durable when it returns. A store that was closed says so.
        self.database.run("collection.sync", |_| Ok(())).await
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get::<_, Vec<u8>>(0)?.into(),
        value: row.get::<_, Vec<u8>>(1)?.into(),
        revision: Revision(row.get::<_, i64>(2)?.unsigned_abs()),
    })
}

fn page(connection: &Connection, scan: &Scan) -> rusqlite::Result<Vec<Entry>> {
    let mut sql = "SELECT key, value, revision FROM entries WHERE collection = ?".to_owned();
    let mut values = vec![scan.collection.as_bytes()];
    let bounds = [
        (&scan.keys.0, " AND key >= ?", " AND key > ?"),
        (&scan.keys.1, " AND key <= ?", " AND key < ?"),
    ];
    for (bound, included, excluded) in bounds {
        match bound {
            Bound::Included(key) => {
                sql += included;
                values.push(key);
            }
            Bound::Excluded(key) => {
                sql += excluded;
                values.push(key);
            }
            Bound::Unbounded => (),
        }
    }
    sql += match scan.order {
        Order::Ascending => " ORDER BY key LIMIT ",
        Order::Descending => " ORDER BY key DESC LIMIT ",
    };
    sql += &PAGE.to_string();
    let mut select = connection.prepare_cached(&sql)?;
    let values = values.iter().map(|value| value as &dyn ToSql);
    select.query_map(params_from_iter(values), entry)?.collect()
}

/// The names of all collections. They are few: apps name them in their code.
fn names(connection: &Connection) -> Result<Vec<CollectionId>> {
    let sqlite = |error| error_of("collection.list", error);
    let sql = "SELECT DISTINCT collection FROM entries ORDER BY collection";
    let mut select = connection.prepare_cached(sql).map_err(sqlite)?;
    let rows = select
        .query_map([], |row| row.get::<_, Vec<u8>>(0))
        .map_err(sqlite)?;
    rows.map(|name| CollectionId::new(name.map_err(sqlite)?))
        .collect()
}

/// Applies a batch; `None` if an expectation does not hold.
fn commit(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<Option<Revision>> {
    let transaction = connection.transaction()?;
    for expect in &batch.expect {
        let (collection, key, expected) = match expect {
            Expect::Absent { collection, key } => (collection, key, None),
            Expect::At {
                collection,
                key,
                revision,
            } => (collection, key, Some(*revision)),
        };
        let sql = "SELECT revision FROM entries WHERE collection = ?1 AND key = ?2";
        let mut select = transaction.prepare_cached(sql)?;
        let found = select.query_row(params![collection.as_bytes(), &key[..]], |row| {
            row.get::<_, i64>(0)
        });
        if found
            .optional()?
            .map(|revision| Revision(revision.unsigned_abs()))
            != expected
        {
            return Ok(None);
        }
    }
    let sql = "UPDATE commits SET latest = latest + 1 RETURNING latest";
    let revision: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
    for edit in &batch.edits {
        match edit {
            Edit::Put {
                collection,
                key,
                value,
            } => {
                let sql = "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4)";
                let row = params![collection.as_bytes(), &key[..], &value[..], revision];
                transaction.prepare_cached(sql)?.execute(row)?;
            }
            Edit::Delete { collection, key } => {
                let sql = "DELETE FROM entries WHERE collection = ?1 AND key = ?2";
                let row = params![collection.as_bytes(), &key[..]];
                transaction.prepare_cached(sql)?.execute(row)?;
            }
        }
    }
    transaction.commit()?;
    Ok(Some(Revision(revision.unsigned_abs())))
}
