//! Rebuilds a store from what can still be read of it.

use std::path::PathBuf;

use larder_store_api::{Bytes, Kind, Result};
use larder_veilid_node::Node;

use super::{
    COLUMNS,
    row::{self, ENTRIES, HEAD_KEY, HEADS, Head},
    table::Table,
};

/// The number of damaged rows that are removed in one transaction.
const REMOVED_AT_ONCE: usize = 1024;

/// The outcome of repairing a damaged store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The number of lost entries, as far as it is known.
    pub lost_entries: u64,
    /// The original damaged file, if Veilid kept it. Remove it when it is no longer needed.
    pub kept: Option<PathBuf>,
}

/// Removes the damaged entries, and writes a head that matches the rest.
pub(crate) async fn repair(node: &Node, name: &str) -> Result<Repaired> {
    const OPERATION: &str = "store.repair";
    let table = Table::open(node, name, COLUMNS).await?;
    let found = table.load(OPERATION, HEADS, HEAD_KEY.into()).await?;
    let before = match found.map(|found| Head::decode(&found)) {
        Some(Err(error)) if error.kind() == Kind::Unsupported => return Err(error),
        Some(Ok(head)) => Some(head),
        Some(Err(_)) | None => None,
    };
    let rows = table.db().get_keys(ENTRIES).await;
    let rows = rows.map_err(|error| table.error(OPERATION, error))?;
    let expected = before.map_or(rows.len() as u64, |head| head.entries);
    // A revision must not be used twice, even if the head that knew the last one is lost.
    let mut head = Head {
        revision: before.map_or(0, |head| head.revision),
        ..Head::default()
    };
    let mut damaged = Vec::new();
    for row_key in rows {
        let value = table.load(OPERATION, ENTRIES, row_key.clone()).await?;
        let decoded = value.and_then(|value| row::decode_entry(&row_key, &value));
        match decoded.filter(|_| row::split_key(&row_key).is_some()) {
            Some((revision, _)) => {
                head.add(&row_key);
                head.revision = head.revision.max(revision);
            }
            None => damaged.push(row_key),
        }
    }
    // The head comes last: until then, another attempt repeats everything.
    for keys in damaged.chunks(REMOVED_AT_ONCE) {
        write(&table, keys, None).await?;
    }
    write(&table, &[], Some(head)).await?;
    table.sync(OPERATION).await?;
    let replaced = table.replaced();
    table.release();
    Ok(Repaired {
        lost_entries: expected.saturating_sub(head.entries),
        kept: replaced.exists().then_some(replaced),
    })
}

async fn write(table: &Table, removed: &[Bytes], head: Option<Head>) -> Result<()> {
    let transaction = table.db().transact();
    let filled = async {
        for key in removed {
            transaction.delete(ENTRIES, key.clone()).await?;
        }
        match head {
            Some(head) => {
                transaction
                    .store(HEADS, HEAD_KEY.into(), head.encode())
                    .await
            }
            None => Ok(()),
        }
    };
    let result = match filled.await {
        Ok(()) => transaction.commit().await,
        Err(error) => {
            transaction.rollback();
            Err(error)
        }
    };
    result.map_err(|error| table.error("store.repair", error))
}
