//! The registration: URLs that begin with `sqlite:`.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use larder::{
    Backend, DiskUsage, Driver, Error, FileSecrets, Kind, Result, Secrets, StoreUrl, Unlocker,
    api::{BlobStore, CollectionStore},
};

use crate::{SqliteStore, database::error_of};

/// The file of keys in the folder of a store.
const SECRETS_FILE: &str = "secrets";

/// Opens stores whose URL is `sqlite:DIR`.
#[derive(Debug)]
pub struct Sqlite;

#[derive(Debug)]
struct Open {
    store: Arc<SqliteStore>,
    dir: PathBuf,
}

#[async_trait]
impl Driver for Sqlite {
    fn schemes(&self) -> &[&str] {
        &["sqlite"]
    }

    fn syntax(&self, scheme: &str) -> String {
        format!("{scheme}:DIR")
    }

    fn check(&self, url: &StoreUrl) -> Result<()> {
        match url.rest().is_empty() {
            true => {
                let message = "the folder of the store is missing: write sqlite:DIR";
                Err(Error::new(Kind::Invalid, "store.url", message).with("url", url))
            }
            false => Ok(()),
        }
    }

    fn folder(&self, url: &StoreUrl) -> Option<PathBuf> {
        Some(PathBuf::from(url.rest()))
    }

    async fn open(&self, url: &StoreUrl) -> Result<Box<dyn Backend>> {
        self.check(url)?;
        let dir = PathBuf::from(url.rest());
        let store = Arc::new(SqliteStore::open(&dir).await?);
        Ok(Box::new(Open { store, dir }))
    }
}

#[async_trait]
impl Backend for Open {
    fn payloads(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }

    fn collections(&self) -> Arc<dyn CollectionStore> {
        self.store.clone()
    }

    async fn secrets(&self, unlock: &Unlocker) -> Result<Arc<dyn Secrets>> {
        let path = self.dir.join(SECRETS_FILE);
        Ok(Arc::new(FileSecrets::open(&path, unlock.unlock()?).await?))
    }

    async fn disk_usage(&self) -> Result<Option<DiskUsage>> {
        let sizes = |connection: &mut rusqlite::Connection| {
            let sql =
                "SELECT (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size),
                              (SELECT coalesce(sum(length(bytes)), 0) FROM blocks)";
            let sizes = connection.query_row(sql, [], |row| {
                Ok((
                    row.get::<_, i64>(0)?.unsigned_abs(),
                    row.get::<_, i64>(1)?.unsigned_abs(),
                ))
            });
            sizes.map_err(|error| error_of("store.usage", error))
        };
        let (all, payloads) = self.store.database.run("store.usage", sizes).await?;
        Ok(Some(DiskUsage::new(all.saturating_sub(payloads), payloads)))
    }

    async fn reclaim_space(&self) -> Result<()> {
        let vacuum = |connection: &mut rusqlite::Connection| {
            let done = connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
            done.map_err(|error| error_of("store.reclaim", error))
        };
        self.store.database.run("store.reclaim", vacuum).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
