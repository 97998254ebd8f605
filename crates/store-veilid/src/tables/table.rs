//! One table of a node, with durability across a loss of power.
//!
//! A table is stored in an SQLite file in WAL mode with `synchronous = NORMAL`: a commit survives the
//! end of the process, however it ends, but is only in the system's cache. To survive a loss of power
//! too, the WAL file is synced, which SQLite reads back up to the last whole commit
//! (<https://sqlite.org/wal.html>, "Performance Considerations"; <https://sqlite.org/walformat.html>).
//! SQLite itself syncs the WAL before it moves commits out of it.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use larder_store_api::{Bytes, Error, Kind, Result};
use larder_veilid_node::{Node, api_error, veilid_core::TableDB};
use tokio::sync::Mutex;

/// A table with its files.
#[derive(Debug)]
pub(crate) struct Table {
    db: TableDB,
    /// The path of its file.
    path: PathBuf,
    /// The number of syncs that have begun.
    begun: AtomicU64,
    /// The number of the last sync that succeeded, among those that have begun.
    synced: Mutex<u64>,
    /// The error after which it is unknown what is durable, once a sync has failed.
    failed: OnceLock<Error>,
    lock: Lock,
}

impl Table {
    /// Opens the table, or creates it.
    pub(crate) async fn open(node: &Node, name: &str, columns: u32) -> Result<Arc<Self>> {
        const OPERATION: &str = "store.open";
        let fail = |error| api_error(OPERATION, error).with("table", name);
        let config = node.api().config().map_err(fail)?;
        let in_namespace = |file: String| match config.namespace.as_str() {
            "" => file,
            namespace => format!("{namespace}_{file}"),
        };
        let dir = Path::new(&config.table_store.directory);
        let (at, table) = (
            dir.join(in_namespace(format!("{name}.larder"))),
            name.to_owned(),
        );
        let lock = blocking(OPERATION, move || Lock::take(at, &table)).await?;
        let db = node
            .api()
            .open_table_db(name, columns)
            .await
            .map_err(fail)?;
        let file = in_namespace(db.table_name());
        let path = dir.join(&file);
        let lock = blocking(OPERATION, move || lock.recognise(&file)).await?;
        Ok(Arc::new(Self {
            db,
            path,
            begun: AtomicU64::new(0),
            synced: Mutex::new(0),
            failed: OnceLock::new(),
            lock,
        }))
    }

    /// Returns Veilid's handle of the table.
    pub(crate) fn db(&self) -> &TableDB {
        &self.db
    }

    /// Allows others to open the table.
    pub(crate) fn release(&self) {
        if let Err(error) = self.lock.file.unlock() {
            tracing::warn!(?error, "a table stays locked until it is dropped");
        }
    }

    /// Returns the number of bytes that its files use.
    pub(crate) async fn disk_usage(&self) -> Result<u64> {
        const OPERATION: &str = "store.stats";
        let path = self.path.clone();
        let usage = move || {
            let mut sum = 0;
            for file in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")] {
                match std::fs::metadata(&file) {
                    Ok(data) => sum += data.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io(OPERATION, &file, error)),
                }
            }
            Ok(sum)
        };
        blocking(OPERATION, usage).await
    }

    /// Returns the path of the table's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path to which Veilid moves a damaged file after replacing it with the part that it
    /// could read.
    pub(crate) fn replaced(&self) -> PathBuf {
        beside(&self.path, ".corrupt")
    }

    /// Returns the value in `column` under `key`.
    pub(crate) async fn load(
        &self,
        operation: &'static str,
        column: u32,
        key: Bytes,
    ) -> Result<Option<Bytes>> {
        let loaded = self.db.load(column, key).await;
        loaded.map_err(|error| self.error(operation, error))
    }

    /// Converts an error of Veilid's, and adds the path of the table.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        error: larder_veilid_node::veilid_core::VeilidAPIError,
    ) -> Error {
        api_error(operation, error).with("path", self.path.display())
    }

    /// Returns the error of a failed sync: after it nothing more is written.
    pub(crate) fn check(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Makes every commit that has returned survive a loss of power. Callers that wait at the same time
    /// share one sync.
    pub(crate) async fn sync(&self, operation: &'static str) -> Result<()> {
        let arrived = self.begun.load(Ordering::SeqCst);
        let mut synced = self.synced.lock().await;
        self.check()?;
        if *synced > arrived {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let path = self.path.clone();
        let result = blocking(operation, move || sync_files(operation, &path)).await;
        match result {
            Ok(()) => {
                *synced = number;
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    ?error,
                    "a table cannot be made durable; it takes no more writes"
                );
                Err(self.failed.get_or_init(|| error).clone())
            }
        }
    }
}

/// A lock file beside the tables. It is locked while the table is open, so that nobody else opens it,
/// and records the file in which Veilid stores the table: when a table cannot be opened, Veilid forgets
/// that file, and creates an empty one the next time.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

/// The longest file name that is read.
const MAX_NAME_LEN: u64 = 4096;

impl Lock {
    fn take(path: PathBuf, table: &str) -> Result<Self> {
        const OPERATION: &str = "store.open";
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let opened = options.open(&path);
        let file = opened.map_err(|error| Error::io(OPERATION, &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => {
                let message = "the store is already open; use the one that is, or close it first";
                Err(Error::new(Kind::Unavailable, OPERATION, message).with("table", table))
            }
            Err(TryLockError::Error(error)) => Err(Error::io(OPERATION, &path, error)),
        }
    }

    /// Compares the table's file with the recorded one, or records it the first time.
    fn recognise(mut self, name: &str) -> Result<Self> {
        const OPERATION: &str = "store.open";
        let mut known = String::new();
        let read = (&self.file).take(MAX_NAME_LEN).read_to_string(&mut known);
        read.map_err(|error| Error::io(OPERATION, &self.path, error))?;
        match known.as_str() {
            "" => {
                let noted = self.note(name);
                noted.map_err(|error| Error::io(OPERATION, &self.path, error))?;
                Ok(self)
            }
            known if known == name => Ok(self),
            known => {
                let message = "Veilid has forgotten where the table lies, and made an empty one; \
                               the data is still in the file that is named. Stop the app and rename \
                               that file to the name of the empty one";
                Err(Error::new(Kind::Corrupt, OPERATION, message)
                    .with("path", self.path.with_file_name(known).display())
                    .with("empty", name))
            }
        }
    }

    /// Records the file durably, and syncs the names of the table's files.
    fn note(&mut self, name: &str) -> io::Result<()> {
        self.file.write_all(name.as_bytes())?;
        self.file.sync_all()?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn sync_files(operation: &'static str, path: &Path) -> Result<()> {
    let wal = beside(path, "-wal");
    let synced = match File::open(&wal) {
        Ok(file) => file.sync_data(),
        // Without a WAL, everything is in the file itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::open(path).and_then(|file| file.sync_data())
        }
        Err(error) => Err(error),
    };
    synced.map_err(|error| Error::io(operation, &wal, error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Runs blocking work on a thread where that is allowed.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(Kind::Internal, operation, "work on a file panicked").because(error))
        })
}
