//! Payloads: a row for each block.

use std::ops::Range;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Bytes, Error, Kind, Listing, Result,
    api::{BlobCapabilities, BlobStore, Block, Durability, Part, PayloadId},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{SqliteStore, database::error_of};

/// The length of a block: a row of SQLite is read and written whole.
const BLOCK_LEN: u64 = 64 * 1024;
/// The number of ids that a listing reads at a time.
const PAGE: usize = 1024;

const FACTS: BlobCapabilities = {
    let mut facts = BlobCapabilities::least();
    facts.block_len = BLOCK_LEN as u32;
    facts.max_part_len = 1 << 40;
    facts.durability = Durability::OnWrite;
    facts.concurrency = 4;
    facts
};

fn number(part: Part) -> i64 {
    match part {
        Part::Data => 0,
        Part::Outboard => 1,
    }
}

/// SQLite's integers have a sign; a block of the longest part has a number far below the greatest.
fn signed(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

#[async_trait]
impl BlobStore for SqliteStore {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn capabilities(&self) -> BlobCapabilities {
        FACTS
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            let message = "the range ends before it starts";
            return Err(Error::new(Kind::Invalid, "blobs.read", message));
        }
        let work = move |connection: &mut Connection| read(connection, id, part, range);
        self.database.run("blobs.read", work).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        FACTS.check(&blocks)?;
        let work = move |connection: &mut Connection| {
            let written = write(connection, id, &blocks);
            written.map_err(|error| error_of("blobs.write", error))?
        };
        self.database.run("blobs.write", work).await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        let work = move |connection: &mut Connection| {
            let delete = || {
                let transaction = connection.transaction()?;
                for id in ids {
                    transaction.execute("DELETE FROM blocks WHERE payload = ?1", [id.0])?;
                }
                transaction.commit()
            };
            delete().map_err(|error| error_of("blobs.delete", error))
        };
        self.database.run("blobs.delete", work).await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        let database = self.database.clone();
        let pages = stream::try_unfold(Some(after), move |from| {
            let database = database.clone();
            async move {
                let Some(after) = from else { return Ok(None) };
                let work = move |connection: &mut Connection| {
                    page(connection, after).map_err(|error| error_of("blobs.list", error))
                };
                let page = database.run("blobs.list", work).await?;
                let next = (page.len() == PAGE).then(|| page.last().copied());
                Ok(Some((page, next)))
            }
        });
        let ids = pages.map_ok(|page| stream::iter(page.into_iter().map(Ok)));
        ids.try_flatten().boxed()
    }

    async fn sync(&self, _ids: Vec<PayloadId>) -> Result<()> {
        // A write is durable when it returns. A store that was closed says so.
        self.database.run("blobs.sync", |_| Ok(())).await
    }
}

fn read(connection: &Connection, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
    let absent = || {
        let message = "the payload has no such bytes";
        Error::new(Kind::NotFound, "blobs.read", message).with("payload", id)
    };
    let sql = "SELECT bytes FROM blocks WHERE payload = ?1 AND part = ?2 AND number = ?3";
    let sqlite = |error| error_of("blobs.read", error);
    let mut select = connection.prepare_cached(sql).map_err(sqlite)?;
    let (mut bytes, mut at) = (Vec::new(), range.start);
    while at < range.end {
        let row = params![id.0, number(part), signed(at / BLOCK_LEN)];
        let block = select.query_row(row, |row| row.get::<_, Vec<u8>>(0));
        let block = block.optional().map_err(sqlite)?.ok_or_else(absent)?;
        let from = at % BLOCK_LEN;
        let until = BLOCK_LEN.min(from.saturating_add(range.end - at));
        let piece = block
            .get(from as usize..until as usize)
            .ok_or_else(absent)?;
        bytes.extend_from_slice(piece);
        at += until - from;
    }
    Ok(bytes.into())
}

/// Writes all blocks or none. The inner error says that they cannot be written so.
fn write(
    connection: &mut Connection,
    id: PayloadId,
    blocks: &[Block],
) -> rusqlite::Result<Result<()>> {
    let transaction = connection.transaction()?;
    {
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3, ?4)")?;
        let mut later = transaction.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM blocks WHERE payload = ?1 AND part = ?2 AND number >= ?3)",
        )?;
        for Block { part, index, bytes } in blocks {
            let (part, len) = (number(*part), bytes.len() as u64);
            let next = signed(index.saturating_add(len.div_ceil(BLOCK_LEN)));
            if !len.is_multiple_of(BLOCK_LEN)
                && later.query_row(params![id.0, part, next], |row| row.get(0))?
            {
                let message =
                    "a block that does not end its part is not a multiple of the block length";
                return Ok(Err(Error::new(Kind::Invalid, "blobs.write", message)));
            }
            for (index, piece) in (*index..).zip(bytes.chunks(BLOCK_LEN as usize)) {
                put.execute(params![id.0, part, signed(index), piece])?;
            }
        }
    }
    transaction.commit()?;
    Ok(Ok(()))
}

fn page(connection: &Connection, after: Option<PayloadId>) -> rusqlite::Result<Vec<PayloadId>> {
    let sql = "SELECT DISTINCT payload FROM blocks WHERE payload > ?1 ORDER BY payload LIMIT ?2";
    let mut select = connection.prepare_cached(sql)?;
    // Every id comes after the empty one.
    let after = after.map_or(Vec::new(), |id| id.0.to_vec());
    let rows = select.query_map(params![after, PAGE as i64], |row| row.get(0).map(PayloadId))?;
    rows.collect()
}
